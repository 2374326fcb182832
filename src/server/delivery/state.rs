//! The slab and what happens to a subscriber in it. Nothing here waits, and nothing here calls a module.

use std::any::Any;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mio::event::Event;
use mio::{Registry, Token};
use slab::Slab;
use smallvec::SmallVec;

use crate::hub::channel::ChannelId;
use crate::hub::inbox::Inbox;
use crate::hub::limits::Refused;
use crate::hub::{Hub, Subscribed};
use crate::server::delivery::Clock;
use crate::server::delivery::gzip::{self, Sum};
use crate::server::delivery::queue::Queue;
use crate::server::delivery::roster::{Plan, Rosters};
use crate::server::delivery::socket::{Connected, Socket};
use crate::server::delivery::subscriber::{
    Closed, Farewell, Left, NewSubscriber, Phase, Protocol, Reading, Reason, Seat, Settings, Subscriber,
    SubscriberEvents, SubscriberId, Subscription,
};
use crate::server::delivery::timers::{NEVER, Tick, Timers, ticks};
use crate::server::delivery::websocket::Decoder;

/// How long a connection may take for its last words, and its client to close in turn.
const LINGER: Duration = Duration::from_secs(5);

/// How far ahead a deadline is noted. Those who left before theirs leave a note behind, which this bounds.
const HORIZON: Duration = Duration::from_secs(60);

/// A worker's subscribers.
pub(super) struct State {
    pub(super) hub: Arc<Hub>,
    inbox: Arc<Inbox>,
    registry: Registry,
    pub(super) subscribers: Slab<Subscriber>,
    /// What is kept for some of them until they have gone.
    belongings: HashMap<SubscriberId, Vec<Rc<dyn Any>>>,
    serial: u32,
    open: usize,
    pub(super) rosters: Rosters,
    timers: Timers,
    effects: Vec<Effect>,
    /// To be read although their sockets will not tell again.
    pub(super) unread: Vec<SubscriberId>,
    clock: Rc<dyn Clock>,
}

/// Something a module is to be told.
pub(super) struct Effect {
    pub(super) events: Rc<dyn SubscriberEvents>,
    pub(super) id: SubscriberId,
    pub(super) news: News,
}

/// What it is to be told.
pub(super) enum News {
    /// Something waits in a mailbox that was empty.
    Mail,
    /// One of its channels is gone.
    Left(Left),
    /// The subscriber is no longer one.
    Closed(Closed),
}

/// What a socket is ready for.
#[derive(Clone, Copy)]
pub(super) struct Readiness {
    pub(super) id: SubscriberId,
    pub(super) readable: bool,
    /// The client has closed, or the connection broke.
    pub(super) ended: bool,
    pub(super) writable: bool,
}

impl Readiness {
    pub(super) fn of(event: &Event) -> Self {
        let token = event.token().0;
        let id = SubscriberId { slot: token as u32, serial: (token >> 32) as u32 };
        let ended = event.is_read_closed() || event.is_error();
        Self { id, readable: event.is_readable() || ended, ended, writable: event.is_writable() }
    }
}

impl SubscriberId {
    fn token(self) -> Token {
        Token((self.serial as usize) << 32 | self.slot as usize)
    }
}

impl State {
    pub(super) fn new(hub: Arc<Hub>, inbox: Arc<Inbox>, registry: Registry, clock: Rc<dyn Clock>) -> Self {
        Self {
            hub,
            inbox,
            registry,
            subscribers: Slab::new(),
            belongings: HashMap::new(),
            serial: 0,
            open: 0,
            rosters: Rosters::default(),
            timers: Timers::default(),
            effects: Vec::new(),
            unread: Vec::new(),
            clock,
        }
    }

    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn leaving(&self) -> usize {
        self.subscribers.len() - self.open
    }

    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.timers.next()
    }

    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    pub(super) fn take_unread(&mut self) -> Vec<SubscriberId> {
        std::mem::take(&mut self.unread)
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}

/// Coming.
impl State {
    pub(super) fn subscribe(&mut self, new: NewSubscriber<'_>, now: Tick) -> Result<Subscription, Refused> {
        let seconds = self.clock.seconds();
        let mut channels: Vec<Subscribed> = Vec::with_capacity(new.channels.len());
        for (id, start) in new.channels {
            if channels.iter().any(|channel| channel.channel.as_bytes() == *id) {
                continue;
            }
            match self.hub.subscribe(&self.inbox, id, start, new.create, seconds) {
                Ok(subscribed) => channels.push(subscribed),
                Err(refused) => {
                    for channel in channels {
                        self.hub.unsubscribe(&self.inbox, channel.channel.as_bytes(), channel.key, seconds);
                    }
                    return Err(refused);
                }
            }
        }
        self.serial = self.serial.wrapping_add(1);
        let entry = self.subscribers.vacant_entry();
        let id = SubscriberId { slot: entry.key() as u32, serial: self.serial };
        let mut first = vec![new.greeting];
        let several = channels.len() > 1;
        let mut seats = SmallVec::new();
        for channel in &mut channels {
            let rendering = &new.settings.rendering;
            for message in std::mem::take(&mut channel.backlog) {
                first.push(message.rendering(rendering.key(), || rendering.render(&message)));
            }
            let name = (channel.key, &channel.channel);
            seats.push(self.rosters.seat(name, id, rendering, several, channel.live_after));
        }
        let mut sum = Sum::default();
        if new.settings.rendering.is_zipped() {
            for frame in &mut first {
                let (opened, addition) = gzip::open(std::mem::take(frame));
                sum.add(&addition);
                *frame = opened;
            }
        }
        let queue = Queue::rest(&first, 0, now);
        let ends = new.settings.ttl.map_or(NEVER, |ttl| now.saturating_add(ticks(ttl)));
        entry.insert(Subscriber {
            serial: id.serial,
            phase: Phase::Open,
            paused: false,
            done: false,
            dirty: false,
            held: false,
            socket: None,
            queue: (!queue.is_empty()).then(|| Box::new(queue)),
            reading: None,
            settings: new.settings,
            events: new.events,
            seats,
            sum,
            sent: now,
            ends,
            timer: NEVER,
        });
        self.open += 1;
        self.inbox.set_subscribers(self.open);
        self.watch_time(id, now);
        Ok(Subscription { id, channels })
    }

    pub(super) fn keep(&mut self, id: SubscriberId, things: Vec<Rc<dyn Any>>) {
        if !things.is_empty() && self.subscriber(id).is_some() {
            self.belongings.insert(id, things);
        }
    }

    pub(super) fn adopt(
        &mut self,
        id: SubscriberId,
        connected: Connected,
        leftover: &[u8],
        head: Bytes,
        now: Tick,
    ) -> std::io::Result<()> {
        let watched = Socket::watch(connected, &self.registry, id.token());
        let Some(subscriber) = self.subscribers.get_mut(id.slot as usize).filter(|s| s.serial == id.serial) else {
            return Ok(());
        };
        match watched {
            Ok(socket) => subscriber.socket = Some(socket),
            Err(error) => {
                self.lose(id, Reason::Broken);
                return Err(error);
            }
        }
        if !leftover.is_empty() {
            subscriber.reading = Some(Box::new(Reading { decoder: Decoder::default(), leftover: leftover.to_vec() }));
            self.unread.push(id);
        }
        match &mut subscriber.queue {
            Some(queue) => {
                queue.since = now;
                queue.push_front(head);
            }
            None if head.is_empty() => {}
            None => {
                subscriber.held = true;
                subscriber.queue = Some(Box::new(Queue::rest(&[head], 0, now)));
            }
        }
        self.flush(id, now);
        Ok(())
    }
}

/// Going on otherwise.
impl State {
    pub(super) fn replace_settings(&mut self, old: &Rc<Settings>, new: &Rc<Settings>, now: Tick) {
        for id in self.subscribers() {
            let Some(subscriber) = self.subscriber(id).filter(|subscriber| Rc::ptr_eq(&subscriber.settings, old))
            else {
                continue;
            };
            subscriber.settings = Rc::clone(new);
            if old.ttl != new.ttl {
                subscriber.ends = new.ttl.map_or(NEVER, |ttl| now.saturating_add(ticks(ttl)));
            }
            if old.rendering.key() != new.rendering.key() {
                let seats = std::mem::take(&mut subscriber.seats);
                let several = seats.len() > 1;
                for seat in seats {
                    let Some((moved, seat)) = self.rosters.reseat(seat, &new.rendering, several) else { continue };
                    self.tell_moved(moved);
                    if let Some(subscriber) = self.subscriber(id) {
                        subscriber.seats.push(seat);
                    }
                }
            }
            self.watch_time(id, now);
        }
    }

    /// Tells a subscriber of its new place in a channel.
    fn tell_moved(&mut self, moved: Option<(SubscriberId, Seat)>) {
        let Some((id, seat)) = moved else { return };
        let seats = self.subscribers.get_mut(id.slot as usize).map(|subscriber| &mut subscriber.seats);
        let place = seats.and_then(|seats| seats.iter_mut().find(|other| other.roster == seat.roster));
        if let Some(place) = place {
            place.member = seat.member;
        }
    }
}

/// Leaving.
impl State {
    /// Takes what waits in a mailbox; it is none any more.
    pub(super) fn collect(&mut self, id: SubscriberId) -> Vec<Bytes> {
        let queue = self.subscriber(id).and_then(|subscriber| subscriber.queue.take());
        self.lose(id, Reason::Collected);
        queue.map_or_else(Vec::new, |queue| queue.into_parts())
    }

    /// Has the module told that something waits in a mailbox that was empty.
    pub(super) fn tell_mail(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscriber(id) else { return };
        let events = Rc::clone(&subscriber.events);
        self.effects.push(Effect { events, id, news: News::Mail });
    }

    /// Ends a subscription with last words, after what waits already.
    pub(super) fn leave(&mut self, id: SubscriberId, reason: Reason, farewell: Farewell<'_>, now: Tick) {
        if !self.unsubscribe(id, reason) {
            return;
        }
        let Some(subscriber) = self.subscriber(id) else {
            return;
        };
        let is_stream = matches!(subscriber.settings.protocol, Protocol::Stream { .. });
        let has_footer = reason != Reason::Client && (is_stream || farewell == Farewell::Plain);
        let footer = if has_footer { subscriber.settings.footer.clone() } else { Bytes::new() };
        let footer = subscriber.count(footer);
        let farewell = subscriber.farewell(farewell);
        let queue = subscriber.queue.get_or_insert_with(|| Box::new(Queue::new(now)));
        queue.push(footer);
        queue.push(farewell);
        subscriber.held = false;
        subscriber.ends = now.saturating_add(ticks(LINGER));
        subscriber.paused = false;
        self.watch_time(id, now);
        self.flush(id, now);
    }

    /// Ends the subscription of a client that does not read.
    #[cold]
    pub(super) fn leave_slow(&mut self, id: SubscriberId, now: Tick) {
        let Some(subscriber) = self.subscriber(id) else {
            return;
        };
        let stream = matches!(subscriber.settings.protocol, Protocol::Stream { .. });
        let dropped = match &mut subscriber.queue {
            // The stream ends in the middle: its client is to see that something is missing.
            Some(queue) if stream => queue.frames(),
            Some(queue) => queue.cut(),
            None => 0,
        };
        self.hub.dropped().slow_clients.add(1);
        self.hub.dropped().unsent.add(dropped);
        if stream {
            self.lose(id, Reason::Slow);
        } else {
            self.leave(id, Reason::Slow, Farewell::Code(1013, "too slow: messages were waiting"), now);
        }
    }

    pub(super) fn leave_all(&mut self, farewell: Farewell<'_>, now: Tick) {
        for slot in 0..self.subscribers.capacity() {
            let Some(subscriber) = self.subscribers.get(slot) else {
                continue;
            };
            let id = SubscriberId { slot: slot as u32, serial: subscriber.serial };
            self.leave(id, Reason::Asked, farewell, now);
        }
    }

    /// Takes those off their channel whose channel is gone, and ends those who have no other.
    pub(super) fn leave_deleted(&mut self, plan: &mut Plan, now: Tick) {
        let gone = std::mem::take(&mut plan.deleted_rosters);
        for id in plan.deleted.drain(..) {
            let Some(subscriber) = self.subscriber(id) else {
                continue;
            };
            let left = subscriber.seats.iter().any(|seat| !gone.contains(&seat.roster));
            if !left {
                self.leave(id, Reason::ChannelDeleted, Farewell::Plain, now);
                continue;
            }
            let seats: SmallVec<[Seat; 4]> =
                subscriber.seats.iter().copied().filter(|seat| gone.contains(&seat.roster)).collect();
            subscriber.seats.retain(|seat| !gone.contains(&seat.roster));
            let events = Rc::clone(&subscriber.events);
            for left in seats.into_iter().filter_map(|seat| self.unseat(seat)).collect::<Vec<_>>() {
                self.effects.push(Effect { events: Rc::clone(&events), id, news: News::Left(left) });
            }
        }
    }

    /// Ends a connection at once.
    pub(super) fn lose(&mut self, id: SubscriberId, reason: Reason) {
        if self.subscriber(id).is_none() {
            return;
        }
        self.unsubscribe(id, reason);
        let subscriber = self.subscribers.remove(id.slot as usize);
        self.belongings.remove(&id);
        if reason != Reason::Slow {
            self.hub.dropped().unsent.add(subscriber.queue.map_or(0, |queue| queue.frames()));
        }
    }

    /// Takes a subscriber off its channels and has its module told; false if it was none any more.
    fn unsubscribe(&mut self, id: SubscriberId, reason: Reason) -> bool {
        let Some(subscriber) = self.subscriber(id).filter(|subscriber| subscriber.phase == Phase::Open) else {
            return false;
        };
        subscriber.phase = Phase::Leaving;
        let events = Rc::clone(&subscriber.events);
        let seats = std::mem::take(&mut subscriber.seats);
        let left = seats.into_iter().filter_map(|seat| self.unseat(seat)).collect();
        self.effects.push(Effect { events, id, news: News::Closed(Closed { reason, left }) });
        self.open -= 1;
        self.inbox.set_subscribers(self.open);
        true
    }

    fn unseat(&mut self, seat: Seat) -> Option<Left> {
        let (moved, channel, key) = self.rosters.unseat(seat)?;
        self.tell_moved(moved.map(|moved| (moved, seat)));
        let unsubscribed = self.hub.unsubscribe(&self.inbox, channel.as_bytes(), key, self.clock.seconds());
        Some(Left { channel, unsubscribed })
    }

    /// All is sent: the client is told so, and may take its time to see it, unless it is done too.
    pub(super) fn linger(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscriber(id) else {
            return;
        };
        subscriber.phase = Phase::Lingering;
        let socket = subscriber.socket.as_mut();
        if subscriber.done || socket.is_none_or(|socket| socket.end().is_err()) {
            self.subscribers.remove(id.slot as usize);
            self.belongings.remove(&id);
        }
    }
}

/// Time.
impl State {
    /// Notes when a subscriber must be looked at next, unless that is noted already.
    pub(super) fn watch_time(&mut self, id: SubscriberId, now: Tick) {
        let Some(subscriber) = self.subscriber(id) else {
            return;
        };
        let deadline = subscriber.deadline();
        if deadline == NEVER {
            return;
        }
        let at = deadline.min(now.saturating_add(ticks(HORIZON)));
        if at < subscriber.timer {
            subscriber.timer = at;
            self.timers.schedule(at, id);
        }
    }

    /// Those who were to be looked at by now, and when.
    pub(super) fn due(&mut self, now: Tick) -> Option<(Tick, Vec<SubscriberId>)> {
        self.timers.due(now)
    }

    /// Does what is due for a subscriber.
    pub(super) fn look_at(&mut self, id: SubscriberId, tick: Tick, now: Tick) {
        let Some(subscriber) = self.subscriber(id).filter(|subscriber| subscriber.timer == tick) else {
            return;
        };
        subscriber.timer = NEVER;
        let open = subscriber.phase == Phase::Open;
        let stalled = subscriber.queue.as_ref().filter(|_| subscriber.socket.is_some() && !subscriber.held);
        let timeout = ticks(subscriber.settings.send_timeout);
        if subscriber.ends <= now {
            if open {
                self.leave(id, Reason::Ttl, Farewell::Plain, now);
            } else {
                self.lose(id, Reason::Ttl);
            }
        } else if stalled.is_some_and(|queue| queue.since.saturating_add(timeout) <= now) {
            self.hub.dropped().slow_clients.add(1);
            self.lose(id, Reason::Slow);
        } else if subscriber.ping_due() <= now {
            let ping = subscriber.settings.ping.as_ref().map(|(_, ping)| ping.clone());
            subscriber.sent = now;
            let free = (subscriber.queue.is_none() || subscriber.held) && subscriber.socket.is_some();
            if let Some(ping) = ping.filter(|_| free) {
                self.send(id, ping, now);
            }
        }
        self.watch_time(id, now);
    }
}

impl State {
    pub(super) fn subscribers(&self) -> Vec<SubscriberId> {
        let open = self.subscribers.iter().filter(|(_, subscriber)| subscriber.phase == Phase::Open);
        open.map(|(slot, subscriber)| SubscriberId { slot: slot as u32, serial: subscriber.serial }).collect()
    }

    pub(super) fn channels(&self, id: SubscriberId) -> SmallVec<[ChannelId; 1]> {
        let subscriber = self.subscribers.get(id.slot as usize).filter(|subscriber| subscriber.serial == id.serial);
        let seats = subscriber.map_or(&[][..], |subscriber| &subscriber.seats);
        seats.iter().filter_map(|seat| self.rosters.channel(*seat)).cloned().collect()
    }

    pub(super) fn subscriber(&mut self, id: SubscriberId) -> Option<&mut Subscriber> {
        self.subscribers.get_mut(id.slot as usize).filter(|subscriber| subscriber.serial == id.serial)
    }
}
