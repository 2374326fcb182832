//! What stands in an `upstream` block: `postgres_server`, `postgres_keepalive`, `postgres_queue`, and the logs of
//! today's module.

use std::sync::Arc;
use std::time::Duration;

use crate::config::value::{parse_msec, parse_number};
use crate::config::{Args, Builder, Call, Contexts, Cx, Diagnostic, Directive, Fault, Merge, Section, Severity, Slot};
use crate::pg::conninfo::{self, ConnectOptions, ConninfoError, Grammar, ServerLine};
use crate::pg::journal::Journal;
use crate::pg::listener::ListenerOptions;
use crate::pg::pool::{Keepalive, Overflow, PoolOptions, Queue};
use crate::server::log::{LogSettings, Target};

/// The rows that this file brings.
pub(super) const COMMANDS: [Directive; 6] = [
    Directive {
        name: "postgres_server",
        contexts: Contexts::UPSTREAM,
        args: Args::SOME,
        syntax: "address[:port] [dbname=name] [user=name] [password=word] [port=number] | connection string or URI of libpq \
                 [weight=n] [max_conns=n] [max_fails=n] [fail_timeout=time] [backup] [down]",
        doc: "A PostgreSQL server of the upstream, in the grammar of 2015 and 2018 or in libpq's; the first word tells \
              which. libpq's takes several hosts, TLS (`sslmode`, `sslrootcert`, `sslcert`, `sslkey`), \
              `target_session_attrs`, `options`, `client_encoding` and `connect_timeout`.\n\n\
              Several servers are used in turn; one that fails is left out for `fail_timeout` and the next is tried \
              (the original answers with an error at once).\n\n\
              Example: `postgres_server 127.0.0.1:5432 dbname=test user=test password=test;`",
        file: file!(),
        apply: postgres_server,
        ..Directive::BASE
    },
    Directive {
        name: "postgres_keepalive",
        contexts: Contexts::UPSTREAM,
        args: Args::SOME,
        syntax: "off | [max=n] [mode=single|multi] [overflow=ignore|reject] | n [overflow=ignore|reject] [timeout=time] \
                 [requests=n]",
        doc: "How many connections to the upstream each worker keeps. In the grammar of 2015 and 2018 ten are kept where \
              nothing is said; in today's none, and each request connects anew. When all are busy, `overflow=ignore` \
              opens one more and `overflow=reject` refuses the request.",
        file: file!(),
        apply: postgres_keepalive,
        ..Directive::BASE
    },
    Directive {
        name: "postgres_queue",
        contexts: Contexts::UPSTREAM,
        args: Args::between(1, 3),
        syntax: "n [overflow=ignore|reject] [timeout=time]",
        doc: "How many requests wait for a connection when all that `postgres_keepalive` allows are busy, and how long \
              (60 s); then they get 504.",
        file: file!(),
        apply: postgres_queue,
        ..Directive::BASE
    },
    Directive {
        name: "postgres_listen_canary",
        contexts: Contexts::UPSTREAM,
        once: true,
        syntax: "off | time",
        default: "30s",
        doc: "How often the connection that listens sends a notification to a channel of its own: one that does not come \
              back shows that the connection is deaf, and it is made anew.",
        file: file!(),
        apply: postgres_listen_canary,
        ..Directive::BASE
    },
    Directive {
        name: "postgres_log",
        contexts: Contexts::UPSTREAM,
        args: Args::SOME,
        syntax: "file [level]",
        doc: "A log for what concerns the connections to an upstream rather than a request: made, lost and closed (at \
              `info`), what the server tells of its own accord (at `warn`, `notice`, `info` or `debug`), and the listener's \
              fate, which is in the error log otherwise. The file may be `stderr`; the level is `error` where none is given.\n\n\
              Example: `postgres_log logs/postgres.log info;`",
        file: file!(),
        apply: journal,
        ..Directive::BASE
    },
    Directive {
        name: "postgres_trace",
        contexts: Contexts::UPSTREAM,
        args: Args::SOME,
        syntax: "file [level]",
        doc: "A file for all messages to and from an upstream's servers, in the form of libpq's trace: time, `F` (to the \
              server) or `B`, length, name, content. It begins after each login and leaves the listener's connection out. \
              Values are in it: for finding faults, not for every day. A level is accepted and says nothing.\n\n\
              Example: `postgres_trace logs/postgres.trace;`",
        file: file!(),
        apply: journal,
        ..Directive::BASE
    },
];

/// The connections that an older configuration keeps where it says nothing.
const DEFAULT_MAX: usize = 10;

/// How long a request waits in the queue where nothing is said.
const DEFAULT_WAIT: Duration = Duration::from_secs(60);

/// How long a connection of today's module stays idle where nothing is said.
const DEFAULT_IDLE: Duration = Duration::from_secs(60 * 60);

/// How many requests a connection of today's module carries where nothing is said.
const DEFAULT_REQUESTS: u64 = 1000;

/// How often the canary flies where nothing is said.
const DEFAULT_CANARY: Duration = Duration::from_secs(30);

/// The PostgreSQL side of an upstream.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Its servers; `None` where there are none of PostgreSQL.
    pub(super) servers: Option<Arc<Servers>>,
}

/// The servers of an upstream, and how their connections are kept.
#[derive(Debug, PartialEq)]
pub(super) struct Servers {
    /// The upstream's name, or the connection string that stands for one.
    pub(super) name: String,
    is_direct: bool,
    /// The grammar of the first server.
    pub(super) grammar: Grammar,
    lines: Vec<ServerLine>,
    keepalive: Option<Keepalive>,
    queue: Option<Queue>,
    canary: Option<Duration>,
}

/// What the block says.
#[derive(Debug, Default)]
pub(super) struct RawUpstream {
    name: String,
    lines: Vec<ServerLine>,
    /// `Some(None)`: switched off.
    keepalive: Option<Option<Keepalive>>,
    queue: Option<Queue>,
    /// `Some(None)`: switched off.
    canary: Option<Option<Duration>>,
    logs: Vec<Target>,
    traces: Vec<Target>,
}

impl RawUpstream {
    /// The grammar of the first server.
    pub(super) fn grammar(&self) -> Option<Grammar> {
        self.lines.first().map(|line| line.grammar)
    }
}

impl Section for Upstream {
    type Raw = RawUpstream;

    fn merge(raw: &RawUpstream, _: Option<&Self>, _: &mut Merge<'_>) -> Self {
        let servers = raw.grammar().map(|grammar| {
            let by_default = (grammar == Grammar::Address).then_some(Keepalive {
                max: DEFAULT_MAX,
                overflow: Overflow::Ignore,
                idle_timeout: None,
                requests: None,
                any_server: true,
            });
            let keepalive = raw.keepalive.unwrap_or(by_default);
            let (name, mut lines, queue) = (raw.name.clone(), raw.lines.clone(), raw.queue);
            let journal = Journal { log: settings(&raw.logs), trace: settings(&raw.traces) };
            for line in &mut lines {
                line.connect.journal = journal.clone();
            }
            let canary = raw.canary.unwrap_or(Some(DEFAULT_CANARY));
            Arc::new(Servers { name, is_direct: false, grammar, lines, keepalive, queue, canary })
        });
        Self { servers }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

impl Servers {
    /// The server of a connection string that a location names by itself; its connections are not kept.
    pub(super) fn direct(words: &[&str]) -> Result<Self, ConninfoError> {
        let line = conninfo::parse_server(words)?;
        Ok(Self {
            name: words.join(" "),
            is_direct: true,
            grammar: Grammar::Libpq,
            lines: vec![line],
            keepalive: None,
            queue: None,
            canary: Some(DEFAULT_CANARY),
        })
    }

    /// What a log calls them; a connection string may hold a password.
    pub(super) fn label(&self) -> String {
        if !self.is_direct {
            return self.name.clone();
        }
        let hosts = self.lines.iter().flat_map(|line| &line.connect.hosts).map(ToString::to_string);
        hosts.collect::<Vec<_>>().join(", ")
    }

    /// What a pool of them needs.
    pub(super) fn pool_options(&self) -> PoolOptions {
        let servers = self.lines.iter().cloned().map(Into::into).collect();
        PoolOptions { servers, keepalive: self.keepalive, queue: self.queue }
    }

    /// Where to connect.
    pub(super) fn connections(&self) -> Vec<Arc<ConnectOptions>> {
        let up = self.lines.iter().filter(|line| !line.down);
        up.map(|line| Arc::new(line.connect.clone())).collect()
    }

    /// What a listener of them needs.
    pub(super) fn listener_options(&self) -> ListenerOptions {
        ListenerOptions { canary: self.canary, ..ListenerOptions::new(self.connections()) }
    }

    /// What is written of the connections.
    pub(super) fn journal(&self) -> Journal {
        self.lines.first().map(|line| line.connect.journal.clone()).unwrap_or_default()
    }

    /// Whether answers name the charset of the connection, as they do where an encoding was asked for.
    pub(super) fn names_charset(&self) -> bool {
        self.lines.iter().any(|line| line.connect.client_encoding.is_some())
    }
}

fn postgres_server(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let words: Vec<_> = call.words().map(String::from_utf8_lossy).collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    let line = conninfo::parse_server(&words).map_err(|error| conninfo_fault("postgres_server", &error))?;
    let name = cx.upstream().map(|upstream| {
        upstream.has_servers = true;
        upstream.name.clone()
    });
    let raw = cx.edit::<Upstream>();
    raw.name = name.unwrap_or_default();
    raw.lines.push(line);
    Ok(())
}

/// The words of the module for what is wrong with a connection.
pub(super) fn conninfo_fault(directive: &str, error: &ConninfoError) -> Fault {
    match error {
        ConninfoError::InvalidParameter(_) | ConninfoError::InvalidPort(_) | ConninfoError::InvalidHost(_) => {
            Fault::new(error.to_string())
        }
        ConninfoError::Port(value) | ConninfoError::Time(value) => {
            Fault::new(error.to_string()).placeless().help(format!("what can't be read is \"{value}\""))
        }
        _ => Fault::new(format!("\"{directive}\" directive error: {error}")),
    }
}

fn postgres_keepalive(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let said = cx.edit::<Upstream>();
    if said.keepalive.is_some() {
        return Err(call.duplicate());
    }
    let (grammar, servers) = (said.grammar(), said.lines.len());
    // Before any server the words themselves tell.
    let is_old = call.bytes(0) == b"off" || [b"max=", b"mode"].iter().any(|start| call.bytes(0).starts_with(*start));
    let keepalive = match grammar {
        Some(Grammar::Address) => old_keepalive(call)?,
        None if is_old => old_keepalive(call)?,
        _ => Some(keepalive(call, servers)?),
    };
    cx.edit::<Upstream>().keepalive = Some(keepalive);
    Ok(())
}

/// `off | [max=n] [mode=single|multi] [overflow=ignore|reject]`
fn old_keepalive(call: &Call<'_>) -> Result<Option<Keepalive>, Fault> {
    if call.len() == 1 && call.bytes(0) == b"off" {
        return Ok(None);
    }
    let directive = "in \"postgres_keepalive\" directive";
    let mut keepalive = Keepalive {
        max: DEFAULT_MAX,
        overflow: Overflow::Ignore,
        idle_timeout: None,
        requests: None,
        any_server: true,
    };
    for index in 0..call.len() {
        let word = call.text(index);
        let (name, value) = word.split_once('=').unwrap_or((&word, ""));
        let invalid = || Fault::new(format!("postgres: invalid \"{name}\" value \"{value}\" {directive}")).word(index);
        match (name, value.to_ascii_lowercase().as_str()) {
            ("max", number) => keepalive.max = count(number).ok_or_else(invalid)?,
            ("mode", "single") => keepalive.any_server = true,
            ("mode", "multi") => keepalive.any_server = false,
            ("overflow", "ignore") => keepalive.overflow = Overflow::Ignore,
            ("overflow", "reject") => keepalive.overflow = Overflow::Reject,
            ("mode" | "overflow", _) => return Err(invalid()),
            _ => return Err(Fault::new(format!("postgres: invalid parameter \"{word}\" {directive}")).word(index)),
        }
    }
    Ok(Some(keepalive))
}

/// `n [overflow=ignore|reject] [timeout=time] [requests=n]`
fn keepalive(call: &Call<'_>, servers: usize) -> Result<Keepalive, Fault> {
    let max = positive(call, 0)?;
    if max < servers {
        let text = format!("\"{max}\" must be greater or equal than servers count ({servers})");
        return Err(error(call, &text).word(0));
    }
    let mut keepalive = Keepalive {
        max,
        overflow: Overflow::Ignore,
        idle_timeout: Some(DEFAULT_IDLE),
        requests: Some(DEFAULT_REQUESTS),
        any_server: false,
    };
    for index in 1..call.len() {
        let word = call.text(index);
        let must_be = |what: &str| option_must_be(call, index, what);
        match word.split_once('=') {
            Some(("overflow", value)) => keepalive.overflow = overflow(value).ok_or_else(|| must_be(OVERFLOWS))?,
            Some(("timeout", value)) => {
                let timeout = parse_msec(value.as_bytes()).ok_or_else(|| must_be("time"))?;
                keepalive.idle_timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
            }
            Some(("requests", value)) => {
                let requests = parse_number(value.as_bytes()).ok_or_else(|| must_be("number"))?;
                keepalive.requests = Some(requests).filter(|requests| *requests > 0);
            }
            _ => return Err(additional(call, index)),
        }
    }
    Ok(keepalive)
}

fn postgres_queue(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let said = cx.edit::<Upstream>();
    if !matches!(said.keepalive, Some(Some(_))) {
        return Err(call.fault("works only with \"postgres_keepalive\""));
    }
    if said.queue.is_some() {
        return Err(call.duplicate());
    }
    let mut queue = Queue { max: positive(call, 0)?, overflow: Overflow::Ignore, timeout: DEFAULT_WAIT };
    for index in 1..call.len() {
        let word = call.text(index);
        let must_be = |what: &str| option_must_be(call, index, what);
        match word.split_once('=') {
            Some(("overflow", value)) => queue.overflow = overflow(value).ok_or_else(|| must_be(OVERFLOWS))?,
            Some(("timeout", value)) => {
                queue.timeout = parse_msec(value.as_bytes()).ok_or_else(|| must_be("time"))?;
                if queue.timeout.is_zero() {
                    return Err(must_be("positive"));
                }
            }
            _ => return Err(additional(call, index)),
        }
    }
    cx.edit::<Upstream>().queue = Some(queue);
    Ok(())
}

/// `postgres_log` and `postgres_trace`; several of each are all written to.
fn journal(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let target = Target::parse(call, cx)?;
    let raw = cx.edit::<Upstream>();
    let targets = if call.name_bytes() == b"postgres_log" { &mut raw.logs } else { &mut raw.traces };
    targets.push(target);
    Ok(())
}

fn settings(targets: &[Target]) -> Option<Arc<LogSettings>> {
    (!targets.is_empty()).then(|| Arc::new(LogSettings::new(targets.to_vec())))
}

fn postgres_listen_canary(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let canary = match call.bytes(0) {
        b"off" => None,
        word => Some(parse_msec(word).filter(|time| !time.is_zero()).ok_or_else(|| call.invalid_value())?),
    };
    cx.edit::<Upstream>().canary = Some(canary);
    Ok(())
}

const OVERFLOWS: &str = "\"ignore\" or \"reject\"";

fn overflow(word: &str) -> Option<Overflow> {
    match word {
        "ignore" => Some(Overflow::Ignore),
        "reject" => Some(Overflow::Reject),
        _ => None,
    }
}

fn count(word: &str) -> Option<usize> {
    parse_number(word.as_bytes()).and_then(|number| usize::try_from(number).ok())
}

fn positive(call: &Call<'_>, index: usize) -> Result<usize, Fault> {
    let word = call.text(index);
    match count(&word) {
        None => Err(error(call, &format!("\"{word}\" must be number")).word(index)),
        Some(0) => Err(error(call, &format!("\"{word}\" must be positive")).word(index)),
        Some(number) => Ok(number),
    }
}

/// A fault in the words of today's module.
pub(super) fn error(call: &Call<'_>, text: &str) -> Fault {
    call.fault(&format!("error: {text}"))
}

/// The fault of an option `name=value` whose value is wrong.
fn option_must_be(call: &Call<'_>, index: usize, what: &str) -> Fault {
    let word = call.text(index);
    let (name, value) = word.split_once('=').unwrap_or_default();
    error(call, &format!("\"{name}\" value \"{value}\" must be {what}")).word(index)
}

/// The fault of a word that today's module knows nothing of.
pub(super) fn additional(call: &Call<'_>, index: usize) -> Fault {
    error(call, &format!("invalid additional parameter \"{}\"", call.text(index))).word(index)
}

/// What `check` says of upstreams.
pub(super) fn finish(builder: &mut Builder) {
    let mut findings = Vec::new();
    for upstream in &builder.model.upstreams {
        let Some(raw) = builder.peek::<Upstream>(upstream.scope) else { continue };
        let (name, at) = (&upstream.name, builder.scope(upstream.scope).at);
        let finding = match raw.grammar() {
            Some(Grammar::Libpq) if raw.keepalive.is_none() => {
                let message = format!("upstream \"{name}\" keeps no connections: every request logs in anew");
                Diagnostic::new(Severity::Lint, "no-keepalive", message).help("add: postgres_keepalive 8;")
            }
            Some(Grammar::Address) => {
                let message = format!(
                    "upstream \"{name}\" and the locations that pass to it are read as the modules of 2015 and 2018 do: \
                     $name is placed in the SQL, and without postgres_output the answer is text"
                );
                Diagnostic::new(Severity::Info, "reading", message)
            }
            Some(Grammar::Libpq) | None => continue,
        };
        findings.push(finding.near(at));
    }
    builder.diagnostics.extend(findings);
}
