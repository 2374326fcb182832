//! A request of a location with `postgres_pass`: its queries, and the answer that comes of them.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::failure::{self, Failure};
use super::interpolation::Interpolation;
use super::output::{ContentType, Encoder, Output, RdsStyle, Summary, values};
use super::query::{Attached, Queries, Query};
use super::reading::Reading;
use super::rewrite::{self, Found, Rewrite, Then};
use super::server::Servers;
use super::set::Set;
use super::sql::NoStatement;
use super::timeouts::Patience;
use super::{listen, pass, pools, redirect};
use crate::http::hook::Refusal;
use crate::http::{Body, BodyStream, Next, Request, Response};
use crate::modules::http_core;
use crate::pg::connection::{self, Column, Format, Row};
use crate::pg::conninfo::Grammar;
use crate::pg::error::Error;
use crate::pg::listener::{ListenError, Reply};
use crate::pg::pool::Pooled;
use crate::pg::sql::{MAX_NAME, Refusal as SqlRefusal, RefusalReason, Statement};
use crate::server::clock;
use crate::server::log::Level;

/// So much of a result is awaited before the answer begins: what ends within it has its errors, counts and statuses
/// told, what is longer leaves as it comes.
const HELD: usize = 128 * 1024;

/// How much of a long result is sent at once.
const CHUNK: usize = 32 * 1024;

/// How long a LISTEN may await its confirmation where nothing else is said.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// nginx's status for a client that did not wait for its answer.
const CLIENT_CLOSED: u16 = 499;

/// The content handler.
pub(super) fn handle(request: &mut Request) -> Next<'_> {
    Next::later(async move {
        let answered = match request.is_main() {
            false => answer(request).await,
            true => {
                let connection = Rc::clone(&request.connection);
                tokio::select! {
                    biased;
                    answered = answer(request) => answered,
                    // The query is cancelled by being dropped.
                    () = connection.closed() => Err(Ended::Status(CLIENT_CLOSED)),
                }
            }
        };
        match answered {
            Ok(response) => Next::Answer(response),
            Err(Ended::Status(status)) => Next::Status(status),
            Err(Ended::Redirect(location)) => Next::Redirect { status: 303, location },
        }
    })
}

/// What ends a request without a result as its answer.
enum Ended {
    /// The page for a status.
    Status(u16),
    /// The client is sent elsewhere.
    Redirect(Bytes),
}

impl From<u16> for Ended {
    fn from(status: u16) -> Self {
        Self::Status(status)
    }
}

/// What is known of a result when it is looked at: all of it, or its beginning.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) reading: Reading,
    pub(super) columns: Arc<[Column]>,
    pub(super) rows: Vec<Row>,
    /// What the command did; empty while there is more to come.
    pub(super) tag: String,
    is_whole: bool,
}

impl Collected {
    /// Whether it is one with rows, be they none.
    pub(super) fn has_rows(&self) -> bool {
        !self.columns.is_empty()
    }

    /// The number in the command's tag, as libpq's `PQcmdTuples` gives it.
    pub(super) fn command_tuples(&self) -> Option<u64> {
        let (command, numbers) = self.tag.split_once(' ')?;
        let counts = matches!(command, "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "MOVE" | "FETCH" | "COPY");
        numbers.rsplit(' ').next()?.parse().ok().filter(|_| counts)
    }

    /// How many rows a command has changed.
    fn affected(&self) -> Option<u64> {
        self.command_tuples().filter(|_| !self.tag.starts_with("SELECT"))
    }

    fn summary(&self) -> Summary {
        let oid = self.tag.strip_prefix("INSERT ").and_then(|rest| rest.split(' ').next()?.parse().ok());
        Summary { affected: self.affected(), oid: oid.unwrap_or(0) }
    }

    /// Whether it tells of an error, as the fork of 2018 finds out: a column whose name begins with `error` has a value,
    /// or where there is none, a text that looks like JSON has such a member.
    fn tells_errors(&self) -> bool {
        let column = self.columns.iter().position(|column| column.name.starts_with(b"error"));
        match column {
            Some(column) => self.rows.first().is_some_and(|row| row.get(column).is_some()),
            None => self.rows.iter().any(|row| values(row).into_iter().flatten().any(redirect::tells_errors)),
        }
    }

    /// A value of the first row, by the beginning of its column's name, or out of a text that looks like JSON.
    pub(super) fn find(&self, name: &[u8]) -> Option<Vec<u8>> {
        let row = self.rows.first()?;
        let column = self.columns.iter().position(|column| column.name.starts_with(name));
        let value = match column {
            Some(column) => row.get(column),
            None => values(row).into_iter().flatten().find_map(|text| redirect::find_in_json(text, name)),
        };
        value.map(<[u8]>::to_vec)
    }

    /// The rows in a form.
    pub(super) fn encode(&self, output: &Output) -> Bytes {
        output.encode(&self.columns, &self.summary(), &self.rows)
    }
}

/// What the answer is made of, while the queries run.
#[derive(Default)]
struct Draft {
    status: Option<u16>,
    content_type: Option<Bytes>,
    body: Option<Body>,
}

async fn answer(request: &mut Request) -> Result<Response, Ended> {
    let settings = request.settings::<Queries>();
    let reading = settings.reading;
    let (queries, common) = (Arc::clone(&settings.queries), Arc::clone(&settings.common));
    let chosen = choose(request, reading, &queries)?;
    let servers = pass::servers(request, reading)?;
    if *request.settings::<Patience>().read_body {
        request.read_body().await?;
    }
    let mut run = Run { servers, reading, common, connection: None, charset: None };
    let mut draft = Draft::default();
    for (index, query) in chosen.iter().enumerate() {
        let is_last = index + 1 == chosen.len();
        run.query(request, &queries[*query], is_last, &mut draft).await?;
    }
    let body = draft.body.unwrap_or_default();
    Ok(Response {
        status: draft.status.unwrap_or(200),
        content_type: draft.content_type,
        charset: run.charset,
        body,
        hides_length: true,
        ..Response::default()
    })
}

/// The queries for the request's method.
fn choose(request: &Request, reading: Reading, queries: &[Query]) -> Result<Vec<usize>, u16> {
    let method = request.method;
    if queries.is_empty() {
        let start = if reading == Reading::Address { "postgres: " } else { "" };
        let location = request.location().name.escape_ascii().to_string();
        request.log(Level::Error, &format!("{start}missing \"postgres_query\" in location \"{location}\""));
        return Err(500);
    }
    let all = || queries.iter().enumerate();
    let suiting: Vec<usize> = match reading {
        Reading::Libpq | Reading::Either => {
            all().filter(|(_, query)| query.methods.suit(method)).map(|(index, _)| index).collect()
        }
        Reading::Address => {
            let named = all().find(|(_, query)| query.methods.name(method));
            let chosen = named.or_else(|| all().find(|(_, query)| !query.methods.are_named()));
            chosen.map(|(index, _)| index).into_iter().collect()
        }
    };
    if suiting.is_empty() { Err(405) } else { Ok(suiting) }
}

/// The way of one request through its queries.
struct Run {
    servers: Arc<Servers>,
    reading: Reading,
    common: Arc<Attached>,
    /// All queries of a request go by one connection.
    connection: Option<Pooled>,
    charset: Option<Bytes>,
}

impl Run {
    async fn query(
        &mut self,
        request: &mut Request,
        query: &Query,
        is_last: bool,
        draft: &mut Draft,
    ) -> Result<(), Ended> {
        let facts = request.settings::<Queries>().facts;
        let resolved = query.sql.resolve(request);
        let sql = resolved.as_ref().unwrap_or(&query.sql);
        let statement = match request.settings::<Interpolation>().is_unsafe {
            false => sql.render(request),
            true => sql.paste(request),
        };
        let statement = statement.map_err(|reason| refuse(request, query, reason))?;
        let common = Arc::clone(&self.common);
        let needs_all = !is_last || draft.body.is_some();
        let plan = Plan::new(query, &common, self.servers.grammar, needs_all);
        let text = match &statement {
            // The form of 2018 shows itself as it was written.
            Statement::Query(sent) if !query.sql.text.starts_with(':') => sent.sql.clone(),
            Statement::Query(_) | Statement::Listen(_) | Statement::Unlisten(_) | Statement::UnlistenAll => query.sql.text.clone(),
        };
        if let Some(facts) = facts {
            facts.sent(request, &text);
        }
        let result = match statement {
            Statement::Query(query) => self.ask(request, query, &plan).await,
            command => self.listen(command, &plan).await,
        };
        let result = result.map_err(|failure| {
            if let (Some(facts), Some(error)) = (facts, failure.server_error(&text)) {
                request.set_variable(facts.error, Some(error.into()));
            }
            failure.report(request, self.servers.grammar)
        })?;
        self.use_result(request, &plan, result, draft)
    }

    /// Runs a statement and awaits as much of the result as must be known.
    async fn ask(&mut self, request: &Request, mut query: connection::Query, plan: &Plan<'_>) -> Result<Collected, Failure> {
        if plan.output == Output::Binary {
            query.format = Format::Binary;
        }
        let patience = request.settings::<Patience>();
        let is_old = self.servers.grammar == Grammar::Address;
        query.timeout = plan.timeout.or_else(|| is_old.then_some(*patience.result));
        let reading = self.reading;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.servers, is_old.then_some(*patience.connect)).await?),
        };
        if self.servers.names_charset() {
            self.charset = connection.parameter("client_encoding").map(charset);
        }
        let is_select = is_select(&query.sql);
        let columns = connection.query(&query).await?;
        let mut result = Collected { reading, columns, rows: Vec::new(), tag: String::new(), is_whole: false };
        let mut held = 0;
        while held < HELD || !plan.is_enough(result.rows.len(), is_select) {
            match connection.next_row().await? {
                Some(row) => {
                    held += (0..row.len()).map(|column| row.get(column).map_or(1, <[u8]>::len)).sum::<usize>() + 16;
                    result.rows.push(row);
                }
                None => {
                    result.is_whole = true;
                    connection.command_tag().clone_into(&mut result.tag);
                    break;
                }
            }
        }
        Ok(result)
    }

    /// Hands LISTEN or UNLISTEN to the listener, and awaits its word.
    async fn listen(&self, command: Statement, plan: &Plan<'_>) -> Result<Collected, Failure> {
        let listener = listen::of(&self.servers).ok_or(Failure::Listen(String::new(), ListenError::Stopped))?;
        let (tag, name, reply): (_, _, Reply) = match command {
            Statement::Listen(name) => ("LISTEN", name.clone(), listener.listen(&name)),
            Statement::Unlisten(name) => ("UNLISTEN", name.clone(), listener.unlisten(&name)),
            Statement::UnlistenAll | Statement::Query(_) => ("UNLISTEN", "*".to_owned(), listener.unlisten_all()),
        };
        let limit = plan.timeout.unwrap_or(LISTEN_TIMEOUT);
        match clock::timeout(limit, reply).await {
            None => return Err(Failure::ListenTimeout(tag, name)),
            Some(Err(error)) => return Err(Failure::Listen(name, error)),
            Some(Ok(())) => {}
        }
        let (reading, tag) = (self.reading, tag.to_owned());
        Ok(Collected { reading, columns: Arc::new([]), rows: Vec::new(), tag, is_whole: true })
    }

    /// Rewrites, variables and output of a result, in the module's order.
    fn use_result(
        &mut self,
        request: &mut Request,
        plan: &Plan<'_>,
        result: Collected,
        draft: &mut Draft,
    ) -> Result<(), Ended> {
        let is_old = self.reading == Reading::Address;
        if is_old {
            publish_facts(request, &result);
        }
        let errors = plan.needs_errors && result.has_rows();
        let errors = errors.then(|| result.tells_errors());
        let found = Found { rows: !result.rows.is_empty(), affected: result.affected(), errors };
        if let Some(rule) = rewrite::matching(plan.rules, self.reading, request.method, found) {
            rewrite(request, rule, &result, draft)?;
        }
        for set in plan.sets {
            let value = set.value(&result).map_err(|missing| {
                let start = if is_old { "postgres: " } else { "" };
                let location = request.location().name.escape_ascii().to_string();
                request.log(Level::Error, &format!("{start}{missing} in location \"{location}\""));
                500u16
            })?;
            request.set_variable(set.variable, value);
            if let Some(output) = set.output() {
                content_type(request, &output, draft);
            }
        }
        if !is_old {
            publish_facts(request, &result);
        }
        // A blank query has no result at all, so that nothing is put into a form.
        if result.is_whole && result.tag.is_empty() {
            return Ok(());
        }
        content_type(request, &plan.output, draft);
        if plan.output.is_single()
            && let Err(reason) = single(&result)
        {
            let start = if is_old { "postgres: " } else { "" };
            let location = request.location().name.escape_ascii().to_string();
            let name = if plan.output == Output::Binary && is_old { "binary_value" } else { "value" };
            request.log(Level::Error, &format!("{start}\"postgres_output {name}\" received {reason} in location \"{location}\""));
            return Err(Ended::Status(500));
        }
        if draft.body.is_some() {
            return Ok(());
        }
        if result.is_whole {
            let body = result.encode(&plan.output);
            draft.body = (!body.is_empty()).then_some(Body::Full(body));
            return Ok(());
        }
        // Only the last query's result is left to come.
        let encoder = plan.output.encoder(&result.columns, &result.summary());
        if let Some(connection) = self.connection.take() {
            draft.body = Some(Body::Stream(Box::new(Rest { held: Some(result.rows), connection, encoder, is_over: false })));
        }
        Ok(())
    }
}

/// What is wanted of one query's result.
struct Plan<'q> {
    output: Output,
    rules: &'q [Rewrite],
    sets: &'q [Set],
    timeout: Option<Duration>,
    needs_all: bool,
    needs_tag: bool,
    needs_errors: bool,
    rows: usize,
}

impl<'q> Plan<'q> {
    fn new(query: &'q Query, common: &'q Attached, grammar: Grammar, needs_all: bool) -> Self {
        let own = &query.attached;
        let output = own.output.as_ref().or(common.output.as_ref()).cloned();
        let output = output.unwrap_or(match grammar {
            Grammar::Address => Output::Text,
            Grammar::Libpq => Output::None,
        });
        let sets = if own.sets.is_empty() { &common.sets } else { &own.sets };
        let rules = if own.rewrites.is_empty() { &common.rewrites } else { &own.rewrites };
        let sets_need_all = sets.iter().any(|set| set.rows_needed().is_none());
        // The two forms that say at their beginning what a command has changed.
        let tells_changes = matches!(output, Output::Rds(RdsStyle::Old | RdsStyle::New));
        let needs_errors = rules.iter().any(|rule| rule.condition().is_about_errors());
        Self {
            needs_all: needs_all || sets_need_all || needs_errors,
            needs_errors,
            needs_tag: tells_changes || rules.iter().any(|rule| rule.condition().is_about_changes()),
            rows: sets.iter().filter_map(Set::rows_needed).max().unwrap_or(0).max(2),
            timeout: own.timeout.or(common.timeout),
            output,
            rules,
            sets,
        }
    }

    /// Whether so many rows tell all that must be known before the answer begins.
    fn is_enough(&self, rows: usize, is_select: bool) -> bool {
        !self.needs_all && (!self.needs_tag || is_select) && rows >= self.rows
    }
}

/// Whether a statement changes nothing, as far as its first word tells.
fn is_select(sql: &str) -> bool {
    let first = sql.trim_start().split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default();
    ["select", "values", "table", "show"].iter().any(|word| first.eq_ignore_ascii_case(word))
}

/// Carries a rule out.
fn rewrite(request: &mut Request, rule: &Rewrite, result: &Collected, draft: &mut Draft) -> Result<(), Ended> {
    match &rule.then {
        Then::Status { status, keeps_body: false } if *status >= 300 => return Err(Ended::Status(*status)),
        Then::Status { status, .. } => draft.status = Some(*status),
        Then::Html(variable, text) => request.set_variable(*variable, Some(text.clone())),
        Then::Redirect(target) => {
            let values = rule.condition().is_about_errors().then_some(result);
            return Err(Ended::Redirect(target.location(request, values)));
        }
    }
    Ok(())
}

async fn connect(servers: &Arc<Servers>, limit: Option<Duration>) -> Result<Pooled, Error> {
    let pool = pools::pool(servers);
    match limit {
        None => pool.get().await,
        Some(limit) => clock::timeout(limit, pool.get()).await.unwrap_or(Err(Error::ConnectTimeout)),
    }
}

/// The status for what never became a statement, and the reason for the log and the client.
fn refuse(request: &mut Request, query: &Query, reason: NoStatement) -> u16 {
    match reason {
        NoStatement::Broken(error) => {
            request.log(Level::Error, &format!("postgres: {error} in query \"{}\"", query.sql.text.escape_default()));
            500
        }
        NoStatement::Refused(refusal) => {
            request.log(Level::Error, &format!("postgres: {refusal}, in query \"{}\"", query.sql.text.escape_default()));
            if let SqlRefusal { reason: RefusalReason::NameTooLong, .. } = refusal {
                let reason = format!("the channel's name is longer than {MAX_NAME} bytes");
                *request.note_mut::<Option<Refusal>>() = Some(Refusal { close_code: 1008, reason });
            }
            400
        }
    }
}

/// Keeps what `$postgres_...` read.
fn publish_facts(request: &mut Request, result: &Collected) {
    let Some(facts) = request.settings::<Queries>().facts else { return };
    let number = |number: usize| Some(Bytes::from(number.to_string()));
    let affected = result.affected().map(|rows| Bytes::from(rows.to_string()));
    let (fields, rows) = (number(result.columns.len()), number(result.rows.len()).filter(|_| result.is_whole));
    request.set_variable(facts.columns, fields.clone());
    request.set_variable(facts.rows, rows.clone());
    request.set_variable(facts.affected, affected.clone());
    request.set_variable(facts.nfields, fields.filter(|_| result.has_rows()));
    request.set_variable(facts.ntuples, rows.filter(|_| result.has_rows()));
    request.set_variable(facts.cmdtuples, affected);
    request.set_variable(facts.cmdstatus, Some(result.tag.clone().into()));
}

fn content_type(request: &Request, output: &Output, draft: &mut Draft) {
    match output.content_type() {
        ContentType::Unchanged => {}
        ContentType::Default => draft.content_type = Some(http_core::content_type(request)),
        ContentType::Is(name) => draft.content_type = Some(Bytes::from_static(name.as_bytes())),
    }
}

/// Whether a result is one value that there is.
fn single(result: &Collected) -> Result<(), String> {
    let count = result.rows.len() * result.columns.len();
    match result.rows.as_slice() {
        [row] if row.len() == 1 && result.is_whole => match row.get(0) {
            None => Err("NULL value".to_owned()),
            Some(b"") => Err("empty value".to_owned()),
            Some(_) => Ok(()),
        },
        _ => Err(format!("{count} value(s) instead of expected single value")),
    }
}

/// The charset as nginx names it.
fn charset(encoding: &str) -> Bytes {
    match encoding {
        "UTF8" => Bytes::from_static(b"utf-8"),
        "windows1251" => Bytes::from_static(b"windows-1251"),
        "koi8r" => Bytes::from_static(b"koi8-r"),
        other => Bytes::copy_from_slice(other.as_bytes()),
    }
}

/// A result that leaves as it comes. Dropped before its end, its query is cancelled.
struct Rest {
    /// The rows that came before the answer began.
    held: Option<Vec<Row>>,
    connection: Pooled,
    encoder: Encoder,
    is_over: bool,
}

impl BodyStream for Rest {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + '_>> {
        Box::pin(async {
            if self.is_over {
                return None;
            }
            let mut out = BytesMut::new();
            for row in self.held.take().into_iter().flatten() {
                self.encoder.row(&values(&row), &mut out);
            }
            while out.len() < CHUNK {
                match self.connection.next_row().await {
                    Ok(Some(row)) => self.encoder.row(&values(&row), &mut out),
                    Ok(None) => {
                        self.is_over = true;
                        self.encoder.end(&mut out);
                        break;
                    }
                    Err(error) => {
                        self.is_over = true;
                        failure::in_the_middle(&error);
                        return Some(Err(io::Error::other(error.to_string())));
                    }
                }
            }
            Some(Ok(out.freeze()))
        })
    }
}
