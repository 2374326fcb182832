//! Passing requests on to upstreams: what proxy, fastcgi, uwsgi, scgi, grpc and memcached have in common.
//!
//! A room makes the bytes of the request and says how the answer is read ([`Protocol`]); [`pass()`] does the rest. It
//! chooses a server ([`peers`]), takes a connection from the worker's [`pool`] or opens one ([`stream`]), sends, reads
//! the head, goes on to the next server where that is allowed, and makes a [`Response`](super::Response) of what came.

mod ahead;
mod answer;
mod body;
pub mod cache;
pub mod family;
mod outgoing;
pub mod params;
mod pass;
pub mod peers;
pub mod pool;
mod reading;
pub mod record;
pub mod script;
mod source;
pub mod store;
pub mod stream;
pub mod tls;
mod trailed;
pub mod tunnel;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use body::{Decoder, Ended, Excess, Output};
pub use outgoing::{Framing, Payload};
pub(super) use pass::abandoned;
pub use pass::{Parsed, Plan, Protocol, pass};
use peers::{Balancer, Chosen, Group, Selection, Server, Verdict};
use pool::Keepalive;

pub use trailed::Trailed;

use crate::server::clock;

/// A group of servers that requests are passed to. All workers share it.
#[derive(Debug)]
pub struct Upstream {
    /// Its name; for a lone server, its address.
    pub name: Box<str>,
    /// How connections are kept.
    pub keepalive: Option<Keepalive>,
    balancer: Arc<dyn Balancer>,
    group: Mutex<Group>,
}

impl Upstream {
    /// A group of servers.
    pub fn new(name: &str, servers: &[Server], balancer: Arc<dyn Balancer>, keepalive: Option<Keepalive>) -> Self {
        Self { name: name.into(), keepalive, balancer, group: Mutex::new(Group::new(servers)) }
    }

    /// Servers without an `upstream` block, of equal weight.
    pub fn plain(name: &str, addresses: &[crate::config::ListenAddress]) -> Self {
        let servers: Vec<_> = addresses.iter().map(|address| Server::plain(address.clone(), name)).collect();
        Self::new(name, &servers, Arc::new(peers::RoundRobin), None)
    }

    /// What is known of the servers.
    pub fn group(&self) -> MutexGuard<'_, Group> {
        // A panic elsewhere leaves counts that are a little off at worst.
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many servers a request may try.
    fn tries(&self) -> usize {
        self.group().tries()
    }

    /// The beginning of a request's way through the servers.
    fn begin(&self, request: &super::Request) -> Selection {
        Selection::new(self.balancer.key(request))
    }

    /// Chooses a server.
    fn next(self: &Arc<Self>, selection: &mut Selection) -> Option<Lease> {
        let chosen = self.group().next(&*self.balancer, selection, now())?;
        Some(Lease { upstream: Arc::clone(self), chosen, is_done: false })
    }
}

impl Server {
    /// A server without parameters.
    pub fn plain(address: crate::config::ListenAddress, written: &str) -> Self {
        Self {
            target: Arc::new(peers::Target::new(address)),
            written: written.to_owned(),
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            down: false,
            backup: false,
        }
    }
}

/// The time for what is known of servers; nginx counts in whole seconds too.
fn now() -> Duration {
    Duration::from_secs(u64::try_from(clock::unix_seconds()).unwrap_or_default())
}

/// A server while a request has it.
#[derive(Debug)]
struct Lease {
    upstream: Arc<Upstream>,
    chosen: Chosen,
    is_done: bool,
}

impl Lease {
    /// Gives it back with a verdict; `true`: it is left out from now on.
    fn end(mut self, verdict: Verdict) -> bool {
        self.is_done = true;
        self.upstream.group().done(self.chosen.id, verdict, now())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_done {
            self.upstream.group().done(self.chosen.id, Verdict::Good, now());
        }
    }
}
