//! A subscriber: what its module says about it, and the few bytes that it is between two deliveries.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::hub::channel::{ChannelId, Start};
use crate::hub::message::{Message, RenderingKey};
use crate::hub::{Subscribed, Unsubscribed};
use crate::server::delivery::frame::{self, Opcode};
use crate::server::delivery::gzip::{self, Sum};
use crate::server::delivery::queue::Queue;
use crate::server::delivery::socket::Socket;
use crate::server::delivery::timers::{NEVER, Tick, ticks};
use crate::server::delivery::websocket::Decoder;

/// Names a subscriber of a worker; never used again for another while anybody may still hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriberId {
    pub(super) slot: u32,
    pub(super) serial: u32,
}

/// What subscribers of one location have in common.
pub struct Settings {
    /// What the connection speaks.
    pub protocol: Protocol,
    /// How a message is sent.
    pub rendering: Rc<dyn Rendering>,
    /// Sent when nothing else was for so long (`push_stream_ping_message_interval`).
    pub ping: Option<(Duration, Bytes)>,
    /// How long a subscriber may stay (`push_stream_subscriber_connection_ttl`).
    pub ttl: Option<Duration>,
    /// How many bytes may wait for a subscriber that does not read; past them it is closed.
    pub queue_bound: usize,
    /// How long a subscriber may take nothing of what waits for it (`send_timeout`).
    pub send_timeout: Duration,
    /// Sent before the plain last words, to a client that has not itself said goodbye (`push_stream_footer_template`).
    pub footer: Bytes,
}

/// What a subscriber's connection speaks.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// RFC 6455, after the handshake.
    Websocket {
        /// The largest message a client may send, bytes.
        max_message_size: usize,
        /// Whether the client may compress its messages.
        deflate: bool,
    },
    /// None: there is no connection, and what comes waits until the module collects it.
    Mailbox,
    /// Bytes as they are rendered; what the client sends is ignored.
    Stream {
        /// Sent before the connection ends.
        ending: Bytes,
    },
}

/// Turns a message into the bytes that are sent.
pub trait Rendering {
    /// Equal keys render equally: the bytes are made once for all subscribers of all workers.
    fn key(&self) -> RenderingKey;
    /// The message as one whole frame or chunk.
    fn render(&self, message: &Message) -> Bytes;
    /// Whether frames are parts of a gzip stream, as [`gzip::frame`] makes them; so is all else that is sent then.
    fn is_zipped(&self) -> bool {
        false
    }
}

/// What a subscriber's module is told. Called on the worker's thread, outside of any borrow: it may call [`super::Delivery`]
/// and the hub. It keeps whatever it needs to know about the client.
pub trait SubscriberEvents {
    /// A websocket client sent a message. To have the next one wait until this one is dealt with, pause reading here.
    fn message(&self, subscriber: SubscriberId, opcode: Opcode, payload: Bytes);
    /// Something waits in a mailbox that was empty.
    fn mail(&self, _: SubscriberId) {}
    /// One of the subscriber's channels is gone; it has others.
    fn left(&self, _: SubscriberId, _: Left) {}
    /// The subscriber is no longer one. Called once.
    fn closed(&self, subscriber: SubscriberId, closed: Closed);
}

/// A subscriber to be.
pub struct NewSubscriber<'a> {
    /// The ids of its channels, and where in their history it begins.
    pub channels: &'a [(&'a [u8], Start)],
    /// Channels that do not exist are made.
    pub create: bool,
    /// What it has in common with others.
    pub settings: Rc<Settings>,
    /// Sent before anything else.
    pub greeting: Bytes,
    /// Its module's.
    pub events: Rc<dyn SubscriberEvents>,
}

/// A subscriber that has its place in its channels, and gets their messages as soon as it has a socket.
#[derive(Debug)]
pub struct Subscription {
    /// Its name.
    pub id: SubscriberId,
    /// Its channels, in the order they were given. The backlog has been taken.
    pub channels: Vec<Subscribed>,
}

/// The end of a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Why.
    pub reason: Reason,
    /// The channels that it was in until now.
    pub left: Vec<Left>,
}

/// A channel that a subscriber left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its id.
    pub channel: ChannelId,
    /// `None` if the channel itself is gone.
    pub unsubscribed: Option<Unsubscribed>,
}

/// Why a subscriber is no longer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The client said goodbye or closed its connection.
    Client,
    /// The connection broke.
    Broken,
    /// The client broke the protocol; it was told this close code.
    Violation(u16),
    /// The client does not read what is sent to it.
    Slow,
    /// Its time was over.
    Ttl,
    /// Its last channel was deleted.
    ChannelDeleted,
    /// What waited in its mailbox was collected.
    Collected,
    /// [`super::Delivery::close`] or [`super::Delivery::shutdown`] was called.
    Asked,
}

/// The last words to a websocket client; a stream gets its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell<'a> {
    /// A close frame without a code, as the original sends.
    Plain,
    /// A close frame with a code and a reason.
    Code(u16, &'a str),
}

/// A subscriber in the slab.
pub(super) struct Subscriber {
    pub(super) serial: u32,
    pub(super) phase: Phase,
    pub(super) paused: bool,
    /// The client has said that it sends no more.
    pub(super) done: bool,
    /// It waits in the list of those to be flushed.
    pub(super) dirty: bool,
    /// What is queued is the head of an answer, which waits for something to follow it.
    pub(super) held: bool,
    /// `None` until it is adopted.
    pub(super) socket: Option<Socket>,
    pub(super) queue: Option<Box<Queue>>,
    pub(super) reading: Option<Box<Reading>>,
    pub(super) settings: Rc<Settings>,
    pub(super) events: Rc<dyn SubscriberEvents>,
    pub(super) seats: SmallVec<[Seat; 1]>,
    /// What a gzip stream says at its end of all that was in it.
    pub(super) sum: Sum,
    /// When something was last sent.
    pub(super) sent: Tick,
    /// When it is to end.
    pub(super) ends: Tick,
    /// When it is next looked at; other entries of the timers are void.
    pub(super) timer: Tick,
}

/// How far a subscriber is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is a subscriber.
    Open,
    /// It is none any more, but its last words are not yet sent.
    Leaving,
    /// All is sent. The socket stays until the client has closed too: closing it while the client still sends would reset
    /// the connection, and the last words might be lost.
    Lingering,
}

/// A place in a channel: which roster, which group of it, which member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) roster: u32,
    pub(super) group: u32,
    pub(super) member: u32,
}

/// What has come of a client's message, or is not yet to be looked at.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) decoder: Decoder,
    pub(super) leftover: Vec<u8>,
}

impl Subscriber {
    /// When it must be looked at next.
    pub(super) fn deadline(&self) -> Tick {
        let stalled = match &self.queue {
            Some(queue) if self.socket.is_some() && !self.held => {
                queue.since.saturating_add(ticks(self.settings.send_timeout))
            }
            _ => NEVER,
        };
        self.ends.min(stalled).min(self.ping_due())
    }

    /// Nobody but its module takes what it gets.
    pub(super) fn is_mailbox(&self) -> bool {
        matches!(self.settings.protocol, Protocol::Mailbox)
    }

    /// Something waits for it.
    pub(super) fn has_mail(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.is_empty())
    }

    /// When the next ping is due.
    pub(super) fn ping_due(&self) -> Tick {
        match &self.settings.ping {
            Some((interval, _)) if self.phase == Phase::Open => self.sent.saturating_add(ticks(*interval)),
            _ => NEVER,
        }
    }

    /// A frame as it is sent; a part of a gzip stream is counted.
    pub(super) fn count(&mut self, frame: Bytes) -> Bytes {
        if !self.settings.rendering.is_zipped() {
            return frame;
        }
        let (frame, addition) = gzip::open(frame);
        self.sum.add(&addition);
        frame
    }

    /// The last words.
    pub(super) fn farewell(&self, farewell: Farewell<'_>) -> Bytes {
        match (&self.settings.protocol, farewell) {
            (Protocol::Stream { ending }, _) if self.settings.rendering.is_zipped() => gzip::end(self.sum, ending),
            (Protocol::Stream { ending }, _) => ending.clone(),
            (Protocol::Mailbox, _) => Bytes::new(),
            (Protocol::Websocket { .. }, Farewell::Plain) => frame::close_empty(),
            (Protocol::Websocket { .. }, Farewell::Code(code, reason)) => frame::close(code, reason),
        }
    }
}
