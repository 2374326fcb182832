//! The shape of a configuration beside its settings: servers, locations, upstreams, and how they hang together.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::builder::ScopeId;
use super::source::Position;
use super::value::Regex;

/// Everything that has a place in the tree.
#[derive(Debug, Default)]
pub struct Model {
    /// The `http` block.
    pub http: Option<ScopeId>,
    /// Where the `http` block ends.
    pub http_end: Option<Position>,
    /// The `events` block.
    pub events: Option<ScopeId>,
    /// The servers, in the order of the file.
    pub servers: Vec<ServerDef>,
    /// All locations, `if` blocks and `limit_except` blocks of all servers; parents before children.
    pub locations: Vec<LocationDef>,
    /// The upstreams, in the order of the file.
    pub upstreams: Vec<UpstreamDef>,
    /// The folders of temporary files, in the order of the file.
    pub folders: Vec<FolderDef>,
}

/// A folder that is made at a start, for the user of the workers.
#[derive(Clone, Debug)]
pub struct FolderDef {
    /// Where it is.
    pub path: PathBuf,
    /// How many digits of a file's number name the folders in it.
    pub levels: Vec<usize>,
    /// Where it was written.
    pub at: Position,
}

impl Model {
    /// An upstream by its name.
    pub fn upstream(&self, name: &str) -> Option<(usize, &UpstreamDef)> {
        self.upstreams.iter().enumerate().find(|(_, upstream)| upstream.name.eq_ignore_ascii_case(name))
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddress {
    /// An address and port.
    Ip(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One `listen`.
#[derive(Clone, Debug)]
pub struct ListenDef {
    /// The address.
    pub address: ListenAddress,
    /// Where it was written.
    pub at: Option<Position>,
    /// Whether its server answers requests whose name no server has.
    pub default_server: bool,
    /// `ssl`
    pub ssl: bool,
    /// `http2`
    pub http2: bool,
    /// `proxy_protocol`
    pub proxy_protocol: bool,
    /// What is set on the socket.
    pub options: ListenOptions,
    /// Whether any of the options was written here: they may be written once for an address.
    pub sets_options: bool,
}

/// What `listen` sets on a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenOptions {
    /// `backlog=`
    pub backlog: Option<i32>,
    /// `rcvbuf=`, in bytes
    pub rcvbuf: Option<usize>,
    /// `sndbuf=`, in bytes
    pub sndbuf: Option<usize>,
    /// `ipv6only=`
    pub ipv6only: Option<bool>,
    /// `so_keepalive=`: on, off, or idle, interval (seconds) and count
    pub keepalive: Option<Keepalive>,
    /// `deferred`
    pub deferred: bool,
    /// `reuseport`
    pub reuseport: bool,
    /// `bind`
    pub bind: bool,
    /// `setfib=`, `fastopen=`, `accept_filter=`: kept for the duplicate check
    pub other: Vec<String>,
}

/// TCP keep-alive of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepalive {
    /// `so_keepalive=on`
    On,
    /// `so_keepalive=off`
    Off,
    /// `so_keepalive=30m::10`
    Times {
        /// Seconds of silence before the first probe.
        idle: Option<u32>,
        /// Seconds between probes.
        interval: Option<u32>,
        /// Probes before the connection is given up.
        count: Option<u32>,
    },
}

/// One name of a server.
#[derive(Clone, Debug)]
pub enum ServerName {
    /// `www.example.org`, in lower case; empty for requests without a `Host`.
    Exact(String),
    /// `*.example.org` (kept as `example.org`), which `.example.org` means too, beside the name itself.
    Suffix(String),
    /// `www.example.*` (kept as `www.example`).
    Prefix(String),
    /// `~^www\d+\.example\.org$`
    Regex(Regex),
}

/// A `server` block.
#[derive(Debug)]
pub struct ServerDef {
    /// Its block.
    pub scope: ScopeId,
    /// Where it listens.
    pub listens: Vec<ListenDef>,
    /// Its names, as they are matched, with what was written.
    pub names: Vec<(ServerName, String, Position)>,
    /// The locations on its first level, in the order of the file.
    pub locations: Vec<usize>,
}

/// How a location matches.
#[derive(Clone, Debug)]
pub enum LocationKind {
    /// `location = /x`
    Exact(Vec<u8>),
    /// `location /x`; `no_regex` for `^~`
    Prefix {
        /// The prefix.
        path: Vec<u8>,
        /// `^~`: regular expressions are not tried.
        no_regex: bool,
    },
    /// `location ~ x`, `location ~* x`
    Regex(Regex),
    /// `location @x`
    Named(Vec<u8>),
    /// The settings of an `if` or `limit_except` block.
    Nameless,
}

/// A `location`, or a block inside one that has settings of its own.
#[derive(Debug)]
pub struct LocationDef {
    /// Its block.
    pub scope: ScopeId,
    /// The number of its server.
    pub server: usize,
    /// How it matches.
    pub kind: LocationKind,
    /// The name as written: the path, the expression, `@name`.
    pub name: String,
    /// The location around it.
    pub parent: Option<usize>,
    /// The locations inside it.
    pub children: Vec<usize>,
}

/// An `upstream` block.
#[derive(Debug)]
pub struct UpstreamDef {
    /// Its block.
    pub scope: ScopeId,
    /// Its name.
    pub name: String,
    /// Whether a server was named in it, of whatever kind.
    pub has_servers: bool,
}
