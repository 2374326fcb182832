//! One connection to a PostgreSQL: log in, ask, take the rows as they come, cancel.
//!
//! Statements go by the extended protocol and values come back in the server's own text (or binary) form, byte for
//! byte: that is why this is not `tokio-postgres`, which decodes into Rust types. A connection is owned by who uses
//! it; there is no task behind it. Rows are read from the socket only when asked for, so a slow reader slows the server.

mod login;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::{DataRowBody, Message, ParameterStatusBody, RowDescriptionBody};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{timeout, timeout_at};

use crate::pg::conninfo::{ConnectOptions, Host};
use crate::pg::error::{Error, ServerError};
use crate::pg::statements::Statements;
use crate::pg::stream::{Attempt, Stream};
use crate::pg::wire::Wire;
use crate::server::clock;
use crate::server::log::Level;

/// The newest module's.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// In these a byte of another character can look like a quote or a backslash, so quoting would not be safe.
const UNSAFE_ENCODINGS: &[&str] = &["SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "UHC", "GB18030", "JOHAB"];

/// A connection, logged in.
pub struct Connection {
    wire: Wire,
    host: Host,
    options: Arc<ConnectOptions>,
    process: i32,
    secret: i32,
    parameters: BTreeMap<String, String>,
    /// Why our quoting would not be safe on it, by what its parameters say now.
    unsuitable: Option<&'static str>,
    statements: Statements,
    in_flight: VecDeque<InFlight>,
    /// A row read ahead by `start`, to learn of an error before the head is given out.
    first_row: Option<Row>,
    command_tag: String,
    transaction: TransactionStatus,
    broken: bool,
    timeout: Option<Duration>,
    queries: u64,
}

/// A query that was sent and is not yet answered.
struct InFlight {
    statement: Option<Arc<str>>,
    is_new: bool,
    columns: Option<Arc<[Column]>>,
    error: Option<Box<ServerError>>,
    done: bool,
}

/// What to ask.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// One statement, with `$1`, `$2` ... for the parameters.
    pub sql: String,
    /// Their values.
    pub params: Vec<Param>,
    /// The form of the result's values.
    pub format: Format,
    /// Whether the text will come again, so that it pays to keep it prepared.
    pub reusable: bool,
    /// How long the head may take, and each wait for further rows.
    pub timeout: Option<Duration>,
}

impl From<&str> for Query {
    fn from(sql: &str) -> Self {
        Self { sql: sql.to_owned(), ..Self::default() }
    }
}

/// A parameter in text form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its type's OID; 0 lets the server find out.
    pub oid: u32,
    /// The text; none is NULL.
    pub value: Option<Bytes>,
}

/// The form of a result's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As psql shows them.
    #[default]
    Text,
    /// As the server has them.
    Binary,
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, in the client's encoding.
    pub name: Bytes,
    /// Its type's OID.
    pub oid: u32,
}

/// A row of a result.
pub struct Row {
    body: DataRowBody,
    ranges: Vec<Option<std::ops::Range<usize>>>,
}

impl Row {
    /// How many values it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether it has no values at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// A value; none if it is NULL, or there is no such column.
    #[must_use]
    pub fn get(&self, column: usize) -> Option<&[u8]> {
        self.body.buffer().get(self.ranges.get(column)?.clone()?)
    }

    /// The same, sharing the memory of the row.
    #[must_use]
    pub fn get_bytes(&self, column: usize) -> Option<Bytes> {
        let range = self.ranges.get(column)?.clone()?;
        Some(self.body.buffer_bytes().slice(range))
    }

    fn read(body: DataRowBody) -> Result<Self, Error> {
        let ranges = body.ranges().collect().map_err(protocol)?;
        Ok(Self { body, ranges })
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = (0..self.len()).map(|column| self.get(column).map(String::from_utf8_lossy));
        f.debug_list().entries(values).finish()
    }
}

/// What the server said of the transaction after the last query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// None is open.
    Idle,
    /// One is open.
    Open,
    /// One is open and can only be rolled back.
    Failed,
}

impl Connection {
    /// Connects to the first host that answers and suits, and logs in.
    pub async fn connect(options: &Arc<ConnectOptions>) -> Result<Self, Error> {
        let limit = options.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT);
        timeout(limit, login::connect_any(options)).await.unwrap_or(Err(Error::ConnectTimeout))
    }

    /// Sends a query and waits for the head of its result. Drops the rest of an earlier result.
    pub async fn query(&mut self, query: &Query) -> Result<Arc<[Column]>, Error> {
        self.drain().await?;
        self.send(query)?;
        let is_reused = self.in_flight.back().is_some_and(|sent| sent.statement.is_some() && !sent.is_new);
        match self.start().await {
            // The plan did not outlive a change of the schema or a `DISCARD ALL`: nothing has run yet.
            Err(Error::Sql(error))
                if is_reused
                    && matches!(&*error.code, "0A000" | "26000")
                    && self.transaction == TransactionStatus::Idle =>
            {
                self.send(query)?;
                self.start().await
            }
            answer => answer,
        }
    }

    /// Puts a query on its way behind those already sent. A few may be on their way at once; each has its own
    /// [`start`](Self::start), and an error of one does not touch the others.
    pub fn send(&mut self, query: &Query) -> Result<(), Error> {
        let types: Vec<u32> = query.params.iter().map(|param| param.oid).collect();
        let mut sent = InFlight { statement: None, is_new: true, columns: None, error: None, done: false };
        let out = &mut self.wire.outgoing;
        if query.reusable {
            if let Some(prepared) = self.statements.find(&query.sql, &types) {
                sent.is_new = prepared.columns.is_none();
                sent.statement = Some(Arc::clone(&prepared.name));
                sent.columns = prepared.columns.clone();
            }
            // While its description is under way a statement is there but not yet known well enough.
            if sent.is_new {
                let (name, evicted) = self.statements.add(&query.sql, &types);
                if let Some(evicted) = evicted {
                    frontend::close(b'S', &evicted, out).map_err(protocol)?;
                }
                sent.statement = Some(name);
            }
        }
        let name = sent.statement.as_deref().unwrap_or("");
        let format = i16::from(query.format == Format::Binary);
        let values = query.params.iter().map(|param| param.value.as_deref());
        let mut message = BytesMut::new();
        if sent.is_new {
            frontend::parse(name, &query.sql, types, &mut message).map_err(protocol)?;
            frontend::describe(b'S', name, &mut message).map_err(protocol)?;
        }
        frontend::bind("", name, [0], values, put_value, [format], &mut message)
            .map_err(|_| Error::Protocol("a parameter is too long".to_owned()))?;
        frontend::execute("", 0, &mut message).map_err(protocol)?;
        frontend::sync(&mut message);
        self.wire.outgoing.extend_from_slice(&message);
        self.in_flight.push_back(sent);
        self.timeout = query.timeout;
        self.queries += 1;
        Ok(())
    }

    /// Waits for the oldest query on its way until its first row or its end; an error of the statement is found here
    /// unless it comes after the first row.
    pub async fn start(&mut self) -> Result<Arc<[Column]>, Error> {
        self.first_row = None;
        self.command_tag.clear();
        self.first_row = self.within_timeout().await?;
        match self.in_flight.front().and_then(|query| query.columns.clone()) {
            Some(columns) => Ok(columns),
            None => Ok(Arc::new([])),
        }
    }

    /// The next row, or none when the result is complete.
    pub async fn next_row(&mut self) -> Result<Option<Row>, Error> {
        if let Some(row) = self.first_row.take() {
            return Ok(Some(row));
        }
        let row = self.within_timeout().await?;
        if row.is_none() {
            self.in_flight.pop_front();
        }
        Ok(row)
    }

    /// Of the result just finished: `SELECT 3`, `CREATE TABLE`; empty for a blank query.
    #[must_use]
    pub fn command_tag(&self) -> &str {
        &self.command_tag
    }

    /// Drops what is left of all results.
    pub async fn drain(&mut self) -> Result<(), Error> {
        while !self.in_flight.is_empty() {
            match self.next_row().await {
                Ok(_) => {}
                Err(Error::Sql(_)) if !self.broken => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What cancels the running query, from anywhere.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        CancelToken {
            host: self.host.clone(),
            options: Arc::clone(&self.options),
            is_tls: self.wire.is_tls(),
            process: self.process,
            secret: self.secret,
        }
    }

    /// The transaction's state after the last query.
    #[must_use]
    pub fn transaction(&self) -> TransactionStatus {
        self.transaction
    }

    /// Whether somebody else may have it: no query under way, no open transaction, not broken, still safe to quote for.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.is_drained() && self.transaction == TransactionStatus::Idle && self.unsuitable.is_none()
    }

    /// Whether nothing is under way and the connection is whole.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        !self.broken && self.in_flight.is_empty() && self.wire.outgoing.is_empty()
    }

    /// Whether no more can be done with it.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Takes note of what an idle connection was told meanwhile; false if it was closed.
    pub fn is_alive(&mut self) -> bool {
        while !self.broken {
            match self.wire.message_now() {
                // What could not be read yet is seldom anything but the end.
                Ok(None) => {
                    self.broken = self.wire.has_news();
                    return !self.broken;
                }
                Ok(Some(Message::ParameterStatus(body))) => self.broken |= self.note(&body).is_err(),
                Ok(Some(Message::NoticeResponse(body))) => self.tell(&ServerError::read(body.fields())),
                Ok(Some(Message::NotificationResponse(_))) => {}
                // An idle server speaks of its own accord only to say farewell.
                Ok(Some(Message::ErrorResponse(body))) => {
                    self.tell(&ServerError::read(body.fields()));
                    self.broken = true;
                }
                Ok(Some(_)) | Err(_) => self.broken = true,
            }
        }
        false
    }

    /// A parameter that the server reports: `server_version`, `client_encoding` ...
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.wire.is_tls()
    }

    /// The backend's process id.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.process
    }

    /// The host it is connected to.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// How many queries it has been asked.
    #[must_use]
    pub fn queries(&self) -> u64 {
        self.queries
    }

    async fn within_timeout(&mut self) -> Result<Option<Row>, Error> {
        let result = self.advance_in_time().await;
        // Who can't be understood once can't be trusted to be understood again.
        self.broken |= matches!(result, Err(Error::Protocol(_)));
        result
    }

    async fn advance_in_time(&mut self) -> Result<Option<Row>, Error> {
        let deadline = self.timeout.map(|timeout| clock::instant() + timeout);
        match deadline {
            Some(deadline) => timeout_at(deadline, self.advance()).await.unwrap_or(Err(Error::QueryTimeout)),
            None => self.advance().await,
        }
    }

    /// Reads on until a row or the end of the oldest query.
    async fn advance(&mut self) -> Result<Option<Row>, Error> {
        if self.in_flight.front().is_none_or(|query| query.done) {
            return Ok(None);
        }
        if !self.wire.outgoing.is_empty() {
            self.wire.flush().await.map_err(|error| self.lose(&error))?;
        }
        loop {
            let message = self.wire.message().await.map_err(|error| self.lose(&error))?;
            let Some(query) = self.in_flight.front_mut() else {
                return Ok(None);
            };
            match message {
                Message::DataRow(body) => return Row::read(body).map(Some),
                Message::RowDescription(body) => {
                    let columns = columns(&body)?;
                    if let Some(name) = &query.statement {
                        self.statements.describe(name, &columns);
                    }
                    query.columns = Some(columns);
                }
                Message::NoData => {
                    let columns: Arc<[Column]> = Arc::new([]);
                    if let Some(name) = &query.statement {
                        self.statements.describe(name, &columns);
                    }
                    query.columns = Some(columns);
                }
                Message::CommandComplete(body) => {
                    body.tag().map_err(protocol)?.clone_into(&mut self.command_tag);
                }
                Message::ErrorResponse(body) => {
                    let error = Box::new(ServerError::read(body.fields()));
                    if error.is_fatal() {
                        self.broken = true;
                        let reason = error.message.clone();
                        return Err(Error::Lost { reason, last_words: Some(error) });
                    }
                    query.error = Some(error);
                }
                Message::ReadyForQuery(body) => {
                    self.transaction = match body.status() {
                        b'I' => TransactionStatus::Idle,
                        b'T' => TransactionStatus::Open,
                        _ => TransactionStatus::Failed,
                    };
                    query.done = true;
                    let Some(error) = query.error.take() else {
                        return Ok(None);
                    };
                    let is_stale = query.columns.is_none() || matches!(&*error.code, "0A000" | "26000");
                    if let Some(name) = query.statement.take_if(|_| is_stale) {
                        self.statements.remove(&name);
                    }
                    self.in_flight.pop_front();
                    return Err(Error::Sql(error));
                }
                Message::ParameterStatus(body) => self.note(&body)?,
                Message::CopyInResponse(_) | Message::CopyOutResponse(_) => {
                    self.broken = true;
                    return Err(Error::Copy);
                }
                Message::NoticeResponse(body) => {
                    let notice = ServerError::read(body.fields());
                    self.tell(&notice);
                }
                // Progress, and notifications to who listens on a connection that is not the listener's.
                _ => {}
            }
        }
    }

    /// Writes down what the server tells of its own accord.
    fn tell(&self, notice: &ServerError) {
        self.options.journal.notice(notice);
    }

    fn lose(&mut self, error: &io::Error) -> Error {
        self.broken = true;
        Error::lost(error)
    }

    /// Keeps a parameter that the server reports.
    fn note(&mut self, body: &ParameterStatusBody) -> Result<(), Error> {
        let name = body.name().map_err(protocol)?.to_owned();
        self.parameters.insert(name, body.value().map_err(protocol)?.to_owned());
        self.unsuitable = self.find_unsuitable();
        Ok(())
    }

    fn find_unsuitable(&self) -> Option<&'static str> {
        if self.parameter("standard_conforming_strings").is_some_and(|value| value != "on") {
            return Some("standard_conforming_strings is off");
        }
        let encoding = self.parameter("client_encoding").unwrap_or_default();
        let is_unsafe = UNSAFE_ENCODINGS.iter().any(|name| name.eq_ignore_ascii_case(encoding));
        is_unsafe.then_some("its client_encoding does not allow safe quoting")
    }
}

/// Says farewell if the socket takes it at once; otherwise the server finds out by the end of the stream.
impl Drop for Connection {
    fn drop(&mut self) {
        let how = if self.broken { "lost" } else { "closed" };
        let (host, pid, queries) = (&self.host, self.process, self.queries);
        if pid != 0 {
            let message = || format!("connection to {host} {how}, backend {pid}, after {queries} queries");
            self.options.journal.say(Level::Info, message);
        }
        if self.is_drained() {
            frontend::terminate(&mut self.wire.outgoing);
            self.wire.flush_now();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({}, backend {})", self.host, self.process)
    }
}

/// Cancels what a connection is doing, by a connection of its own.
#[derive(Clone, Debug)]
pub struct CancelToken {
    host: Host,
    options: Arc<ConnectOptions>,
    is_tls: bool,
    process: i32,
    secret: i32,
}

impl CancelToken {
    /// Asks the server; whether the query was still running is seen on its own connection.
    pub async fn cancel(&self) -> Result<(), Error> {
        let attempt = if self.is_tls { Attempt::Tls } else { Attempt::Plain };
        let mut stream = Stream::open(&self.host, &self.options, attempt).await?;
        let mut request = BytesMut::new();
        frontend::cancel_request(self.process, self.secret, &mut request);
        stream.write_all(&request).await.map_err(|error| Error::lost(&error))?;
        // The server closes when it has passed the signal on.
        drop(stream.read_u8().await);
        Ok(())
    }
}

fn put_value(value: Option<&[u8]>, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
    match value {
        Some(value) => {
            out.put_slice(value);
            Ok(IsNull::No)
        }
        None => Ok(IsNull::Yes),
    }
}

fn columns(body: &RowDescriptionBody) -> Result<Arc<[Column]>, Error> {
    let column = |name: &str, oid| Column { name: Bytes::copy_from_slice(name.as_bytes()), oid };
    let columns: Vec<Column> =
        body.fields().map(|field| Ok(column(field.name(), field.type_oid()))).collect().map_err(protocol)?;
    Ok(columns.into())
}

fn protocol(error: io::Error) -> Error {
    Error::Protocol(error.to_string())
}

#[cfg(test)]
mod tests;
