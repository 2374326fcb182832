//! The life of a connection: heads in, answers out, one request after another.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::ending;
use super::idle::Idle;
use super::proxied;
use super::request::Request;
use super::response::{Body, Detached, Response};
use super::send;
use super::settings::{Heads, Keepalive, Lingering, Sending};
use super::tls;
use super::upstream::tunnel::Tunnel;
use super::v2;
use super::wire::date::DateCache;
use super::wire::head::RequestHead;
use super::wire::head::parser::{HeadOptions, HeadParser, Progress};
use super::wire::header::Known;
use super::wire::method::Method;
use super::wire::user_agent::Browser;
use crate::compile::{Compiled, Listener};
use crate::config::ListenAddress;
use crate::server::clock::{self, Moment};
use crate::server::counts;
use crate::server::log::{Level, shown};
use bytes::Bytes;

/// What a worker's connections share.
pub struct Site {
    /// The configuration that holds for new requests.
    pub compiled: Box<dyn Fn() -> Arc<Compiled>>,
    /// The connections that wait for a request.
    pub idle: Idle,
    /// Whether the server is going.
    pub is_closing: Box<dyn Fn() -> bool>,
    /// The `Date` of this second.
    pub date: RefCell<DateCache>,
    /// Where heads are put together.
    pub scratch: RefCell<Vec<u8>>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Site")
    }
}

/// A request that is not carried out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    /// It could not be read, and the connection ends with its answer.
    Bad(u16),
    /// It was read, and is not wanted on its connection.
    Whole(u16),
}

impl Refused {
    /// What the client gets, which `error_page` may say.
    pub(super) async fn answer(self, request: &mut Request) -> Box<Response> {
        let (Self::Bad(status) | Self::Whole(status)) = self;
        request.must_close |= matches!(self, Self::Bad(_));
        request.run_refused(status).await
    }
}

/// How a request ended.
enum After {
    /// The connection carries the next one, if that begins within this time.
    Next(Duration),
    /// The connection ends; what the client still sends may be read for a while.
    Close {
        linger: Lingering,
        /// How much of the request's body is not read yet.
        left: Option<u64>,
    },
    /// The connection belongs to somebody else.
    Gone,
}

impl After {
    /// The connection ends at once.
    const CLOSE: Self = Self::Close { linger: Lingering::Off, left: None };
}

/// Serves a connection to its end. `accepted` is the configuration that took it in.
pub async fn serve(site: Rc<Site>, connection: Rc<Connection>, address: Arc<ListenAddress>, accepted: Arc<Compiled>) {
    let Some(mut patience) =
        listener(&accepted, &connection, &address).map(|at| *heads(&accepted, &connection, at).timeout)
    else {
        return;
    };
    let _place = site.idle.enter(&connection);
    counts::ACCEPTED.add();
    let _active = counts::ACTIVE.enter();
    let _goodbye = Goodbye(&connection);
    if let Some(listener) = listener(&accepted, &connection, &address).filter(|listener| listener.proxy_protocol) {
        let Some(left) = Box::pin(proxied::accept(&connection, &accepted, listener, patience)).await else { return };
        patience = left;
    }
    if listener(&accepted, &connection, &address).is_some_and(|listener| listener.ssl) {
        let Some(listener) = listener(&accepted, &connection, &address) else { return };
        if !Box::pin(tls::accept(&connection, &accepted, listener, patience)).await {
            return;
        }
    }
    let mut accepted = Some(accepted);
    loop {
        let is_pipelined = !connection.buffered().is_empty() && connection.requests.get() > 0;
        if connection.buffered().is_empty() && !wait(&site, &connection, patience, accepted.is_some()).await {
            let compiled = accepted.unwrap_or_else(|| (site.compiled)());
            if let Some(listener) = listener(&compiled, &connection, &address) {
                ending::left(&connection, &compiled, listener);
            }
            return;
        }
        // Not before the wait, in which a reload may come. What it no longer listens on is served once more as before.
        let present = (site.compiled)();
        let is_first = accepted.is_some();
        let compiled = match accepted.take() {
            Some(accepted) if listener(&present, &connection, &address).is_none() => accepted,
            _ => present,
        };
        let Some(listener) = listener(&compiled, &connection, &address) else { return };
        if is_first {
            match speaks_http2(&connection, &compiled, listener, patience).await {
                None => return,
                Some(true) => {
                    let (site, connection) = (Rc::clone(&site), Rc::clone(&connection));
                    return Box::pin(v2::serve(site, connection, address, compiled)).await;
                }
                Some(false) => {}
            }
        }
        counts::REQUESTS.add();
        let reading = counts::READING.enter();
        let Some((request, is_bad)) = next_request(&connection, &compiled, listener, is_pipelined).await else {
            return;
        };
        drop(reading);
        let _writing = counts::WRITING.enter();
        match answer(&site, request, is_bad).await {
            After::Next(time) => patience = time,
            After::Gone => return,
            After::Close { linger, left } => {
                return ending::discard(&connection, &compiled, listener.default_server, linger, left).await;
            }
        }
    }
}

/// Says to the client that this is the end, whatever way the end is come to.
struct Goodbye<'c>(&'c Connection);

impl Drop for Goodbye<'_> {
    fn drop(&mut self) {
        self.0.say_goodbye();
    }
}

/// Whether a connection that has begun goes on in HTTP/2: as the handshake of TLS said, or by its preface. `None`: it has
/// ended.
async fn speaks_http2(
    connection: &Connection,
    compiled: &Compiled,
    listener: &Listener,
    patience: Duration,
) -> Option<bool> {
    if let Some(tls) = connection.tls() {
        return Some(tls.is_http2());
    }
    if !v2::is_on(compiled, listener) {
        return Some(false);
    }
    let until = clock::now().after(patience);
    loop {
        let is_preface = v2::is_preface(&connection.buffered());
        match is_preface {
            Some(is_preface) => return Some(is_preface),
            None => match connection.fill(until.since(clock::now())).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            },
        }
    }
}

/// The listener that the connection came by; a reload may have moved it, or given it up.
pub(super) fn listener<'c>(
    compiled: &'c Compiled,
    connection: &Connection,
    address: &ListenAddress,
) -> Option<&'c Listener> {
    let same = |listener: &&Listener| listener.address == *address;
    compiled.listeners.get(connection.listener).filter(same).or_else(|| compiled.listener(address))
}

/// What holds for heads before it is known for which server they are: what the server says whose name the handshake had.
fn heads<'c>(compiled: &'c Compiled, connection: &Connection, listener: &Listener) -> &'c Heads {
    let name = connection.tls().and_then(|tls| tls.server_name.as_deref());
    heads_of(compiled, listener, name.unwrap_or_default().as_bytes())
}

/// What holds for heads of requests to a host.
pub(super) fn heads_of<'c>(compiled: &'c Compiled, listener: &Listener, host: &[u8]) -> &'c Heads {
    let find = || listener.names.find(&host.to_ascii_lowercase().into()).map(|(server, _)| server);
    let named = if listener.heads_differ && !host.is_empty() { find() } else { None };
    compiled.settings(compiled.server_location(named.unwrap_or(listener.default_server))).get::<Heads>()
}

/// Reads the head of a request that has begun. The status says that it is to be refused with it. `None`: there is none.
async fn next_request(
    connection: &Rc<Connection>,
    compiled: &Arc<Compiled>,
    listener: &Listener,
    is_pipelined: bool,
) -> Option<(Box<Request>, Option<Refused>)> {
    let heads = heads(compiled, connection, listener);
    let mut options = HeadOptions { stops_at_host: listener.heads_differ, ..HeadOptions::of(heads) };
    let started = clock::now();
    let mut parser = HeadParser::new();
    loop {
        let progress = parser.parse(&connection.buffered(), &options);
        match progress {
            Progress::Complete { head, consumed } => {
                connection.consume(consumed);
                let mut request = begin(connection, compiled, listener, head, true, started);
                request.is_pipelined = is_pipelined;
                for line in request.head.ignored_lines() {
                    let line = shown(line);
                    let message =
                        format!("client sent invalid header line: \"{line}\" while reading client request headers");
                    request.log(Level::Info, &message);
                }
                let refusal = connection.refusal(&mut request, listener);
                return Some((request, refusal.map(Refused::Whole)));
            }
            Progress::Bad(refusal) => {
                if refusal.head.content_length().is_some() {
                    // It was read as a whole, so what comes next is its body.
                    let came = connection.buffered().len();
                    connection.consume(refusal.head.end().min(came));
                }
                let mut request = begin(connection, compiled, listener, refusal.head, false, started);
                request.is_pipelined = is_pipelined;
                let reason = String::from_utf8_lossy(&refusal.reason).into_owned();
                request.log(Level::Info, &format!("{reason} while {}", action(refusal.action, is_pipelined)));
                return Some((request, Some(Refused::Bad(refusal.status))));
            }
            Progress::Host(host) => {
                options = HeadOptions::of(heads_of(compiled, listener, &host));
                continue;
            }
            Progress::Incomplete => {}
        }
        let left = heads.timeout.saturating_sub(clock::now().since(started));
        let (status, reason) = match connection.fill(left).await {
            Ok(1..) => continue,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                (408, "client timed out (110: Connection timed out)")
            }
            Ok(0) | Err(_) => (400, "client prematurely closed connection"),
        };
        let head = parser.give_up(&connection.buffered());
        let mut request = begin(connection, compiled, listener, head, false, started);
        request.is_pipelined = is_pipelined;
        request.sent.status = status;
        request.sent.is_cut = true;
        if status == 408 {
            ending::reset_timed_out(&request);
        }
        request.log(Level::Info, &format!("{reason} while {}", action(parser.action(), is_pipelined)));
        request.write_logs();
        return None;
    }
}

/// What is being done, in nginx's words.
fn action(doing: &'static str, is_pipelined: bool) -> &'static str {
    match doing {
        "reading client request line" if is_pipelined => "reading client pipelined request line",
        doing => doing,
    }
}

impl HeadOptions {
    /// What the settings say.
    pub(super) fn of(heads: &Heads) -> Self {
        Self {
            client_header_buffer_size: usize::try_from(*heads.buffer_size).unwrap_or(usize::MAX),
            large_buffers: heads.large_buffers.count,
            large_buffer_size: heads.large_buffers.size,
            underscores_in_headers: *heads.underscores,
            ignore_invalid_headers: *heads.ignore_invalid,
            merge_slashes: *heads.merge_slashes,
            is_http2: false,
            stops_at_host: false,
        }
    }
}

/// Waits for the first byte of a request; `false`: none will come.
async fn wait(site: &Site, connection: &Connection, timeout: Duration, is_first: bool) -> bool {
    if (site.is_closing)() && !is_first {
        return false;
    }
    let _waiting = counts::WAITING.enter();
    matches!(connection.wait(timeout).await, Ok(1..))
}

/// Makes the request of a head. Only one that is whole may be for the server without a name.
pub(super) fn begin(
    connection: &Rc<Connection>,
    compiled: &Arc<Compiled>,
    listener: &Listener,
    head: Rc<RequestHead>,
    is_whole: bool,
    started: Moment,
) -> Box<Request> {
    connection.requests.set(connection.requests.get() + 1);
    // Without a host, that of the handshake counts.
    let host = || match (head.host(), connection.tls().and_then(|tls| tls.server_name.as_deref())) {
        (b"", Some(name)) => Bytes::copy_from_slice(name.as_bytes()),
        _ => head.host_bytes(),
    };
    let find = || Some(host()).filter(|host| is_whole || !host.is_empty()).and_then(|host| listener.names.find(&host));
    let found = if listener.names.is_empty() { None } else { find() };
    let (server, captures) = found.unwrap_or((listener.default_server, None));
    let request = Box::new(Request::new(Rc::clone(connection), Arc::clone(compiled), server, head, started));
    if let Some((regex, captures)) = captures {
        request.keep_captures(regex, captures);
    }
    request
}

/// Answers a request and says what becomes of the connection.
async fn answer(site: &Site, mut request: Box<Request>, refused: Option<Refused>) -> After {
    let mut response = match refused {
        Some(refused) => refused.answer(&mut request).await,
        None => run(&mut request).await,
    };
    // What came with the head is looked at before the answer leaves, as in nginx; the rest of a body nobody read is not.
    if request.has_bad_chunks() {
        request.log(Level::Error, "client sent invalid chunked body");
        request.must_close = true;
        if request.error_status.is_none() {
            response = request.run_refused(400).await;
        }
    }
    if request.send_continue().await.is_err() {
        request.must_close = true;
    }
    let keepalive = !matches!(refused, Some(Refused::Bad(_)))
        && !request.must_close
        && !response.close
        && wants_next(site, &request);
    let after = send(site, &mut request, &mut response, keepalive).await;
    request.finish().await;
    after
}

/// Makes the answer. What was kept back for the client leaves if that takes longer.
async fn run(request: &mut Request) -> Box<Response> {
    let connection = Rc::clone(&request.connection);
    let mut answer = pin!(request.run());
    poll_fn(|cx| {
        let answer = answer.as_mut().poll(cx);
        if answer.is_pending() {
            // A broken connection is found by whoever writes the answer.
            drop(connection.poll_held(cx));
        }
        answer
    })
    .await
}

/// Whether both sides want another request on the connection.
fn wants_next(site: &Site, request: &Request) -> bool {
    let settings = request.settings::<Keepalive>();
    let connection = &request.connection;
    if !request.head.wants_keepalive() || settings.timeout.wait.is_zero() || (site.is_closing)() {
        return false;
    }
    if connection.requests.get() >= *settings.requests || request.started.since(connection.accepted) >= *settings.time {
        return false;
    }
    // Few requests concern these browsers, so their names are read last.
    let msie6 = settings.disable.msie6 && request.head.method() == Method::Post;
    let safari = settings.disable.safari;
    if !msie6 && !safari {
        return true;
    }
    let Some(agent) = request.head.known(Known::UserAgent) else { return true };
    let browser = Browser::from_user_agent(agent);
    !(msie6 && browser.msie6 || safari && browser.safari)
}

/// Sends an answer.
async fn send(site: &Site, request: &mut Request, response: &mut Response, keepalive: bool) -> After {
    if matches!(response.body, Body::Takeover(_))
        && let Body::Takeover(take) = std::mem::take(&mut response.body)
    {
        return Box::pin(take_over(site, request, response, take, keepalive)).await;
    }
    if matches!(response.body, Body::Tunnel(_))
        && let Body::Tunnel(tunnel) = std::mem::take(&mut response.body)
    {
        return Box::pin(tunnel_through(site, request, response, *tunnel)).await;
    }
    if response.silent {
        request.sent.status = response.status;
        request.sent.is_cut = true;
        if matches!(response.status, 408 | 444) {
            ending::reset_timed_out(request);
        }
        return After::CLOSE;
    }
    let is_unread = request.has_unread_body();
    let keepalive = keepalive && (!is_unread || may_pass_body(request));
    let has_unread = is_unread || request.must_close;
    match send::response(site, request, response, keepalive).await {
        // A body that nobody read stands before the next request.
        Ok(true) if is_unread && !Box::pin(request.discard_body()).await => After::CLOSE,
        Ok(true) => After::Next(request.settings::<Keepalive>().timeout.wait),
        Ok(false) => {
            // One that grew too long while it was read is not waited for; the end of any other is seen in it alone.
            let is_coming = request.sent.status != 413 && request.has_chunks_to_come();
            if is_coming && request.body_read == 0 {
                return match Box::pin(request.discard_body()).await {
                    true => After::Close { linger: ending::lingers(request, false), left: None },
                    false => After::CLOSE,
                };
            }
            let left = match request.head.content_length() {
                Some(length) => Some(length.saturating_sub(request.body_taken)),
                None => is_coming.then_some(u64::MAX),
            };
            let length = left.filter(|left| *left > 0 && is_unread);
            After::Close { linger: ending::lingers(request, has_unread), left: length }
        }
        Err(error) => {
            ending::lost(request, &error);
            After::CLOSE
        }
    }
}

/// Sends the head, and then whatever client and upstream send each other.
async fn tunnel_through(site: &Site, request: &mut Request, response: &Response, tunnel: Tunnel) -> After {
    if send::head(site, request, response, false).await.is_ok() {
        through_tunnel(request, tunnel).await;
    }
    After::CLOSE
}

/// Sends whatever client and upstream send each other.
pub(super) async fn through_tunnel(request: &mut Request, tunnel: Tunnel) {
    let connection = Rc::clone(&request.connection);
    let patience = *request.settings::<Sending>().timeout;
    let sent = &mut request.sent;
    let ended = tunnel.run(&connection, patience, |bytes| {
        sent.body_bytes += bytes;
        sent.bytes += bytes;
    });
    if let Err(fault) = ended.await {
        let (level, message) = fault.complaint();
        request.log(level, &message);
    }
}

/// Whether a body that nobody read can be read past.
fn may_pass_body(request: &Request) -> bool {
    let length = request.head.content_length();
    let is_too_long = length.zip(request.max_body_size()).is_some_and(|(length, max)| length > max);
    !request.waits_for_continue() && !is_too_long
}

/// Sends the head and gives the socket away.
async fn take_over(
    site: &Site,
    request: &mut Request,
    response: &Response,
    take: super::response::Takeover,
    keepalive: bool,
) -> After {
    let keepalive = keepalive && (response.status != 200 || request.streams_in_chunks());
    let Ok(head) = send::head(site, request, response, keepalive).await else {
        return After::CLOSE;
    };
    let held = request.connection.take_held();
    let head = if held.is_empty() { head } else { Bytes::from([&held[..], &head[..]].concat()) };
    match request.connection.detach() {
        Ok((socket, channel, leftover)) => {
            take(Detached { socket, channel, leftover, head }, request);
            After::Gone
        }
        Err(error) => {
            request.log(Level::Alert, &format!("a connection could not be handed over: {error}"));
            After::CLOSE
        }
    }
}

/// An error that a peer's going away makes, which is nobody's fault.
pub fn is_disconnect(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
    )
}
