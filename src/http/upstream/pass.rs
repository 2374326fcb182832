//! The way of a request through upstreams: a server, a connection, the request out, the head in, and again where that
//! is allowed.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::body::Decoder;
use super::family::{Bind, Buffering, Exchange, NextUpstream, bind_address};
use super::peers::{Selection, Verdict};
use super::record::{Place, Shared, Try};
use super::stream::{Link, Opening, Plain, Stream};
use super::tls::Securing;
use super::{Lease, Upstream, pool};
use crate::http::wire::method::Method;
use crate::http::wire::upstream_head::{Field, UpstreamHead};
use crate::http::{Next, Received, Request};
use crate::server::clock::{self, Moment};
use crate::server::log::Level;
use crate::server::sockets::reason;

/// What a handler wants done.
#[derive(Debug)]
pub struct Plan<'p> {
    /// The servers.
    pub upstream: Arc<Upstream>,
    /// How they are spoken to.
    pub exchange: &'p Exchange,
    /// How bodies are buffered.
    pub buffering: &'p Buffering,
    /// `http://` and its like, for the error log.
    pub schema: &'static str,
    /// The URI that is asked for, for the error log.
    pub uri: Bytes,
    /// What is sent before the request's body.
    pub head: Bytes,
    /// The request's body.
    pub body: Received,
    /// How the connection is made safe; `None`: it is not.
    pub tls: Option<Securing>,
}

/// What a handler knows of the protocol.
pub trait Protocol {
    /// Forgets an answer that was not wanted: another server is asked.
    fn reset(&mut self);

    /// Reads the head of an answer from what has come, and takes it out of there.
    fn parse(&mut self, request: &Request, input: &mut BytesMut) -> Parsed;

    /// Where the body of an answer ends.
    fn decoder(&self, head: &UpstreamHead) -> Decoder;

    /// What becomes of a header on its way to the client; `None`: it stays. (`Location`, `Refresh`, `Set-Cookie`.)
    fn rewrite(&self, request: &Request, field: Field, value: &Bytes) -> Option<Bytes>;
}

/// What came of the bytes of an answer.
#[derive(Debug)]
pub enum Parsed {
    /// More are needed.
    More,
    /// The head.
    Head(Box<UpstreamHead>),
    /// They are no good, which was logged.
    Bad,
}

/// Why a server did not answer.
pub(super) struct Trouble {
    condition: NextUpstream,
    status: u16,
    /// The request was being sent when it happened.
    was_sent: bool,
    /// The connection had been kept from an earlier request: it may just have been closed.
    was_kept: bool,
}

/// A request on its way.
pub(super) struct Passing<'p> {
    pub(super) plan: Plan<'p>,
    pub(super) record: Shared,
    selection: Selection,
    tries: usize,
    pub(super) started: Moment,
}

/// A head that came, with all that belongs to it.
pub(super) struct Arrived {
    pub(super) head: Box<UpstreamHead>,
    pub(super) link: Link,
    pub(super) lease: Lease,
}

/// Passes a request on, and makes the answer.
pub async fn pass(request: &mut Request, plan: Plan<'_>, protocol: &mut dyn Protocol) -> Next<'static> {
    let tries = plan.upstream.tries();
    let tries = match *plan.exchange.next_tries {
        0 => tries,
        most => tries.min(usize::try_from(most).unwrap_or(usize::MAX)),
    };
    let selection = plan.upstream.begin(request);
    let record = request.upstream_record_mut().clone();
    if !record.borrow().tries.is_empty() {
        record.borrow_mut().tries.push(Try::default());
    }
    let mut passing = Passing { plan, record, selection, tries, started: clock::now() };
    let connection = request.connection.clone();
    let is_watched = request.is_main() && !*passing.plan.exchange.ignore_client_abort;
    let begun = clock::now();
    loop {
        let attempt = passing.attempt(request, protocol);
        let attempted = match is_watched {
            false => attempt.await,
            true => tokio::select! {
                biased;
                attempted = attempt => attempted,
                () = connection.closed() => {
                    request.log(
                        Level::Info,
                        "epoll_wait() reported that client prematurely closed connection, so upstream connection is \
                         closed too while sending request to upstream",
                    );
                    passing.note(|last| last.status = 499);
                    return Next::Status(499);
                }
            },
        };
        let trouble = match attempted {
            Ok(arrived) => match passing.unwanted(request, &arrived.head) {
                None => return passing.answer(request, protocol, arrived),
                Some(condition) => {
                    let verdict = match condition {
                        NextUpstream::HTTP_403 | NextUpstream::HTTP_404 => Verdict::Good,
                        _ => Verdict::Failed,
                    };
                    passing.release(request, arrived.lease, verdict);
                    Trouble { condition, status: arrived.head.status(), was_sent: true, was_kept: false }
                }
            },
            Err(trouble) => trouble,
        };
        passing.note(|last| last.status = trouble.status);
        if !passing.may_go_on(request, &trouble, begun) {
            return Next::Status(trouble.status);
        }
        protocol.reset();
    }
}

impl Passing<'_> {
    /// Changes the last try of the record.
    pub(super) fn note(&self, change: impl FnOnce(&mut Try)) {
        if let Some(last) = self.record.borrow_mut().last() {
            last.response = Some(clock::now().since(self.started));
            change(last);
        }
    }

    /// Whether an answer is one for which the next server is to be asked.
    fn unwanted(&self, request: &Request, head: &UpstreamHead) -> Option<NextUpstream> {
        let condition = NextUpstream::of_status(head.status());
        let exchange = self.plan.exchange;
        let is_meant = !condition.is_empty() && exchange.next_upstream.contains(condition);
        let repeats = is_repeatable(request) || exchange.next_upstream.contains(NextUpstream::NON_IDEMPOTENT);
        (is_meant && self.tries > 1 && repeats && self.is_in_time(self.started)).then_some(condition)
    }

    fn is_in_time(&self, begun: Moment) -> bool {
        let most = *self.plan.exchange.next_timeout;
        most.is_zero() || clock::now().since(begun) < most
    }

    /// Whether the next server may be asked after this.
    fn may_go_on(&self, request: &Request, trouble: &Trouble, begun: Moment) -> bool {
        let allowed = self.plan.exchange.next_upstream;
        let mut needed = trouble.condition;
        if trouble.was_sent && !is_repeatable(request) {
            needed |= NextUpstream::NON_IDEMPOTENT;
        }
        let has_more = self.tries > 0 || trouble.was_kept;
        has_more && !needed.is_empty() && allowed.contains(needed) && self.is_in_time(begun)
    }

    /// Gives a server back.
    fn release(&mut self, request: &Request, lease: Lease, verdict: Verdict) {
        self.tries = self.tries.saturating_sub(1);
        if lease.end(verdict) {
            request.log(Level::Warn, "upstream server temporarily disabled while connecting to upstream");
        }
    }

    /// Asks one server.
    async fn attempt(&mut self, request: &Request, protocol: &mut dyn Protocol) -> Result<Arrived, Trouble> {
        self.started = clock::now();
        let chosen = self.plan.upstream.next(&mut self.selection);
        let group = || Bytes::copy_from_slice(self.plan.upstream.name.as_bytes());
        let server = chosen.as_ref().map_or_else(group, |lease| lease.chosen.target.name.clone());
        {
            let mut record = self.record.borrow_mut();
            let place = Place { schema: self.plan.schema, server: server.clone(), uri: self.plan.uri.clone() };
            record.place = Some(place);
            let tried = Try { server: Some(server), ..Try::default() };
            record.tries.push(tried);
        }
        let Some(lease) = chosen else {
            request.log(Level::Error, "no live upstreams while connecting to upstream");
            let condition = NextUpstream::empty();
            return Err(Trouble { condition, status: 502, was_sent: false, was_kept: false });
        };
        let tls = self.plan.tls.as_ref().map_or(0, Securing::number);
        let keeps = self.plan.upstream.keepalive.is_some();
        let target = &lease.chosen.target;
        let kept = if keeps { pool::take(&self.plan.upstream.name, &target.address, tls) } else { None };
        let was_kept = kept.is_some();
        let asked = match kept {
            Some(link) => Ok(link),
            None => self.connect(request, &lease).await,
        };
        let mut was_sent = false;
        let arrived = match asked {
            Err(trouble) => Err(trouble),
            Ok(mut link) => {
                link.sent = 0;
                link.received = 0;
                let connect = clock::now().since(self.started);
                self.note(|last| last.connect = Some(connect));
                was_sent = true;
                let head = self.exchange(request, protocol, &mut link).await;
                self.note(|last| (last.sent, last.received) = (link.sent, link.received));
                head.map(|head| (head, link))
            }
        };
        match arrived {
            Ok((head, link)) => {
                let header = clock::now().since(self.started);
                self.note(|last| (last.status, last.header) = (head.status(), Some(header)));
                Ok(Arrived { head, link, lease })
            }
            Err(trouble) => {
                self.release(request, lease, Verdict::Failed);
                let was_kept = was_kept && trouble.condition == NextUpstream::ERROR;
                Err(Trouble { was_sent, was_kept, ..trouble })
            }
        }
    }

    async fn connect(&self, request: &Request, lease: &Lease) -> Result<Link, Trouble> {
        let exchange = self.plan.exchange;
        let opening = Opening { bind: self.bind(request, &exchange.bind), ..Opening::from(exchange) };
        let connecting = opening.connect(&lease.chosen.target.address);
        match clock::timeout(*exchange.connect_timeout, connecting).await {
            None => Err(self.timed_out(request, "connecting to upstream")),
            Some(Err(error)) => {
                request
                    .log(Level::Error, &format!("connect() failed ({}) while connecting to upstream", reason(&error)));
                Err(Trouble::error())
            }
            Some(Ok(plain)) => self.secure(request, plain).await,
        }
    }

    async fn secure(&self, request: &Request, plain: Plain) -> Result<Link, Trouble> {
        const SHAKING: &str = "SSL handshaking to upstream";
        let Some(tls) = &self.plan.tls else { return Ok(Link::new(Stream::Plain(plain), clock::now())) };
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
        let shaking = Box::pin(connector.connect(tls.name.clone(), plain));
        match clock::timeout(*self.plan.exchange.connect_timeout, shaking).await {
            None => Err(self.timed_out(request, SHAKING)),
            Some(Err(error)) => {
                let message = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                    Some(rustls::Error::InvalidCertificate(why)) => {
                        format!("upstream SSL certificate verify error: ({why}) while {SHAKING}")
                    }
                    _ => format!("SSL_do_handshake() failed ({}) while {SHAKING}", reason(&error)),
                };
                request.log(Level::Error, &message);
                Err(Trouble::error())
            }
            Some(Ok(stream)) => {
                let link = Link::new(Stream::Tls(Box::new(stream)), clock::now());
                Ok(Link { tls: tls.number(), ..link })
            }
        }
    }

    fn bind(&self, request: &Request, bind: &Bind) -> Option<std::net::SocketAddr> {
        let text = request.eval(bind.address.as_ref()?);
        let text = String::from_utf8_lossy(&text);
        let address = bind_address(&text);
        if address.is_none() && !text.is_empty() {
            request.log(Level::Error, &format!("invalid local address \"{text}\""));
        }
        address
    }

    fn timed_out(&self, request: &Request, doing: &str) -> Trouble {
        request.log(Level::Error, &format!("upstream timed out (110: Connection timed out) while {doing}"));
        Trouble { condition: NextUpstream::TIMEOUT, status: 504, was_sent: false, was_kept: false }
    }

    /// Sends the request and reads the head of the answer.
    async fn exchange(
        &self,
        request: &Request,
        protocol: &mut dyn Protocol,
        link: &mut Link,
    ) -> Result<Box<UpstreamHead>, Trouble> {
        const READING: &str = "reading response header from upstream";
        const SENDING: &str = "sending request to upstream";
        let exchange = self.plan.exchange;
        let room = usize::try_from(*exchange.buffer_size).unwrap_or(usize::MAX);
        let mut outgoing = Outgoing::new(&self.plan);
        let mut is_sending = true;
        link.buffer.reserve(room.min(MAX_RESERVE));
        loop {
            let (time, doing) = match is_sending {
                true => (*exchange.send_timeout, SENDING),
                false => (*exchange.read_timeout, READING),
            };
            let step = poll_fn(|cx| {
                if is_sending && let Poll::Ready(sent) = outgoing.poll(cx, link) {
                    return Poll::Ready(sent.map(|()| Step::Sent).map_err(|error| ("writev", error)));
                }
                link.poll_fill(cx).map(|read| read.map(Step::Read).map_err(|error| ("recv", error)))
            });
            match clock::timeout(time, step).await {
                None => return Err(self.timed_out(request, doing)),
                Some(Err((call, error))) => {
                    request.log(Level::Error, &format!("{call}() failed ({}) while {doing}", reason(&error)));
                    return Err(Trouble::error());
                }
                Some(Ok(Step::Read(0))) => {
                    request.log(Level::Error, &format!("upstream prematurely closed connection while {READING}"));
                    return Err(Trouble::error());
                }
                Some(Ok(Step::Sent)) => {
                    is_sending = false;
                    continue;
                }
                Some(Ok(Step::Read(_))) => {}
            }
            let length = link.buffer.len();
            match protocol.parse(request, &mut link.buffer) {
                Parsed::Head(head) if length - link.buffer.len() <= room => return Ok(head),
                Parsed::More if length < room => {}
                Parsed::Bad => return Err(Trouble::invalid()),
                Parsed::Head(_) | Parsed::More => {
                    request.log(Level::Error, &format!("upstream sent too big header while {READING}"));
                    return Err(Trouble::invalid());
                }
            }
            link.buffer.reserve(1024);
        }
    }
}

/// What is still to be sent of a request.
struct Outgoing {
    pieces: [Bytes; 2],
    file: Option<(Rc<File>, Range<u64>)>,
}

/// How much of a file is sent at once.
const FILE_PIECE: u64 = 64 * 1024;

impl Outgoing {
    fn new(plan: &Plan<'_>) -> Self {
        let head = plan.head.clone();
        match &plan.body {
            Received::Memory(body) => Self { pieces: [head, body.clone()], file: None },
            Received::File(file, length) => {
                Self { pieces: [head, Bytes::new()], file: Some((Rc::clone(file), 0..*length)) }
            }
        }
    }

    /// Sends what can be sent; ready when all is out.
    fn poll(&mut self, cx: &mut Context<'_>, link: &mut Link) -> Poll<io::Result<()>> {
        loop {
            if self.pieces[1].is_empty()
                && let Some((file, left)) = self.file.as_mut().filter(|(_, left)| !left.is_empty())
            {
                let step = usize::try_from((left.end - left.start).min(FILE_PIECE)).expect("at most FILE_PIECE");
                let mut piece = vec![0; step];
                file.read_exact_at(&mut piece, left.start)?;
                left.start += step as u64;
                self.pieces[1] = piece.into();
            }
            ready!(link.poll_send(cx, &mut self.pieces))?;
            if self.file.as_ref().is_none_or(|(_, left)| left.is_empty()) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// What happened on the way to a head.
enum Step {
    /// The request is out.
    Sent,
    /// So many bytes came; 0 is the end.
    Read(usize),
}

/// What is made ready for a head at once at most, however large it may become.
const MAX_RESERVE: usize = 16 * 1024;

impl Trouble {
    fn error() -> Self {
        Self { condition: NextUpstream::ERROR, status: 502, was_sent: false, was_kept: false }
    }

    fn invalid() -> Self {
        Self { condition: NextUpstream::INVALID_HEADER, status: 502, was_sent: false, was_kept: false }
    }
}

impl From<&Exchange> for Opening {
    fn from(exchange: &Exchange) -> Self {
        Self { bind: None, transparent: exchange.bind.transparent, keepalive: *exchange.socket_keepalive }
    }
}

/// Whether a request may be made twice without harm.
fn is_repeatable(request: &Request) -> bool {
    !matches!(request.method, Method::Post | Method::Lock | Method::Patch)
}

/// What an answer's body is read with.
pub(super) struct Patience {
    /// How long the upstream may pause.
    pub(super) read: Duration,
}

/// Reads more of an answer; 0 is its end.
pub(super) async fn fill(link: &mut Link, patience: &Patience) -> io::Result<usize> {
    link.buffer.reserve(READ_SIZE);
    clock::timeout(patience.read, poll_fn(|cx| link.poll_fill(cx)))
        .await
        .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

/// How much of a body is read at once at least.
const READ_SIZE: usize = 8 * 1024;
