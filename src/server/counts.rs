//! What the process counts of its connections, for all workers together: nginx's stub status.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Connections that were accepted.
pub static ACCEPTED: Count = Count(0);
/// Requests that have begun.
pub static REQUESTS: Count = Count(1);
/// Connections that are open.
pub static ACTIVE: Count = Count(2);
/// Connections whose request's head is being read.
pub static READING: Count = Count(3);
/// Connections whose request is worked on or answered; subscribers are.
pub static WRITING: Count = Count(4);
/// Connections that wait for a request.
pub static WAITING: Count = Count(5);

/// One number: which of a thread's it is.
#[derive(Debug)]
pub struct Count(usize);

/// One of those that are counted, until it is dropped.
#[derive(Debug)]
pub struct Counted(&'static Count);

/// What one thread has counted, on cache lines of its own: counting costs no more with several workers than with one.
#[repr(align(128))]
#[derive(Default)]
struct Tally([AtomicU64; 6]);

/// The tallies of all threads that have counted something. A worker's stays when it ends: 128 bytes.
static TALLIES: Mutex<Vec<&'static Tally>> = Mutex::new(Vec::new());

thread_local! {
    static OWN: &'static Tally = {
        let own: &'static Tally = Box::leak(Box::default());
        tallies().push(own);
        own
    };
}

fn tallies() -> MutexGuard<'static, Vec<&'static Tally>> {
    TALLIES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Count {
    /// The number now.
    pub fn now(&self) -> u64 {
        // What one thread has counted in and another out is right in the sum.
        let each = tallies();
        each.iter().map(|tally| tally.0[self.0].load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    /// One more.
    pub fn add(&self) {
        self.change(1);
    }

    /// One more for a while.
    pub fn enter(&'static self) -> Counted {
        self.add();
        Counted(self)
    }

    /// Nobody else writes to the thread's own numbers.
    fn change(&self, by: u64) {
        OWN.with(|own| {
            let number = &own.0[self.0];
            number.store(number.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        });
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.change(u64::MAX);
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
