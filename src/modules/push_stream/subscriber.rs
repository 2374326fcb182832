//! `push_stream_subscriber`: what subscribers of all kinds have in common.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::channels::{self, Channels, Refusal, Requested};
use super::check::{Findings, nearest};
use super::client::Client;
use super::events_channel::{self, Event};
use super::hooks::{Hook, Hooks};
use super::publisher::{self, Publishing};
use super::resume::Position;
use super::role::{self, Mode, Role};
use super::templates::{Format, Framing, Header, MessageTemplate, Padding, Templates};
use super::websocket::{self, Websockets};
use crate::compile::{Compiled, LocationId};
use crate::config::value::{Flag, Msec, Size, Text};
use crate::config::{Args, Builder, Call, Contexts, Cx, Directive, Fault, ListenAddress, ScopeId, Section, Severity};
use crate::http::settings::{Bodies, Sending};
use crate::http::{Body, Next, Request, Response};
use crate::hub::channel::{ChannelId, Start};
use crate::hub::message::{Draft, Message};
use crate::server::clock;
use crate::server::delivery::frame;
use crate::server::delivery::subscriber::{
    Farewell, NewSubscriber, Protocol, Settings, SubscriberEvents, SubscriberId,
};
use crate::server::live::Live;
use crate::server::worker::{self, Local};
use crate::settings;

settings! {
    /// How subscribers are treated.
    pub(super) struct Subscribing {
        /// Sends something when nothing else was sent for so long.
        "push_stream_ping_message_interval" HTTP_ALL = "" => ping_interval: Option<Msec>,
        /// How long a subscriber may stay; then the server ends its connection.
        "push_stream_subscriber_connection_ttl" HTTP_ALL = "" => pub(super) ttl: Option<Msec>,
        /// How long a long-polling request waits for a message; unset: as long as other subscribers may stay.
        "push_stream_longpolling_connection_ttl" HTTP_ALL = "" => pub(super) longpolling_ttl: Option<Msec>,
        /// How many bytes may wait for a subscriber that does not read; past them its connection is closed, websockets with
        /// code 1013. Not of the original, which has no bound but memory.
        "push_stream_subscriber_buffer_size" HTTP_ALL = "1m" => buffer_size: Size,
    }
}

settings! {
    /// What subscribers are told by the server itself.
    pub(super) struct Notices {
        /// The text of the pings that streaming subscribers get; unset: a blank.
        "push_stream_ping_message_text" HTTP = "" => ping_text: Option<Text>,
        /// Whether a long-polling request that waited in vain is answered with a message that says so, rather than 304.
        "push_stream_timeout_with_body" HTTP = "off" => pub(super) timeout_with_body: Flag,
        /// Over which time the subscribers are told to go when the server quits, so that they do not all come back at once.
        /// Not of the original.
        "push_stream_farewell_time" HTTP = "2s" => pub(super) farewell_time: Msec,
    }
}

/// The row that this file brings beside.
pub(super) const COMMANDS: &[Directive] = &[Directive {
    name: "push_stream_subscriber",
    contexts: Contexts::LOCATION,
    args: Args::between(0, 1),
    syntax: "[streaming | polling | long-polling | eventsource | websocket]",
    default: "streaming",
    doc: "Makes the location one where clients subscribe to the channels of `push_stream_channels_path`, and says how they \
          get the messages. On the ones over plain HTTP a client may choose polling or long-polling by the header \
          `X-Nginx-PushStream-Mode`.",
    file: file!(),
    apply: subscriber,
    ..Directive::BASE
}];

const MODES: [(&str, Mode); 5] = [
    ("streaming", Mode::Streaming),
    ("polling", Mode::Polling),
    ("long-polling", Mode::LongPolling),
    ("eventsource", Mode::EventSource),
    ("websocket", Mode::Websocket),
];

fn subscriber(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let word = call.text(0);
    let mode = match MODES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)) {
        Some((_, mode)) => *mode,
        None if call.is_empty() => Mode::Streaming,
        None => {
            let message = format!(
                "push stream module: invalid push_stream_subscriber mode value: {word}, accepted values (streaming, \
                 polling, long-polling, eventsource, websocket)"
            );
            return Err(Fault::new(message).severity(Severity::Error).word(0));
        }
    };
    role::take(cx, call, Role::Subscriber(mode), handle)
}

/// Checks what holds in a block.
pub(super) fn check(builder: &Builder, scope: ScopeId, findings: &mut Findings) {
    type Of = fn(&<Subscribing as Section>::Raw) -> Option<Option<Msec>>;
    let never_zero: [(&str, Of); 3] = [
        ("push_stream_ping_message_interval", |raw| raw.ping_interval),
        ("push_stream_subscriber_connection_ttl", |raw| raw.ttl),
        ("push_stream_longpolling_connection_ttl", |raw| raw.longpolling_ttl),
    ];
    for (name, of) in never_zero {
        let time = nearest(builder, scope, |builder, scope| of(builder.peek::<Subscribing>(scope)?));
        if time.flatten().is_some_and(|time| time.is_zero()) {
            findings.refuse(&format!("{name} cannot be zero."));
        }
    }
}

fn handle(request: &mut Request) -> Next<'_> {
    match request.settings::<role::Place>().role {
        Some(Role::Subscriber(Mode::Websocket)) => websocket::handle(request),
        Some(Role::Subscriber(mode)) => super::stream::handle(request, mode),
        _ => Next::Declined,
    }
}

/// What the subscribers of one location have in common that get the same bytes, on one worker. It outlives configurations:
/// after a reload they go on as their location says then.
pub(super) struct Audience {
    way: Way,
    place: PlaceName,
    manner: RefCell<Rc<Manner>>,
}

/// How an audience gets its messages, whatever a configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    /// How messages are marked off.
    pub(super) framing: Framing,
    /// Whether they are events.
    pub(super) is_event_source: bool,
    /// How they are filled up.
    pub(super) padding: Padding,
}

/// How an audience is treated, by one configuration.
pub(super) struct Manner {
    /// The configuration.
    pub(super) compiled: Arc<Compiled>,
    /// The location.
    pub(super) location: LocationId,
    /// For delivery.
    pub(super) settings: Rc<Settings>,
    /// How a message looks.
    pub(super) format: Rc<Format>,
    /// What is sent before the first message, framed.
    pub(super) header: Bytes,
    /// Whether what clients send is published, and stored.
    pub(super) publishing: Option<bool>,
}

thread_local! {
    /// The audiences of this worker, by the place of their configuration in memory, which they keep from being used again.
    static AUDIENCES: RefCell<Audiences> = RefCell::default();
}

type Audiences = HashMap<(*const Compiled, LocationId, Way), Rc<Audience>>;

impl Audience {
    /// The audience that a request's client belongs to.
    pub(super) fn of(request: &Request, way: Way) -> Rc<Self> {
        let key = (Arc::as_ptr(&request.compiled), request.location_id, way);
        let known = AUDIENCES.with_borrow(|known| known.get(&key).cloned());
        known.unwrap_or_else(|| {
            let manner = Manner::new(&request.compiled, request.location_id, way);
            let place = PlaceName::of(&request.compiled, request.location_id);
            let audience = Rc::new(Self { way, place, manner: RefCell::new(Rc::new(manner)) });
            AUDIENCES.with_borrow_mut(|known| known.insert(key, Rc::clone(&audience)));
            audience
        })
    }

    /// How it is treated now.
    pub(super) fn manner(&self) -> Rc<Manner> {
        Rc::clone(&self.manner.borrow())
    }
}

/// Has the audiences of a worker follow a new configuration. One whose location is gone stays as it is.
pub(super) fn follow(compiled: &Arc<Compiled>, local: &Local) {
    let audiences = AUDIENCES.take();
    for (_, audience) in audiences.into_iter().filter(|(_, audience)| Rc::strong_count(audience) > 1) {
        let old = audience.manner();
        let location = audience.place.find(compiled).filter(|location| {
            let (was, is) = (old.mode(), compiled.settings(*location).get::<role::Place>().role);
            was == is
        });
        let Some(location) = location else { continue };
        let new = Rc::new(Manner::new(compiled, location, audience.way));
        local.delivery.replace_settings(&old.settings, &new.settings);
        audience.manner.replace(new);
        let key = (Arc::as_ptr(compiled), location, audience.way);
        AUDIENCES.with_borrow_mut(|known| known.insert(key, audience));
    }
}

/// A location's name, by which it is found again in another configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlaceName {
    address: Option<ListenAddress>,
    server: Bytes,
    location: Bytes,
    kind: (bool, bool, bool),
}

impl PlaceName {
    fn of(compiled: &Compiled, id: LocationId) -> Self {
        let location = compiled.location(id);
        let server = &compiled.config.built.model.servers[location.server.0 as usize];
        Self {
            address: server.listens.first().map(|listen| listen.address.clone()),
            server: compiled.server(location.server).name.clone(),
            location: location.name.clone(),
            kind: (location.is_exact, location.is_named, location.is_regex),
        }
    }

    fn find(&self, compiled: &Compiled) -> Option<LocationId> {
        let locations = 0..compiled.config.built.model.locations.len();
        locations.map(|number| compiled.location_id(number)).find(|id| Self::of(compiled, *id) == *self)
    }
}

impl Manner {
    fn new(compiled: &Arc<Compiled>, location: LocationId, way: Way) -> Self {
        let Way { framing, is_event_source, padding } = way;
        let all = compiled.settings(location);
        let (templates, subscribing) = (all.get::<Templates>(), all.get::<Subscribing>());
        let template = MessageTemplate::parse(&templates.message);
        let format = Rc::new(Format::new(template, framing, is_event_source, padding));
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let protocol = match framing {
            Framing::Websocket | Framing::Deflated => {
                let most = *all.get::<Bodies>().max_size;
                let max_message_size = if most == 0 { usize::MAX } else { bytes(most) };
                Protocol::Websocket { max_message_size, deflate: framing == Framing::Deflated }
            }
            Framing::Chunk | Framing::Zipped { is_chunked: true, .. } => {
                Protocol::Stream { ending: Bytes::from_static(b"0\r\n\r\n") }
            }
            Framing::Bare | Framing::Zipped { is_chunked: false, .. } => Protocol::Stream { ending: Bytes::new() },
            Framing::Stamped => Protocol::Mailbox,
        };
        let ping = match (framing, is_event_source) {
            (Framing::Websocket | Framing::Deflated, _) => frame::ping(b""),
            (_, true) => framing.frame(&b": -1\n"[..]),
            (_, false) => {
                let text = compiled.http().get::<Notices>().ping_text.as_ref();
                let text = text.map_or(Bytes::from_static(b" "), |text| text.0.clone());
                framing.frame(format.body(&notice(-1, text)))
            }
        };
        let is_mailbox = framing == Framing::Stamped;
        let allow_publish = *all.get::<Websockets>().allow_publish;
        Self {
            compiled: Arc::clone(compiled),
            location,
            settings: Rc::new(Settings {
                protocol,
                rendering: Rc::clone(&format) as Rc<_>,
                ping: subscribing.ping_interval.filter(|_| !is_mailbox).map(|interval| (*interval, ping)),
                // A long-polling request keeps its time itself.
                ttl: subscribing.ttl.filter(|_| !is_mailbox).map(|ttl| *ttl),
                queue_bound: bytes(*subscribing.buffer_size),
                send_timeout: *all.get::<Sending>().timeout,
                footer: format.footer(&templates.footer),
            }),
            header: format.header(&all.get::<Header>().text),
            publishing: allow_publish.then(|| *all.get::<Publishing>().store),
            format,
        }
    }

    fn mode(&self) -> Option<Role> {
        self.compiled.settings(self.location).get::<role::Place>().role
    }

    /// The background requests of the location.
    pub(super) fn hooks(&self) -> &Hooks {
        self.compiled.settings(self.location).get::<Hooks>()
    }
}

/// A message of the server's own: of no channel, with a number that says what it is.
pub(super) fn notice(id: i64, text: Bytes) -> Message {
    let now = clock::unix_time().as_secs();
    Message::new(ChannelId::from(&b""[..]), id, now, 0, Draft::text(text))
}

/// A subscriber that waits for its connection. Dropped without one it is forgotten.
pub(super) struct Seat {
    local: Rc<Local>,
    id: Option<SubscriberId>,
    /// Says when its subscribe request has ended.
    asked: Option<oneshot::Receiver<()>>,
}

/// So long a client's answer waits for its subscribe request.
const LONGEST_ASKING: Duration = Duration::from_millis(100);

impl Seat {
    /// Answers once the subscribe request has ended, or soon anyway: a slow one refuses nobody. So what is notified as soon
    /// as a client knows that it is in reaches it.
    pub(super) fn answer<'r>(mut self, mut response: Response) -> Next<'r> {
        let asked = self.asked.take();
        response.body = Body::Takeover(Box::new(move |detached, request| self.take(request, detached)));
        match asked {
            None => Next::answer(response),
            Some(asked) => Next::later(async move {
                clock::timeout(LONGEST_ASKING, asked).await;
                Next::answer(response)
            }),
        }
    }

    /// Gives the subscriber its connection.
    pub(super) fn take(mut self, request: &Request, detached: crate::http::Detached) {
        let Some(id) = self.id.take() else { return };
        self.local.delivery.keep(id, request.all_kept());
        let crate::http::Detached { socket, channel, leftover, head } = detached;
        let connected = crate::server::delivery::Connected { socket, channel };
        if let Err(error) = self.local.delivery.adopt_with(id, connected, leftover, head) {
            let message = format!("push stream module: a subscriber's connection could not be taken over: {error}");
            request.log(crate::server::log::Level::Alert, &message);
        }
    }

    /// Whether something waits for a subscriber without a connection.
    pub(super) fn has_mail(&self) -> bool {
        self.id.is_some_and(|id| self.local.delivery.has_mail(id))
    }

    /// Waits until it has got all that is on its way.
    pub(super) async fn catch_up(&self) {
        self.local.delivery.catch_up().await;
    }

    /// Takes what waits for a subscriber without a connection.
    pub(super) fn collect(mut self) -> Vec<Bytes> {
        self.id.take().map_or_else(Vec::new, |id| self.local.delivery.collect(id))
    }

    /// Gives it its connection to say goodbye on.
    pub(super) fn dismiss(self, request: &Request, detached: crate::http::Detached, farewell: Farewell<'_>) {
        let (local, id) = (Rc::clone(&self.local), self.id);
        self.take(request, detached);
        if let Some(id) = id {
            local.delivery.close(id, farewell);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.local.delivery.abandon(id);
        }
    }
}

/// Checks the channels that a client asks for.
pub(super) fn wanted(request: &Request, live: &Live) -> Result<Vec<Requested>, Refusal> {
    let wanted = channels::requested(request);
    let now = clock::unix_time().as_secs();
    channels::check_subscriber(&live.hub, request.settings::<Channels>(), &wanted, now)?;
    Ok(wanted)
}

/// Gives a client its places in its channels, tells everybody of it, and runs what is to be run then.
pub(super) fn join(
    request: &Request,
    live: &'static Live,
    audience: &Rc<Audience>,
    wanted: &[Requested],
    greeting: Bytes,
) -> Result<Seat, Refusal> {
    join_as(request, live, audience, wanted, greeting, |events| events)
}

/// The same, with something around the ears of the subscriber.
pub(super) fn join_as(
    request: &Request,
    live: &'static Live,
    audience: &Rc<Audience>,
    wanted: &[Requested],
    greeting: Bytes,
    around: impl FnOnce(Rc<dyn SubscriberEvents>) -> Rc<dyn SubscriberEvents>,
) -> Result<Seat, Refusal> {
    let Some(local) = worker::local() else {
        return Err(Refusal { status: 503, explain: "This thread has no subscribers.", logged: None });
    };
    let position = Position::of(request);
    let channels: Vec<(&[u8], Start)> =
        wanted.iter().map(|channel| (&channel.id[..], position.start(channel))).collect();
    let settings = Rc::clone(&audience.manner().settings);
    let events: Rc<dyn SubscriberEvents> = match Client::of(request, audience) {
        Some(client) => Rc::new(client),
        None => Rc::clone(audience) as Rc<_>,
    };
    let new = NewSubscriber { channels: &channels, create: true, settings, greeting, events: around(events) };
    let subscription = local.delivery.subscribe(new)?;
    for channel in &subscription.channels {
        let id = Bytes::copy_from_slice(channel.channel.as_bytes());
        if channel.created {
            publisher::announce_created(request, live, &id);
        }
        events_channel::announce(live, Event::ClientSubscribed, &id);
    }
    let names: Vec<String> = subscription.channels.iter().map(|channel| channel.channel.to_string()).collect();
    let template = request.settings::<Hooks>().client_subscribed.as_ref();
    let hook = Hook::of("push_stream_client_subscribed_request", template, request, names.join("/"));
    let asked = hook.map(|hook| {
        let (local, id) = (Rc::clone(&local), subscription.id);
        hook.spawn_then(move |refusal| {
            local.delivery.close(id, Farewell::Code(refusal.close_code, &refusal.reason));
        })
    });
    Ok(Seat { local, id: Some(subscription.id), asked })
}

/// A place in no channel, for a client that is told goodbye at once.
pub(super) fn nowhere(audience: &Rc<Audience>) -> Option<Seat> {
    let local = worker::local()?;
    let settings = Rc::clone(&audience.manner().settings);
    let events = Rc::clone(audience) as Rc<_>;
    let new = NewSubscriber { channels: &[], create: false, settings, greeting: Bytes::new(), events };
    let subscription = local.delivery.subscribe(new).ok()?;
    Some(Seat { local, id: Some(subscription.id), asked: None })
}

/// How long a long-polling request waits.
pub(super) fn longpolling_ttl(request: &Request) -> Option<Duration> {
    let settings = request.settings::<Subscribing>();
    settings.longpolling_ttl.or(settings.ttl).map(|ttl| *ttl)
}
