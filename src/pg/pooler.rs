//! What stands between us and PostgreSQL: nothing, or a pooler, and how long that lends a server.

use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, Query};
use super::conninfo::ConnectOptions;
use super::error::Error;
use crate::server::clock;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// PostgreSQL itself answers.
    Nothing,
    /// A pooler that lends a server for as long as a connection lasts.
    SessionPooler,
    /// A pooler that lends a server for a transaction or a statement: LISTEN is lost with it.
    TransactionPooler,
}

/// So often each of two connections asks which backend serves it.
const ROUNDS: usize = 3;

/// How long a second connection may take: a pooler in session mode may have no server for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Finds out. A pooler gives connections numbers of its own, and one that lends servers for a transaction gives two
/// connections the same server in turn.
pub async fn between(options: &Arc<ConnectOptions>) -> Result<Between, Error> {
    let mut first = Connection::connect(options).await?;
    let pid = server(&mut first).await?;
    if pid == first.backend_pid() {
        return Ok(Between::Nothing);
    }
    let compared = clock::timeout(PATIENCE, async {
        let mut second = Connection::connect(options).await?;
        let other = server(&mut second).await?;
        for _ in 0..ROUNDS {
            if server(&mut first).await? != pid || server(&mut second).await? != other {
                return Ok(true);
            }
        }
        Ok::<_, Error>(pid == other)
    });
    Ok(match compared.await {
        Some(Ok(true)) => Between::TransactionPooler,
        _ => Between::SessionPooler,
    })
}

/// The number of the backend that answers.
async fn server(connection: &mut Connection) -> Result<i32, Error> {
    connection.query(&Query::from("select pg_catalog.pg_backend_pid()")).await?;
    let row = connection.next_row().await?;
    let pid = row.as_ref().and_then(|row| std::str::from_utf8(row.get(0)?).ok()?.parse().ok());
    connection.drain().await?;
    pid.ok_or_else(|| Error::Protocol("no number of a backend".to_owned()))
}
