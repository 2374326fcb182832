//! ngx_http_upstream_random_module: requests go to a server by chance.

use std::time::Duration;

use rand::Rng;

use super::hash::MAX_MISSES;
use super::method;
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault};
use crate::http::upstream::peers::{Balancer, Level, Selection};

/// The row that this file brings.
pub(super) const COMMAND: Directive = Directive {
    name: "random",
    contexts: Contexts::UPSTREAM,
    args: Args::between(0, 2),
    syntax: "[two [least_conn]]",
    doc: "Requests go to a server by chance, by the weights. With `two`, two are drawn, and the one that has fewer \
          requests for its weight is taken. There can be no `backup`.",
    file: file!(),
    apply: random,
    ..Directive::BASE
};

fn random(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    for (index, known) in ["two", "least_conn"].iter().enumerate().take(call.len()) {
        if call.bytes(index) != known.as_bytes() {
            return Err(Fault::new(format!("invalid parameter \"{}\"", call.text(index))).word(index));
        }
    }
    method::set(cx, call, Random { is_two: !call.is_empty() }, false);
    Ok(())
}

#[derive(Debug)]
struct Random {
    is_two: bool,
}

impl Balancer for Random {
    fn choose(&self, level: &mut Level, selection: &mut Selection, now: Duration) -> Option<usize> {
        if level.peers.len() < 2 {
            return level.round_robin(selection, now);
        }
        let mut first = None;
        while selection.misses <= MAX_MISSES {
            let drawn = level.at_weight(rand::rng().random_range(0..level.weight()))?;
            let is_new = first != Some(drawn) && selection.may_try(&level.peers[drawn], now);
            match first {
                _ if !is_new => selection.misses += 1,
                None if self.is_two => first = Some(drawn),
                None => return Some(drawn),
                Some(first) => {
                    let load = |one: usize, beside: usize| {
                        u128::from(level.peers[one].conns)
                            * u128::from(level.peers[beside].server.weight.unsigned_abs())
                    };
                    return Some(if load(drawn, first) > load(first, drawn) { first } else { drawn });
                }
            }
        }
        level.round_robin(selection, now)
    }
}
