//! What is allowed, what was refused, and what was dropped.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// The bounds of a hub; `None` is without bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `push_stream_max_number_of_channels`: channels that are not wildcard channels.
    pub max_channels: Option<usize>,
    /// `push_stream_max_number_of_wildcard_channels`.
    pub max_wildcard_channels: Option<usize>,
    /// `push_stream_max_subscribers_per_channel`.
    pub max_subscribers_per_channel: Option<usize>,
    /// `push_stream_max_messages_stored_per_channel`.
    pub max_stored_per_channel: Option<usize>,
    /// `push_stream_max_channel_id_length`, bytes.
    pub max_channel_id_length: Option<usize>,
    /// `push_stream_message_ttl`, seconds.
    pub message_ttl: Option<u64>,
    /// `push_stream_channel_inactivity_time`, seconds; `None` keeps channels for ever.
    pub channel_inactivity_time: Option<u64>,
    /// `push_stream_shared_memory_size`, bytes that channels and stored messages may take.
    pub memory: Option<usize>,
    /// `push_stream_wildcard_channel_prefix`.
    pub wildcard_prefix: Option<Bytes>,
    /// `push_stream_events_channel_id`: a channel that stays, and whose messages do not count among those of the others.
    pub events_channel: Option<Bytes>,
}

impl Limits {
    /// A channel whose id has the wildcard prefix.
    pub fn is_wildcard(&self, id: &[u8]) -> bool {
        self.wildcard_prefix.as_ref().is_some_and(|prefix| !prefix.is_empty() && id.starts_with(prefix))
    }

    /// The channel of events.
    pub fn is_events(&self, id: &[u8]) -> bool {
        self.events_channel.as_ref().is_some_and(|events| events == id)
    }

    /// An id that is not too long.
    pub fn check_id(&self, id: &[u8]) -> Result<(), Refused> {
        match self.max_channel_id_length {
            Some(most) if id.len() > most => Err(Refused::IdTooLong),
            _ => Ok(()),
        }
    }
}

/// Why the hub did not do what it was asked; all of it is the asker's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The id is over `push_stream_max_channel_id_length`.
    #[error("channel id is too large")]
    IdTooLong,
    /// The channel does not exist and there may be no more of its kind.
    #[error("number of channels were exceeded")]
    TooManyChannels,
    /// The channel has all the subscribers it may have.
    #[error("subscribers limit per channel has been exceeded")]
    TooManySubscribers,
    /// The channel does not exist, and channels alone take all the memory there may be.
    #[error("no memory left for channels")]
    NoMemory,
    /// The channel does not exist and was not to be made.
    #[error("no such channel")]
    NoSuchChannel,
}

/// What was not kept or not delivered, by reason.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Stored messages that went because their channel had its maximum.
    pub overflow: Counter,
    /// Stored messages past their time to live.
    pub expired: Counter,
    /// Stored messages that went because of the memory bound.
    pub evicted: Counter,
    /// Publications and subscriptions refused by a limit.
    pub refused: Counter,
    /// Subscribers closed because they did not read.
    pub slow_clients: Counter,
    /// Messages queued for subscribers that went with them unsent.
    pub unsent: Counter,
}

impl Dropped {
    /// Counts what a limit refused.
    pub fn refuse(&self, refused: Refused) {
        if refused != Refused::NoSuchChannel {
            self.refused.add(1);
        }
    }
}

/// Counts up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: usize) {
        if n > 0 {
            self.0.fetch_add(n as u64, Ordering::Relaxed);
        }
    }

    /// The count.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
