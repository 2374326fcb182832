//! What monitoring asks: one channel, those of a prefix, all, and the sums.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::hub::channel::ChannelId;
use crate::hub::inbox::WorkerId;
use crate::hub::{Hub, lock};

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// Messages published since it was made.
    pub published: u64,
    /// Messages stored.
    pub stored: usize,
    /// Subscribers, on all workers.
    pub subscribers: usize,
}

/// The sums over all channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Channels that are not wildcard channels.
    pub channels: usize,
    /// Wildcard channels.
    pub wildcard_channels: usize,
    /// Messages published since the start, without events.
    pub published: u64,
    /// Messages stored, without events.
    pub stored: usize,
    /// Subscribers, each counted once however many channels it has.
    pub subscribers: usize,
    /// The same by worker.
    pub by_worker: Vec<(WorkerId, usize)>,
    /// Bytes that channels and stored messages take, about.
    pub memory: usize,
}

impl Hub {
    /// One channel; `None` if it does not exist.
    pub fn statistics(&self, id: &[u8], now: u64) -> Option<Channel> {
        let ttl = self.limits.load().message_ttl;
        let mut shard = self.shard(id);
        self.account(shard.expire_messages(now, ttl));
        shard.statistics(id)
    }

    /// The channels whose id begins with `prefix`, which may be empty for all, in the order in which they were made.
    pub fn statistics_of_prefix(&self, prefix: &[u8], now: u64) -> Vec<Channel> {
        let ttl = self.limits.load().message_ttl;
        let mut found = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            self.account(shard.expire_messages(now, ttl));
            found.extend(shard.statistics_of_prefix(prefix));
        }
        found.sort_unstable_by_key(|(key, _)| *key);
        found.into_iter().map(|(_, channel)| channel).collect()
    }

    /// The sums.
    pub fn summary(&self) -> Summary {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_worker: Vec<_> = workers
            .iter()
            .filter_map(|known| known.upgrade().map(|inbox| (inbox.worker(), inbox.subscribers())))
            .collect();
        by_worker.sort_unstable();
        let events = self.limits.load().events_channel.clone().and_then(|id| self.shard(&id).statistics(&id));
        let (events_published, events_stored) = events.map_or((0, 0), |channel| (channel.published, channel.stored));
        Summary {
            channels: self.totals.channels.load(Ordering::Relaxed),
            wildcard_channels: self.totals.wildcard_channels.load(Ordering::Relaxed),
            published: self.totals.published.load(Ordering::Relaxed).saturating_sub(events_published),
            stored: self.totals.stored.load(Ordering::Relaxed).saturating_sub(events_stored),
            subscribers: by_worker.iter().map(|(_, count)| count).sum(),
            by_worker,
            memory: self.totals.memory.load(Ordering::Relaxed),
        }
    }
}
