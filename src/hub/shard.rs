//! A part of the channels, behind one lock, with the books of what they store.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::hub::channel::{Channel, ChannelId, ChannelKey, Start};
use crate::hub::inbox::{Entry, Inbox};
use crate::hub::limits::Limits;
use crate::hub::message::{DELETED, Draft, Message};
use crate::hub::{Subscribed, Unsubscribed, Wakes, post, statistics};

/// Some of the hub's channels.
#[derive(Debug, Default)]
pub(super) struct Shard {
    channels: HashMap<ChannelId, Channel>,
    /// Every stored message in the order of publishing, which is also that of expiry. A channel gives up its oldest first,
    /// so that a place is stale exactly when the channel has no message that old any more.
    places: VecDeque<Place>,
    stored: usize,
}

/// Where a stored message is.
#[derive(Debug)]
struct Place {
    channel: ChannelId,
    key: ChannelKey,
    message: i64,
    stamp: (u64, u32),
}

/// What an operation changed, for the hub's totals.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) stored: usize,
    pub(super) overflowed: usize,
    pub(super) expired: usize,
    pub(super) evicted: usize,
    pub(super) deleted: usize,
    pub(super) taken: usize,
    pub(super) freed: usize,
    pub(super) channels_removed: usize,
    pub(super) wildcard_channels_removed: usize,
}

impl Change {
    /// Messages that are no longer stored.
    pub(super) fn unstored(&self) -> usize {
        self.overflowed + self.expired + self.evicted + self.deleted
    }

    fn remove_channel(&mut self, channel: &Channel) {
        self.freed += channel.memory();
        if channel.wildcard {
            self.wildcard_channels_removed += 1;
        } else {
            self.channels_removed += 1;
        }
    }
}

/// A message on its way.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) message: Arc<Message>,
    pub(super) statistics: statistics::Channel,
    pub(super) wakes: Wakes,
    pub(super) change: Change,
}

/// A channel's last words on their way.
#[derive(Debug)]
pub(super) struct Deleted {
    pub(super) wakes: Wakes,
    pub(super) change: Change,
}

impl Shard {
    pub(super) fn has(&self, id: &[u8]) -> bool {
        self.channels.contains_key(id)
    }

    pub(super) fn subscribers(&self, id: &[u8]) -> usize {
        self.channels.get(id).map_or(0, Channel::subscribers)
    }

    /// Makes a channel; returns what it takes.
    pub(super) fn create(&mut self, id: ChannelId, key: ChannelKey, wildcard: bool, now: u64) -> usize {
        let channel = Channel::new(id.clone(), key, wildcard, now);
        let memory = channel.memory();
        self.channels.insert(id, channel);
        memory
    }

    pub(super) fn publish(
        &mut self,
        id: &[u8],
        draft: Draft,
        stamp: (u64, u32),
        store: bool,
        limits: &Limits,
    ) -> Option<Posted> {
        let mut change = self.expire_messages(stamp.0, limits.message_ttl);
        let channel = self.channels.get_mut(id)?;
        let message = channel.publish(draft, stamp);
        let most = limits.max_stored_per_channel.unwrap_or(usize::MAX);
        if store && most > 0 {
            while channel.stored() >= most {
                let Some(oldest) = channel.unstore_oldest() else {
                    break;
                };
                change.overflowed += 1;
                change.freed += oldest.memory();
            }
            channel.store(Arc::clone(&message));
            change.stored += 1;
            change.taken += message.memory();
            let (channel, key) = (channel.id.clone(), channel.key);
            self.places.push_back(Place { channel, key, message: message.id, stamp });
        }
        let entry = Entry { channel: channel.key, message: Arc::clone(&message), deleted: false };
        let wakes = post(channel.inboxes(), &entry);
        let statistics = channel.statistics();
        self.stored = self.stored + change.stored - change.overflowed;
        self.forget_stale_places();
        Some(Posted { message, statistics, wakes, change })
    }

    pub(super) fn subscribe(
        &mut self,
        id: &[u8],
        inbox: &Arc<Inbox>,
        start: &Start,
        now: u64,
        created: bool,
    ) -> Option<Subscribed> {
        let channel = self.channels.get_mut(id)?;
        let first_of_all = channel.subscribers() == 0;
        let first_of_worker = channel.seat(inbox, now);
        Some(Subscribed {
            key: channel.key,
            channel: channel.id.clone(),
            backlog: channel.from(start),
            live_after: channel.last_id(),
            created,
            first_of_worker,
            first_of_all,
        })
    }

    pub(super) fn unsubscribe(
        &mut self,
        id: &[u8],
        key: ChannelKey,
        inbox: &Arc<Inbox>,
        now: u64,
    ) -> Option<Unsubscribed> {
        self.channels.get_mut(id).filter(|channel| channel.key == key)?.unseat(inbox, now)
    }

    pub(super) fn delete(&mut self, id: &[u8], farewell: Draft, (time, tag): (u64, u32)) -> Option<Deleted> {
        let mut channel = self.channels.remove(id)?;
        let message = Arc::new(Message::new(channel.id.clone(), DELETED, time, tag, farewell));
        let wakes = post(channel.inboxes(), &Entry { channel: channel.key, message, deleted: true });
        let mut change = Change::default();
        while let Some(stored) = channel.unstore_oldest() {
            change.deleted += 1;
            change.freed += stored.memory();
        }
        change.remove_channel(&channel);
        self.stored -= change.deleted;
        self.forget_stale_places();
        Some(Deleted { wakes, change })
    }

    pub(super) fn history(&self, id: &[u8], start: &Start) -> Option<Vec<Arc<Message>>> {
        self.channels.get(id).map(|channel| channel.from(start))
    }

    /// Drops the messages whose time is over.
    pub(super) fn expire_messages(&mut self, now: u64, ttl: Option<u64>) -> Change {
        let mut change = Change::default();
        let Some(ttl) = ttl else { return change };
        while self.places.front().is_some_and(|place| place.stamp.0.saturating_add(ttl) <= now) {
            if let Some(freed) = self.take_oldest() {
                change.expired += 1;
                change.freed += freed;
            }
        }
        change
    }

    /// Removes the channels that have neither subscribers nor messages and have been quiet for their time.
    pub(super) fn remove_inactive(&mut self, now: u64, limits: &Limits, removed: &mut Vec<ChannelId>) -> Change {
        let mut change = Change::default();
        let Some(after) = limits.channel_inactivity_time else { return change };
        self.channels.retain(|id, channel| {
            let active = channel.last_activity.saturating_add(after) > now;
            let used = channel.stored() > 0 || channel.subscribers() > 0;
            let keep = active || used || limits.is_events(id.as_bytes());
            if !keep {
                change.remove_channel(channel);
                removed.push(id.clone());
            }
            keep
        });
        change
    }

    /// When the oldest stored message was published.
    pub(super) fn oldest(&mut self) -> Option<(u64, u32)> {
        while self.places.front().is_some_and(|place| self.is_stale(place)) {
            self.places.pop_front();
        }
        self.places.front().map(|place| place.stamp)
    }

    /// Drops the oldest stored message for want of memory.
    pub(super) fn evict_oldest(&mut self) -> Change {
        let mut change = Change::default();
        while !self.places.is_empty() {
            if let Some(freed) = self.take_oldest() {
                change.evicted = 1;
                change.freed = freed;
                break;
            }
        }
        change
    }

    pub(super) fn statistics(&self, id: &[u8]) -> Option<statistics::Channel> {
        self.channels.get(id).map(Channel::statistics)
    }

    pub(super) fn statistics_of_prefix(&self, prefix: &[u8]) -> Vec<(ChannelKey, statistics::Channel)> {
        let of_prefix = self.channels.values().filter(|channel| channel.id.as_bytes().starts_with(prefix));
        of_prefix.map(|channel| (channel.key, channel.statistics())).collect()
    }

    /// Takes the first place, and its message out of the channel; returns what the message took, `None` if it was stale.
    fn take_oldest(&mut self) -> Option<usize> {
        let place = self.places.pop_front()?;
        if self.is_stale(&place) {
            return None;
        }
        let message = self.channels.get_mut(&place.channel)?.unstore_oldest()?;
        self.stored -= 1;
        Some(message.memory())
    }

    fn is_stale(&self, place: &Place) -> bool {
        let channel = self.channels.get(&place.channel).filter(|channel| channel.key == place.key);
        channel.and_then(Channel::oldest).is_none_or(|oldest| oldest.id > place.message)
    }

    /// Keeps the places within twice the stored messages, at a cost that publishing has paid for.
    fn forget_stale_places(&mut self) {
        if self.places.len() > 2 * self.stored + 64 {
            let mut places = std::mem::take(&mut self.places);
            places.retain(|place| !self.is_stale(place));
            self.places = places;
        }
    }
}
