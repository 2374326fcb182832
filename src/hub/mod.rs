//! Stage 4: channels, messages, history, who listens where. Pure: no sockets, no clock, no HTTP, no PostgreSQL.
//!
//! One [`Hub`] serves the process. Its channels live in shards, each behind a short mutex of its own. Publishing appends to
//! the channel and puts an entry in the [`Inbox`] of each worker that has subscribers there, both under the shard's lock:
//! the lock fixes the order of a channel's messages, the inbox keeps it. A subscription reads the history under the same
//! lock and learns the id after which messages are live, so that backlog and inbox meet without gap and without duplicate.
//!
//! Time is an argument (`now`, seconds since 1970), always the caller's.

pub mod channel;
pub mod inbox;
pub mod limits;
pub mod message;
mod shard;
pub mod statistics;
#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use smallvec::SmallVec;

use crate::hub::channel::{ChannelId, ChannelKey, Start};
use crate::hub::inbox::{Entry, Inbox, Wake, WorkerId};
use crate::hub::limits::{Dropped, Limits, Refused};
use crate::hub::message::{Draft, Message};
use crate::hub::shard::Shard;

/// Enough that two workers seldom meet on one lock, few enough to walk for statistics.
const SHARDS: usize = 64;

/// All channels of the process.
#[derive(Debug)]
pub struct Hub {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    limits: ArcSwap<Limits>,
    totals: Totals,
    dropped: Dropped,
    workers: Mutex<Vec<Weak<Inbox>>>,
    /// Channels that were deleted since [`Hub::expire`] last told of those that are gone.
    deleted: Mutex<Vec<ChannelId>>,
}

/// What is counted over all shards.
#[derive(Debug, Default)]
struct Totals {
    channels: AtomicUsize,
    wildcard_channels: AtomicUsize,
    published: AtomicU64,
    stored: AtomicUsize,
    memory: AtomicUsize,
    next_key: AtomicU64,
    stamp: AtomicU64,
}

/// How a message is to be published.
#[derive(Clone, Copy, Debug)]
pub struct PublishOptions {
    /// Keep it for later subscribers (`push_stream_store_messages`).
    pub store: bool,
    /// Make the channel if it does not exist; otherwise publishing there is [`Refused::NoSuchChannel`].
    pub create: bool,
}

/// What became of a published message.
#[derive(Clone, Debug)]
pub struct Published {
    /// The message as it was sent to the workers.
    pub message: Arc<Message>,
    /// The channel right after it.
    pub channel: statistics::Channel,
    /// Publishing made the channel.
    pub created: bool,
}

/// What a new subscriber of a channel starts with.
#[derive(Debug)]
pub struct Subscribed {
    /// Names the channel in inbox entries and in [`Hub::unsubscribe`].
    pub key: ChannelKey,
    /// The channel's id, shared.
    pub channel: ChannelId,
    /// The stored messages it asked for, oldest first.
    pub backlog: Vec<Arc<Message>>,
    /// Entries of the inbox up to this message id are not for this subscriber: the backlog already has them.
    pub live_after: i64,
    /// Subscribing made the channel.
    pub created: bool,
    /// It is the channel's first subscriber on its worker.
    pub first_of_worker: bool,
    /// It is the channel's first subscriber on any worker.
    pub first_of_all: bool,
}

/// What a leaving subscriber leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// It was the channel's last subscriber on its worker.
    pub last_of_worker: bool,
    /// It was the channel's last subscriber on any worker.
    pub last_of_all: bool,
}

impl Hub {
    /// A hub without channels.
    pub fn new(limits: Limits) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            limits: ArcSwap::from_pointee(limits),
            totals: Totals::default(),
            dropped: Dropped::default(),
            workers: Mutex::default(),
            deleted: Mutex::default(),
        }
    }

    /// Replaces the limits, as a reload does. What exists already stays; what is over a limit goes as it ages.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// The limits in force.
    pub fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    /// What was not delivered or not kept, by reason.
    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    /// Adds a worker: `wake` is called, from any thread, when its empty inbox gets an entry.
    pub fn add_worker(&self, worker: WorkerId, wake: Box<dyn Wake>) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::new(worker, wake));
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|known| known.strong_count() > 0);
        workers.push(Arc::downgrade(&inbox));
        inbox
    }

    /// Appends a message to a channel and hands it to every worker with subscribers there.
    pub fn publish(&self, id: &[u8], draft: Draft, now: u64, options: PublishOptions) -> Result<Published, Refused> {
        let limits = self.limits.load();
        limits.check_id(id).inspect_err(|refused| self.dropped.refuse(*refused))?;
        let mut shard = self.shard(id);
        if !options.create && !shard.has(id) {
            return Err(Refused::NoSuchChannel);
        }
        let created = self.ensure_channel(&mut shard, id, now, &limits)?;
        let (time, tag) = self.totals.stamp(now);
        let published = shard.publish(id, draft, (time, tag), options.store, &limits);
        let Some(published) = published else {
            return Err(Refused::NoSuchChannel);
        };
        let wakes = published.wakes;
        self.totals.published.fetch_add(1, Ordering::Relaxed);
        self.account(published.change);
        drop(shard);
        for inbox in wakes {
            inbox.wake();
        }
        self.evict_past(limits.memory);
        Ok(Published { message: published.message, channel: published.statistics, created })
    }

    /// Makes a channel unless it exists; true if it was made.
    pub fn create(&self, id: &[u8], now: u64) -> Result<bool, Refused> {
        let limits = self.limits.load();
        limits.check_id(id).inspect_err(|refused| self.dropped.refuse(*refused))?;
        let created = self.ensure_channel(&mut self.shard(id), id, now, &limits)?;
        if created {
            self.evict_past(limits.memory);
        }
        Ok(created)
    }

    /// Waits for whoever is at work on a channel: what has its time by now is with the workers thereafter.
    pub fn touch(&self, id: &[u8]) {
        drop(self.shard(id));
    }

    /// Adds a subscriber of `inbox`'s worker to a channel; `create` is off where only existing channels may be joined.
    pub fn subscribe(
        &self,
        inbox: &Arc<Inbox>,
        id: &[u8],
        start: &Start,
        create: bool,
        now: u64,
    ) -> Result<Subscribed, Refused> {
        let limits = self.limits.load();
        limits.check_id(id).inspect_err(|refused| self.dropped.refuse(*refused))?;
        let mut shard = self.shard(id);
        if !create && !shard.has(id) {
            return Err(Refused::NoSuchChannel);
        }
        if shard.subscribers(id) >= limits.max_subscribers_per_channel.unwrap_or(usize::MAX) {
            self.dropped.refuse(Refused::TooManySubscribers);
            return Err(Refused::TooManySubscribers);
        }
        let created = self.ensure_channel(&mut shard, id, now, &limits)?;
        self.account(shard.expire_messages(now, limits.message_ttl));
        let subscribed = shard.subscribe(id, inbox, start, now, created).ok_or(Refused::NoSuchChannel);
        drop(shard);
        if created {
            self.evict_past(limits.memory);
        }
        subscribed
    }

    /// Takes a subscriber of `inbox`'s worker off a channel. `None` if that channel is gone (deleted meanwhile).
    pub fn unsubscribe(&self, inbox: &Arc<Inbox>, id: &[u8], key: ChannelKey, now: u64) -> Option<Unsubscribed> {
        self.shard(id).unsubscribe(id, key, inbox, now)
    }

    /// Removes a channel and its messages. Its subscribers get `farewell` (message id -2) as the last entry of the channel.
    /// False if there is no such channel.
    pub fn delete(&self, id: &[u8], farewell: Draft, now: u64) -> bool {
        let mut shard = self.shard(id);
        // Its tag is 0: nobody returns with it, and it counts for nothing.
        let Some(deleted) = shard.delete(id, farewell, (now, 0)) else {
            return false;
        };
        self.account(deleted.change);
        drop(shard);
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner).push(ChannelId::from(id));
        for inbox in deleted.wakes {
            inbox.wake();
        }
        true
    }

    /// The stored messages of a channel from `start`, without subscribing; `None` if there is no such channel.
    pub fn history(&self, id: &[u8], start: &Start, now: u64) -> Option<Vec<Arc<Message>>> {
        let ttl = self.limits.load().message_ttl;
        let mut shard = self.shard(id);
        self.account(shard.expire_messages(now, ttl));
        shard.history(id, start)
    }

    /// The time and tag of the youngest message of all channels. What is stored with this or a lesser one is seen by every
    /// reading of a channel that begins now: a message gets its time under its channel's lock.
    pub fn horizon(&self) -> (u64, u32) {
        unpack(self.totals.stamp.load(Ordering::Acquire))
    }

    /// Drops messages past their time to live and channels past their inactivity time; returns these, and those that were
    /// deleted since the last time: their subscribers have been told by now.
    pub fn expire(&self, now: u64) -> Vec<ChannelId> {
        let limits = self.limits.load();
        let mut removed = std::mem::take(&mut *self.deleted.lock().unwrap_or_else(PoisonError::into_inner));
        for shard in &self.shards {
            let mut shard = lock(shard);
            self.account(shard.expire_messages(now, limits.message_ttl));
            self.account(shard.remove_inactive(now, &limits, &mut removed));
        }
        removed
    }

    /// Makes the channel unless it exists; true if it was made.
    fn ensure_channel(&self, shard: &mut Shard, id: &[u8], now: u64, limits: &Limits) -> Result<bool, Refused> {
        if shard.has(id) {
            return Ok(false);
        }
        // Publishing evicts what it can, so that being over the bound with nothing stored means that channels are all.
        let memory = self.totals.memory.load(Ordering::Relaxed);
        if limits.memory.is_some_and(|bound| memory > bound) && self.totals.stored.load(Ordering::Relaxed) == 0 {
            self.dropped.refuse(Refused::NoMemory);
            return Err(Refused::NoMemory);
        }
        let wildcard = limits.is_wildcard(id);
        let (count, most) = if wildcard {
            (&self.totals.wildcard_channels, limits.max_wildcard_channels)
        } else {
            (&self.totals.channels, limits.max_channels)
        };
        let most = most.unwrap_or(usize::MAX);
        let room = |count: usize| (count < most).then_some(count + 1);
        if count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            self.dropped.refuse(Refused::TooManyChannels);
            return Err(Refused::TooManyChannels);
        }
        let key = ChannelKey(self.totals.next_key.fetch_add(1, Ordering::Relaxed) + 1);
        self.totals.memory.fetch_add(shard.create(ChannelId::from(id), key, wildcard, now), Ordering::Relaxed);
        Ok(true)
    }

    /// Evicts the oldest stored messages, of all channels, until the memory is within its bound or nothing is left.
    fn evict_past(&self, bound: Option<usize>) {
        let Some(bound) = bound else { return };
        while self.totals.memory.load(Ordering::Relaxed) > bound {
            let oldest =
                self.shards.iter().enumerate().filter_map(|(at, shard)| Some((lock(shard).oldest()?, at))).min();
            let Some((_, at)) = oldest else { return };
            self.account(lock(&self.shards[at]).evict_oldest());
        }
    }

    /// Adds what changed in a shard to the totals.
    fn account(&self, change: shard::Change) {
        let totals = &self.totals;
        totals.stored.fetch_add(change.stored, Ordering::Relaxed);
        totals.stored.fetch_sub(change.unstored(), Ordering::Relaxed);
        totals.memory.fetch_add(change.taken, Ordering::Relaxed);
        totals.memory.fetch_sub(change.freed, Ordering::Relaxed);
        totals.channels.fetch_sub(change.channels_removed, Ordering::Relaxed);
        totals.wildcard_channels.fetch_sub(change.wildcard_channels_removed, Ordering::Relaxed);
        self.dropped.overflow.add(change.overflowed);
        self.dropped.expired.add(change.expired);
        self.dropped.evicted.add(change.evicted);
    }

    fn shard(&self, id: &[u8]) -> MutexGuard<'_, Shard> {
        let at = self.hasher.hash_one(id) as usize % self.shards.len();
        lock(&self.shards[at])
    }
}

impl Totals {
    /// The time and tag of the next message. The tag counts the messages of one second over all channels, as push-stream's
    /// does: a client that follows several channels returns with one pair for all of them. Time does not go back.
    fn stamp(&self, now: u64) -> (u64, u32) {
        let next = |last: u64| {
            if now > last >> TAG_BITS { (now << TAG_BITS) + 1 } else { last + 1 }
        };
        let last = self.stamp.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |last| Some(next(last)));
        unpack(next(last.unwrap_or_else(|last| last)))
    }
}

/// Time and tag stand in one number.
const TAG_BITS: u32 = 24;

fn unpack(stamp: u64) -> (u64, u32) {
    (stamp >> TAG_BITS, (stamp & ((1 << TAG_BITS) - 1)) as u32)
}

/// Whose inbox must be woken, once the lock is released.
type Wakes = SmallVec<[Arc<Inbox>; 4]>;

/// Locks, whatever happened to the thread that held it before: a shard is consistent between any two of its operations.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands a message to the inboxes, remembering which were empty.
fn post(inboxes: impl Iterator<Item = Arc<Inbox>>, entry: &Entry) -> Wakes {
    inboxes.filter(|inbox| inbox.push(entry.clone())).collect()
}
