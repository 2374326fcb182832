//! From the inbox to the sockets.

use std::io::ErrorKind;

use bytes::Bytes;

use crate::hub::inbox::Entry;
use crate::server::delivery::queue::Queue;
use crate::server::delivery::roster::{Job, Plan};
use crate::server::delivery::state::State;
use crate::server::delivery::subscriber::{Phase, Reason, SubscriberId};
use crate::server::delivery::timers::Tick;

impl State {
    pub(super) fn plan(&mut self, entries: &[Entry], plan: &mut Plan) {
        plan.clear();
        for entry in entries {
            self.rosters.take(plan, entry.channel, &entry.message, entry.deleted);
        }
        self.rosters.complete(plan);
    }

    /// Writes a job's bytes to some of its targets.
    pub(super) fn deliver(&mut self, targets: &[SubscriberId], job: &Job, now: Tick) {
        targets.iter().for_each(|id| self.deliver_to(*id, job, now));
    }

    /// Writes a job's bytes to one subscriber, or queues them.
    fn deliver_to(&mut self, id: SubscriberId, job: &Job, now: Tick) {
        let Some(subscriber) = self.subscribers.get_mut(id.slot as usize).filter(|s| s.serial == id.serial) else {
            return;
        };
        if let Some(addition) = &job.addition {
            subscriber.sum.add(addition);
        }
        let (Some(socket), None, Phase::Open) = (&mut subscriber.socket, &subscriber.queue, subscriber.phase) else {
            job.frames.iter().for_each(|frame| self.put(id, frame.clone(), now));
            return;
        };
        match socket.write(&job.batch) {
            Ok(written) if written == job.batch.len() && socket.is_flushed() => subscriber.sent = now,
            Ok(written) => self.queue_rest(id, &job.frames, written, now),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
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
        if let Some(subscriber) = self.subscriber(id) {
            let frame = subscriber.count(frame);
            self.put(id, frame, now);
        }
    }

    /// The same with a frame that is counted already.
    fn put(&mut self, id: SubscriberId, frame: Bytes, now: Tick) {
        let Some(subscriber) = self.subscriber(id).filter(|subscriber| subscriber.phase == Phase::Open) else {
            return;
        };
        match &mut subscriber.queue {
            None => {
                subscriber.queue = Some(Box::new(Queue::rest(&[frame], 0, now)));
                if subscriber.is_mailbox() {
                    self.tell_mail(id);
                } else {
                    self.flush(id, now);
                }
            }
            Some(queue) if subscriber.held => {
                queue.push(frame);
                subscriber.held = false;
                self.flush(id, now);
            }
            Some(queue) if queue.has_room(frame.len(), subscriber.settings.queue_bound) => queue.push(frame),
            Some(_) => self.leave_slow(id, now),
        }
    }

    /// Queues what goes to single subscribers; returns who is to be flushed.
    pub(super) fn queue_singles(&mut self, plan: &mut Plan, now: Tick) -> Vec<SubscriberId> {
        let mut flushes = Vec::new();
        for (id, frame) in plan.singles.drain(..) {
            let Some(subscriber) = self.subscribers.get_mut(id.slot as usize).filter(|s| s.serial == id.serial) else {
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
            let is_mail = subscriber.queue.is_none() && subscriber.is_mailbox();
            let frame = subscriber.count(frame);
            subscriber.queue.get_or_insert_with(|| Box::new(Queue::new(now))).push(frame);
            if is_mail {
                self.tell_mail(id);
                continue;
            }
            if !subscriber.dirty {
                subscriber.dirty = true;
                flushes.push(id);
            }
        }
        flushes
    }

    /// Flushes several.
    pub(super) fn flush_all(&mut self, subscribers: &[SubscriberId], now: Tick) {
        subscribers.iter().for_each(|id| self.flush(*id, now));
    }

    /// Writes what waits for a subscriber, as far as its socket takes it.
    pub(super) fn flush(&mut self, id: SubscriberId, now: Tick) {
        let Some(subscriber) = self.subscriber(id) else {
            return;
        };
        subscriber.dirty = false;
        if subscriber.held {
            return;
        }
        let (Some(socket), Some(queue)) = (&mut subscriber.socket, &mut subscriber.queue) else {
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
