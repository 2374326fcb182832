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
use crate::server::delivery::subscriber::{Closed, Left, Reason, SubscriberEvents, SubscriberId};
use crate::server::live::Live;
use crate::server::log::Level;
use crate::server::worker;

/// Subscribers without hooks need nothing of their own.
impl SubscriberEvents for Audience {
    fn message(&self, subscriber: SubscriberId, opcode: Opcode, payload: Bytes) {
        // An empty text publishes nothing, as in the original, which knows no binary messages.
        if let Some(store) = self.manner().publishing.filter(|_| opcode == Opcode::Binary || !payload.is_empty()) {
            publish(&channels(subscriber), opcode, &payload, store);
        }
    }

    fn left(&self, _: SubscriberId, left: Left) {
        announce_left(&left);
    }

    fn closed(&self, _: SubscriberId, closed: Closed) {
        announce(&closed);
    }
}

/// A subscriber of a location with hooks, which asks for them as itself.
pub(super) struct Client {
    remembered: Remembered,
    audience: Rc<Audience>,
    /// What is asked, where that depends on what the client asked.
    own: Option<Box<Uris>>,
}

/// What is asked in the background, as far as it is.
#[derive(Debug)]
struct Uris {
    /// When a client leaves.
    unsubscribed: Option<Bytes>,
    /// When it was the last of its worker in a channel.
    all_unsubscribed: Option<Bytes>,
    /// With what it sends.
    publish: Option<Bytes>,
}

impl Uris {
    fn of(hooks: &Hooks, read: impl Fn(&Template) -> Bytes) -> Self {
        let uri = |template: &Option<Template>| template.as_ref().map(&read);
        Self {
            unsubscribed: uri(&hooks.client_unsubscribed),
            all_unsubscribed: uri(&hooks.all_worker_clients_unsubscribed),
            publish: uri(&hooks.client_publish),
        }
    }
}

impl Client {
    /// A client of a location with hooks; `None` where there are none.
    pub(super) fn of(request: &Request, audience: &Rc<Audience>) -> Option<Self> {
        let hooks = request.settings::<Hooks>();
        let all = [&hooks.client_unsubscribed, &hooks.all_worker_clients_unsubscribed, &hooks.client_publish];
        let mut templates = all.into_iter().flatten().peekable();
        templates.peek()?;
        let is_fixed = templates.all(|template| template.constant().is_some());
        let own = (!is_fixed).then(|| Box::new(Uris::of(hooks, |template| request.eval(template))));
        Some(Self { remembered: request.remember(), audience: Rc::clone(audience), own })
    }

    /// The background request that a directive asks for, if it does.
    fn hook(
        &self,
        directive: &'static str,
        of: impl Fn(&Uris) -> &Option<Bytes>,
        channel: impl FnOnce() -> String,
    ) -> Option<Hook> {
        let manner = self.audience.manner();
        let fixed =
            || Uris::of(manner.hooks(), |template| Bytes::copy_from_slice(template.constant().unwrap_or_default()));
        let uri = match &self.own {
            Some(own) => of(own).clone(),
            None => of(&fixed()).clone(),
        };
        Some(Hook { directive, request: self.remembered.request(&manner.compiled, &uri?)?, channel: channel() })
    }
}

impl SubscriberEvents for Client {
    fn message(&self, subscriber: SubscriberId, opcode: Opcode, payload: Bytes) {
        let (Some(local), Some(store)) = (worker::local(), self.audience.manner().publishing) else { return };
        let channels = channels(subscriber);
        let hook = self.hook("push_stream_client_publish_request", |uris| &uris.publish, || names(&channels));
        let Some(Hook { directive, request, channel }) = hook else {
            return self.audience.message(subscriber, opcode, payload);
        };
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

    fn left(&self, _: SubscriberId, left: Left) {
        announce_left(&left);
    }

    fn closed(&self, _: SubscriberId, closed: Closed) {
        announce(&closed);
        let left: Vec<ChannelId> = closed.left.iter().map(|left| left.channel.clone()).collect();
        let directive = "push_stream_client_unsubscribed_request";
        if let Some(hook) = self.hook(directive, |uris| &uris.unsubscribed, || names(&left)) {
            hook.spawn();
        }
        let was_last = |left: &&Left| left.unsubscribed.is_none_or(|unsubscribed| unsubscribed.last_of_worker);
        for left in closed.left.iter().filter(was_last) {
            let directive = "push_stream_all_worker_clients_unsubscribed_request";
            if let Some(hook) = self.hook(directive, |uris| &uris.all_unsubscribed, || left.channel.to_string()) {
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
    closed.left.iter().for_each(announce_left);
}

fn announce_left(left: &Left) {
    if let Some(live) = Live::get() {
        events_channel::announce(live, Event::ClientUnsubscribed, left.channel.as_bytes());
    }
}
