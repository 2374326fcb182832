//! The connections to upstreams that a worker keeps for later requests.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use super::stream::Link;
use super::tls::Terms;
use crate::config::ListenAddress;
use crate::server::clock::{self, Moment};

/// What `keepalive` and its relatives say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How many idle connections a worker keeps; 0: none.
    pub max: usize,
    /// How many requests one may carry.
    pub requests: u64,
    /// How long one may live.
    pub time: Duration,
    /// How long one may be idle.
    pub timeout: Duration,
}

/// An idle connection.
struct Idle {
    address: ListenAddress,
    until: Moment,
    link: Box<Link>,
}

thread_local! {
    /// By the upstream's name, the oldest first. They outlive a reload.
    static IDLE: RefCell<HashMap<Box<str>, Vec<Idle>>> = RefCell::default();
    /// Whether the task runs that looks at them.
    static IS_SWEPT: Cell<bool> = const { Cell::new(false) };
}

/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// Takes the connection to a server that was used last.
pub(super) fn take(upstream: &str, address: &ListenAddress, tls: &Terms) -> Option<Box<Link>> {
    IDLE.with_borrow_mut(|idle| {
        let idle = idle.get_mut(upstream)?;
        while let Some(at) = idle.iter().rposition(|one| one.address == *address && one.link.tls == *tls) {
            let mut one = idle.remove(at);
            if !one.link.is_stale() {
                return Some(one.link);
            }
        }
        None
    })
}

/// Keeps a connection, unless it has had its time.
pub(super) fn put(upstream: &str, keepalive: &Keepalive, address: &ListenAddress, mut link: Box<Link>) {
    let now = clock::now();
    link.requests += 1;
    if keepalive.max == 0
        || link.requests >= keepalive.requests
        || now.since(link.opened) > keepalive.time
        || !link.buffer.is_empty()
        || crate::server::live::Live::get().is_some_and(crate::server::live::Live::is_closing)
    {
        return;
    }
    let one = Idle { address: address.clone(), until: now.after(keepalive.timeout), link };
    IDLE.with_borrow_mut(|all| match all.get_mut(upstream) {
        None => drop(all.insert(upstream.into(), vec![one])),
        Some(idle) => {
            if idle.len() >= keepalive.max {
                idle.remove(0);
            }
            idle.push(one);
        }
    });
    if !IS_SWEPT.replace(true) {
        tokio::task::spawn_local(sweep());
    }
}

/// Closes what was idle for too long or was closed by the other end, as long as there is anything.
async fn sweep() {
    loop {
        tokio::time::sleep(SWEEP).await;
        let now = clock::now();
        let is_empty = IDLE.with_borrow_mut(|all| {
            all.retain(|_, idle| {
                idle.retain_mut(|one| one.until > now && !one.link.is_stale());
                !idle.is_empty()
            });
            all.is_empty()
        });
        if is_empty {
            IS_SWEPT.set(false);
            return;
        }
    }
}
