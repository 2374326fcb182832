//! ngx_http_upstream_least_conn_module: requests go to the server that has the fewest, for its weight.

use std::time::Duration;

use super::method;
use crate::config::{Args, Contexts, Directive};
use crate::http::upstream::peers::{Balancer, Level, Peer, Selection};

/// The row that this file brings.
pub(super) const COMMAND: Directive = Directive {
    name: "least_conn",
    contexts: Contexts::UPSTREAM,
    args: Args::NONE,
    doc: "Requests go to the server that has the fewest of them for its weight; if there are several, in turn.",
    file: file!(),
    apply: |cx, call| {
        method::set(cx, call, LeastConn, true);
        Ok(())
    },
    ..Directive::BASE
};

#[derive(Debug)]
struct LeastConn;

impl Balancer for LeastConn {
    fn choose(&self, level: &mut Level, selection: &mut Selection, now: Duration) -> Option<usize> {
        if level.is_single {
            return level.round_robin(selection, now);
        }
        let candidates = || level.peers.iter().enumerate().filter(|(_, peer)| selection.may_try(peer, now));
        let (at, least) = candidates().min_by(|(_, a), (_, b)| load(a, b).cmp(&load(b, a)))?;
        if candidates().filter(|(_, peer)| load(peer, least) == load(least, peer)).count() == 1 {
            return Some(at);
        }
        let (conns, weight) = (least.conns, least.server.weight);
        let has_as_few = |peer: &Peer| product(peer.conns, weight) == product(conns, peer.server.weight);
        level.in_turn(|peer| has_as_few(peer) && selection.may_try(peer, now))
    }
}

/// The load of a server, to be compared with the other's beside it.
fn load(of: &Peer, beside: &Peer) -> u128 {
    product(of.conns, beside.server.weight)
}

/// Both fit, whatever they are.
fn product(conns: u64, weight: i64) -> u128 {
    u128::from(conns) * u128::from(weight.unsigned_abs())
}
