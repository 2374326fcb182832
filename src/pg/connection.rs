//! One connection to a PostgreSQL: log in, ask, take the rows as they come, cancel.
//!
//! Statements go by the extended protocol and values come back in the server's own text (or binary) form, byte for
//! byte: that is why this is not `tokio-postgres`, which decodes into Rust types. A connection is owned by who uses
//! it; there is no task behind it. Rows are read from the socket only when asked for, so a slow reader slows the server.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{DataRowBody, Message, RowDescriptionBody};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::conninfo::{ConnectOptions, Host, TargetSession};
use super::error::{Error, ServerError};
use super::statements::Statements;
use super::stream::{Attempt, Stream, connect_with};
use super::wire::Wire;

/// The newest module's.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// In these a byte of another character can look like a quote or a backslash, so quoting would not be safe.
const UNSAFE_ENCODINGS: &[&str] = &[
    "SJIS",
    "SHIFT_JIS_2004",
    "BIG5",
    "GBK",
    "UHC",
    "GB18030",
    "JOHAB",
];

/// A connection, logged in.
pub struct Connection {
    wire: Wire,
    host: Host,
    options: Arc<ConnectOptions>,
    process: i32,
    secret: i32,
    parameters: BTreeMap<String, String>,
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
        Self {
            sql: sql.to_owned(),
            ..Self::default()
        }
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
        timeout(limit, connect_any(options))
            .await
            .unwrap_or(Err(Error::ConnectTimeout))
    }

    /// Sends a query and waits for the head of its result. Drops the rest of an earlier result.
    pub async fn query(&mut self, query: &Query) -> Result<Arc<[Column]>, Error> {
        self.drain().await?;
        self.send(query)?;
        let is_reused = self
            .in_flight
            .back()
            .is_some_and(|sent| sent.statement.is_some() && !sent.is_new);
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
        let mut sent = InFlight {
            statement: None,
            is_new: true,
            columns: None,
            error: None,
            done: false,
        };
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
        match self
            .in_flight
            .front()
            .and_then(|query| query.columns.clone())
        {
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
        self.is_drained()
            && self.transaction == TransactionStatus::Idle
            && self.unsuitable().is_none()
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
                Ok(Some(Message::ParameterStatus(body))) => {
                    if let (Ok(name), Ok(value)) = (body.name(), body.value()) {
                        self.parameters.insert(name.to_owned(), value.to_owned());
                    }
                }
                Ok(Some(Message::NoticeResponse(_) | Message::NotificationResponse(_))) => {}
                // An idle server speaks of its own accord only to say farewell.
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
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        match deadline {
            Some(deadline) => timeout_at(deadline, self.advance())
                .await
                .unwrap_or(Err(Error::QueryTimeout)),
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
            let message = self
                .wire
                .message()
                .await
                .map_err(|error| self.lose(&error))?;
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
                    body.tag()
                        .map_err(protocol)?
                        .clone_into(&mut self.command_tag);
                }
                Message::ErrorResponse(body) => {
                    let error = Box::new(ServerError::read(body.fields()));
                    if error.is_fatal() {
                        self.broken = true;
                        let reason = error.message.clone();
                        return Err(Error::Lost {
                            reason,
                            last_words: Some(error),
                        });
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
                    let is_stale =
                        query.columns.is_none() || matches!(&*error.code, "0A000" | "26000");
                    if let Some(name) = query.statement.take_if(|_| is_stale) {
                        self.statements.remove(&name);
                    }
                    self.in_flight.pop_front();
                    return Err(Error::Sql(error));
                }
                Message::ParameterStatus(body) => {
                    let name = body.name().map_err(protocol)?.to_owned();
                    self.parameters
                        .insert(name, body.value().map_err(protocol)?.to_owned());
                }
                Message::CopyInResponse(_) | Message::CopyOutResponse(_) => {
                    self.broken = true;
                    return Err(Error::Copy);
                }
                // Progress, and what the server tells of its own accord.
                _ => {}
            }
        }
    }

    fn lose(&mut self, error: &io::Error) -> Error {
        self.broken = true;
        Error::lost(error)
    }

    /// Why our quoting would not be safe on this connection.
    fn unsuitable(&self) -> Option<&'static str> {
        if self
            .parameter("standard_conforming_strings")
            .is_some_and(|value| value != "on")
        {
            return Some("standard_conforming_strings is off");
        }
        let encoding = self.parameter("client_encoding").unwrap_or_default();
        let is_unsafe = UNSAFE_ENCODINGS
            .iter()
            .any(|name| name.eq_ignore_ascii_case(encoding));
        is_unsafe.then_some("its client_encoding does not allow safe quoting")
    }
}

/// Says farewell if the socket takes it at once; otherwise the server finds out by the end of the stream.
impl Drop for Connection {
    fn drop(&mut self) {
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
        let attempt = if self.is_tls {
            Attempt::Tls
        } else {
            Attempt::Plain
        };
        let mut stream = Stream::open(&self.host, &self.options, attempt).await?;
        let mut request = BytesMut::new();
        frontend::cancel_request(self.process, self.secret, &mut request);
        stream
            .write_all(&request)
            .await
            .map_err(|error| Error::lost(&error))?;
        // The server closes when it has passed the signal on.
        drop(stream.read_u8().await);
        Ok(())
    }
}

/// Tries the hosts in their order: the first one that lets us in and suits, or the last failure.
async fn connect_any(options: &Arc<ConnectOptions>) -> Result<Connection, Error> {
    let wanted: &[TargetSession] = match options.target_session_attrs {
        TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
        ref other => std::slice::from_ref(other),
    };
    let mut last = Error::NoServers;
    for wanted in wanted {
        for host in &options.hosts {
            match connect_host(host, options).await {
                Ok(mut connection) => match connection.check_suits(*wanted).await {
                    Ok(()) => return Ok(connection),
                    Err(error) => last = error,
                },
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

async fn connect_host(host: &Host, options: &Arc<ConnectOptions>) -> Result<Connection, Error> {
    connect_with(host, options, |stream| login(stream, host, options)).await
}

async fn login(
    stream: Stream,
    host: &Host,
    options: &Arc<ConnectOptions>,
) -> Result<Connection, Error> {
    let mut connection = Connection {
        wire: Wire::new(stream),
        host: host.clone(),
        options: Arc::clone(options),
        process: 0,
        secret: 0,
        parameters: BTreeMap::new(),
        statements: Statements::default(),
        in_flight: VecDeque::new(),
        first_row: None,
        command_tag: String::new(),
        transaction: TransactionStatus::Idle,
        // Until the login is through nothing may be said on it.
        broken: true,
        timeout: None,
        queries: 0,
    };
    let startup = startup_parameters(options);
    let startup = startup.iter().map(|(name, value)| (*name, *value));
    frontend::startup_message(startup, &mut connection.wire.outgoing).map_err(protocol)?;
    connection.authenticate().await?;
    connection.broken = false;
    match connection.unsuitable() {
        Some(reason) => Err(Error::Unsuitable {
            address: host.to_string(),
            reason,
        }),
        None => Ok(connection),
    }
}

fn startup_parameters(options: &ConnectOptions) -> Vec<(&'static str, &str)> {
    // Our quoting counts on standard strings, whatever the server's default.
    let mut startup = vec![("standard_conforming_strings", "on")];
    let optional = [
        ("user", options.user.as_deref()),
        ("database", options.dbname.as_deref()),
        ("application_name", Some(options.application_name.as_str())),
        ("options", options.options.as_deref()),
        ("client_encoding", options.client_encoding.as_deref()),
    ];
    startup.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    startup
}

impl Connection {
    async fn authenticate(&mut self) -> Result<(), Error> {
        let options = Arc::clone(&self.options);
        let password = || match &options.password {
            Some(password) => Ok(password.reveal().as_bytes()),
            None => Err(Error::Authentication(
                "fe_sendauth: no password supplied".to_owned(),
            )),
        };
        let mut scram: Option<ScramSha256> = None;
        loop {
            self.wire
                .flush()
                .await
                .map_err(|error| Error::lost(&error))?;
            let message = self
                .wire
                .message()
                .await
                .map_err(|error| Error::lost(&error))?;
            let out = &mut self.wire.outgoing;
            match message {
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password()?, out).map_err(protocol)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let user = options.user.as_deref().unwrap_or_default();
                    let hash = md5_hash(user.as_bytes(), password()?, body.salt());
                    frontend::password_message(hash.as_bytes(), out).map_err(protocol)?;
                }
                Message::AuthenticationSasl(body) => {
                    if !body
                        .mechanisms()
                        .any(|name| Ok(name == SCRAM_SHA_256))
                        .map_err(protocol)?
                    {
                        let reason =
                            "none of the server's SASL authentication mechanisms are supported";
                        return Err(Error::Authentication(reason.to_owned()));
                    }
                    let state = ScramSha256::new(password()?, ChannelBinding::unsupported());
                    frontend::sasl_initial_response(SCRAM_SHA_256, state.message(), out)
                        .map_err(protocol)?;
                    scram = Some(state);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let state = scram.as_mut().ok_or_else(|| unexpected("SASL"))?;
                    state.update(body.data()).map_err(authentication)?;
                    frontend::sasl_response(state.message(), out).map_err(protocol)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let state = scram.as_mut().ok_or_else(|| unexpected("SASL"))?;
                    state.finish(body.data()).map_err(authentication)?;
                }
                Message::AuthenticationOk | Message::NoticeResponse(_) => {}
                Message::ParameterStatus(body) => {
                    let name = body.name().map_err(protocol)?.to_owned();
                    self.parameters
                        .insert(name, body.value().map_err(protocol)?.to_owned());
                }
                Message::BackendKeyData(body) => {
                    self.process = body.process_id();
                    self.secret = body.secret_key();
                }
                Message::ErrorResponse(body) => {
                    return Err(Error::Login(Box::new(ServerError::read(body.fields()))));
                }
                Message::ReadyForQuery(_) => return Ok(()),
                _ => {
                    return Err(Error::Authentication(
                        "authentication method is not supported".to_owned(),
                    ));
                }
            }
        }
    }

    /// Whether the server is of the wanted kind.
    async fn check_suits(&mut self, wanted: TargetSession) -> Result<(), Error> {
        if wanted == TargetSession::Any {
            return Ok(());
        }
        let sql = "select pg_catalog.pg_is_in_recovery(), \
                   pg_catalog.current_setting('transaction_read_only') = 'on'";
        self.query(&Query::from(sql)).await?;
        let row = self
            .next_row()
            .await?
            .ok_or_else(|| unexpected("an empty result"))?;
        let (standby, read_only) = (row.get(0) == Some(b"t"), row.get(1) == Some(b"t"));
        self.drain().await?;
        let reason = match wanted {
            TargetSession::ReadWrite if read_only => "session is read-only",
            TargetSession::ReadOnly if !read_only => "session is not read-only",
            TargetSession::Primary if standby => "server is in hot standby mode",
            TargetSession::Standby if !standby => "server is not in hot standby mode",
            _ => return Ok(()),
        };
        Err(Error::Unsuitable {
            address: self.host.to_string(),
            reason,
        })
    }
}

fn put_value(
    value: Option<&[u8]>,
    out: &mut BytesMut,
) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
    match value {
        Some(value) => {
            out.put_slice(value);
            Ok(IsNull::No)
        }
        None => Ok(IsNull::Yes),
    }
}

fn columns(body: &RowDescriptionBody) -> Result<Arc<[Column]>, Error> {
    let column = |name: &str, oid| Column {
        name: Bytes::copy_from_slice(name.as_bytes()),
        oid,
    };
    let columns: Vec<Column> = body
        .fields()
        .map(|field| Ok(column(field.name(), field.type_oid())))
        .collect()
        .map_err(protocol)?;
    Ok(columns.into())
}

fn protocol(error: io::Error) -> Error {
    Error::Protocol(error.to_string())
}

fn authentication(error: io::Error) -> Error {
    Error::Authentication(error.to_string())
}

fn unexpected(what: &str) -> Error {
    Error::Protocol(what.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pg::testing::{Cluster, on_worker};

    /// Columns with their OIDs, then the rows, then the command tag; or the error.
    async fn ask(connection: &mut Connection, query: &Query) -> String {
        match read(connection, query).await {
            Ok(shown) => shown,
            Err(Error::Sql(error)) => format!("{} {}", error.code, error.message),
            Err(error) => error.to_string(),
        }
    }

    async fn read(connection: &mut Connection, query: &Query) -> Result<String, Error> {
        let columns = connection.query(query).await?;
        let mut shown: String = columns
            .iter()
            .map(|column| format!("{}:{} ", column.name.escape_ascii(), column.oid))
            .collect();
        while let Some(row) = connection.next_row().await? {
            let values: Vec<String> = (0..row.len())
                .map(|column| {
                    row.get(column).map_or_else(
                        || "NULL".to_owned(),
                        |value| value.escape_ascii().to_string(),
                    )
                })
                .collect();
            shown.push_str(&format!("[{}]", values.join("|")));
        }
        Ok(format!("{shown}{}", connection.command_tag()))
    }

    async fn check(connection: &mut Connection, sql: &str, expected: &str) {
        assert_eq!(ask(connection, &Query::from(sql)).await, expected, "{sql}");
    }

    #[test]
    fn questions_and_answers() {
        let cluster = Cluster::start();
        on_worker(async {
            let mut c = Connection::connect(&cluster.options("")).await.unwrap();
            check(
                &mut c,
                "select 1 as a, 'x' as b, null, true",
                "a:23 b:25 ?column?:25 ?column?:16 [1|x|NULL|t]SELECT 1",
            )
            .await;
            check(
                &mut c,
                "select 1.5::numeric, '\\x01'::bytea, 'NaN'::float8",
                "numeric:1700 bytea:17 float8:701 [1.5|\\\\x01|NaN]SELECT 1",
            )
            .await;
            check(&mut c, "create temp table t (a int)", "CREATE TABLE").await;
            check(&mut c, "insert into t values (1), (2)", "INSERT 0 2").await;
            check(&mut c, "select * from t where a > 5", "a:23 SELECT 0").await;
            check(&mut c, "", "").await;
            check(&mut c, "select 1/0", "22012 division by zero").await;
            check(
                &mut c,
                "select nope",
                "42703 column \"nope\" does not exist",
            )
            .await;
            check(
                &mut c,
                "select 1; select 2",
                "42601 cannot insert multiple commands into a prepared statement",
            )
            .await;
            // The error comes after rows have gone out.
            check(
                &mut c,
                "select 1/(3-a) from generate_series(1,3) a",
                "22012 division by zero",
            )
            .await;
            check(
                &mut c,
                "select 'still here'",
                "?column?:25 [still here]SELECT 1",
            )
            .await;
            assert!(c.is_reusable() && !c.is_tls() && c.parameter("server_version").is_some());
            check(
                &mut c,
                "select application_name from pg_stat_activity where pid = pg_backend_pid()",
                "application_name:25 [nginx]SELECT 1",
            )
            .await;

            let binary = Query {
                format: Format::Binary,
                ..Query::from("select 5")
            };
            assert_eq!(
                ask(&mut c, &binary).await,
                "?column?:23 [\\x00\\x00\\x00\\x05]SELECT 1"
            );
            parameters_and_prepared_statements(&mut c).await;
            pipelined(&mut c).await;

            check(&mut c, "begin", "BEGIN").await;
            assert!(c.transaction() == TransactionStatus::Open && !c.is_reusable());
            check(&mut c, "rollback", "ROLLBACK").await;
            assert!(c.is_reusable());
            check(&mut c, "set standard_conforming_strings = off", "SET").await;
            assert!(!c.is_reusable());

            check(
                &mut c,
                "select pg_terminate_backend(pg_backend_pid())",
                "FATAL:  terminating connection due to administrator command",
            )
            .await;
            assert!(c.is_broken());

            let mut c = Connection::connect(&cluster.socket_options())
                .await
                .unwrap();
            check(&mut c, "copy (select 1) to stdout", "COPY is not supported").await;
            a_million_rows(&cluster).await;
            cancelled(&cluster).await;
            logins(&cluster).await;
        });
    }

    async fn parameters_and_prepared_statements(c: &mut Connection) {
        let param = |oid, value: Option<&str>| Param {
            oid,
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        };
        let mut query = Query::from("select $1 as a, $2 as b");
        query.params = vec![param(23, Some("41")), param(25, None)];
        query.reusable = true;
        for _ in 0..3 {
            assert_eq!(ask(c, &query).await, "a:23 b:25 [41|NULL]SELECT 1");
        }
        check(
            c,
            "select count(*) from pg_prepared_statements where statement like '%as b'",
            "count:20 [1]SELECT 1",
        )
        .await;
        query.params[0] = param(23, Some("x"));
        assert_eq!(
            ask(c, &query).await,
            "22P02 invalid input syntax for type integer: \"x\""
        );
        query.params[0] = param(25, Some("it's"));
        assert_eq!(ask(c, &query).await, "a:25 b:25 [it\\'s|NULL]SELECT 1");

        // What is prepared may become invalid.
        check(c, "create temp table changing (a int)", "CREATE TABLE").await;
        let all = Query {
            reusable: true,
            ..Query::from("select * from changing")
        };
        assert_eq!(ask(c, &all).await, "a:23 SELECT 0");
        check(c, "alter table changing add b text", "ALTER TABLE").await;
        assert_eq!(ask(c, &all).await, "a:23 b:25 SELECT 0");
        check(c, "deallocate all", "DEALLOCATE ALL").await;
        assert_eq!(ask(c, &all).await, "a:23 b:25 SELECT 0");
        let wrong = Query {
            reusable: true,
            ..Query::from("select * from nowhere")
        };
        for _ in 0..2 {
            assert_eq!(
                ask(c, &wrong).await,
                "42P01 relation \"nowhere\" does not exist"
            );
        }
    }

    async fn pipelined(c: &mut Connection) {
        for sql in ["select 1", "select 1/0", "select 3"] {
            c.send(&Query::from(sql)).unwrap();
        }
        c.start().await.unwrap();
        assert_eq!(c.next_row().await.unwrap().unwrap().get(0), Some(&b"1"[..]));
        assert!(c.next_row().await.unwrap().is_none());
        assert_eq!(c.start().await.unwrap_err().sqlstate(), Some("22012"));
        c.start().await.unwrap();
        assert_eq!(c.next_row().await.unwrap().unwrap().get(0), Some(&b"3"[..]));
        assert!(c.next_row().await.unwrap().is_none() && c.is_drained());
    }

    async fn a_million_rows(cluster: &Cluster) {
        let mut c = Connection::connect(&cluster.options("")).await.unwrap();
        c.query(&Query::from(
            "select i, repeat('x', 100) from generate_series(1, 200000) i",
        ))
        .await
        .unwrap();
        let mut rows = 0;
        while let Some(row) = c.next_row().await.unwrap() {
            rows += 1;
            assert_eq!(row.get(1).map(<[u8]>::len), Some(100));
        }
        assert_eq!((rows, c.command_tag()), (200_000, "SELECT 200000"));
    }

    async fn cancelled(cluster: &Cluster) {
        let mut c = Connection::connect(&cluster.options("")).await.unwrap();
        let slow = Query {
            timeout: Some(Duration::from_millis(50)),
            ..Query::from("select pg_sleep(30)")
        };
        assert!(matches!(c.query(&slow).await, Err(Error::QueryTimeout)));
        assert!(!c.is_drained());
        c.cancel_token().cancel().await.unwrap();
        c.timeout = None;
        c.drain().await.unwrap();
        assert!(c.is_reusable());
        check(&mut c, "select 1", "?column?:23 [1]SELECT 1").await;
    }

    async fn logins(cluster: &Cluster) {
        for user in ["md5user", "plainuser", "tester"] {
            Connection::connect(&cluster.options(&format!("user={user}")))
                .await
                .unwrap();
            let error = Connection::connect(&cluster.options(&format!("user={user} password=x")))
                .await
                .unwrap_err();
            assert_eq!(error.sqlstate(), Some("28P01"), "{error}");
        }
        let failure = async |more: &str| {
            Connection::connect(&cluster.options(more))
                .await
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            failure("dbname=nope").await,
            "connection failed: FATAL:  database \"nope\" does not exist"
        );
        assert_eq!(
            failure("password=''").await,
            "connection failed: fe_sendauth: no password supplied"
        );
        assert!(
            failure("sslmode=require")
                .await
                .ends_with("server does not support SSL, but SSL was required")
        );
        assert!(
            failure("port=1")
                .await
                .contains("connect() to 127.0.0.1:1 failed")
        );
        assert!(
            failure("client_encoding=SJIS")
                .await
                .ends_with("does not allow safe quoting")
        );
        assert!(
            failure("target_session_attrs=standby")
                .await
                .ends_with("server is not in hot standby mode")
        );
        let several = format!(
            "host=127.0.0.1,127.0.0.1 port=1,{} target_session_attrs=primary",
            cluster.port
        );
        Connection::connect(&cluster.options(&several))
            .await
            .unwrap();
    }

    #[test]
    fn a_silent_server_is_given_up() {
        on_worker(async {
            let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = silent.local_addr().unwrap().port();
            let text = format!("host=127.0.0.1 port={port} connect_timeout=100ms");
            let options = Arc::new(crate::pg::conninfo::parse_conninfo(&text).unwrap());
            assert!(matches!(
                Connection::connect(&options).await,
                Err(Error::ConnectTimeout)
            ));
        });
    }

    #[test]
    fn tls() {
        let cluster = Cluster::start();
        cluster.with_tls();
        cluster.down();
        cluster.up();
        let root = cluster.path("ca.crt").display().to_string();
        on_worker(async {
            let connect = async |more: &str| match Connection::connect(&cluster.options(more)).await
            {
                Ok(mut connection) => {
                    let row = ask(&mut connection, &Query::from("select 1")).await;
                    assert_eq!(row, "?column?:23 [1]SELECT 1");
                    if connection.is_tls() { "tls" } else { "plain" }.to_owned()
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(connect("sslmode=disable").await, "plain");
            assert_eq!(connect("sslmode=allow").await, "plain");
            assert_eq!(connect("sslmode=allow user=tlsuser").await, "tls");
            assert_eq!(connect("sslmode=prefer").await, "tls");
            assert_eq!(connect("sslmode=require").await, "tls");
            assert_eq!(
                connect(&format!("sslmode=verify-ca sslrootcert={root}")).await,
                "tls"
            );
            let full = format!("sslmode=verify-full sslrootcert={root}");
            assert_eq!(
                connect(&format!("{full} host=localhost hostaddr=127.0.0.1")).await,
                "tls"
            );
            assert!(
                connect(&full).await.contains("not valid for name"),
                "{}",
                connect(&full).await
            );
            assert!(
                connect("sslmode=verify-ca")
                    .await
                    .contains("sslrootcert is missing")
            );
            let mut c = Connection::connect(&cluster.options("sslmode=require"))
                .await
                .unwrap();
            let slow = Query {
                timeout: Some(Duration::from_millis(50)),
                ..Query::from("select pg_sleep(30)")
            };
            assert!(c.query(&slow).await.is_err());
            c.cancel_token().cancel().await.unwrap();
            c.timeout = None;
            c.drain().await.unwrap();
        });
    }
}
