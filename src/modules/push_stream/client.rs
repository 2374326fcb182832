//! What subscribers do after they have come: they send, and they leave.

use std::rc::Rc;

use bytes::Bytes;
use tokio::task::spawn_local;

use super::events_channel::{self, Event};
use super::hooks::{Hook, Hooks};
use super::subscriber::Audience;
use crate::config::value::Template;
use crate::http::{Remembered, Request};
use crate::hub::PublishOptions;
use crate::hub::channel::ChannelId;
use crate::hub::message::Draft;
use crate::server::clock;
use crate::server::delivery::frame::Opcode;
use crate::server::delivery::subscriber::{Closed, Reason, SubscriberEvents, SubscriberId};
use crate::server::live::Live;
use crate::server::log::Level;
use crate::server::worker;

/// Subscribers without hooks need nothing of their own.
impl SubscriberEvents for Audience {
    fn message(&self, subscriber: SubscriberId, opcode: Opcode, payload: Bytes) {
        // An empty text publishes nothing, as in the original, which knows no binary messages.
        if let Some(store) = self.publishing.filter(|_| opcode == Opcode::Binary || !payload.is_empty()) {
            publish(&channels(subscriber), opcode, &payload, store);
        }
    }

    fn closed(&self, _: SubscriberId, closed: Closed) {
        announce(&closed);
    }
}

/// A subscriber of a location with hooks, which asks for them as itself.
pub(super) struct Client {
    remembered: Remembered,
    /// What is asked when it leaves.
    unsubscribed: Option<Bytes>,
    /// What is asked when it was the last of its worker in a channel.
    all_unsubscribed: Option<Bytes>,
    /// What is asked with what it sends, and whether the answer is stored.
    publish: Option<(Bytes, bool)>,
    audience: Rc<Audience>,
}

impl Client {
    /// A client of a location with hooks; `None` where there are none.
    pub(super) fn of(request: &Request, audience: &Rc<Audience>) -> Option<Self> {
        let hooks = request.settings::<Hooks>();
        let uri = |template: &Option<Template>| template.as_ref().map(|template| request.eval(template));
        let unsubscribed = uri(&hooks.client_unsubscribed);
        let all_unsubscribed = uri(&hooks.all_worker_clients_unsubscribed);
        let publish = audience.publishing.and_then(|store| Some((uri(&hooks.client_publish)?, store)));
        if unsubscribed.is_none() && all_unsubscribed.is_none() && publish.is_none() {
            return None;
        }
        let audience = Rc::clone(audience);
        Some(Self { remembered: request.remember(), unsubscribed, all_unsubscribed, publish, audience })
    }

    fn hook(&self, directive: &'static str, uri: &Bytes, channel: String) -> Option<Hook> {
        Some(Hook { directive, request: self.remembered.request(uri)?, channel })
    }
}

impl SubscriberEvents for Client {
    fn message(&self, subscriber: SubscriberId, opcode: Opcode, payload: Bytes) {
        let Some((uri, store)) = &self.publish else {
            return self.audience.message(subscriber, opcode, payload);
        };
        let (Some(local), store) = (worker::local(), *store) else { return };
        let channels = channels(subscriber);
        let hook = self.hook("push_stream_client_publish_request", uri, names(&channels));
        let Some(Hook { directive, request, channel }) = hook else { return };
        // The client's next message waits for this one, so that they keep their order.
        local.delivery.pause_reading(subscriber);
        let hook = Hook { directive, request: request.post(payload), channel };
        spawn_local(async move {
            if let Ok(answer) = hook.ask().await {
                publish(&channels, opcode, &answer, store);
            }
            local.delivery.resume_reading(subscriber);
        });
    }

    fn closed(&self, _: SubscriberId, closed: Closed) {
        announce(&closed);
        let left: Vec<ChannelId> = closed.left.iter().map(|left| left.channel.clone()).collect();
        let unsubscribed = self.unsubscribed.as_ref();
        let unsubscribed =
            unsubscribed.and_then(|uri| self.hook("push_stream_client_unsubscribed_request", uri, names(&left)));
        if let Some(hook) = unsubscribed {
            hook.spawn();
        }
        let Some(uri) = &self.all_unsubscribed else { return };
        let was_last = |left: &&crate::server::delivery::subscriber::Left| {
            left.unsubscribed.is_none_or(|unsubscribed| unsubscribed.last_of_worker)
        };
        for left in closed.left.iter().filter(was_last) {
            let channel = left.channel.to_string();
            if let Some(hook) = self.hook("push_stream_all_worker_clients_unsubscribed_request", uri, channel) {
                hook.spawn();
            }
        }
    }
}

fn channels(subscriber: SubscriberId) -> Vec<ChannelId> {
    worker::local().map(|local| local.delivery.channels(subscriber).into_vec()).unwrap_or_default()
}

fn names(channels: &[ChannelId]) -> String {
    channels.iter().map(ChannelId::to_string).collect::<Vec<_>>().join("/")
}

/// Publishes to the channels of a client. One that was deleted meanwhile is not made again for it.
fn publish(channels: &[ChannelId], opcode: Opcode, text: &Bytes, store: bool) {
    let Some(live) = Live::get() else { return };
    for channel in channels {
        let draft = Draft { is_binary: opcode == Opcode::Binary, ..Draft::text(text.clone()) };
        let options = PublishOptions { store, create: false };
        // A refusal is counted by the hub.
        drop(live.hub.publish(channel.as_bytes(), draft, clock::unix_time().as_secs(), options));
    }
}

fn announce(closed: &Closed) {
    let Some(live) = Live::get() else { return };
    if closed.reason == Reason::Slow {
        let left: Vec<ChannelId> = closed.left.iter().map(|left| left.channel.clone()).collect();
        let message = format!("push stream module: a slow subscriber of channel \"{}\" was closed", names(&left));
        live.log(Level::Warn, &message);
    }
    for left in &closed.left {
        events_channel::announce(live, Event::ClientUnsubscribed, left.channel.as_bytes());
    }
}
