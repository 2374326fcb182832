//! Polling and long polling: the answer has the messages that the client does not know yet, and tells by `Last-Modified`
//! and `Etag` what it knows then.
//!
//! A client that follows several channels returns with one time and tag for all of them, so that an answer must have every
//! message up to those, of each channel. Messages get their time under their channel's lock: whoever reads the youngest
//! time first, and then all channels up to it, misses none.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::Notify;

use super::channels::{Refusal, Requested};
use super::resume::Position;
use super::subscriber::{self, Audience, Notices};
use super::templates::{Format, Framing, Header, Templates};
use super::{answer, padding, publisher};
use crate::http::wire::escape::{Unescape, unescape};
use crate::http::wire::lookup;
use crate::http::{Body, Next, Request, Response};
use crate::hub::message::Message;
use crate::modules::http_core;
use crate::server::clock;
use crate::server::delivery::subscriber::{Closed, SubscriberEvents, SubscriberId};
use crate::server::live::Live;

/// The number of the message that says that nothing came in time.
const TIMED_OUT: i64 = -3;

/// What goes into an answer: messages, rendered, and the time and tag of the youngest.
#[derive(Debug, Default)]
struct Harvest {
    messages: Vec<Bytes>,
    newest: Option<(u64, u32)>,
}

impl Harvest {
    fn add(&mut self, stamp: (u64, u32), message: Bytes) {
        self.newest = self.newest.max(Some(stamp));
        self.messages.push(message);
    }

    /// Opens what came by a mailbox: messages rendered with their stamp in front ([`Framing::Stamped`]).
    fn open(mail: Vec<Bytes>) -> Self {
        let mut harvest = Self::default();
        for mut message in mail.into_iter().filter(|message| message.len() >= 12) {
            let stamp = (message.get_u64(), message.get_u32());
            harvest.add(stamp, message);
        }
        harvest
    }
}

/// Renders a message for a mailbox.
pub(super) fn stamped(message: &Message, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(12 + body.len());
    out.put_u64(message.time);
    out.put_u32(message.tag);
    out.put_slice(body);
    out.freeze()
}

/// Answers a polling request at once.
pub(super) fn handle<'r>(
    request: &'r Request,
    live: &'static Live,
    mut response: Response,
    wanted: Vec<Requested>,
) -> Next<'r> {
    let position = Position::of(request);
    match look(request, live, &wanted, &position) {
        Err(refusal) => answer::refuse(&mut response, refusal),
        Ok(harvest) => tell(request, &mut response, harvest, &position),
    }
    Next::Answer(response)
}

/// Answers a long-polling request: at once if there is something for it, or else as soon as there is.
pub(super) async fn wait(
    request: &mut Request,
    live: &'static Live,
    mut response: Response,
    wanted: Vec<Requested>,
) -> Next<'static> {
    let position = Position::of(request);
    let harvest = match look(request, live, &wanted, &position) {
        Ok(harvest) if harvest.messages.is_empty() => wait_for_mail(request, live, &wanted).await,
        harvest => harvest.map(Some),
    };
    match harvest {
        Err(refusal) => answer::refuse(&mut response, refusal),
        Ok(None) => response.silent = true,
        Ok(Some(harvest)) if harvest.messages.is_empty() => time_out(request, &mut response),
        Ok(Some(harvest)) => tell(request, &mut response, harvest, &position),
    }
    Next::Answer(response)
}

/// What is stored for a client. The channels are made, as if it had subscribed.
fn look(
    request: &Request,
    live: &'static Live,
    wanted: &[Requested],
    position: &Position,
) -> Result<Harvest, Refusal> {
    for channel in wanted {
        if publisher::create(live, &channel.id)? {
            publisher::announce_created(request, live, &channel.id);
        }
    }
    let audience = Audience::of(request, Framing::Stamped, false, padding::of(request));
    let (now, horizon) = (clock::unix_time().as_secs(), live.hub.horizon());
    let mut harvest = Harvest::default();
    for channel in wanted {
        let stored = live.hub.history(&channel.id, &position.start(channel), now).unwrap_or_default();
        for message in stored.into_iter().filter(|message| (message.time, message.tag) <= horizon) {
            harvest.add((message.time, message.tag), audience.format.body(&message).into());
        }
    }
    Ok(harvest)
}

/// Wakes the request whose mailbox has something, or is no more.
#[derive(Debug, Default)]
struct Bell {
    rung: Notify,
    is_over: Cell<bool>,
}

/// A mailbox that rings.
struct Mailbox {
    bell: Rc<Bell>,
    events: Rc<dyn SubscriberEvents>,
}

impl SubscriberEvents for Mailbox {
    fn message(&self, _: SubscriberId, _: crate::server::delivery::frame::Opcode, _: Bytes) {}

    fn mail(&self, _: SubscriberId) {
        self.bell.rung.notify_one();
    }

    fn closed(&self, subscriber: SubscriberId, closed: Closed) {
        self.bell.is_over.set(true);
        self.bell.rung.notify_one();
        self.events.closed(subscriber, closed);
    }
}

/// Subscribes, and waits: for a message, for the end of the time, for the end of the server. `None`: the client went.
async fn wait_for_mail(
    request: &Request,
    live: &'static Live,
    wanted: &[Requested],
) -> Result<Option<Harvest>, Refusal> {
    let audience = Audience::of(request, Framing::Stamped, false, padding::of(request));
    let bell = Rc::new(Bell::default());
    let ring = Rc::clone(&bell);
    let around = move |events| Rc::new(Mailbox { bell: ring, events }) as Rc<_>;
    let seat = subscriber::join_as(request, live, &audience, wanted, Bytes::new(), around)?;
    let ttl = subscriber::longpolling_ttl(request);
    if !seat.has_mail() {
        let rung = async {
            match ttl {
                Some(ttl) => drop(clock::timeout(ttl, bell.rung.notified()).await),
                None => bell.rung.notified().await,
            }
        };
        tokio::select! {
            () = rung => {}
            () = request.connection.closed() => return Ok(None),
        }
    }
    if wanted.len() > 1 && !bell.is_over.get() {
        // What other channels have up to now has its time already: it is in the inbox, or will be once their locks are free.
        for channel in wanted {
            live.hub.touch(&channel.id);
        }
        seat.catch_up().await;
    }
    Ok(Some(Harvest::open(seat.collect())))
}

/// Says that nothing came in time.
fn time_out(request: &Request, response: &mut Response) {
    if *request.compiled.http().get::<Notices>().timeout_with_body {
        let audience = Audience::of(request, Framing::Stamped, false, padding::of(request));
        let message = subscriber::notice(TIMED_OUT, Bytes::from_static(b"Timed out"));
        let mut harvest = Harvest::default();
        harvest.add((message.time, 0), audience.format.body(&message).into());
        tell(request, response, harvest, &Position::default());
    } else {
        let position = Position { time: Some(clock::unix_time().as_secs()), tag: Some(0), event_id: None };
        tell(request, response, Harvest::default(), &position);
    }
}

/// Makes the answer. Where there is nothing the client is told what it knows itself.
fn tell(request: &Request, response: &mut Response, harvest: Harvest, position: &Position) {
    let (time, tag) = match harvest.newest {
        Some((time, tag)) => (Some(time), Some(tag)),
        None => (position.time, position.tag),
    };
    response.last_modified = time.filter(|time| *time > 0).and_then(|time| i64::try_from(time).ok());
    if let Some(tag) = tag {
        response.header("Etag", format!("W/{tag}"));
    }
    let callback = lookup::argument(&request.args, b"callback").filter(|name| !name.is_empty());
    response.content_type = Some(match callback {
        Some(_) if !harvest.messages.is_empty() => Bytes::from_static(b"application/javascript"),
        _ => http_core::content_type(request),
    });
    if harvest.messages.is_empty() {
        response.status = 304;
        response.content_length = Some(0);
        return;
    }
    let mut body = BytesMut::new();
    match callback {
        Some(name) => {
            body.extend_from_slice(&unescape(name, Unescape::All));
            body.extend_from_slice(b"([");
            for (number, message) in harvest.messages.iter().enumerate() {
                body.extend_from_slice(if number > 0 { b"," } else { b"" });
                body.extend_from_slice(message);
            }
            body.extend_from_slice(b"]);");
        }
        None => {
            let format = &Audience::of(request, Framing::Bare, false, padding::of(request)).format;
            surround(&mut body, request, format, &harvest.messages);
        }
    }
    response.body = Body::Full(body.freeze());
    response.hides_length = true;
}

/// Puts header and footer around the messages.
fn surround(body: &mut BytesMut, request: &Request, format: &Format, messages: &[Bytes]) {
    body.extend_from_slice(&format.header(&request.settings::<Header>().text));
    messages.iter().for_each(|message| body.extend_from_slice(message));
    body.extend_from_slice(&format.footer(&request.settings::<Templates>().footer));
}
