//! What the process counts of its connections, for all workers together: nginx's stub status.

use std::sync::atomic::{AtomicU64, Ordering};

/// Connections that were accepted.
pub static ACCEPTED: Count = Count(AtomicU64::new(0));
/// Requests that have begun.
pub static REQUESTS: Count = Count(AtomicU64::new(0));
/// Connections that are open.
pub static ACTIVE: Count = Count(AtomicU64::new(0));
/// Connections whose request's head is being read.
pub static READING: Count = Count(AtomicU64::new(0));
/// Connections whose request is worked on or answered; subscribers are.
pub static WRITING: Count = Count(AtomicU64::new(0));
/// Connections that wait for a request.
pub static WAITING: Count = Count(AtomicU64::new(0));

/// One number.
#[derive(Debug)]
pub struct Count(AtomicU64);

/// One of those that are counted, until it is dropped.
#[derive(Debug)]
pub struct Counted(&'static Count);

impl Count {
    /// The number now.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One more for a while.
    pub fn enter(&'static self) -> Counted {
        self.add();
        Counted(self)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A subscriber's connection among those that are open and written to. It has no size: there are many of them.
#[derive(Debug)]
pub struct Subscribed(());

impl Subscribed {
    /// One more.
    pub fn enter() -> Self {
        ACTIVE.add();
        WRITING.add();
        Self(())
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        drop((Counted(&ACTIVE), Counted(&WRITING)));
    }
}
