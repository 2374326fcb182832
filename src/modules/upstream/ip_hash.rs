//! ngx_http_upstream_ip_hash_module: requests of the same client, or of its neighbours, go to the same server.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

use super::hash::MAX_MISSES;
use super::method;
use crate::config::{Args, Contexts, Directive};
use crate::http::upstream::peers::{Balancer, Level, Selection};
use crate::http::{Peer, Request};

/// The row that this file brings.
pub(super) const COMMAND: Directive = Directive {
    name: "ip_hash",
    contexts: Contexts::UPSTREAM,
    args: Args::NONE,
    doc: "Requests of clients whose IPv4 addresses begin with the same three numbers, or of the same IPv6 address, go to \
          the same server. There can be no `backup`.",
    file: file!(),
    apply: |cx, call| {
        method::set(cx, call, IpHash, false);
        Ok(())
    },
    ..Directive::BASE
};

#[derive(Debug)]
struct IpHash;

impl Balancer for IpHash {
    fn key(&self, request: &Request) -> Bytes {
        match &request.peer {
            Peer::Ip(address) => match address.ip() {
                IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()[..3]),
                IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
            },
            Peer::Unix(_) => Bytes::from_static(&[0; 3]),
        }
    }

    fn choose(&self, level: &mut Level, selection: &mut Selection, now: Duration) -> Option<usize> {
        if level.peers.len() < 2 {
            return level.round_robin(selection, now);
        }
        // What was hashed counts only once it has led to a server.
        let mut hash = if selection.rounds == 0 { 89 } else { selection.hash };
        while selection.misses <= MAX_MISSES {
            hash = selection.key.iter().fold(hash, |hash, byte| (hash * 113 + u32::from(*byte)) % 6271);
            let found = level.at_weight(i64::from(hash) % level.weight())?;
            if selection.may_try(&level.peers[found], now) {
                (selection.hash, selection.rounds) = (hash, 1);
                return Some(found);
            }
            selection.misses += 1;
        }
        level.round_robin(selection, now)
    }
}
