//! A message: made once, rendered once for each way of sending it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use crate::hub::channel::ChannelId;

/// The id that subscribers see on the message that tells of their channel's deletion.
pub const DELETED: i64 = -2;

/// What a publisher gives.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The text, any bytes.
    pub text: Bytes,
    /// It came as a binary websocket message, and is to stay one.
    pub is_binary: bool,
    /// The `Event-Id` header.
    pub event_id: Option<Bytes>,
    /// The `Event-Type` header.
    pub event_type: Option<Bytes>,
}

impl Draft {
    /// A message with text only.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// A message of a channel.
#[derive(Debug)]
pub struct Message {
    /// Counts from 1 in its channel; [`DELETED`] for the channel's last words.
    pub id: i64,
    /// Seconds since 1970; never less than an earlier message's.
    pub time: u64,
    /// Counts the messages of one second, from 1.
    pub tag: u32,
    /// The channel it was published to.
    pub channel: ChannelId,
    /// What the publisher gave.
    pub draft: Draft,
    renderings: Renderings,
}

impl Message {
    /// A message that no channel has: what a handler renders without publishing.
    pub fn new(channel: ChannelId, id: i64, time: u64, tag: u32, draft: Draft) -> Self {
        Self { id, time, tag, channel, draft, renderings: Renderings::default() }
    }

    /// The text.
    pub fn text(&self) -> &Bytes {
        &self.draft.text
    }

    /// The message as sent by one way: made by `render` the first time, shared by all subscribers and workers thereafter.
    pub fn rendering(&self, key: RenderingKey, render: impl FnOnce() -> Bytes) -> Bytes {
        let Some((first, bytes)) = self.renderings.first.get() else {
            let rendered = (key, render());
            // Another worker may be first with another way: then this one is made again next time, and kept.
            let (first, bytes) = self.renderings.first.get_or_init(|| rendered.clone());
            return if *first == key { bytes.clone() } else { rendered.1 };
        };
        if *first == key {
            return bytes.clone();
        }
        let mut others = self.renderings.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = others.iter().find(|(other, _)| *other == key) {
            return bytes.clone();
        }
        let bytes = render();
        others.push((key, bytes.clone()));
        bytes
    }

    /// About what it takes in memory while stored: itself, its text, and the text once more in its rendering.
    pub(super) fn memory(&self) -> usize {
        let event = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + 2 * self.draft.text.len() + event(&self.draft.event_id) + event(&self.draft.event_type) + 64
    }
}

/// Names one way of sending a message: a template with a framing. Equal keys must render equally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RenderingKey(u64);

impl RenderingKey {
    /// A key unlike all others of this process.
    pub fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Most messages are rendered in one way only, and that one is found without a lock.
#[derive(Debug, Default)]
struct Renderings {
    first: OnceLock<(RenderingKey, Bytes)>,
    others: Mutex<Vec<(RenderingKey, Bytes)>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_is_rendered_once() {
        let message = Message::new(ChannelId::from(b"x".as_slice()), 1, 0, 1, Draft::text("text"));
        let (one, two) = (RenderingKey::fresh(), RenderingKey::fresh());
        for _ in 0..2 {
            assert_eq!(message.rendering(one, || Bytes::from("first")), "first");
            assert_eq!(message.rendering(two, || Bytes::from("second")), "second");
        }
        assert_eq!(message.rendering(one, || unreachable!("rendered already")), "first");
        assert_eq!(message.rendering(two, || unreachable!("rendered already")), "second");
    }
}
