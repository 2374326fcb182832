//! The way from the hub to a worker: a queue that is swapped out whole.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::hub::channel::ChannelKey;
use crate::hub::message::Message;

/// Numbers the workers, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

/// Wakes a worker from any thread.
pub trait Wake: Send + Sync {
    /// Called when the inbox is no longer empty, never under a lock of the hub.
    fn wake(&self);
}

/// Something for a worker's subscribers of a channel.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The channel, as [`super::Subscribed::key`] named it.
    pub channel: ChannelKey,
    /// What to send.
    pub message: Arc<Message>,
    /// The channel is gone: this is its last entry.
    pub deleted: bool,
}

/// A worker's queue.
pub struct Inbox {
    worker: WorkerId,
    queue: Mutex<Vec<Entry>>,
    wake: Box<dyn Wake>,
    subscribers: AtomicUsize,
}

impl Inbox {
    pub(super) fn new(worker: WorkerId, wake: Box<dyn Wake>) -> Self {
        Self { worker, queue: Mutex::default(), wake, subscribers: AtomicUsize::new(0) }
    }

    /// The worker it belongs to.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Takes all that is there, leaving `emptied`'s space for what comes next.
    pub fn drain(&self, emptied: &mut Vec<Entry>) {
        emptied.clear();
        std::mem::swap(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner), emptied);
    }

    /// Nothing is there.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The worker's subscribers, each counted once however many channels it has.
    pub fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::Relaxed)
    }

    /// Tells how many subscribers the worker has.
    pub fn set_subscribers(&self, count: usize) {
        self.subscribers.store(count, Ordering::Relaxed);
    }

    /// Appends; true if the queue was empty, so that the worker must be woken.
    pub(super) fn push(&self, entry: Entry) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push(entry);
        queue.len() == 1
    }

    pub(super) fn wake(&self) {
        self.wake.wake();
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("worker", &self.worker).field("subscribers", &self.subscribers()).finish()
    }
}
