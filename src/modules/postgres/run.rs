//! A request of a location with `postgres_pass`: its queries, and the answer that comes of them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::failure::Failure;
use super::interpolation::Interpolation;
use super::output::{ContentType, JsonStyle, Output};
use super::plan::{self, Plan};
use super::query::{Attached, Queries, Query};
use super::reading::Reading;
use super::result::{Collected, Rest};
use super::rewrite::{self, Found, Rewrite, Then};
use super::server::Servers;
use super::sql::NoStatement;
use super::timeouts::Patience;
use super::{listen, pass, pools};
use crate::config::{VarId, Variable};
use crate::http::{Body, Next, Request, Response};
use crate::modules::http_core;
use crate::pg::connection::{self, Format};
use crate::pg::conninfo::Grammar;
use crate::pg::error::Error;
use crate::pg::listener::{ListenError, Reply};
use crate::pg::pool::Pooled;
use crate::pg::sql::Statement;
use crate::server::clock;
use crate::server::log::{Level, shown};

/// So much of a result is awaited before the answer begins: what ends within it has its errors, counts and statuses
/// told, what is longer leaves as it comes.
const HELD: usize = 128 * 1024;

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
                    _ = connection.closed() => Err(Ended::Status(CLIENT_CLOSED)),
                }
            }
        };
        match answered {
            Ok(response) => Next::answer(response),
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
        let location = shown(&request.location().name).to_string();
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
            Statement::Query(_) | Statement::Listen(_) | Statement::Unlisten(_) | Statement::UnlistenAll => {
                query.sql.text.clone()
            }
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
    async fn ask(
        &mut self,
        request: &Request,
        mut query: connection::Query,
        plan: &Plan<'_>,
    ) -> Result<Collected, Failure> {
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
        let is_select = plan::is_select(&query.sql);
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
            Statement::Listen(name) => {
                let name = listen::channel_name(name);
                ("LISTEN", name.clone(), listener.listen(&name))
            }
            Statement::Unlisten(name) => {
                let name = listen::channel_name(name);
                ("UNLISTEN", name.clone(), listener.unlisten(&name))
            }
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
        let facts = request.settings::<Queries>().facts;
        if let Some(facts) = facts.filter(|_| is_old) {
            facts.came(request, &result);
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
                let location = shown(&request.location().name).to_string();
                request.log(Level::Error, &format!("{start}{missing} in location \"{location}\""));
                500u16
            })?;
            request.set_variable(set.variable, value);
            if let Some(output) = set.output() {
                content_type(request, &output, draft);
            }
        }
        if let Some(facts) = facts.filter(|_| !is_old) {
            facts.came(request, &result);
        }
        // A blank query has no result at all, so that nothing is put into a form.
        if result.is_whole && result.tag.is_empty() {
            return Ok(());
        }
        content_type(request, &plan.output, draft);
        if plan.output == Output::Json(JsonStyle::Old) && !request.is_main() {
            share(request, &result);
        }
        if plan.output.is_single()
            && let Err(reason) = result.single()
        {
            let start = if is_old { "postgres: " } else { "" };
            let location = shown(&request.location().name).to_string();
            let name = if plan.output == Output::Binary && is_old { "binary_value" } else { "value" };
            request.log(
                Level::Error,
                &format!("{start}\"postgres_output {name}\" received {reason} in location \"{location}\""),
            );
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
            let (held, log) = (Some(result.rows), request.later_log());
            draft.body = Some(Body::Stream(Box::new(Rest { held, connection, encoder, is_over: false, log })));
        }
        Ok(())
    }
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
            request
                .log(Level::Error, &format!("postgres: {refusal}, in query \"{}\"", query.sql.text.escape_default()));
            400
        }
    }
}

fn content_type(request: &Request, output: &Output, draft: &mut Draft) {
    match output.content_type() {
        ContentType::Unchanged => {}
        ContentType::Default => draft.content_type = Some(http_core::content_type(request)),
        ContentType::Is(name) => draft.content_type = Some(Bytes::from_static(name.as_bytes())),
    }
}

/// In the fork of 2018 the JSON of a subrequest fills variables of the main request, too: those that are named like a
/// column and have no value yet.
fn share(request: &mut Request, result: &Collected) {
    let Some(row) = result.rows.first() else { return };
    for (index, column) in result.columns.iter().enumerate() {
        let name = String::from_utf8_lossy(&column.name);
        let id = request.compiled.config.built.variables.id(&name);
        let is_own = |id: &VarId| request.compiled.variables().get(id.0 as usize).is_some_and(Variable::is_assigned);
        let empty = |id: &VarId| request.variable(*id).is_none_or(|value| value.is_empty());
        if let Some(id) = id.filter(is_own).filter(empty) {
            request.set_variable(id, row.get_bytes(index));
        }
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
