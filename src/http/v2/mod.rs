//! HTTP/2 to clients: a second engine before the same phases.
//!
//! Frames, header compression and flow control are the crate h2's, which is hyper's own; what a request means and how it
//! is answered is decided where HTTP/1's is. A connection is one task; a request that has to wait for something becomes
//! one of its own.

mod answer;
mod exchange;
mod fields;
mod head;
pub mod settings;
mod takeover;
mod wire;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::{Builder, Handshake, SendResponse};
use h2::{Reason, RecvStream};
use tokio::task::spawn_local;

pub(super) use exchange::Exchange;

use self::head::Head;
use self::settings::Http2;
use self::wire::{Io, Live, Wire};
use super::connection::Connection;

use super::ending;
use super::request::Request;
use super::serve::{self, Refused, Site};
use super::settings::{Heads, Keepalive, Lingering, Sending};
use super::wire::head::parser::HeadOptions;
use crate::compile::{Compiled, Listener};
use crate::config::ListenAddress;
use crate::server::log::{Level, LogSettings};
use crate::server::{clock, counts};

/// What a client begins with that speaks HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// So many requests are begun before other tasks of the worker have their turn.
const ROUND: usize = 128;

/// How much of an answer may wait inside the engine for a client to take it.
const SEND_BUFFER: usize = 64 * 1024;

/// `$http2`
pub fn name(request: &Request) -> Bytes {
    Bytes::from_static(match (request.head.is_http2(), request.connection.tls()) {
        (false, _) => b"",
        (true, None) => b"h2c",
        (true, Some(_)) => b"h2",
    })
}

/// How what has come begins; `None`: too little has come to tell.
pub(super) fn is_preface(start: &[u8]) -> Option<bool> {
    let length = start.len().min(PREFACE.len());
    match start[..length] == PREFACE[..length] {
        true if length < PREFACE.len() => None,
        is_preface => Some(is_preface),
    }
}

/// Whether clients may speak HTTP/2 at a listener.
pub(super) fn is_on(compiled: &Compiled, listener: &Listener) -> bool {
    listener.http2 || *settings(compiled, listener).get::<Http2>().on
}

fn settings<'c>(compiled: &'c Compiled, listener: &Listener) -> &'c crate::config::Settings {
    compiled.settings(compiled.server_location(listener.default_server))
}

/// Serves a connection whose client speaks HTTP/2, to its end.
pub(super) async fn serve(
    site: Rc<Site>,
    connection: Rc<Connection>,
    address: Arc<ListenAddress>,
    compiled: Arc<Compiled>,
) {
    let Some(listener) = serve::listener(&compiled, &connection, &address) else { return };
    let found = settings(&compiled, listener);
    let options = HeadOptions::of(found.get::<Heads>());
    let http2 = found.get::<Http2>();
    let window = http2.preread.0.max(16 * 1024);
    let bound = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let streams = bound(*http2.streams);
    let wire = Rc::new(Wire::default());
    let length = connection.buffered().len();
    let ahead = BytesMut::from(connection.take(length));
    let io = Io { connection: Rc::clone(&connection), wire: Rc::clone(&wire), ahead };
    let handshake = Builder::new()
        .initial_window_size(bound(window))
        .initial_connection_window_size((1 << 31) - 1)
        .max_concurrent_streams(streams)
        .max_header_list_size(bound(head::limit(&options) as u64 * 2))
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol()
        .handshake(io);
    let patience = *found.get::<Heads>().timeout;
    let mut driver = Driver {
        engine: Engine::Beginning(handshake),
        site,
        connection,
        address,
        accepted: compiled,
        wire,
        streams: u64::from(streams),
        patience,
        is_leaving: false,
        lingers: false,
        text: Vec::new(),
    };
    poll_fn(|cx| driver.poll(cx)).await;
    driver.connection.waiter.take();
    // What the client still sends would have its connection reset, and the reason lost.
    let Driver { lingers: true, connection, accepted, address, .. } = &driver else { return };
    if let Some(listener) = serve::listener(accepted, connection, address) {
        ending::discard(connection, accepted, listener.default_server, Lingering::On, None).await;
    }
}

/// The protocol's state.
enum Engine {
    Beginning(Handshake<Io, Bytes>),
    Running(h2::server::Connection<Io, Bytes>),
    /// Streams may still be finding out.
    Ended,
}

/// A connection's task.
struct Driver {
    engine: Engine,
    site: Rc<Site>,
    connection: Rc<Connection>,
    address: Arc<ListenAddress>,
    /// The configuration that took it in, which holds where a later one does not listen there any more.
    accepted: Arc<Compiled>,
    wire: Rc<Wire>,
    /// `http2_max_concurrent_streams`
    streams: u64,
    /// How long it waits for its next request.
    patience: Duration,
    /// Whether the client was told to go.
    is_leaving: bool,
    /// Whether it ended by a fault of the client's.
    lingers: bool,
    text: Vec<u8>,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.wait(cx);
        self.follow(cx);
        if !matches!(self.engine, Engine::Ended) && self.advance(cx).is_ready() {
            self.engine = Engine::Ended;
        }
        // What the engine said last is written, whatever became of it.
        if let Poll::Ready(Err(_)) = self.wire.poll_write_out(&self.connection, cx) {
            self.engine = Engine::Ended;
        }
        self.mind_idleness();
        let is_over = matches!(self.engine, Engine::Ended) && self.wire.live() == 0;
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Keeps the way to wake this task up to date.
    fn follow(&self, cx: &Context<'_>) {
        let mut waiter = self.connection.waiter.borrow_mut();
        if !waiter.as_ref().is_some_and(|waiter| waiter.will_wake(cx.waker())) {
            *waiter = Some(cx.waker().clone());
        }
    }

    /// Reads, begins requests and writes; ready at the end of the connection.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Engine::Beginning(handshake) = &mut self.engine {
            match Pin::new(handshake).poll(cx) {
                Poll::Pending => return self.leave_if_told(),
                Poll::Ready(Err(error)) => return self.end(&error),
                Poll::Ready(Ok(running)) => self.engine = Engine::Running(running),
            }
        }
        for _ in 0..ROUND {
            let Engine::Running(engine) = &mut self.engine else { return Poll::Ready(()) };
            match engine.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(cx, request, respond),
                Poll::Ready(Some(Err(error))) => return self.end(&error),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {
                    if self.wire.is_flooded() && !self.is_leaving {
                        self.log(Level::Info, "http2 flood detected");
                        self.abort(Reason::NO_ERROR);
                        continue;
                    }
                    let was_leaving = self.is_leaving;
                    if self.leave_if_told().is_ready() {
                        return Poll::Ready(());
                    }
                    if was_leaving == self.is_leaving {
                        return Poll::Pending;
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends by an error of the client's or of the socket.
    fn end(&mut self, error: &h2::Error) -> Poll<()> {
        if error.is_go_away() && error.is_library() {
            self.lingers = true;
            self.log(Level::Info, &format!("client broke HTTP/2: {error}"));
        }
        Poll::Ready(())
    }

    /// Tells the client to go where it is time: the server is going, or nothing came for too long. Ready: at once.
    fn leave_if_told(&mut self) -> Poll<()> {
        let is_late = self.connection.waits_until.get().is_some_and(|until| until <= clock::now());
        if self.is_leaving {
            return if is_late { Poll::Ready(()) } else { Poll::Pending };
        }
        let is_closing = (self.site.is_closing)() && self.connection.requests.get() > 0;
        if is_late || (is_closing && self.wire.live() == 0) {
            self.abort(Reason::NO_ERROR);
            return if matches!(self.engine, Engine::Running(_)) { Poll::Pending } else { Poll::Ready(()) };
        }
        if is_closing {
            self.leave();
        }
        Poll::Pending
    }

    /// Takes no more requests than are under way.
    fn leave(&mut self) {
        self.is_leaving = true;
        if let Engine::Running(engine) = &mut self.engine {
            engine.graceful_shutdown();
        }
    }

    /// Ends at once.
    fn abort(&mut self, reason: Reason) {
        self.is_leaving = true;
        self.lingers = reason != Reason::NO_ERROR;
        if let Engine::Running(engine) = &mut self.engine {
            engine.abrupt_shutdown(reason);
        }
    }

    /// Lets the worker's sweep look after a connection without requests.
    fn mind_idleness(&self) {
        let waits = &self.connection.waits_until;
        if self.wire.live() > 0 {
            waits.set(None);
        } else if waits.get().is_none() {
            waits.set(Some(clock::now().after(self.patience)));
        }
    }

    /// Begins a request. One that need not wait is answered here and now.
    fn begin(&mut self, cx: &mut Context<'_>, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.connection.waits_until.set(None);
        let present = (self.site.compiled)();
        let compiled = match serve::listener(&present, &self.connection, &self.address) {
            Some(_) => present,
            None => Arc::clone(&self.accepted),
        };
        let Some(listener) = serve::listener(&compiled, &self.connection, &self.address) else { return };
        // More than may be open at a time: the client resets them as fast as it opens them.
        if self.wire.live() >= self.streams.saturating_mul(2) {
            self.log(Level::Info, "client sent too many streams at once");
            return self.abort(Reason::ENHANCE_YOUR_CALM);
        }
        counts::REQUESTS.add();
        let (parts, body) = request.into_parts();
        let host = parts.uri.authority().map_or("", |authority| authority.host());
        let options = HeadOptions::of(serve::heads_of(&compiled, listener, host.as_bytes()));
        let started = clock::now();
        let is_websocket = head::is_websocket(&parts);
        let has_body = !body.is_end_stream() && !is_websocket;
        let (head, refused) = match head::parse(&parts, has_body, &options, &mut self.text) {
            Ok(Head::Good(head)) => (head, None),
            Ok(Head::Bad(status, reason, head)) => (head, Some((status, reason))),
            Err(too_large) => {
                self.log(Level::Info, too_large.reason());
                return self.abort(Reason::ENHANCE_YOUR_CALM);
            }
        };
        self.wire.count_payload(self.text.len());
        let exchange = Exchange::new(body, respond, is_websocket, Rc::clone(&self.wire));
        let stream = Rc::new(Connection::of_stream(&self.connection, exchange));
        stream.requests.set(self.connection.requests.get());
        let mut request = serve::begin(&stream, &compiled, listener, head, refused.is_none(), started);
        self.connection.requests.set(stream.requests.get());
        let refused = match refused {
            Some((status, reason)) => {
                request.log(Level::Info, &reason);
                Some(Refused::Bad(status))
            }
            None => stream.refusal(&mut request, listener).map(Refused::Whole),
        };
        self.mind_age(&request);
        let live = Live::new(&self.wire);
        let mut task = Box::pin(answer::answer(Rc::clone(&self.site), request, refused, live));
        if task.as_mut().poll(cx).is_pending() {
            spawn_local(task);
        }
    }

    /// Ends the connection after its last request, by number or by age.
    fn mind_age(&mut self, request: &Request) {
        let keepalive = request.settings::<Keepalive>();
        self.patience = keepalive.timeout.wait;
        let is_last = self.connection.requests.get() >= *keepalive.requests
            || request.started.since(self.connection.accepted) >= *keepalive.time;
        if is_last && !self.is_leaving {
            self.patience = *request.settings::<Sending>().timeout;
            self.leave();
        }
    }

    fn log(&self, level: Level, message: &str) {
        let Some(listener) = serve::listener(&self.accepted, &self.connection, &self.address) else { return };
        let settings = settings(&self.accepted, listener).get::<LogSettings>();
        if settings.wants(level) {
            let client = self.connection.peer.text();
            let message = format!("{message}, client: {client}, server: {}", self.address);
            settings.write(level, self.connection.number, &message);
        }
    }
}
