//! Connections that wait for a request: one sweep for all of them, in place of a timer and a wake-up list entry for each.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use slab::Slab;

use super::connection::Connection;
use crate::server::clock::{self, Moment};

/// How often waiting connections are looked at: so much later than `keepalive_timeout` says one may be closed.
pub const SWEEP: Duration = Duration::from_millis(50);

/// A worker's connections.
#[derive(Debug, Default)]
pub struct Idle {
    connections: RefCell<Slab<Weak<Connection>>>,
    /// How many of them were told to end to make room, and have not done so yet.
    given_up: Cell<usize>,
}

/// A connection's place among them, left when it is dropped.
#[derive(Debug)]
pub(super) struct Place<'i> {
    idle: &'i Idle,
    key: usize,
}

impl Idle {
    /// Takes a connection in.
    pub(super) fn enter(&self, connection: &Rc<Connection>) -> Place<'_> {
        Place { idle: self, key: self.connections.borrow_mut().insert(Rc::downgrade(connection)) }
    }

    /// Ends those whose time is over.
    pub fn sweep(&self) {
        let now = clock::now();
        self.end(|deadline, _| deadline <= now);
    }

    /// Ends some that wait, those whose time is over first, to make room: an eighth of them, but no more than 32 and one
    /// at least. Says how many.
    pub fn make_room(&self) -> usize {
        let connections = self.connections.borrow();
        let waiting = connections.iter().filter_map(|(key, connection)| {
            let connection = connection.upgrade().filter(|connection| !connection.is_given_up.get())?;
            Some((connection.waits_until.get()?, key))
        });
        let mut waiting: Vec<_> = waiting.collect();
        let count = (waiting.len() / 8).clamp(1, 32).min(waiting.len());
        if count == 0 {
            return 0;
        }
        waiting.select_nth_unstable(count - 1);
        for connection in waiting[..count].iter().filter_map(|(_, key)| connections[*key].upgrade()) {
            connection.give_up();
        }
        self.given_up.set(self.given_up.get() + count);
        count
    }

    /// How many connections are about to end.
    pub fn given_up(&self) -> usize {
        self.given_up.get()
    }

    /// Ends those that have carried a request and wait for the next: the server is going. Those of HTTP/2 are told in any
    /// case, as they may be amid requests and go on taking new ones.
    pub fn end_kept(&self) {
        self.end(|_, requests| requests > 0);
        for (_, connection) in self.connections.borrow().iter() {
            if let Some(waiter) = connection.upgrade().and_then(|connection| connection.waiter.borrow().clone()) {
                waiter.wake();
            }
        }
    }

    fn end(&self, is_over: impl Fn(Moment, u64) -> bool) {
        for (_, connection) in self.connections.borrow().iter() {
            let Some(connection) = connection.upgrade() else { continue };
            if connection.waits_until.get().is_some_and(|deadline| is_over(deadline, connection.requests.get())) {
                connection.end_waiting();
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let connection = self.idle.connections.borrow_mut().remove(self.key);
        if connection.upgrade().is_some_and(|connection| connection.is_given_up.get()) {
            self.idle.given_up.set(self.idle.given_up.get().saturating_sub(1));
        }
    }
}
