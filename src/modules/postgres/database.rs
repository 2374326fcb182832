//! `pushgate check --db`: what the servers themselves say of a configuration.
//!
//! It connects to every server of every upstream, and lets each query be prepared, which runs nothing.

use std::sync::Arc;
use std::time::Duration;

use super::pass::{Passing, To};
use super::query::{Queries, Query};
use super::server::{Servers, Upstream};
use crate::config::{Config, Diagnostic, Position, Severity};
use crate::pg::connection::Connection;
use crate::pg::conninfo::ConnectOptions;
use crate::pg::error::Error;
use crate::pg::pooler::{Between, between};
use crate::server::clock;

/// How long a server may take to answer anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found out.
#[derive(Debug, Default)]
pub struct Report {
    /// A line for each server, and for each query that can be prepared.
    pub lines: Vec<String>,
    /// What is wrong, at its place in the file.
    pub findings: Vec<Diagnostic>,
}

/// Asks the servers of a configuration.
pub fn check(config: &Config) -> std::io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(ask(config)))
}

async fn ask(config: &Config) -> Report {
    let mut report = Report::default();
    for upstream in &config.built.model.upstreams {
        let Some(servers) = &config.settings(upstream.scope).get::<Upstream>().servers else { continue };
        let queries = queries(config, |to| match to {
            To::Name(_, name) => name.eq_ignore_ascii_case(&servers.name),
            To::Direct(_) => false,
        });
        let at = config.built.scope(upstream.scope).at;
        report.servers(&format!("upstream \"{}\"", servers.name), servers, at, &queries).await;
    }
    for (servers, at) in direct(config) {
        let queries = queries(config, |to| matches!(to, To::Direct(other) if other == servers));
        report.servers(&format!("postgres_pass to \"{}\"", servers.label()), servers, at, &queries).await;
    }
    report
}

/// The servers that locations name by a connection string, each once, and where.
fn direct(config: &Config) -> Vec<(&Arc<Servers>, Option<Position>)> {
    let mut found: Vec<(&Arc<Servers>, Option<Position>)> = Vec::new();
    for settings in &config.settings {
        let passing = settings.get::<Passing>();
        if let Some(To::Direct(servers)) = &passing.to
            && !found.iter().any(|(known, _)| **known == *servers)
        {
            found.push((servers, passing.at));
        }
    }
    found
}

/// The queries that go to some servers, each once.
fn queries(config: &Config, go_there: impl Fn(&To) -> bool) -> Vec<Query> {
    let mut found: Vec<Query> = Vec::new();
    for settings in &config.settings {
        let passes = settings.get::<Passing>().to.as_ref().is_some_and(&go_there);
        for query in settings.get::<Queries>().queries.iter().filter(|_| passes) {
            if !found.iter().any(|known| known.at == query.at) {
                found.push(query.clone());
            }
        }
    }
    found
}

impl Report {
    /// Says what servers are, and whether their queries can be prepared.
    async fn servers(&mut self, name: &str, servers: &Servers, at: Option<Position>, queries: &[Query]) {
        let listens = queries.iter().any(|query| query.sql.is_listen());
        for (number, options) in servers.connections().iter().enumerate() {
            let connection = self.server(name, options, at, listens).await;
            // The servers of an upstream are taken to be alike.
            if let Some(mut connection) = connection.filter(|_| number == 0) {
                for query in queries {
                    self.query(&mut connection, query).await;
                }
            }
        }
    }

    /// Says what a server is.
    async fn server(
        &mut self,
        name: &str,
        options: &Arc<ConnectOptions>,
        at: Option<Position>,
        listens: bool,
    ) -> Option<Connection> {
        match clock::timeout(PATIENCE, describe(options)).await.unwrap_or(Err(Error::ConnectTimeout)) {
            Ok((connection, server)) => {
                self.lines.push(format!("{name}: {}", server.line));
                for reason in server.deaf.into_iter().filter(|_| listens) {
                    let message = format!("{name} can't be listened to: {reason}");
                    let finding = Diagnostic::new(Severity::Error, "deaf-upstream", message).near(at);
                    self.findings.push(finding.help("name the primary itself, without a pooler in between"));
                }
                Some(connection)
            }
            Err(error) => {
                let message = format!("{name}: {error}");
                self.findings.push(Diagnostic::new(Severity::Error, "database", message).near(at));
                None
            }
        }
    }

    /// Lets a query be prepared.
    async fn query(&mut self, connection: &mut Connection, query: &Query) {
        let text = &query.sql.text;
        let Some(sample) = query.sql.sample().filter(|_| can_be_prepared(text)) else { return };
        let types = clock::timeout(PATIENCE, prepare(connection, &sample)).await;
        match types.unwrap_or(Err(Error::QueryTimeout)) {
            Ok(types) if types == "{}" => self.lines.push(format!("query \"{text}\": prepares")),
            Ok(types) => self.lines.push(format!("query \"{text}\": prepares, with parameters {types}")),
            Err(error) => {
                let message = format!("PostgreSQL refuses the query: {}", super::failure::one_line(&error.to_string()));
                self.findings.push(Diagnostic::new(Severity::Error, "query", message).near(Some(query.at)));
            }
        }
    }
}

/// Whether PostgreSQL has a PREPARE for it.
fn can_be_prepared(sql: &str) -> bool {
    const WORDS: [&str; 7] = ["select", "insert", "update", "delete", "merge", "values", "with"];
    let first = sql.trim_start().split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default();
    WORDS.iter().any(|word| first.eq_ignore_ascii_case(word))
}

/// What a server is, and why nobody can listen there.
struct Server {
    line: String,
    deaf: Option<&'static str>,
}

async fn describe(options: &Arc<ConnectOptions>) -> Result<(Connection, Server), Error> {
    let mut connection = Connection::connect(options).await?;
    let sql = "select current_user::text, current_database()::text, \
               case when pg_is_in_recovery() then 'standby' else 'primary' end";
    let row = row(&mut connection, sql).await?;
    let [user, database, kind] = row.as_slice() else {
        return Err(Error::Protocol("three values were asked for".to_owned()));
    };
    let version = connection.parameter("server_version").unwrap_or("?");
    let tls = if connection.is_tls() { "TLS" } else { "no TLS" };
    let (pooler, deaf) = match between(options).await? {
        Between::Nothing => ("", None),
        Between::SessionPooler => (", behind a pooler by sessions", None),
        Between::TransactionPooler => {
            (", behind a pooler by transactions", Some("the pooler lends a server for a transaction only"))
        }
    };
    let deaf = if kind == "standby" { Some("it is a standby") } else { deaf };
    let line = format!(
        "PostgreSQL {version} at {}, {kind}, {tls}, role \"{user}\", database \"{database}\"{pooler}",
        connection.host()
    );
    Ok((connection, Server { line, deaf }))
}

/// The parameters' types of a statement.
async fn prepare(connection: &mut Connection, sql: &str) -> Result<String, Error> {
    let prepared = format!("prepare pushgate_check as {sql}");
    row(connection, &prepared).await?;
    let types = "select parameter_types::text from pg_prepared_statements where name = 'pushgate_check'";
    let types = row(connection, types).await?;
    row(connection, "deallocate pushgate_check").await?;
    Ok(types.into_iter().next().unwrap_or_default())
}

/// The first row of a result, NULL as nothing.
async fn row(connection: &mut Connection, sql: &str) -> Result<Vec<String>, Error> {
    connection.query(&sql.into()).await?;
    let mut values = Vec::new();
    if let Some(row) = connection.next_row().await? {
        let value = |column| String::from_utf8_lossy(row.get(column).unwrap_or_default()).into_owned();
        values = (0..row.len()).map(value).collect();
    }
    connection.drain().await?;
    Ok(values)
}
