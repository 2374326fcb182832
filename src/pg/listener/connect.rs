//! A connection that is ready to listen.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, NoTls};

use crate::pg::conninfo::ConnectOptions;
use crate::pg::error::{Error, ServerError};
use crate::pg::pooler::{Between, between};
use crate::pg::sql::quote_identifier;
use crate::pg::stream::{Stream, connect_with};

/// The listener waits less patiently than a request: another try may find the server back.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to find out what stands between.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection, ready to listen.
pub(super) struct Session {
    /// How to reach the server that it is with.
    pub(super) server: Arc<ConnectOptions>,
    pub(super) client: Arc<Client>,
    pub(super) connection: tokio_postgres::Connection<Stream, NoTlsStream>,
}

/// Connects to the first server that lets us listen.
pub(super) async fn connect_any(servers: &[Arc<ConnectOptions>], canary: &str) -> Result<Session, Error> {
    let mut last = Error::NoServers;
    for options in servers {
        let limit = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        for host in &options.hosts {
            let server = Arc::new(ConnectOptions { hosts: vec![host.clone()], ..ConnectOptions::clone(options) });
            let session = async {
                let session = connect_with(host, options, |stream| login(stream, Arc::clone(&server))).await?;
                hatch(session, canary).await
            };
            match timeout(limit, session).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => last = error,
                Err(_) => last = Error::ConnectTimeout,
            }
        }
    }
    Err(last)
}

/// Finds out what stands between us and a server; nothing, if that can't be told.
pub(super) async fn look(server: Arc<ConnectOptions>) -> Between {
    timeout(LOOK_TIMEOUT, between(&server)).await.unwrap_or(Ok(Between::Nothing)).unwrap_or(Between::Nothing)
}

/// Listens to the canary's channel. A standby refuses that, so that the next host is tried.
async fn hatch(mut session: Session, canary: &str) -> Result<Session, Error> {
    let listen = statement(canary, true);
    let client = Arc::clone(&session.client);
    let mut listening = std::pin::pin!(client.batch_execute(&listen));
    loop {
        tokio::select! {
            listened = &mut listening => {
                listened.map_err(login_error)?;
                return Ok(session);
            }
            message = poll_fn(|cx| session.connection.poll_message(cx)) => match message {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(login_error(error)),
                None => return Err(Error::Authentication("server closed the connection".to_owned())),
            },
        }
    }
}

async fn login(stream: Stream, options: Arc<ConnectOptions>) -> Result<Session, Error> {
    let mut config = tokio_postgres::Config::new();
    // The stream has agreed on TLS already.
    config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    config.application_name(&options.application_name);
    if let Some(user) = &options.user {
        config.user(user);
    }
    if let Some(password) = &options.password {
        config.password(password.reveal());
    }
    if let Some(dbname) = &options.dbname {
        config.dbname(dbname);
    }
    if let Some(more) = &options.options {
        config.options(more);
    }
    let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(login_error)?;
    Ok(Session { server: options, client: Arc::new(client), connection })
}

fn login_error(error: tokio_postgres::Error) -> Error {
    match server_error(&error) {
        Some(mut error) => {
            // "cannot execute LISTEN during recovery"
            if error.code == "25006" {
                let hint = "the server is a standby; name the primary, or all servers: the first that is none is taken";
                error.hint.get_or_insert_with(|| hint.to_owned());
            }
            Error::Login(Box::new(error))
        }
        None => Error::Authentication(describe(&error)),
    }
}

pub(super) fn server_error(error: &tokio_postgres::Error) -> Option<ServerError> {
    let error = error.as_db_error()?;
    Some(ServerError {
        severity: error.severity().to_owned(),
        code: error.code().code().to_owned(),
        message: error.message().to_owned(),
        detail: error.detail().map(str::to_owned),
        hint: error.hint().map(str::to_owned),
        position: None,
    })
}

/// With its cause, which tokio-postgres leaves to the reader.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match (server_error(error), std::error::Error::source(error)) {
        (Some(error), _) => error.to_string(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

pub(super) fn statement(channel: &str, listen: bool) -> String {
    format!("{} {}", if listen { "LISTEN" } else { "UNLISTEN" }, quote_identifier(channel))
}
