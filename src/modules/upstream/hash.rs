//! ngx_http_upstream_hash_module: requests with the same key go to the same server.

use std::time::Duration;

use bytes::Bytes;
use crc32fast::Hasher;

use super::method;
use crate::config::value::Template;
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault};
use crate::http::Request;
use crate::http::upstream::peers::{Balancer, Level, Peer, Ring, Selection};

/// The row that this file brings.
pub(super) const COMMAND: Directive = Directive {
    name: "hash",
    contexts: Contexts::UPSTREAM,
    args: Args::between(1, 2),
    syntax: "key [consistent]",
    doc: "Requests with the same key go to the same server. With `consistent` (ketama), a change of the servers moves few \
          keys to another one. Requests with an empty key go to the servers in turn. There can be no `backup`.\n\n\
          Example: `hash $request_uri consistent;`",
    file: file!(),
    apply: hash,
    ..Directive::BASE
};

fn hash(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let key = Template::word(call, 0, cx)?;
    if call.len() == 1 {
        method::set(cx, call, Hash(key), false);
        return Ok(());
    }
    if call.bytes(1) != b"consistent" {
        return Err(Fault::new(format!("invalid parameter \"{}\"", call.text(1))).word(1));
    }
    method::set(cx, call, Consistent(key), false);
    Ok(())
}

/// After so many servers that can't be used the next one is chosen in turn.
pub(super) const MAX_MISSES: u32 = 20;

/// By the remainder of a hash, as Cache::Memcached does it.
#[derive(Debug)]
struct Hash(Template);

impl Balancer for Hash {
    fn key(&self, request: &Request) -> Bytes {
        request.eval(&self.0)
    }

    fn choose(&self, level: &mut Level, selection: &mut Selection, now: Duration) -> Option<usize> {
        if level.peers.len() < 2 || selection.key.is_empty() {
            return level.round_robin(selection, now);
        }
        while selection.misses <= MAX_MISSES {
            let mut hasher = Hasher::new();
            if selection.rounds > 0 {
                hasher.update(selection.rounds.to_string().as_bytes());
            }
            hasher.update(&selection.key);
            selection.hash = selection.hash.wrapping_add((hasher.finalize() >> 16) & 0x7fff);
            selection.rounds += 1;
            let found = level.at_weight(i64::from(selection.hash) % level.weight())?;
            if selection.may_try(&level.peers[found], now) {
                return Some(found);
            }
            selection.misses += 1;
        }
        level.round_robin(selection, now)
    }
}

/// By the next point on a circle, as Cache::Memcached::Fast does it (ketama).
#[derive(Debug)]
struct Consistent(Template);

impl Balancer for Consistent {
    fn key(&self, request: &Request) -> Bytes {
        request.eval(&self.0)
    }

    fn choose(&self, level: &mut Level, selection: &mut Selection, now: Duration) -> Option<usize> {
        if level.is_single || selection.key.is_empty() {
            return level.round_robin(selection, now);
        }
        let ring = level.ring(ring);
        if ring.is_empty() {
            return None;
        }
        let hash = crc32fast::hash(&selection.key);
        let start = ring.partition_point(|(point, _)| *point < hash);
        while selection.misses <= MAX_MISSES {
            let (_, first) = ring[(start + selection.misses as usize) % ring.len()];
            let written = level.peers[first].server.written.clone();
            let found = level.in_turn(|peer| peer.server.written == written && selection.may_try(peer, now));
            if found.is_some() {
                return found;
            }
            selection.misses += 1;
        }
        level.round_robin(selection, now)
    }
}

/// How many points a server has for each unit of its weight.
const POINTS: i64 = 160;

/// How many points a server has at most, for the sake of memory.
const MAX_POINTS: i64 = 1 << 20;

/// The points of all servers. What is hashed is how a server is written, so that all that write it so agree.
fn ring(peers: &[Peer]) -> Ring {
    let mut points = Vec::new();
    for peer in peers {
        let written = &peer.server.written;
        let (host, port) = host_and_port(written);
        let mut base = Hasher::new();
        base.update(host.as_bytes());
        base.update(b"\0");
        base.update(port.as_bytes());
        let first = peers.iter().position(|other| other.server.written == *written).unwrap_or_default();
        let mut point = 0_u32;
        for _ in 0..peer.server.weight.saturating_mul(POINTS).min(MAX_POINTS) {
            let mut hasher = base.clone();
            hasher.update(&point.to_le_bytes());
            point = hasher.finalize();
            points.push((point, first));
        }
    }
    points.sort_by_key(|(point, _)| *point);
    points.dedup_by_key(|(point, _)| *point);
    points.into()
}

fn host_and_port(written: &str) -> (&str, &str) {
    if let Some(path) = written.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("unix:")).map(|_| &written[5..]) {
        return (path, "");
    }
    match written.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (written, ""),
    }
}
