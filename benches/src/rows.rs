//! The rows of the table.

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    /// On the command line.
    pub(crate) name: &'static str,
    /// In the table; `{n}` stands for the number of subscribers, `{tenth}` for a tenth of it.
    pub(crate) work: &'static str,
    /// Of its numbers.
    pub(crate) unit: Unit,
    /// What is asked for: by issue 3, with a database by issue 4, for requests by issue 5, for the rest by issue 2.
    pub(crate) target: Target,
    /// The work that gives it.
    pub(crate) session: Session,
}

/// The unit of a row's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Bytes.
    Bytes,
    /// Millions of bytes.
    Mb,
    /// So many each second.
    PerSecond,
    /// User-space instructions.
    Instructions,
    /// One measurement against another on the same side.
    Times,
}

/// What Pushgate is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// Printed for orientation.
    None,
    /// At most so many times the peer's number.
    Ratio(f64),
    /// At least so many times the peer's number.
    RatioAtLeast(f64),
    /// At most that.
    AtMost(f64),
    /// Less than that.
    Below(f64),
}

/// One piece of work on a freshly started server; gives one or several rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// Many websocket subscribers on one worker.
    Fanout,
    /// The same as EventSource subscribers.
    Events,
    /// The same as streaming subscribers.
    Streams,
    /// Many channels with one subscriber each.
    Channels,
    /// Many subscribers on two workers, and on one.
    Workers,
    /// Many subscribers, of whom one does not read.
    Slow,
    /// Subscribers that come and go.
    Connect,
    /// Plain requests.
    Return,
    /// Requests for files.
    Static,
    /// Requests that are passed on.
    Proxy,
    /// Requests by TLS.
    Tls,
    /// Handshakes of TLS.
    Handshakes,
    /// Many requests at a time on a connection of HTTP/2.
    Http2,
    /// Connections between two requests.
    Idle,
    /// Requests among many locations.
    Locations,
    /// A new configuration of many locations.
    Reload,
    /// No server: `check`.
    Check,
    /// A row of a table for each request.
    Select,
    /// Websocket subscribers of a channel of PostgreSQL's.
    Notify,
    /// Results of a million rows.
    Rows,
    /// Many channels of PostgreSQL's with one subscriber each.
    Listen,
}

impl Session {
    /// In the order of the run.
    pub(crate) const ALL: [Self; 21] = [
        Self::Fanout,
        Self::Events,
        Self::Streams,
        Self::Channels,
        Self::Workers,
        Self::Slow,
        Self::Connect,
        Self::Return,
        Self::Static,
        Self::Proxy,
        Self::Tls,
        Self::Handshakes,
        Self::Http2,
        Self::Idle,
        Self::Locations,
        Self::Reload,
        Self::Check,
        Self::Select,
        Self::Notify,
        Self::Rows,
        Self::Listen,
    ];

    /// Whether messages are counted in it.
    pub(crate) fn has_messages(self) -> bool {
        match self {
            Self::Fanout | Self::Events | Self::Streams | Self::Channels | Self::Workers | Self::Slow => true,
            Self::Notify | Self::Listen => true,
            Self::Connect | Self::Return | Self::Static | Self::Proxy | Self::Tls | Self::Handshakes | Self::Http2 => {
                false
            }
            Self::Idle | Self::Locations | Self::Reload | Self::Check | Self::Select | Self::Rows => false,
        }
    }
}

/// All rows, in the table's order.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "fanout",
        work: "{n} websockets, 100 B: CPU per delivery",
        unit: Unit::Us,
        target: Target::Ratio(0.85),
        session: Session::Fanout,
    },
    Row {
        name: "kilobyte",
        work: "{n} websockets, 1 KB: CPU per delivery",
        unit: Unit::Us,
        target: Target::Ratio(0.85),
        session: Session::Fanout,
    },
    Row {
        name: "burst",
        work: "{n} websockets, 100 B in bursts of 16: CPU per delivery",
        unit: Unit::Us,
        target: Target::Ratio(0.35),
        session: Session::Fanout,
    },
    Row {
        name: "eventsource",
        work: "{n} EventSource subscribers, 100 B: CPU per delivery",
        unit: Unit::Us,
        target: Target::Ratio(0.90),
        session: Session::Events,
    },
    Row {
        name: "streaming",
        work: "{n} streaming subscribers, 100 B: CPU per delivery",
        unit: Unit::Us,
        target: Target::Ratio(0.90),
        session: Session::Streams,
    },
    Row {
        name: "memory",
        work: "memory per idle websocket at {n}",
        unit: Unit::Bytes,
        target: Target::AtMost(300.0),
        session: Session::Fanout,
    },
    Row {
        name: "memory-eventsource",
        work: "memory per idle EventSource subscriber at {n}",
        unit: Unit::Bytes,
        target: Target::AtMost(3000.0),
        session: Session::Events,
    },
    Row {
        name: "memory-streaming",
        work: "memory per idle streaming subscriber at {n}",
        unit: Unit::Bytes,
        target: Target::AtMost(3000.0),
        session: Session::Streams,
    },
    Row {
        name: "channels",
        work: "{n} channels with one websocket each, 100 B, 64 pipelined: CPU per published message",
        unit: Unit::Us,
        target: Target::Ratio(0.75),
        session: Session::Channels,
    },
    Row {
        name: "publish",
        work: "the same, one message at a time",
        unit: Unit::Us,
        target: Target::None,
        session: Session::Channels,
    },
    Row {
        name: "connect",
        work: "websocket connect and close: CPU",
        unit: Unit::Us,
        target: Target::Ratio(0.90),
        session: Session::Connect,
    },
    Row {
        name: "workers",
        work: "{n} websockets, 100 B, on two workers: CPU per delivery against that on one",
        unit: Unit::Times,
        target: Target::AtMost(1.10),
        session: Session::Workers,
    },
    Row {
        name: "slow",
        work: "{n} websockets, 1 KB, one more does not read: p99 of the others against that without it",
        unit: Unit::Times,
        target: Target::AtMost(1.10),
        session: Session::Slow,
    },
    Row {
        name: "return",
        work: "`return 200`, 64 keep-alive connections: CPU per request",
        unit: Unit::Us,
        target: Target::Ratio(1.05),
        session: Session::Return,
    },
    Row {
        name: "static",
        work: "a file of 1 KB, 64 keep-alive connections: CPU per request",
        unit: Unit::Us,
        target: Target::Ratio(1.0),
        session: Session::Static,
    },
    Row {
        name: "static-cached",
        work: "the same with `open_file_cache`",
        unit: Unit::Us,
        target: Target::Ratio(1.0),
        session: Session::Static,
    },
    Row {
        name: "static-large",
        work: "a file of 1 MB by `sendfile`, 8 connections: CPU per request",
        unit: Unit::Us,
        target: Target::Ratio(1.2),
        session: Session::Static,
    },
    Row {
        name: "proxy",
        work: "`proxy_pass` to a keep-alive upstream, 1 KB, 64 connections: CPU per request",
        unit: Unit::Us,
        target: Target::Ratio(1.10),
        session: Session::Proxy,
    },
    Row {
        name: "tls",
        work: "a file of 1 KB by TLS 1.3, 64 keep-alive connections: CPU per request",
        unit: Unit::Us,
        target: Target::Ratio(1.1),
        session: Session::Tls,
    },
    Row {
        name: "handshakes",
        work: "full handshakes of TLS 1.3, ECDSA P-256: CPU per connection",
        unit: Unit::Us,
        target: Target::Ratio(1.0),
        session: Session::Handshakes,
    },
    Row {
        name: "handshakes-rsa",
        work: "the same with RSA 2048",
        unit: Unit::Us,
        target: Target::Ratio(1.0),
        session: Session::Handshakes,
    },
    Row {
        name: "http2",
        work: "HTTP/2, a file of 1 KB, 100 streams of one connection: CPU per request",
        unit: Unit::Us,
        target: Target::Ratio(1.10),
        session: Session::Http2,
    },
    Row {
        name: "idle",
        work: "memory per idle keep-alive connection at {n}",
        unit: Unit::Bytes,
        target: Target::AtMost(6000.0),
        session: Session::Idle,
    },
    Row {
        name: "idle-tls",
        work: "the same by TLS 1.3",
        unit: Unit::Bytes,
        target: Target::None,
        session: Session::Idle,
    },
    Row {
        name: "locations",
        work: "10,000 prefixes and 100 expressions to choose from, 64 keep-alive connections: CPU per request",
        unit: Unit::Us,
        target: Target::Ratio(1.0),
        session: Session::Locations,
    },
    Row {
        name: "lookup",
        work: "the same, less a request there that is found at once",
        unit: Unit::Us,
        target: Target::None,
        session: Session::Locations,
    },
    Row {
        name: "reload",
        work: "a reload of 10,000 locations: time until the new configuration answers",
        unit: Unit::Ms,
        target: Target::AtMost(100.0),
        session: Session::Reload,
    },
    Row {
        name: "check",
        work: "`check` of 10,000 lines (peer: `nginx -t`): wall time",
        unit: Unit::Ms,
        target: Target::Below(100.0),
        session: Session::Check,
    },
    Row {
        name: "instructions",
        work: "{n} websockets, 100 B: user-space instructions per delivery",
        unit: Unit::Instructions,
        target: Target::AtMost(300.0),
        session: Session::Fanout,
    },
    Row {
        name: "user",
        work: "the same: user part of the CPU per delivery (sampled, rough)",
        unit: Unit::Us,
        target: Target::None,
        session: Session::Fanout,
    },
    Row {
        name: "select",
        work: "a row by primary key, 32 connections (peer: `pgbench -M prepared -S`): rate",
        unit: Unit::PerSecond,
        target: Target::RatioAtLeast(0.6),
        session: Session::Select,
    },
    Row {
        name: "notify",
        work: "NOTIFY to {tenth} websockets, 100 B (peer: an HTTP publish): CPU per delivery",
        unit: Unit::Us,
        target: Target::Ratio(1.10),
        session: Session::Notify,
    },
    Row {
        name: "notify-time",
        work: "NOTIFY to the last of {tenth} websockets, 10 a second (peer: an HTTP publish): p99",
        unit: Unit::Ms,
        target: Target::Ratio(1.3),
        session: Session::Notify,
    },
    Row {
        name: "json",
        work: "a million rows as JSON (peer: psql's `\\copy`): time",
        unit: Unit::Ms,
        target: Target::Ratio(1.5),
        session: Session::Rows,
    },
    Row {
        name: "json-memory",
        work: "the same: peak of memory above idle",
        unit: Unit::Mb,
        target: Target::AtMost(30.0),
        session: Session::Rows,
    },
    Row {
        name: "csv",
        work: "a million rows as CSV (peer: psql's `\\copy`): time",
        unit: Unit::Ms,
        target: Target::Ratio(1.5),
        session: Session::Rows,
    },
    Row {
        name: "csv-memory",
        work: "the same: peak of memory above idle",
        unit: Unit::Mb,
        target: Target::AtMost(30.0),
        session: Session::Rows,
    },
    Row {
        name: "listen",
        work: "{n} channels, each a websocket's, that PostgreSQL is listened to for: time until all are",
        unit: Unit::Ms,
        target: Target::AtMost(10_000.0),
        session: Session::Listen,
    },
];
