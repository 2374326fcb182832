//! Which generation of the module a configuration was written for.
//!
//! The generations share their directives' names and disagree about their arguments. What a `postgres_server` says
//! decides: an address (`127.0.0.1:5432 dbname=d`) is the grammar of 2015 and 2018, a libpq string or URI today's.

use crate::config::{Contexts, Cx};
use crate::pg::conninfo::Grammar;

use super::server::{RawUpstream, Upstream};

/// How the directives of a location are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reading {
    /// As the modules of 2015 and 2018 do.
    Address,
    /// As today's module does.
    Libpq,
    /// Nothing told yet: what either understands is accepted, as today's module reads it where both do.
    #[default]
    Either,
}

impl From<Grammar> for Reading {
    fn from(grammar: Grammar) -> Self {
        match grammar {
            Grammar::Address => Self::Address,
            Grammar::Libpq => Self::Libpq,
        }
    }
}

impl Reading {
    /// The reading of a directive that stands outside an upstream: that of the upstream that the block passes to, if it
    /// says so, or else that of all upstreams so far, if they agree.
    pub(super) fn of(cx: &Cx<'_>) -> Self {
        if let Some(passed) = passed(cx) {
            return passed;
        }
        let mut found = cx.peek_upstreams::<Upstream>().filter_map(RawUpstream::grammar);
        match found.next() {
            Some(first) if found.all(|other| other == first) => first.into(),
            _ => Self::Either,
        }
    }

    /// The reading that holds for an upstream's name.
    pub(super) fn of_upstream(cx: &Cx<'_>, name: &str) -> Option<Self> {
        cx.peek_upstream::<Upstream>(name)?.grammar().map(Self::from)
    }
}

fn passed(cx: &Cx<'_>) -> Option<Reading> {
    let inside = Contexts::LOCATION | Contexts::IF_LOCATION;
    if !inside.contains(cx.context()) {
        return None;
    }
    cx.peek::<super::pass::Passing>()?.reading
}
