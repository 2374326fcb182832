//! The way of a request through upstreams: a server, a connection, the request out, the head in, and again where that
//! is allowed.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::body::Decoder;
use super::family::{Bind, Buffering, Cache, Exchange, NextUpstream, bind_address};
use super::outgoing::{Failure, Framing, Outgoing, Payload};
use super::peers::{Selection, Target, Verdict};
use super::record::{Place, Shared, Try};
use super::stream::{Link, Opening, Plain, Stream};
use super::tls::{Securing, Terms};
use super::{Lease, Upstream, pool};
use crate::config::ListenAddress;
use crate::http::connection::Connection;
use crate::http::settings::Bodies;
use crate::http::wire::method::Method;
use crate::http::wire::upstream_head::{Field, UpstreamHead};
use crate::http::{Next, Request};
use crate::server::clock::{self, Moment};
use crate::server::log::Level;
use crate::server::sockets::reason;
use crate::tls::servers::Judge;

/// What a handler wants done.
#[derive(Debug)]
pub struct Plan<'p> {
    /// The servers.
    pub upstream: Arc<Upstream>,
    /// How they are spoken to.
    pub exchange: &'p Exchange,
    /// How bodies are buffered.
    pub buffering: &'p Buffering,
    /// Whether answers are stored.
    pub cache: &'p Cache,
    /// `http://` and its like, for the error log.
    pub schema: &'static str,
    /// The URI that is asked for, for the error log.
    pub uri: Bytes,
    /// What is sent before the request's body.
    pub head: Bytes,
    /// The request's body.
    pub body: Payload,
    /// What stands around the pieces of the body; `None`: it goes as it is.
    pub framing: Option<&'static Framing>,
    /// How the connection is made safe; `None`: it is not.
    pub tls: Option<Securing<'p>>,
}

/// What a handler knows of the protocol.
pub trait Protocol {
    /// Forgets an answer that was not wanted: another server is asked.
    fn reset(&mut self);

    /// Reads the head of an answer from what has come, and takes it out of there.
    fn parse(&mut self, request: &Request, input: &mut BytesMut) -> Parsed;

    /// Where the body of an answer ends.
    fn decoder(&self, head: &UpstreamHead) -> Decoder;

    /// Whether a header is not passed on unless `..._pass_header` says so.
    fn hides(&self, name: &[u8], field: Option<Field>) -> bool;

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
    /// It was the client, who did not send its body.
    is_clients: bool,
    /// What was being done, in nginx's words.
    doing: &'static str,
}

/// A request on its way.
pub(super) struct Passing<'p> {
    pub(super) plan: Plan<'p>,
    pub(super) record: Shared,
    selection: Selection,
    /// How many servers may be tried, those under way included. It is counted when the first has failed.
    left: Option<usize>,
    pub(super) started: Moment,
}

/// A head that came, with all that belongs to it.
pub(super) struct Arrived {
    pub(super) head: Box<UpstreamHead>,
    pub(super) link: Box<Link>,
    pub(super) lease: Lease,
    /// Whether the request was out by then; if not, nothing more can be asked on this connection.
    pub(super) is_asked: bool,
}

/// Passes a request on, and makes the answer.
pub async fn pass(request: &mut Request, plan: Plan<'_>, protocol: &mut dyn Protocol) -> Next<'static> {
    let selection = plan.upstream.begin(request);
    let record = request.upstream_record_mut().clone();
    if !record.borrow().tries.is_empty() {
        record.borrow_mut().tries.push(Try::default());
    }
    let mut passing = Passing { plan, record, selection, left: None, started: clock::now() };
    let connection = request.connection.clone();
    let is_watched = passing.is_watched(request);
    let passing_body = passing.plan.body.clone();
    let begun = clock::now();
    loop {
        let attempt = passing.attempt(request, protocol);
        let attempted = match is_watched {
            false => attempt.await,
            true => tokio::select! {
                biased;
                attempted = attempt => attempted,
                error = gone(&passing_body, &connection) => {
                    request.log(Level::Info, &abandoned(error, SENDING));
                    passing.note(|_| {});
                    return Next::Status(499);
                }
            },
        };
        passing.plan.body.settle(request);
        let trouble = match attempted {
            Ok(arrived) => match passing.unwanted(request, &arrived.head, begun) {
                None => return passing.answer(request, protocol, arrived),
                Some(condition) => {
                    let verdict = match condition {
                        NextUpstream::HTTP_403 | NextUpstream::HTTP_404 => Verdict::Good,
                        _ => Verdict::Failed,
                    };
                    passing.release(request, arrived.lease, verdict, READING);
                    Trouble::new(condition, arrived.head.status())
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

/// Waits until the client has gone. One whose body is being passed on is watched by whoever does that, in the same task.
async fn gone(body: &Payload, connection: &Connection) -> Option<io::Error> {
    poll_fn(|_| if body.is_coming() { Poll::Pending } else { Poll::Ready(()) }).await;
    connection.closed().await
}

/// What is said of a client that has gone before the upstream's answer was whole.
pub(in crate::http) fn abandoned(error: Option<io::Error>, doing: &str) -> String {
    let why = error.map(|error| format!(" ({})", reason(&error))).unwrap_or_default();
    format!(
        "epoll_wait() reported that client prematurely closed connection, so upstream connection is closed too{why} \
         while {doing}"
    )
}

impl Passing<'_> {
    /// Changes the last try of the record.
    pub(super) fn note(&self, change: impl FnOnce(&mut Try)) {
        if let Some(last) = self.record.borrow_mut().last() {
            last.response = Some(clock::now().since(self.started));
            change(last);
        }
    }

    /// Whether the request ends with its client; an answer is stored though that has gone.
    pub(super) fn is_watched(&self, request: &Request) -> bool {
        let goes_on = *self.plan.exchange.ignore_client_abort || self.plan.cache.store.is_on();
        request.ends_with_client() && !goes_on
    }

    /// How many servers may be tried.
    fn left(&mut self) -> &mut usize {
        let Plan { upstream, exchange, .. } = &self.plan;
        self.left.get_or_insert_with(|| match *exchange.next_tries {
            0 => upstream.tries(),
            most => upstream.tries().min(usize::try_from(most).unwrap_or(usize::MAX)),
        })
    }

    /// Whether an answer is one for which the next server is to be asked.
    fn unwanted(&mut self, request: &Request, head: &UpstreamHead, begun: Moment) -> Option<NextUpstream> {
        let condition = NextUpstream::of_status(head.status());
        let exchange = self.plan.exchange;
        let is_meant = !condition.is_empty() && exchange.next_upstream.contains(condition);
        let repeats = is_repeatable(request) || exchange.next_upstream.contains(NextUpstream::NON_IDEMPOTENT);
        let may_repeat = repeats && !self.plan.body.goes_once();
        (is_meant && *self.left() > 1 && may_repeat && self.is_in_time(begun)).then_some(condition)
    }

    fn is_in_time(&self, begun: Moment) -> bool {
        let most = *self.plan.exchange.next_timeout;
        most.is_zero() || clock::now().since(begun) < most
    }

    /// Whether the next server may be asked after this.
    fn may_go_on(&mut self, request: &Request, trouble: &Trouble, begun: Moment) -> bool {
        let allowed = self.plan.exchange.next_upstream;
        let mut needed = trouble.condition;
        if trouble.was_sent && !is_repeatable(request) {
            needed |= NextUpstream::NON_IDEMPOTENT;
        }
        // That a kept connection is closed is no server's fault: it takes none of the tries.
        *self.left() += usize::from(trouble.was_kept);
        let has_more = *self.left() > 0;
        let is_gone = trouble.is_clients || (trouble.was_sent && self.plan.body.goes_once());
        has_more && !is_gone && !needed.is_empty() && allowed.contains(needed) && self.is_in_time(begun)
    }

    /// Gives a server back.
    fn release(&mut self, request: &Request, lease: Lease, verdict: Verdict, doing: &str) {
        let left = self.left();
        *left = left.saturating_sub(1);
        if lease.end(verdict) {
            request.log(Level::Warn, &format!("upstream server temporarily disabled while {doing}"));
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
            return Err(Trouble::new(condition, 502));
        };
        let plain = Terms::default();
        let tls = self.plan.tls.as_ref().map_or(&plain, Securing::terms);
        let keeps = self.plan.upstream.keepalive.is_some();
        let target = &lease.chosen.target;
        let kept = if keeps { pool::take(&self.plan.upstream.name, &target.address, tls) } else { None };
        let was_kept = kept.is_some();
        let asked = match kept {
            Some(link) => Ok(link),
            // Boxed, so that a request over a kept connection does not keep room for it.
            None => Box::pin(self.connect(request, &lease)).await,
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
                head.map(|(head, is_asked)| (head, is_asked, link))
            }
        };
        match arrived {
            Ok((head, is_asked, link)) => {
                let header = clock::now().since(self.started);
                self.note(|last| (last.status, last.header) = (head.status(), Some(header)));
                Ok(Arrived { head, link, lease, is_asked })
            }
            Err(trouble) => {
                let verdict = if trouble.is_clients { Verdict::Good } else { Verdict::Failed };
                self.release(request, lease, verdict, trouble.doing);
                if trouble.condition == NextUpstream::TIMEOUT {
                    let message = format!("upstream timed out (110: Connection timed out) while {}", trouble.doing);
                    request.log(Level::Error, &message);
                }
                let was_kept = was_kept && trouble.condition == NextUpstream::ERROR;
                Err(Trouble { was_sent, was_kept, ..trouble })
            }
        }
    }

    async fn connect(&self, request: &Request, lease: &Lease) -> Result<Box<Link>, Trouble> {
        let exchange = self.plan.exchange;
        let opening = Opening { bind: self.bind(request, &exchange.bind), ..Opening::from(exchange) };
        let connecting = opening.connect(&lease.chosen.target.address);
        match clock::timeout(*exchange.connect_timeout, connecting).await {
            None => Err(Trouble::timed_out(CONNECTING)),
            Some(Err(error)) => {
                request.log(refused_level(&error), &refused(&lease.chosen.target, &error));
                Err(Trouble::error(CONNECTING))
            }
            Some(Ok(plain)) => self.secure(request, plain).await,
        }
    }

    async fn secure(&self, request: &Request, plain: Plain) -> Result<Box<Link>, Trouble> {
        const SHAKING: &str = "SSL handshaking to upstream";
        let Some(tls) = &self.plan.tls else { return Ok(Link::new(Stream::Plain(plain), clock::now())) };
        let config = tls.config().map_err(|message| {
            request.log(Level::Error, &format!("{message} while {CONNECTING}"));
            Trouble { is_clients: true, ..Trouble::new(NextUpstream::empty(), 500) }
        })?;
        let shaking = Box::pin(tokio_rustls::TlsConnector::from(config).connect(tls.name.clone(), plain));
        match clock::timeout(*self.plan.exchange.connect_timeout, shaking).await {
            None => Err(Trouble::timed_out(SHAKING)),
            Some(Err(error)) => {
                let judged = error.get_ref().and_then(|inner| inner.downcast_ref()).and_then(Judge::reason);
                let message = match judged {
                    Some(Some(refusal)) => format!("upstream SSL certificate verify error: {refusal}"),
                    Some(None) => format!("upstream SSL certificate does not match \"{}\"", tls.host),
                    None => match error.kind() {
                        io::ErrorKind::UnexpectedEof => "peer closed connection in SSL handshake".to_owned(),
                        io::ErrorKind::ConnectionReset => {
                            format!("peer closed connection in SSL handshake ({})", reason(&error))
                        }
                        _ => format!("SSL_do_handshake() failed ({})", reason(&error)),
                    },
                };
                request.log(Level::Error, &format!("{message} while {SHAKING}"));
                Err(Trouble::error(SHAKING))
            }
            Some(Ok(stream)) => {
                let mut link = Link::new(Stream::Tls(Box::new(stream)), clock::now());
                link.tls = tls.terms().clone();
                Ok(link)
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

    /// Sends the request and reads the head of the answer; says whether all of the request was out by then.
    async fn exchange(
        &self,
        request: &Request,
        protocol: &mut dyn Protocol,
        link: &mut Link,
    ) -> Result<(Box<UpstreamHead>, bool), Trouble> {
        let exchange = self.plan.exchange;
        let room = usize::try_from(*exchange.buffer_size).unwrap_or(usize::MAX);
        let mut outgoing = Outgoing::new(&self.plan);
        link.buffer.reserve(room.min(MAX_RESERVE));
        loop {
            // What can be done at once needs no timer.
            let step = match poll_fn(|cx| Poll::Ready(step(&mut outgoing, link, cx))).await {
                Poll::Ready(step) => Some(step),
                Poll::Pending => {
                    self.note(|last| (last.sent, last.received) = (link.sent, link.received));
                    let time = match () {
                        () if outgoing.waits_for_client() => *request.settings::<Bodies>().timeout,
                        () if outgoing.is_done() => *exchange.read_timeout,
                        () => *exchange.send_timeout,
                    };
                    clock::timeout(time, poll_fn(|cx| step(&mut outgoing, link, cx))).await
                }
            };
            match step {
                None if outgoing.waits_for_client() => {
                    let message = "client timed out (110: Connection timed out) while reading client request body";
                    request.log(Level::Info, message);
                    return Err(Trouble { is_clients: true, ..Trouble::new(NextUpstream::empty(), 408) });
                }
                None => return Err(Trouble::timed_out(if outgoing.is_done() { READING } else { SENDING })),
                Some(Err(failure)) => return Err(failed(request, &failure, outgoing.is_done())),
                Some(Ok(Step::Read(0))) => {
                    request.log(Level::Error, &format!("upstream prematurely closed connection while {READING}"));
                    return Err(Trouble::error(READING));
                }
                Some(Ok(Step::Sent)) => continue,
                Some(Ok(Step::Read(_))) => {}
            }
            let length = link.buffer.len();
            match protocol.parse(request, &mut link.buffer) {
                Parsed::Head(head) if head.length() <= room => return Ok((head, outgoing.is_done())),
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

const CONNECTING: &str = "connecting to upstream";
pub(super) const READING: &str = "reading response header from upstream";
const SENDING: &str = "sending request to upstream";

/// Sends what can be sent, or else reads.
fn step(outgoing: &mut Outgoing, link: &mut Link, cx: &mut Context<'_>) -> Poll<Result<Step, Failure>> {
    if !outgoing.is_done()
        && let Poll::Ready(sent) = outgoing.poll(cx, link)
    {
        return Poll::Ready(sent.map(|()| Step::Sent));
    }
    link.poll_fill(cx).map(|read| read.map(Step::Read).map_err(|error| Failure::Upstream("recv", error)))
}

/// Says why the exchange has failed.
fn failed(request: &Request, failure: &Failure, is_sent: bool) -> Trouble {
    match failure {
        Failure::Upstream(call, error) => {
            let doing = if is_sent { READING } else { SENDING };
            request.log(Level::Error, &format!("{call}() failed ({}) while {doing}", reason(error)));
            Trouble::error(doing)
        }
        Failure::File(error) => {
            request.log(Level::Crit, &format!("{error} while {SENDING}"));
            Trouble { is_clients: true, ..Trouble::new(NextUpstream::empty(), 500) }
        }
        Failure::Client(broken) => {
            let level = if broken.status() == 413 { Level::Error } else { Level::Info };
            request.log(level, &format!("{broken} while {SENDING}"));
            Trouble { is_clients: true, ..Trouble::new(NextUpstream::empty(), broken.status()) }
        }
    }
}

/// What happened on the way to a head.
enum Step {
    /// Something of the request is out.
    Sent,
    /// So many bytes came; 0 is the end.
    Read(usize),
}

/// What is made ready for a head at once at most, however large it may become.
const MAX_RESERVE: usize = 16 * 1024;

impl Trouble {
    fn new(condition: NextUpstream, status: u16) -> Self {
        Self { condition, status, was_sent: false, was_kept: false, is_clients: false, doing: READING }
    }

    fn error(doing: &'static str) -> Self {
        Self { doing, ..Self::new(NextUpstream::ERROR, 502) }
    }

    /// It took too long, which is logged once the server was given back.
    fn timed_out(doing: &'static str) -> Self {
        Self { doing, ..Self::new(NextUpstream::TIMEOUT, 504) }
    }

    fn invalid() -> Self {
        Self::new(NextUpstream::INVALID_HEADER, 502)
    }
}

impl From<&Exchange> for Opening {
    fn from(exchange: &Exchange) -> Self {
        Self { bind: None, transparent: exchange.bind.transparent, keepalive: *exchange.socket_keepalive }
    }
}

/// How bad it is that a connection was refused, as nginx has it: what a server or the network can do is an error.
fn refused_level(error: &io::Error) -> Level {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut,
    };
    match error.kind() {
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkDown | NetworkUnreachable | TimedOut => {
            Level::Error
        }
        _ => Level::Crit,
    }
}

/// What is said of it; the kernel refuses a connection to a server's address at once, or after a while.
fn refused(target: &Target, error: &io::Error) -> String {
    let is_at_once = matches!(target.address, ListenAddress::Unix(_))
        || !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset);
    let to = if is_at_once { format!(" to {}", String::from_utf8_lossy(&target.name)) } else { String::new() };
    format!("connect(){to} failed ({}) while connecting to upstream", reason(error))
}

/// Whether a request may be made twice without harm.
fn is_repeatable(request: &Request) -> bool {
    !matches!(request.method, Method::Post | Method::Lock | Method::Patch)
}

/// Reads more of an answer; 0 is its end.
pub(super) async fn fill(link: &mut Link, patience: Duration) -> io::Result<usize> {
    link.buffer.reserve(READ_SIZE);
    clock::timeout(patience, poll_fn(|cx| link.poll_fill(cx)))
        .await
        .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

/// How much of a body is read at once at least.
pub(super) const READ_SIZE: usize = 8 * 1024;
