//! A channel: its history, its counts, and the workers that listen.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::hub::Unsubscribed;
use crate::hub::inbox::Inbox;
use crate::hub::message::{Draft, Message};
use crate::hub::statistics;

/// A channel's id: any bytes, shared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(Arc<[u8]>);

impl ChannelId {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for ChannelId {
    fn from(id: &[u8]) -> Self {
        Self(id.into())
    }
}

impl Borrow<[u8]> for ChannelId {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| {
            f.write_str(chunk.valid())?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02X}"))
        })
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Names one life of a channel: a channel that is deleted and made again has another key. Keys grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey(pub(super) u64);

/// Where in the history a subscriber begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next message.
    New,
    /// With the last so many stored messages.
    Backtrack(usize),
    /// After the messages of this time, or after this tag of it.
    After {
        /// Seconds since 1970.
        time: u64,
        /// Without a tag, all messages of that second are known.
        tag: Option<u32>,
    },
    /// After the first stored message that has this event id; with the next message if none has.
    AfterEvent(Bytes),
    /// Where either of a time and an event begins first. The message of the event is known in any case.
    Either {
        /// As in [`Start::After`].
        time: u64,
        /// As in [`Start::After`].
        tag: Option<u32>,
        /// As in [`Start::AfterEvent`].
        event: Bytes,
    },
}

/// A channel. Its shard keeps the books of memory and stored messages.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: ChannelId,
    pub(super) key: ChannelKey,
    pub(super) wildcard: bool,
    pub(super) last_activity: u64,
    /// Counts the messages published, and is the id of the last one.
    published: i64,
    history: VecDeque<Arc<Message>>,
    seats: SmallVec<[Seat; 1]>,
}

/// A worker with subscribers on a channel.
#[derive(Debug)]
struct Seat {
    inbox: Arc<Inbox>,
    subscribers: usize,
}

impl Channel {
    pub(super) fn new(id: ChannelId, key: ChannelKey, wildcard: bool, now: u64) -> Self {
        Self { id, key, wildcard, last_activity: now, published: 0, history: VecDeque::new(), seats: SmallVec::new() }
    }

    /// About what the channel takes without its messages.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.id.as_bytes().len() + 64
    }

    /// Makes the next message.
    pub(super) fn publish(&mut self, draft: Draft, (time, tag): (u64, u32)) -> Arc<Message> {
        self.published += 1;
        self.last_activity = time;
        Arc::new(Message::new(self.id.clone(), self.published, time, tag, draft))
    }

    pub(super) fn store(&mut self, message: Arc<Message>) {
        self.history.push_back(message);
    }

    /// Takes the oldest stored message.
    pub(super) fn unstore_oldest(&mut self) -> Option<Arc<Message>> {
        let oldest = self.history.pop_front();
        if self.history.is_empty() {
            self.history = VecDeque::new();
        }
        oldest
    }

    pub(super) fn oldest(&self) -> Option<&Arc<Message>> {
        self.history.front()
    }

    pub(super) fn stored(&self) -> usize {
        self.history.len()
    }

    /// The id of the last message published.
    pub(super) fn last_id(&self) -> i64 {
        self.published
    }

    /// The stored messages from `start`, oldest first.
    pub(super) fn from(&self, start: &Start) -> Vec<Arc<Message>> {
        self.history.range(self.begin(start)..).cloned().collect()
    }

    /// The place of the first stored message from `start`.
    fn begin(&self, start: &Start) -> usize {
        match start {
            Start::New => self.history.len(),
            Start::Backtrack(count) => self.history.len().saturating_sub(*count),
            Start::After { time, tag } => self.after(*time, *tag),
            Start::AfterEvent(id) => self.event(id).map_or(self.history.len(), |at| at + 1),
            Start::Either { time, tag, event } => {
                let after = self.after(*time, *tag);
                self.event(event).filter(|at| *at <= after).map_or(after, |at| at + 1)
            }
        }
    }

    fn after(&self, time: u64, tag: Option<u32>) -> usize {
        self.history.partition_point(|message| match tag {
            Some(tag) => (message.time, message.tag) <= (time, tag),
            None => message.time <= time,
        })
    }

    fn event(&self, id: &Bytes) -> Option<usize> {
        self.history.iter().position(|message| message.draft.event_id.as_ref() == Some(id))
    }

    /// Adds a subscriber; true if it is its worker's first.
    pub(super) fn seat(&mut self, inbox: &Arc<Inbox>, now: u64) -> bool {
        self.last_activity = now.max(self.last_activity);
        if let Some(seat) = self.seats.iter_mut().find(|seat| Arc::ptr_eq(&seat.inbox, inbox)) {
            seat.subscribers += 1;
            return false;
        }
        self.seats.push(Seat { inbox: Arc::clone(inbox), subscribers: 1 });
        true
    }

    /// Takes a subscriber away.
    pub(super) fn unseat(&mut self, inbox: &Arc<Inbox>, now: u64) -> Option<Unsubscribed> {
        let at = self.seats.iter().position(|seat| Arc::ptr_eq(&seat.inbox, inbox))?;
        self.last_activity = now.max(self.last_activity);
        let seat = &mut self.seats[at];
        seat.subscribers -= 1;
        let last_of_worker = seat.subscribers == 0;
        if last_of_worker {
            self.seats.swap_remove(at);
        }
        Some(Unsubscribed { last_of_worker, last_of_all: self.seats.is_empty() })
    }

    /// The inboxes of the workers that listen.
    pub(super) fn inboxes(&self) -> impl Iterator<Item = Arc<Inbox>> {
        self.seats.iter().map(|seat| Arc::clone(&seat.inbox))
    }

    pub(super) fn subscribers(&self) -> usize {
        self.seats.iter().map(|seat| seat.subscribers).sum()
    }

    pub(super) fn statistics(&self) -> statistics::Channel {
        statistics::Channel {
            id: self.id.clone(),
            published: self.published.unsigned_abs(),
            stored: self.history.len(),
            subscribers: self.subscribers(),
        }
    }
}
