//! Polling and long polling: the answer has the messages that the client does not know yet, and tells by `Last-Modified`
//! and `Etag` what it knows then.
//!
//! A client that follows several channels returns with one time and tag for all of them, so that an answer must have every
//! message up to those, of each channel. Messages get their time under their channel's lock: whoever reads the youngest
//! time first, and then all channels up to it, misses none.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::Notify;

use super::channels::{Refusal, Requested};
use super::resume::Position;
use super::role::{Mode, Place, Role};
use super::stream::EVENT_STREAM;
use super::subscriber::{self, Audience, Notices, Way};
use super::templates::{Framing, Header, Padding, Templates};
use super::{answer, publisher};
use crate::http::wire::escape::unescape_uri;
use crate::http::wire::lookup;
use crate::http::{Body, Next, Request, Response};
use crate::hub::Hub;
use crate::hub::channel::Start;
use crate::hub::message::Message;
use crate::modules::http_core;
use crate::server::clock;
use crate::server::delivery::subscriber::{Closed, Left, SubscriberEvents, SubscriberId};
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
        Err(refusal) => answer::refuse(request, &mut response, refusal),
        Ok(harvest) => tell(request, &mut response, harvest, &position, false),
    }
    Next::answer(response)
}

/// Answers a long-polling request: at once if there is something for it, or else as soon as there is.
pub(super) async fn wait(
    request: &mut Request,
    live: &'static Live,
    mut response: Response,
    wanted: Vec<Requested>,
) -> Next<'static> {
    let position = Position::of(request);
    let found = look(request, live, &wanted, &position);
    let waits = found.as_ref().is_ok_and(|harvest| harvest.messages.is_empty());
    let harvest = if waits { wait_for_mail(request, live, &wanted).await } else { found.map(Some) };
    match harvest {
        Err(refusal) => answer::refuse(request, &mut response, refusal),
        Ok(None) => response.silent = true,
        Ok(Some(harvest)) if harvest.messages.is_empty() => time_out(request, &mut response),
        Ok(Some(harvest)) => tell(request, &mut response, harvest, &position, waits),
    }
    Next::answer(response)
}

/// What is stored for a client. The channels are made, as if it had subscribed.
fn look(request: &Request, live: &'static Live, wanted: &[Requested], position: &Position) -> Result<Harvest, Refusal> {
    for channel in wanted {
        if publisher::create(live, &channel.id)? {
            publisher::announce_created(request, live, &channel.id);
        }
    }
    let audience = audience(request, Framing::Stamped);
    let (now, reading) = (clock::unix_time().as_secs(), Reading::begin(&live.hub));
    let mut harvest = Harvest::default();
    for channel in wanted {
        for message in reading.channel(&live.hub, &channel.id, &position.start(channel), now) {
            harvest.add((message.time, message.tag), audience.manner().format.body(&message).into());
        }
    }
    Ok(harvest)
}

/// A reading of several channels, up to one moment for all of them.
struct Reading {
    horizon: (u64, u32),
}

impl Reading {
    fn begin(hub: &Hub) -> Self {
        Self { horizon: hub.horizon() }
    }

    /// What a channel has from a start up to the moment.
    fn channel(&self, hub: &Hub, id: &[u8], start: &Start, now: u64) -> impl Iterator<Item = Arc<Message>> {
        let stored = hub.history(id, start, now).unwrap_or_default();
        let horizon = self.horizon;
        stored.into_iter().filter(move |message| (message.time, message.tag) <= horizon)
    }
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

    fn left(&self, subscriber: SubscriberId, left: Left) {
        self.events.left(subscriber, left);
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
    let audience = audience(request, Framing::Stamped);
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
            _ = request.connection.closed() => return Ok(None),
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
        let audience = audience(request, Framing::Stamped);
        let message = subscriber::notice(TIMED_OUT, Bytes::from_static(b"Timed out"));
        let mut harvest = Harvest::default();
        harvest.add((message.time, 0), audience.manner().format.body(&message).into());
        tell(request, response, harvest, &Position::default(), true);
    } else {
        let position = Position { time: Some(clock::unix_time().as_secs()), tag: Some(0), event_id: None };
        tell(request, response, Harvest::default(), &position, true);
    }
}

/// Makes the answer. Where there is nothing the client is told what it knows itself.
fn tell(request: &Request, response: &mut Response, harvest: Harvest, position: &Position, waited: bool) {
    let (time, tag) = match harvest.newest {
        Some((time, tag)) => (Some(time), Some(tag)),
        None => (position.time, position.tag),
    };
    response.last_modified = time.filter(|time| *time > 0).and_then(|time| i64::try_from(time).ok());
    if let Some(tag) = tag {
        response.header("Etag", format!("W/{tag}"));
    }
    let callback = lookup::argument(&request.args, b"callback");
    response.content_type = Some(match callback {
        Some(_) => Bytes::from_static(b"application/javascript"),
        None if waited && is_event_source(request) => Bytes::from_static(EVENT_STREAM),
        None => http_core::content_type(request),
    });
    if harvest.messages.is_empty() {
        response.status = 304;
        response.content_length = Some(0);
        return;
    }
    let format = &audience(request, Framing::Bare).manner().format;
    let mut body = BytesMut::from(&format.header(&request.settings::<Header>().text)[..]);
    if let Some(name) = callback {
        body.extend_from_slice(&unescape_uri(name));
        body.extend_from_slice(b"([");
    }
    for (number, message) in harvest.messages.iter().enumerate() {
        body.extend_from_slice(if number > 0 && callback.is_some() { b"," } else { b"" });
        body.extend_from_slice(message);
    }
    body.extend_from_slice(if callback.is_some() { b"]);" } else { b"" });
    body.extend_from_slice(&format.footer(&request.settings::<Templates>().footer));
    response.body = Body::Full(body.freeze());
    response.hides_length = true;
}

fn audience(request: &Request, framing: Framing) -> Rc<Audience> {
    Audience::of(request, Way { framing, is_event_source: is_event_source(request), padding: Padding::default() })
}

/// Whether the location is one for event sources, where a client asks for polling by a header.
fn is_event_source(request: &Request) -> bool {
    request.settings::<Place>().role == Some(Role::Subscriber(Mode::EventSource))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::hub::PublishOptions;
    use crate::hub::limits::Limits;
    use crate::hub::message::Draft;

    const CHANNELS: [&[u8]; 3] = [b"a", b"b", b"c"];

    fn publish(hub: &Hub, channel: usize, now: u64) {
        let options = PublishOptions { store: true, create: true };
        drop(hub.publish(CHANNELS[channel], Draft::text("m"), now, options).unwrap());
    }

    /// A client that follows the channels by polling, and what it has got of each.
    struct Poller {
        position: Position,
        got: [Vec<i64>; 3],
    }

    impl Poller {
        fn new() -> Self {
            Self { position: Position { time: Some(0), ..Position::default() }, got: Default::default() }
        }

        /// Polls once; `between` runs before each channel is read.
        fn poll(&mut self, hub: &Hub, now: u64, mut between: impl FnMut(usize)) {
            let reading = Reading::begin(hub);
            let mut harvest = Harvest::default();
            for (number, id) in CHANNELS.iter().enumerate() {
                between(number);
                let channel = Requested { id: Bytes::from_static(id), backtrack: 0 };
                for message in reading.channel(hub, id, &self.position.start(&channel), now) {
                    harvest.add((message.time, message.tag), Bytes::new());
                    self.got[number].push(message.id);
                }
            }
            if let Some((time, tag)) = harvest.newest {
                self.position = Position { time: Some(time), tag: Some(tag), event_id: None };
            }
        }

        fn has_all(&self, published: [i64; 3]) {
            for (got, published) in self.got.iter().zip(published) {
                assert_eq!(*got, (1..=published).collect::<Vec<_>>());
            }
        }
    }

    proptest! {
        /// Publications at any time, also between the readings of two channels, reach a polling client once each.
        #[test]
        fn a_polling_client_misses_nothing(
            rounds in proptest::collection::vec(
                (0u64..2, proptest::collection::vec((0usize..3, 0usize..4), 0..6)),
                1..20,
            ),
        ) {
            let hub = Hub::new(Limits::default());
            let (mut poller, mut published, mut now) = (Poller::new(), [0; 3], 1000);
            for (seconds, publications) in rounds {
                now += seconds;
                poller.poll(&hub, now, |reading| {
                    for (channel, _) in publications.iter().filter(|(_, before)| *before == reading) {
                        publish(&hub, *channel, now);
                        published[*channel] += 1;
                    }
                });
                for (channel, _) in publications.iter().filter(|(_, before)| *before == 3) {
                    publish(&hub, *channel, now);
                    published[*channel] += 1;
                }
            }
            poller.poll(&hub, now, |_| {});
            poller.has_all(published);
        }
    }

    #[test]
    fn nor_while_others_publish_on_other_threads() {
        const EACH: i64 = 2000;
        let (hub, is_done) = (Hub::new(Limits::default()), AtomicBool::new(false));
        let mut poller = Poller::new();
        std::thread::scope(|scope| {
            let publishers: Vec<_> = (0..3)
                .map(|channel| {
                    scope.spawn({
                        let hub = &hub;
                        move || (0..EACH).for_each(|n| publish(hub, channel, 1000 + n.unsigned_abs() / 500))
                    })
                })
                .collect();
            let (hub, is_done) = (&hub, &is_done);
            scope.spawn(move || {
                publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
                is_done.store(true, Ordering::Release);
            });
            while !is_done.load(Ordering::Acquire) {
                poller.poll(hub, 1000, |_| {});
            }
            poller.poll(hub, 1000, |_| {});
        });
        poller.has_all([EACH; 3]);
    }

    #[test]
    fn mail_tells_its_time() {
        let message = subscriber::notice(1, Bytes::from_static(b"text"));
        let harvest = Harvest::open(vec![stamped(&message, b"one"), stamped(&message, b""), Bytes::new()]);
        assert_eq!(harvest.messages, ["one", ""]);
        assert_eq!(harvest.newest, Some((message.time, 0)));
    }
}
