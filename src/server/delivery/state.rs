//! The slab and what happens to a subscriber in it. Nothing here waits, and nothing here calls a module.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mio::event::Event;
use mio::{Registry, Token};
use slab::Slab;
use smallvec::SmallVec;

use crate::hub::inbox::{Entry, Inbox};
use crate::hub::limits::Refused;
use crate::hub::{Hub, Subscribed};
use crate::server::delivery::Clock;
use crate::server::delivery::frame::{self, Opcode};
use crate::server::delivery::queue::Queue;
use crate::server::delivery::roster::{Job, Plan, Rosters};
use crate::server::delivery::socket::Socket;
use crate::server::delivery::subscriber::{
    Closed, Farewell, Left, NewSubscriber, Phase, Protocol, Reading, Reason, Seat, Subscriber,
    SubscriberEvents, SubscriberId, Subscription,
};
use crate::server::delivery::timers::{NEVER, Tick, Timers, ticks};
use crate::server::delivery::websocket::{Decoder, Received};

/// How long a connection may take for its last words, and its client to close in turn.
const LINGER: Duration = Duration::from_secs(5);

/// How far ahead a deadline is noted. Those who left before theirs leave a note behind, which this bounds.
const HORIZON: Duration = Duration::from_secs(60);

/// So many reads from one client, and others have their turn.
const READS: usize = 4;

/// A worker's subscribers.
pub(super) struct State {
    hub: Arc<Hub>,
    inbox: Arc<Inbox>,
    registry: Registry,
    subscribers: Slab<Subscriber>,
    serial: u32,
    open: usize,
    rosters: Rosters,
    timers: Timers,
    effects: Vec<Effect>,
    /// To be read although their sockets will not tell again.
    unread: Vec<SubscriberId>,
    clock: Rc<dyn Clock>,
}

/// Something a module is to be told.
pub(super) struct Effect {
    pub(super) events: Rc<dyn SubscriberEvents>,
    pub(super) id: SubscriberId,
    pub(super) closed: Closed,
}

/// What a socket is ready for.
#[derive(Clone, Copy)]
pub(super) struct Readiness {
    pub(super) id: SubscriberId,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// What is being read from one client.
pub(super) struct Input {
    id: SubscriberId,
    /// The part of the buffer that is not yet decoded.
    begin: usize,
    end: usize,
    reads: usize,
    /// The socket has nothing more for now.
    drained: bool,
    decoder: Decoder,
}

/// How reading goes on.
pub(super) enum Progress {
    /// The module is to be told of a message; then there is more to do.
    Message(Rc<dyn SubscriberEvents>, Opcode, Bytes),
    /// There is more to do.
    More,
}

impl Readiness {
    pub(super) fn of(event: &Event) -> Self {
        let token = event.token().0;
        let id = SubscriberId {
            slot: token as u32,
            serial: (token >> 32) as u32,
        };
        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
        Self {
            id,
            readable,
            writable: event.is_writable(),
        }
    }
}

impl SubscriberId {
    fn token(self) -> Token {
        Token((self.serial as usize) << 32 | self.slot as usize)
    }
}

impl State {
    pub(super) fn new(
        hub: Arc<Hub>,
        inbox: Arc<Inbox>,
        registry: Registry,
        clock: Rc<dyn Clock>,
    ) -> Self {
        Self {
            hub,
            inbox,
            registry,
            subscribers: Slab::new(),
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
    pub(super) fn subscribe(
        &mut self,
        new: NewSubscriber<'_>,
        now: Tick,
    ) -> Result<Subscription, Refused> {
        let seconds = self.clock.seconds();
        let mut channels: Vec<Subscribed> = Vec::with_capacity(new.channels.len());
        for (id, start) in new.channels {
            if channels
                .iter()
                .any(|channel| channel.channel.as_bytes() == *id)
            {
                continue;
            }
            match self
                .hub
                .subscribe(&self.inbox, id, start, new.create, seconds)
            {
                Ok(subscribed) => channels.push(subscribed),
                Err(refused) => {
                    for channel in channels {
                        self.hub.unsubscribe(
                            &self.inbox,
                            channel.channel.as_bytes(),
                            channel.key,
                            seconds,
                        );
                    }
                    return Err(refused);
                }
            }
        }
        self.serial = self.serial.wrapping_add(1);
        let entry = self.subscribers.vacant_entry();
        let id = SubscriberId {
            slot: entry.key() as u32,
            serial: self.serial,
        };
        let mut first = vec![new.greeting];
        let several = channels.len() > 1;
        let mut seats = SmallVec::new();
        for channel in &mut channels {
            let rendering = &new.settings.rendering;
            for message in std::mem::take(&mut channel.backlog) {
                first.push(message.rendering(rendering.key(), || rendering.render(&message)));
            }
            let name = (channel.key, &channel.channel);
            seats.push(
                self.rosters
                    .seat(name, id, rendering, several, channel.live_after),
            );
        }
        let queue = Queue::rest(&first, 0, now);
        let ends = new
            .settings
            .ttl
            .map_or(NEVER, |ttl| now.saturating_add(ticks(ttl)));
        entry.insert(Subscriber {
            serial: id.serial,
            phase: Phase::Open,
            paused: false,
            dirty: false,
            socket: None,
            queue: (!queue.is_empty()).then(|| Box::new(queue)),
            reading: None,
            settings: new.settings,
            events: new.events,
            seats,
            sent: now,
            ends,
            timer: NEVER,
        });
        self.open += 1;
        self.inbox.set_subscribers(self.open);
        self.watch_time(id, now);
        Ok(Subscription { id, channels })
    }

    pub(super) fn adopt(
        &mut self,
        id: SubscriberId,
        socket: OwnedFd,
        leftover: &[u8],
        now: Tick,
    ) -> std::io::Result<()> {
        let watched = Socket::watch(socket, &self.registry, id.token());
        let Some(subscriber) = self
            .subscribers
            .get_mut(id.slot as usize)
            .filter(|s| s.serial == id.serial)
        else {
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
            subscriber.reading = Some(Box::new(Reading {
                decoder: Decoder::default(),
                leftover: leftover.to_vec(),
            }));
            self.unread.push(id);
        }
        if let Some(queue) = &mut subscriber.queue {
            queue.since = now;
        }
        self.flush(id, now);
        Ok(())
    }
}

/// Sending.
impl State {
    pub(super) fn plan(&mut self, entries: &[Entry], plan: &mut Plan) {
        plan.clear();
        for entry in entries {
            self.rosters
                .take(plan, entry.channel, &entry.message, entry.deleted);
        }
        self.rosters.complete(plan);
    }

    /// Writes a job's bytes to one of its targets, or queues them.
    pub(super) fn deliver(&mut self, id: SubscriberId, job: &Job, now: Tick) {
        let Some(subscriber) = self
            .subscribers
            .get_mut(id.slot as usize)
            .filter(|s| s.serial == id.serial)
        else {
            return;
        };
        let (Some(socket), None, Phase::Open) =
            (&subscriber.socket, &subscriber.queue, subscriber.phase)
        else {
            job.frames
                .iter()
                .for_each(|frame| self.send(id, frame.clone(), now));
            return;
        };
        match socket.write(&job.batch) {
            Ok(written) if written == job.batch.len() => subscriber.sent = now,
            Ok(written) => self.queue_rest(id, &job.frames, written, now),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                self.queue_rest(id, &job.frames, 0, now);
            }
            Err(_) => self.lose(id, Reason::Broken),
        }
    }

    #[cold]
    fn queue_rest(&mut self, id: SubscriberId, frames: &[Bytes], written: usize, now: Tick) {
        let Some(subscriber) = self.subscriber(id) else {
            return;
        };
        subscriber.sent = now;
        subscriber.queue = Some(Box::new(Queue::rest(frames, written, now)));
        self.watch_time(id, now);
    }

    /// Sends one frame, by the queue if there is one.
    pub(super) fn send(&mut self, id: SubscriberId, frame: Bytes, now: Tick) {
        let Some(subscriber) = self
            .subscriber(id)
            .filter(|subscriber| subscriber.phase == Phase::Open)
        else {
            return;
        };
        match &mut subscriber.queue {
            None => {
                subscriber.queue = Some(Box::new(Queue::rest(&[frame], 0, now)));
                self.flush(id, now);
            }
            Some(queue) if queue.has_room(frame.len(), subscriber.settings.queue_bound) => {
                queue.push(frame)
            }
            Some(_) => self.leave_slow(id, now),
        }
    }

    /// Queues what goes to single subscribers; returns who is to be flushed.
    pub(super) fn queue_singles(&mut self, plan: &mut Plan, now: Tick) -> Vec<SubscriberId> {
        let mut flushes = Vec::new();
        for (id, frame) in plan.singles.drain(..) {
            let Some(subscriber) = self
                .subscribers
                .get_mut(id.slot as usize)
                .filter(|s| s.serial == id.serial)
            else {
                continue;
            };
            if subscriber.phase != Phase::Open {
                continue;
            }
            let waits = subscriber.queue.is_some() && !subscriber.dirty;
            if waits {
                self.send(id, frame, now);
                continue;
            }
            subscriber
                .queue
                .get_or_insert_with(|| Box::new(Queue::new(now)))
                .push(frame);
            if !subscriber.dirty {
                subscriber.dirty = true;
                flushes.push(id);
            }
        }
        flushes
    }

    /// Writes what waits for a subscriber, as far as its socket takes it.
    pub(super) fn flush(&mut self, id: SubscriberId, now: Tick) {
        let Some(subscriber) = self.subscriber(id) else {
            return;
        };
        subscriber.dirty = false;
        let (Some(socket), Some(queue)) = (&subscriber.socket, &mut subscriber.queue) else {
            return;
        };
        match queue.flush(socket, now) {
            Ok(true) => {
                subscriber.queue = None;
                subscriber.sent = now;
                if subscriber.phase == Phase::Leaving {
                    self.linger(id);
                }
            }
            Ok(false) => self.watch_time(id, now),
            Err(_) => self.lose(id, Reason::Broken),
        }
    }
}

/// Reading.
impl State {
    pub(super) fn pause(&mut self, id: SubscriberId) {
        if let Some(subscriber) = self.subscriber(id) {
            subscriber.paused = true;
        }
    }

    pub(super) fn resume(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscriber(id) else {
            return;
        };
        // The socket told of what has come meanwhile, and will not tell again.
        if std::mem::replace(&mut subscriber.paused, false) {
            self.unread.push(id);
        }
    }

    /// Begins to read: with what was left over the last time.
    pub(super) fn input(&mut self, id: SubscriberId, buffer: &mut [u8]) -> Input {
        let mut input = Input {
            id,
            begin: 0,
            end: 0,
            reads: 0,
            drained: false,
            decoder: Decoder::default(),
        };
        let Some(subscriber) = self.subscriber(id) else {
            return input;
        };
        if subscriber.paused {
            return input;
        }
        if let Some(reading) = subscriber.reading.take() {
            let Reading {
                decoder,
                mut leftover,
            } = *reading;
            input.decoder = decoder;
            input.end = leftover.len().min(buffer.len());
            buffer[..input.end].copy_from_slice(&leftover[..input.end]);
            if leftover.len() > input.end {
                // More was left than a buffer holds, by whoever read before us: the rest comes next.
                leftover.drain(..input.end);
                let decoder = Decoder::default();
                subscriber.reading = Some(Box::new(Reading { decoder, leftover }));
            }
        }
        input
    }

    /// Reads on; `None` when there is nothing to do for now.
    pub(super) fn read(
        &mut self,
        input: &mut Input,
        buffer: &mut [u8],
        now: Tick,
    ) -> Option<Progress> {
        let id = input.id;
        let subscriber = self
            .subscribers
            .get_mut(id.slot as usize)
            .filter(|s| s.serial == id.serial)?;
        if subscriber.paused {
            rest(subscriber, input, buffer);
            return None;
        }
        if input.begin == input.end {
            return self.fill(input, buffer);
        }
        let max_message_size = match (&subscriber.settings.protocol, subscriber.phase) {
            (Protocol::Websocket { max_message_size }, Phase::Open) => *max_message_size,
            // What a stream's client sends, or one that has been told goodbye, is of no interest.
            _ => {
                input.begin = input.end;
                return Some(Progress::More);
            }
        };
        match input
            .decoder
            .decode(&mut buffer[input.begin..input.end], max_message_size)
        {
            Ok((taken, received)) => {
                input.begin += taken;
                match received {
                    Some(Received::Message(opcode, payload)) => {
                        return Some(Progress::Message(
                            Rc::clone(&subscriber.events),
                            opcode,
                            payload,
                        ));
                    }
                    Some(Received::Ping(payload)) => self.send(id, frame::pong(&payload), now),
                    Some(Received::Close(code)) => {
                        let farewell =
                            code.map_or(Farewell::Plain, |code| Farewell::Code(code, ""));
                        self.leave(id, Reason::Client, farewell, now);
                    }
                    Some(Received::Pong) | None => {}
                }
            }
            Err(violation) => {
                let farewell = Farewell::Code(violation.code, violation.reason);
                self.leave(id, Reason::Violation(violation.code), farewell, now);
            }
        }
        Some(Progress::More)
    }

    /// Reads from the socket into the empty buffer.
    fn fill(&mut self, input: &mut Input, buffer: &mut [u8]) -> Option<Progress> {
        let id = input.id;
        let subscriber = self
            .subscribers
            .get_mut(id.slot as usize)
            .filter(|s| s.serial == id.serial)?;
        if subscriber.reading.is_some() {
            return self.more_leftover(input, buffer);
        }
        if input.drained || input.reads == READS {
            rest(subscriber, input, buffer);
            if !input.drained {
                self.unread.push(id);
            }
            return None;
        }
        input.reads += 1;
        let socket = subscriber.socket.as_ref()?;
        match socket.read(buffer) {
            Ok(0) => {
                self.lose(id, Reason::Client);
                None
            }
            Ok(count) => {
                (input.begin, input.end) = (0, count);
                Some(Progress::More)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Some(Progress::More),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                input.drained = true;
                Some(Progress::More)
            }
            Err(_) => {
                self.lose(id, Reason::Broken);
                None
            }
        }
    }

    /// Takes the next part of what was read before the socket came here.
    fn more_leftover(&mut self, input: &mut Input, buffer: &mut [u8]) -> Option<Progress> {
        let subscriber = self.subscriber(input.id)?;
        let reading = subscriber.reading.as_mut()?;
        let count = reading.leftover.len().min(buffer.len());
        buffer[..count].copy_from_slice(&reading.leftover[..count]);
        reading.leftover.drain(..count);
        if reading.leftover.is_empty() {
            subscriber.reading = None;
        }
        (input.begin, input.end) = (0, count);
        Some(Progress::More)
    }
}

/// Puts away what is not finished.
fn rest(subscriber: &mut Subscriber, input: &mut Input, buffer: &[u8]) {
    let mut leftover = buffer[input.begin..input.end].to_vec();
    input.begin = input.end;
    if let Some(reading) = subscriber.reading.take() {
        leftover.extend(reading.leftover);
    }
    if !leftover.is_empty() || !input.decoder.is_at_rest() {
        let decoder = std::mem::take(&mut input.decoder);
        subscriber.reading = Some(Box::new(Reading { decoder, leftover }));
    }
}

/// Leaving.
impl State {
    /// Ends a subscription with last words, after what waits already.
    pub(super) fn leave(
        &mut self,
        id: SubscriberId,
        reason: Reason,
        farewell: Farewell<'_>,
        now: Tick,
    ) {
        if !self.unsubscribe(id, reason) {
            return;
        }
        let Some(subscriber) = self.subscriber(id) else {
            return;
        };
        let farewell = subscriber.farewell(farewell);
        subscriber
            .queue
            .get_or_insert_with(|| Box::new(Queue::new(now)))
            .push(farewell);
        subscriber.ends = now.saturating_add(ticks(LINGER));
        subscriber.paused = false;
        self.watch_time(id, now);
        self.flush(id, now);
    }

    /// Ends the subscription of a client that does not read.
    #[cold]
    fn leave_slow(&mut self, id: SubscriberId, now: Tick) {
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
            self.leave(
                id,
                Reason::Slow,
                Farewell::Code(1013, "too slow: messages were waiting"),
                now,
            );
        }
    }

    pub(super) fn leave_all(&mut self, farewell: Farewell<'_>, now: Tick) {
        let all: Vec<_> = self
            .subscribers
            .iter()
            .map(|(slot, s)| SubscriberId {
                slot: slot as u32,
                serial: s.serial,
            })
            .collect();
        all.into_iter()
            .for_each(|id| self.leave(id, Reason::Asked, farewell, now));
    }

    /// Takes those off their channel whose channel is gone, and ends those who have no other.
    pub(super) fn leave_deleted(&mut self, plan: &mut Plan, now: Tick) {
        let gone = std::mem::take(&mut plan.deleted_rosters);
        for id in plan.deleted.drain(..) {
            let Some(subscriber) = self.subscriber(id) else {
                continue;
            };
            let left = subscriber
                .seats
                .iter()
                .any(|seat| !gone.contains(&seat.roster));
            if !left {
                self.leave(id, Reason::ChannelDeleted, Farewell::Plain, now);
                continue;
            }
            let seats: SmallVec<[Seat; 4]> = subscriber
                .seats
                .iter()
                .copied()
                .filter(|seat| gone.contains(&seat.roster))
                .collect();
            subscriber.seats.retain(|seat| !gone.contains(&seat.roster));
            seats.into_iter().for_each(|seat| drop(self.unseat(seat)));
        }
    }

    /// Ends a connection at once.
    pub(super) fn lose(&mut self, id: SubscriberId, reason: Reason) {
        if self.subscriber(id).is_none() {
            return;
        }
        self.unsubscribe(id, reason);
        let subscriber = self.subscribers.remove(id.slot as usize);
        if reason != Reason::Slow {
            self.hub
                .dropped()
                .unsent
                .add(subscriber.queue.map_or(0, |queue| queue.frames()));
        }
    }

    /// Takes a subscriber off its channels and has its module told; false if it was none any more.
    fn unsubscribe(&mut self, id: SubscriberId, reason: Reason) -> bool {
        let Some(subscriber) = self
            .subscriber(id)
            .filter(|subscriber| subscriber.phase == Phase::Open)
        else {
            return false;
        };
        subscriber.phase = Phase::Leaving;
        let events = Rc::clone(&subscriber.events);
        let seats = std::mem::take(&mut subscriber.seats);
        let left = seats
            .into_iter()
            .filter_map(|seat| self.unseat(seat))
            .collect();
        self.effects.push(Effect {
            events,
            id,
            closed: Closed { reason, left },
        });
        self.open -= 1;
        self.inbox.set_subscribers(self.open);
        true
    }

    fn unseat(&mut self, seat: Seat) -> Option<Left> {
        let (moved, channel, key) = self.rosters.unseat(seat)?;
        if let Some(moved) = moved.and_then(|moved| self.subscribers.get_mut(moved.slot as usize)) {
            let seats = &mut moved.seats;
            let place = seats.iter_mut().find(|other| other.roster == seat.roster);
            place
                .into_iter()
                .for_each(|place| place.member = seat.member);
        }
        let unsubscribed =
            self.hub
                .unsubscribe(&self.inbox, channel.as_bytes(), key, self.clock.seconds());
        Some(Left {
            channel,
            unsubscribed,
        })
    }

    /// All is sent: the client is told so, and may take its time to see it.
    fn linger(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscriber(id) else {
            return;
        };
        subscriber.phase = Phase::Lingering;
        if subscriber
            .socket
            .as_ref()
            .is_none_or(|socket| socket.end().is_err())
        {
            self.subscribers.remove(id.slot as usize);
        }
    }
}

/// Time.
impl State {
    /// Notes when a subscriber must be looked at next, unless that is noted already.
    fn watch_time(&mut self, id: SubscriberId, now: Tick) {
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
        let Some(subscriber) = self
            .subscriber(id)
            .filter(|subscriber| subscriber.timer == tick)
        else {
            return;
        };
        subscriber.timer = NEVER;
        let open = subscriber.phase == Phase::Open;
        let stalled = subscriber
            .queue
            .as_ref()
            .filter(|_| subscriber.socket.is_some());
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
            let ping = subscriber
                .settings
                .ping
                .as_ref()
                .map(|(_, ping)| ping.clone());
            subscriber.sent = now;
            let free = subscriber.queue.is_none() && subscriber.socket.is_some();
            if let Some(ping) = ping.filter(|_| free) {
                self.send(id, ping, now);
            }
        }
        self.watch_time(id, now);
    }
}

impl State {
    fn subscriber(&mut self, id: SubscriberId) -> Option<&mut Subscriber> {
        self.subscribers
            .get_mut(id.slot as usize)
            .filter(|subscriber| subscriber.serial == id.serial)
    }
}
