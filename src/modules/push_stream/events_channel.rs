//! The events channel: what happens to channels and clients, published where monitoring may listen.

use bytes::Bytes;

use crate::config::value::Text;
use crate::http::wire::escape::{JsonDigits, push_json};
use crate::hub::PublishOptions;
use crate::hub::message::Draft;
use crate::server::clock;
use crate::server::live::Live;
use crate::settings;

settings! {
    /// The events channel.
    pub(super) struct EventsChannel {
        /// The id of a channel that tells of channels that are made and destroyed, and of clients that come and go.
        "push_stream_events_channel_id" HTTP = "" => pub(super) id: Text,
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    ChannelCreated,
    ChannelDestroyed,
    ClientSubscribed,
    ClientUnsubscribed,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::ChannelCreated => "channel_created",
            Self::ChannelDestroyed => "channel_destroyed",
            Self::ClientSubscribed => "client_subscribed",
            Self::ClientUnsubscribed => "client_unsubscribed",
        }
    }
}

/// Tells of an event, if there is an events channel; what happens to itself is not told.
pub(super) fn announce(live: &Live, event: Event, channel: &[u8]) {
    let compiled = live.compiled();
    let id = &compiled.http().get::<EventsChannel>().id;
    if id.is_empty() || channel == &id[..] {
        return;
    }
    let mut text = format!("{{\"type\": \"{}\", \"channel\": \"", event.name()).into_bytes();
    push_json(&mut text, channel, JsonDigits::Upper);
    text.extend_from_slice(b"\"}");
    let options = PublishOptions { store: true, create: true };
    // Where a limit refuses the events channel it is counted there.
    let draft = Draft { event_type: Some(Bytes::from_static(event.name().as_bytes())), ..Draft::text(text) };
    drop(live.hub.publish(id, draft, clock::unix_time().as_secs(), options));
}
