//! `postgres_query`, and the section that all directives about queries share.

use std::sync::Arc;
use std::time::Duration;

use super::methods::{self, Methods};
use super::output::Output;
use super::reading::Reading;
use super::rewrite::Rewrite;
use super::server;
use super::set::Set;
use super::sql::Sql;
use super::variables::Facts;
use crate::config::{Args, Call, Contexts, Cx, Diagnostic, Directive, Fault, Merge, Position, Section, Severity, Slot};

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "postgres_query",
    contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION),
    args: Args::SOME,
    syntax: "[method ...] sql | [method ...] file:path",
    doc: "The statement that a location runs, for all methods or those named before it.\n\n\
          `$name::type` is a parameter of that type; empty or unset it is NULL. Any other variable (in configurations \
          with servers in the grammar of 2015 and 2018) has its value placed in the text, quoted for its place: it can \
          be a number, a name, a literal or the inside of one, and never anything more. A value that would be more is \
          refused with 400 (the originals paste it as it comes).\n\n\
          In today's grammar all queries that suit the method run one after another on one connection; in the older \
          ones the query for the method does, or else the one without methods. LISTEN and UNLISTEN go to the one \
          connection of the process that listens.\n\n\
          `file:path` takes the statement from a file, which is read with the configuration; a relative path hangs on the \
          prefix.\n\n\
          Example: `postgres_query \"select now()\";`",
    file: file!(),
    apply: postgres_query,
    ..Directive::BASE
}];

/// A query and what belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) methods: Methods,
    pub(super) sql: Sql,
    /// Where it was written.
    pub(super) at: Position,
    /// What today's module attaches to the query that stands before.
    pub(super) attached: Attached,
}

/// What is done with a result: of one query, or of those of the location.
#[derive(Clone, Debug, Default)]
pub(super) struct Attached {
    pub(super) output: Option<Output>,
    pub(super) rewrites: Vec<Rewrite>,
    pub(super) sets: Vec<Set>,
    pub(super) timeout: Option<Duration>,
}

/// The queries of a location.
#[derive(Clone, Debug)]
pub(super) struct Queries {
    /// How the directives were read.
    pub(super) reading: Reading,
    pub(super) queries: Arc<[Query]>,
    /// What holds for all of them.
    pub(super) common: Arc<Attached>,
    /// Where `$postgres_...` are kept.
    pub(super) facts: Option<Facts>,
}

/// What a block says.
#[derive(Debug, Default)]
pub(super) struct RawQueries {
    pub(super) reading: Reading,
    pub(super) queries: Vec<Query>,
    pub(super) common: Attached,
    facts: Option<Facts>,
}

impl Section for Queries {
    type Raw = RawQueries;
    const ALWAYS: bool = true;

    fn merge(raw: &RawQueries, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        let inherits = parent.filter(|_| raw.queries.is_empty());
        let common = parent.map(|parent| &*parent.common);
        let common = Attached {
            output: raw.common.output.clone().or_else(|| common.and_then(|common| common.output.clone())),
            rewrites: own_or(&raw.common.rewrites, common.map(|common| &common.rewrites)),
            sets: own_or(&raw.common.sets, common.map(|common| &common.sets)),
            // The one thing that is not inherited from the server or `http` block.
            timeout: raw
                .common
                .timeout
                .or_else(|| common.filter(|_| cx.context == Contexts::IF_LOCATION).and_then(|common| common.timeout)),
        };
        Self {
            reading: inherits.map_or(raw.reading, |parent| parent.reading),
            queries: inherits.map_or_else(|| raw.queries.as_slice().into(), |parent| Arc::clone(&parent.queries)),
            common: Arc::new(common),
            facts: raw.facts.or_else(|| parent.and_then(|parent| parent.facts)),
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn own_or<T: Clone>(own: &[T], parent: Option<&Vec<T>>) -> Vec<T> {
    match parent {
        Some(parent) if own.is_empty() => parent.clone(),
        _ => own.to_vec(),
    }
}

fn postgres_query(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let reading = Reading::of(cx);
    let (methods, text) = match reading {
        Reading::Address => old_words(cx, call)?,
        Reading::Libpq | Reading::Either => words(call)?,
    };
    let text = from_file(cx, call, text)?;
    let sql = Sql::compile(text, reading, cx, call);
    look_at(cx, call, &sql);
    let facts = Facts::declare(cx);
    let raw = cx.edit::<Queries>();
    raw.reading = reading;
    raw.facts = Some(facts);
    raw.queries.push(Query { methods, sql, at: call.at(), attached: Attached::default() });
    Ok(())
}

/// Leading methods, and the rest as the statement.
fn words(call: &Call<'_>) -> Result<(Methods, String), Fault> {
    let mut named = Methods::default();
    let mut first = 0;
    while let Some(method) = methods::new(&call.text(first)).filter(|_| first < call.len()) {
        named.add(method);
        first += 1;
    }
    let rest: Vec<_> = call.words().skip(first).collect();
    let text = utf8(call, &rest.join(&b' '))?;
    if text.is_empty() {
        return Err(server::error(call, "empty query"));
    }
    Ok((named, text))
}

/// The last word as the statement, and methods before it.
fn old_words(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(Methods, String), Fault> {
    let last = call.len() - 1;
    let mut named = Methods::default();
    let said = &cx.edit::<Queries>().queries;
    for index in 0..last {
        let word = call.text(index);
        let fault = |text: &str| Fault::new(format!("postgres: {text} in \"postgres_query\" directive")).word(index);
        let method = methods::old(&word).ok_or_else(|| fault(&format!("invalid method \"{word}\"")))?;
        if named.name(method) || said.iter().any(|query| query.methods.name(method)) {
            return Err(fault(&format!("method \"{word}\" is duplicate")).code("duplicate"));
        }
        named.add(method);
    }
    if call.bytes(last).is_empty() {
        return Err(Fault::new("postgres: empty query in \"postgres_query\" directive").word(last));
    }
    if last == 0 && said.iter().any(|query| !query.methods.are_named()) {
        return Err(call.duplicate());
    }
    Ok((named, utf8(call, call.bytes(last))?))
}

fn utf8(call: &Call<'_>, text: &[u8]) -> Result<String, Fault> {
    String::from_utf8(text.to_vec()).map_err(|_| call.fault("is not UTF-8").help("write the statement in UTF-8"))
}

/// The text of `file:path`, which `file://path` says, too; any other is the statement itself.
fn from_file(cx: &Cx<'_>, call: &Call<'_>, text: String) -> Result<String, Fault> {
    let Some((_, path)) = text.split_at_checked(5).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("file:")) else {
        return Ok(text);
    };
    let path = cx.options().full_path(path.strip_prefix("//").unwrap_or(path));
    let last = call.len() - 1;
    let read = std::fs::read(&path).map_err(|error| {
        let (number, text) = (error.raw_os_error().unwrap_or(0), error.to_string());
        let reason = text.split(" (os error").next().unwrap_or(&text);
        Fault::new(format!("open() \"{}\" failed ({number}: {reason})", path.display()))
            .word(last)
            .code("unreadable-file")
    })?;
    match utf8(call, &read)? {
        text if text.trim().is_empty() => Err(server::error(call, "empty query").word(last)),
        text => Ok(text),
    }
}

/// What `check` says of a statement.
fn look_at(cx: &mut Cx<'_>, call: &Call<'_>, sql: &Sql) {
    let lint = |code, message: String| Diagnostic::new(Severity::Lint, code, message).near(Some(call.at()));
    if let Some(error) = sql.error() {
        let help = "the location will answer 500 to every request";
        cx.report(lint("bad-sql", error.to_string()).help(help));
    }
    if let Some(name) = untyped(cx, sql) {
        let message = format!("\"${name}\" is no variable without a type here, and stays in the statement as it is");
        let help = match sql.is_listen() {
            true => format!("write: ${name}::id, without quotes"),
            false => format!("write: ${name}::text, without quotes"),
        };
        cx.report(lint("untyped-variable", message).help(help));
    }
    if sql.is_listen() {
        if sql.text.trim_start().get(..8).is_some_and(|word| word.eq_ignore_ascii_case("unlisten")) {
            let note = "UNLISTEN takes effect only when the channel's last client has left";
            cx.report(Diagnostic::new(Severity::Info, "unlisten", note).near(Some(call.at())));
        }
        return;
    }
    let spliced: Vec<&str> = sql.spliced().into_iter().filter(|name| is_clients(name)).collect();
    if let Some(name) = spliced.first() {
        let message = format!("what a client sends as \"${name}\" becomes part of the SQL text");
        let help = format!("it is quoted for its place, or refused; better pass it as a parameter: ${name}::text");
        cx.report(lint("spliced-sql", message).help(help));
    }
}

/// What in a statement of today's grammar looks like one of the configuration's variables, or a client's, and is none.
fn untyped(cx: &mut Cx<'_>, sql: &Sql) -> Option<String> {
    let is_variable = |name: &&String| is_clients(name) || cx.variables().id(name).is_some();
    sql.untyped().iter().find(is_variable).cloned()
}

/// Whether a client chooses a variable's value.
pub(super) fn is_clients(name: &str) -> bool {
    const NAMES: [&str; 7] = ["args", "query_string", "uri", "request_uri", "document_uri", "request_body", "request"];
    let families = ["arg_", "http_", "cookie_"];
    NAMES.contains(&name) || families.iter().any(|family| name.starts_with(family))
}

/// The query that a directive of today's module belongs to, or all of the block: where the older ones are read, or
/// nothing tells.
pub(super) fn attach<'c>(cx: &'c mut Cx<'_>, call: &Call<'_>) -> Result<&'c mut Attached, Fault> {
    let reading = Reading::of(cx);
    let raw = cx.edit::<Queries>();
    match raw.queries.last_mut() {
        Some(query) if reading != Reading::Address => Ok(&mut query.attached),
        None if reading == Reading::Libpq => Err(call.fault("must defined after \"postgres_query\" directive")),
        _ => Ok(&mut raw.common),
    }
}
