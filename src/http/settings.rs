//! The settings of the HTTP engine itself: heads, bodies, keep-alive, sending. `modules/http_core` lists them.

use std::time::Duration;

use super::temp_file::TempPath;
use crate::config::value::{Flag, Msec, Number, Offset, Size, Value, parse_msec, parse_number, parse_size};
use crate::config::{Args, Builder, Call, Cx, Fault, ScopeId, Status};
use crate::{choice, settings};

settings! {
    /// Reading a request's head. The default server of the address decides, as no other is known yet.
    pub struct Heads {
        /// How long a client may take for its first request's head, after which the connection is closed.
        "client_header_timeout" HTTP_SERVER = "60s" => pub timeout: Msec,
        /// The size of the buffer that a head is read into; a longer one goes on in larger buffers.
        "client_header_buffer_size" HTTP_SERVER = "1k" => pub buffer_size: Size,
        /// How many larger buffers a head may fill, and their size. A line must fit into one: a longer request line
        /// is answered with 414, a longer header with 400.
        "large_client_header_buffers" HTTP_SERVER = "4 8k" => pub large_buffers: Buffers,
        /// Whether header lines with invalid names are left out; off: they are passed on.
        "ignore_invalid_headers" HTTP_SERVER = "on" => pub ignore_invalid: Flag,
        /// Whether names of headers may have underscores.
        "underscores_in_headers" HTTP_SERVER = "off" => pub underscores: Flag,
        /// Whether several slashes in a path count as one.
        "merge_slashes" HTTP_SERVER = "on" => pub merge_slashes: Flag,
        /// The size of a connection's memory pool in nginx.
        @Status::Ignored("memory is not pooled by connection"); "connection_pool_size" HTTP_SERVER = "512" => pub connection_pool: Size,
        /// The size of a request's memory pool in nginx.
        @Status::Ignored("memory is not pooled by request"); "request_pool_size" HTTP_SERVER = "4k" => pub request_pool: Size,
    }
}

settings! {
    /// Reading a request's body.
    pub struct Bodies {
        /// The longest body that is read; a longer one is answered with 413. 0: no bound.
        "client_max_body_size" HTTP_ALL = "1m" => pub max_size: Offset,
        /// How much of a body that is passed on is kept in memory; a longer one goes to a temporary file.
        @Status::Partly("bodies that are not passed on to an upstream are kept in memory up to client_max_body_size"); "client_body_buffer_size" HTTP_ALL = "16k" => pub buffer_size: Size,
        /// Where temporary files of bodies are, and how many digits of a file's number name the folders in it; the
        /// system's own folder where none is given. The folder is made at a start, for the user of the workers alone.
        "client_body_temp_path" HTTP_ALL = "" => pub temp_path: Option<TempPath>,
        /// How long a client may pause between two pieces of a body; then it is answered with 408.
        "client_body_timeout" HTTP_ALL = "60s" => pub timeout: Msec,
        /// Whether nginx keeps the body in one buffer.
        @Status::Ignored("a body is always in one buffer"); "client_body_in_single_buffer" HTTP_ALL = "off" => pub single_buffer: Flag,
        /// Whether every body that a handler reads goes to a file, whose name is `$request_body_file`; `clean` removes
        /// it after the request, `on` keeps it.
        "client_body_in_file_only" HTTP_ALL = "off" => pub in_file: InFile,
    }
}

settings! {
    /// Keeping connections open between requests.
    pub struct Keepalive {
        /// How long a connection waits for its next request; 0 closes it at once. A second time is sent to the client
        /// as `Keep-Alive: timeout=`.
        "keepalive_timeout" HTTP_ALL = "75s" => pub timeout: KeepaliveTimeout,
        /// How many requests a connection may carry.
        "keepalive_requests" HTTP_ALL = "1000" => pub requests: Number,
        /// How long a connection may live; it is closed after the next answer then.
        "keepalive_time" HTTP_ALL = "1h" => pub time: Msec,
        /// How long a connection is kept at least while the server shuts down.
        "keepalive_min_timeout" HTTP_ALL = "0" => pub min_timeout: Msec,
        /// Browsers that get no keep-alive: `msie6`, `safari` or `none`.
        "keepalive_disable" HTTP_ALL = "msie6" => pub disable: KeepaliveDisable,
    }
}

settings! {
    /// Sending answers.
    pub struct Sending {
        /// Closes the connection when the client takes nothing for this long between two successive writes.
        "send_timeout" HTTP_ALL = "60s" => pub timeout: Msec,
        /// Whether what a client still sends is read for a while before its connection is closed.
        "lingering_close" HTTP_ALL = "on" => pub lingering_close: Lingering,
        /// How long that goes on.
        "lingering_time" HTTP_ALL = "30s" => pub lingering_time: Msec,
        /// How long it waits for more.
        "lingering_timeout" HTTP_ALL = "5s" => pub lingering_timeout: Msec,
        /// Whether connections that timed out are reset.
        "reset_timedout_connection" HTTP_ALL = "off" => pub reset_timed_out: Flag,
        /// Whether answers of unknown length to HTTP/1.1 clients are sent in chunks.
        "chunked_transfer_encoding" HTTP_ALL = "on" => pub chunked: Flag,
        /// Whether small packets are sent at once.
        "tcp_nodelay" HTTP_ALL = "on" => pub nodelay: Flag,
        /// Whether the kernel sends files by itself, without a copy of them in the program. Over TLS, in chunks and under
        /// `limit_rate` they are read and written all the same.
        "sendfile" HTTP_ALL_IF = "off" => pub sendfile: Flag,
        /// How much of a file one connection sends before the others have their turn; 0: no bound.
        "sendfile_max_chunk" HTTP_ALL = "2m" => pub sendfile_max_chunk: Size,
        /// Whether full packets are preferred in nginx.
        @Status::Ignored("head and body leave in one system call"); "tcp_nopush" HTTP_ALL = "off" => pub nopush: Flag,
        /// How much is put off until it can be sent together in nginx.
        @Status::Ignored("writes are gathered"); "postpone_output" HTTP_ALL = "1460" => pub postpone: Size,
        /// The least room in the socket's buffer in nginx.
        @Status::Ignored("the kernel decides"); "send_lowat" HTTP_ALL = "0" => pub lowat: Size,
    }
}

settings! {
    /// How redirects and pages that the server makes look.
    pub struct Pages {
        /// Whether `Server` and error pages name the version: `on`, `off` or `build`.
        "server_tokens" HTTP_ALL = "on" => pub server_tokens: ServerTokens,
        /// Whether redirects to a path of this server get scheme, name and port in front.
        "absolute_redirect" HTTP_ALL = "on" => pub absolute_redirect: Flag,
        /// Whether such redirects name the server by `server_name` rather than by the request's host.
        "server_name_in_redirect" HTTP_ALL = "off" => pub server_name_in_redirect: Flag,
        /// Whether such redirects name the port.
        "port_in_redirect" HTTP_ALL = "on" => pub port_in_redirect: Flag,
        /// Whether error pages are made longer for old browsers that hide short ones.
        "msie_padding" HTTP_ALL = "on" => pub msie_padding: Flag,
        /// Whether old browsers get a refresh page in place of a redirect.
        "msie_refresh" HTTP_ALL = "off" => pub msie_refresh: Flag,
        /// Whether files that are not found go to the error log.
        "log_not_found" HTTP_ALL = "on" => pub log_not_found: Flag,
        /// Whether a subrequest gets a line of its own in the access log.
        "log_subrequest" HTTP_ALL = "off" => pub log_subrequest: Flag,
        /// The buffer of a subrequest's answer that is kept in memory in nginx.
        @Status::Ignored("one that is kept has a bound of its own"); "subrequest_output_buffer_size" HTTP_ALL = "4k" => pub subrequest_buffer: Size,
        /// Whether error pages may lead to other error pages.
        "recursive_error_pages" HTTP_ALL = "off" => pub recursive_error_pages: Flag,
    }
}

impl Heads {
    /// What a block itself says of larger buffers, and of the pool's size that they are held against.
    pub fn said(builder: &Builder, scope: ScopeId) -> (Option<Buffers>, Option<u64>) {
        let raw = builder.peek::<Self>(scope);
        (raw.and_then(|raw| raw.large_buffers), raw.and_then(|raw| raw.connection_pool).map(|size| *size))
    }
}

choice! {
    /// `lingering_close`
    pub enum Lingering {
        /// Never.
        "off" => Off,
        /// Where the client may still be sending.
        "on" => On,
        /// Always.
        "always" => Always,
    }
}

choice! {
    /// `client_body_in_file_only`
    pub enum InFile {
        /// No.
        "off" => Off,
        /// Yes, and the file stays.
        "on" => On,
        /// Yes, and the file goes.
        "clean" => Clean,
    }
}

choice! {
    /// `server_tokens`
    pub enum ServerTokens {
        /// The name alone.
        "off" => Off,
        /// Name and version.
        "on" => On,
        /// Name, version and build.
        "build" => Build,
    }
}

/// A number of buffers and their size.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    /// How many.
    pub count: usize,
    /// How large each is, in bytes.
    pub size: usize,
}

impl Value for Buffers {
    const ARGS: Args = Args::exactly(2);
    const SYNTAX: &'static str = "number size";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        Self::read(call.bytes(0), call.bytes(1)).ok_or_else(|| call.invalid_value())
    }

    fn from_default(text: &'static str) -> Self {
        let (count, size) = text.split_once(' ').unwrap_or(("4", "8k"));
        Self::read(count.as_bytes(), size.as_bytes()).unwrap_or(Self { count: 4, size: 8192 })
    }
}

impl Buffers {
    fn read(count: &[u8], size: &[u8]) -> Option<Self> {
        let count = usize::try_from(parse_number(count)?).ok().filter(|count| *count > 0)?;
        let size = usize::try_from(parse_size(size)?).ok().filter(|size| *size > 0)?;
        Some(Self { count, size })
    }
}

/// The two times of `keepalive_timeout`.
#[derive(Clone, Copy, Debug)]
pub struct KeepaliveTimeout {
    /// How long the connection waits.
    pub wait: Duration,
    /// What the client is told, in seconds.
    pub header: Option<u64>,
}

impl Value for KeepaliveTimeout {
    const ARGS: Args = Args::between(1, 2);
    const SYNTAX: &'static str = "timeout [header_timeout]";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        let wait = parse_msec(call.bytes(0)).ok_or_else(|| call.invalid_value())?;
        let header = match call.len() {
            1 => None,
            _ => Some(crate::config::value::parse_sec(call.bytes(1)).ok_or_else(|| call.invalid_value())?),
        };
        Ok(Self { wait, header })
    }

    fn from_default(text: &'static str) -> Self {
        Self { wait: parse_msec(text.as_bytes()).unwrap_or_default(), header: None }
    }
}

/// The browsers of `keepalive_disable`.
#[derive(Clone, Copy, Debug)]
pub struct KeepaliveDisable {
    /// Old MSIE after a POST.
    pub msie6: bool,
    /// Safari on macOS.
    pub safari: bool,
}

impl Value for KeepaliveDisable {
    const ARGS: Args = Args::between(1, 2);
    const ONCE: bool = false;
    const SYNTAX: &'static str = "none | browser ...";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        let mut value = Self { msie6: false, safari: false };
        for (index, word) in call.words().enumerate() {
            match word {
                b"none" => {}
                b"msie6" => value.msie6 = true,
                b"safari" => value.safari = true,
                _ => return Err(Fault::new(format!("invalid value \"{}\"", call.text(index))).word(index)),
            }
        }
        Ok(value)
    }

    fn from_default(_: &'static str) -> Self {
        Self { msie6: true, safari: false }
    }
}
