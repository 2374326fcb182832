//! The leaky buckets of a zone: by key, in memory that is bounded as nginx bounds it.
//!
//! Time is an argument. All amounts are in thousandths of a request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use slab::Slab;

use crate::http::limit::zone::{Memory, slot_size};
use crate::server::clock::{self, Moment};

/// What nginx needs for a key, beside its bytes.
const NODE: usize = 80;

/// A bucket that has been empty for so long goes when another one comes.
const STALE: u64 = 60_000;

/// How fast a bucket runs empty, and how much may be in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// A second.
    pub(super) rate: u64,
    /// Beyond what is due.
    pub(super) burst: u64,
}

/// The memory of a zone.
#[derive(Debug)]
pub(super) struct Buckets(Mutex<Table>);

impl Memory for Buckets {
    fn with_room(bytes: u64) -> Self {
        Self(Mutex::new(Table {
            places: HashMap::new(),
            buckets: Slab::new(),
            newest: NONE,
            oldest: NONE,
            room: bytes,
            total: bytes,
        }))
    }
}

impl Buckets {
    /// What a request makes of its bucket, without counting it; `None`: there is no room for a new one. A request that
    /// would make more than the burst is not to be counted.
    pub(super) fn look(&self, key: &[u8], rule: Rule, now: u64) -> Option<u64> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = table.place(key, rule, now)?;
        Some(table.buckets[place].with_another(rule.rate, now))
    }

    /// Counts a request that was looked at.
    pub(super) fn count(&self, key: &[u8], rule: Rule, now: u64) -> u64 {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = table.places.get(key).copied() else { return 0 };
        let bucket = &mut table.buckets[place];
        bucket.excess = bucket.with_another(rule.rate, now);
        bucket.last = Some(bucket.last.map_or(now, |last| last.max(now)));
        bucket.excess
    }
}

/// The milliseconds of a moment, since the first that was asked for.
pub(super) fn millis(now: Moment) -> u64 {
    static FIRST: OnceLock<Moment> = OnceLock::new();
    let first = *FIRST.get_or_init(clock::now);
    u64::try_from(now.since(first).as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
struct Table {
    places: HashMap<Arc<[u8]>, usize>,
    buckets: Slab<Bucket>,
    /// The ends of the list from the one that was seen last to the one that was not seen for the longest time.
    newest: usize,
    oldest: usize,
    /// The bytes that are left.
    room: u64,
    /// All of them.
    total: u64,
}

const NONE: usize = usize::MAX;

#[derive(Debug)]
struct Bucket {
    key: Arc<[u8]>,
    excess: u64,
    /// When a request was counted; `None`: never.
    last: Option<u64>,
    newer: usize,
    older: usize,
}

impl Bucket {
    /// What is in it once another request has come. The first finds it empty and adds nothing.
    fn with_another(&self, rate: u64, now: u64) -> u64 {
        match self.last {
            None => 0,
            Some(last) => (self.excess + 1000).saturating_sub(drained(rate, now.saturating_sub(last))),
        }
    }
}

/// What runs out in some milliseconds.
fn drained(rate: u64, time: u64) -> u64 {
    rate.saturating_mul(time) / 1000
}

impl Table {
    /// The bucket of a key, made if it is not there.
    fn place(&mut self, key: &[u8], rule: Rule, now: u64) -> Option<usize> {
        if let Some(place) = self.places.get(key).copied() {
            self.unlink(place);
            self.link(place);
            return Some(place);
        }
        self.expire(false, rule.rate, now);
        let size = slot_size(NODE + key.len());
        if size > self.total {
            return None;
        }
        while self.room < size {
            self.expire(true, rule.rate, now);
        }
        self.room -= size;
        let key: Arc<[u8]> = key.into();
        let bucket = Bucket { key: Arc::clone(&key), excess: 0, last: None, newer: NONE, older: NONE };
        let place = self.buckets.insert(bucket);
        self.places.insert(key, place);
        self.link(place);
        Some(place)
    }

    /// Removes up to two of the oldest buckets that are long empty, and the oldest before them whatever it holds where
    /// that is forced.
    fn expire(&mut self, force: bool, rate: u64, now: u64) {
        for step in 0..if force { 3 } else { 2 } {
            let Some(oldest) = self.buckets.get(self.oldest) else { return };
            if !force || step > 0 {
                let time = now.saturating_sub(oldest.last.unwrap_or(now));
                if time < STALE || oldest.excess > drained(rate, time) {
                    return;
                }
            }
            let place = self.oldest;
            self.unlink(place);
            let bucket = self.buckets.remove(place);
            self.places.remove(&bucket.key);
            self.room += slot_size(NODE + bucket.key.len());
        }
    }

    /// Puts a bucket first in the list.
    fn link(&mut self, place: usize) {
        let newest = std::mem::replace(&mut self.newest, place);
        match self.buckets.get_mut(newest) {
            Some(bucket) => bucket.newer = place,
            None => self.oldest = place,
        }
        let bucket = &mut self.buckets[place];
        (bucket.newer, bucket.older) = (NONE, newest);
    }

    /// Takes a bucket out of the list.
    fn unlink(&mut self, place: usize) {
        let (newer, older) = (self.buckets[place].newer, self.buckets[place].older);
        match self.buckets.get_mut(newer) {
            Some(bucket) => bucket.older = older,
            None => self.newest = older,
        }
        match self.buckets.get_mut(older) {
            Some(bucket) => bucket.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    const RULE: Rule = Rule { rate: 10_000, burst: 2000 };

    /// One request; what it makes, and whether it is counted.
    fn ask(buckets: &Buckets, key: &str, now: u64) -> (u64, bool) {
        let excess = buckets.look(key.as_bytes(), RULE, now).unwrap();
        let is_counted = excess <= RULE.burst;
        if is_counted {
            assert_eq!(buckets.count(key.as_bytes(), RULE, now), excess);
        }
        (excess, is_counted)
    }

    #[test]
    fn what_is_over_the_burst_is_refused_and_leaves_no_trace() {
        let buckets = Buckets::with_room(1 << 20);
        let at_once: Vec<_> = (0..5).map(|_| ask(&buckets, "a", 5)).collect();
        assert_eq!(at_once, [(0, true), (1000, true), (2000, true), (3000, false), (3000, false)]);
        assert_eq!(ask(&buckets, "a", 104), (2010, false), "ten a second: a hundred milliseconds each");
        assert_eq!(ask(&buckets, "a", 105), (2000, true));
        assert_eq!(ask(&buckets, "a", 1105), (0, true), "it ran empty, and no further");
        assert_eq!(ask(&buckets, "b", 1105), (0, true));
    }

    #[test]
    fn the_key_that_was_not_seen_for_the_longest_time_goes() {
        let buckets = Buckets::with_room(256);
        ask(&buckets, "a", 0);
        ask(&buckets, "b", 0);
        ask(&buckets, "a", 0);
        ask(&buckets, "c", 0);
        assert_eq!(ask(&buckets, "a", 0), (2000, true), "b went");
        assert_eq!(ask(&buckets, "b", 0), (0, true));
        assert_eq!(buckets.look(&[b'x'; 300], RULE, 0), None, "there is no room for it at all");
        // Long empty ones go when another comes, though there is room.
        ask(&buckets, "d", STALE * 2);
        assert_eq!(buckets.0.lock().unwrap().buckets.len(), 1);
    }

    proptest! {
        #[test]
        fn memory_is_bounded(keys in proptest::collection::vec((0u8..20, 0u64..50_000), 1..300)) {
            let buckets = Buckets::with_room(1024);
            let mut now = 0;
            for (key, pause) in keys {
                now += pause;
                ask(&buckets, &"k".repeat(usize::from(key) * 5), now);
                let table = buckets.0.lock().unwrap();
                let used: u64 = table.buckets.iter().map(|(_, bucket)| slot_size(NODE + bucket.key.len())).sum();
                prop_assert_eq!(used + table.room, 1024);
                prop_assert_eq!(table.places.len(), table.buckets.len());
                let (mut place, mut seen) = (table.newest, 0);
                while let Some(bucket) = table.buckets.get(place) {
                    seen += 1;
                    place = bucket.older;
                }
                prop_assert_eq!(seen, table.buckets.len());
            }
        }
    }
}
