//! Deadlines of subscribers in coarse buckets: eight bytes each, and no timer of the runtime's for any of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::server::delivery::subscriber::SubscriberId;

/// Counts twentieths of a second, from the clock's beginning.
pub(super) type Tick = u32;

/// No deadline.
pub(super) const NEVER: Tick = Tick::MAX;

/// How long a tick is.
const LENGTH: Duration = Duration::from_millis(50);

/// The tick that a moment is in.
pub(super) fn tick(moment: Duration) -> Tick {
    Tick::try_from(moment.as_millis() / LENGTH.as_millis()).unwrap_or(NEVER - 1)
}

/// How many ticks a period takes, at least one.
pub(super) fn ticks(period: Duration) -> Tick {
    Tick::try_from(period.as_millis().div_ceil(LENGTH.as_millis())).map_or(NEVER, |ticks| ticks.max(1))
}

/// When a tick begins.
pub(super) fn moment(tick: Tick) -> Duration {
    LENGTH * tick
}

/// Whom to look at, and when.
#[derive(Debug, Default)]
pub(super) struct Timers {
    buckets: BTreeMap<Tick, Vec<SubscriberId>>,
}

impl Timers {
    pub(super) fn schedule(&mut self, at: Tick, subscriber: SubscriberId) {
        self.buckets.entry(at).or_default().push(subscriber);
    }

    /// The next tick that anybody waits for.
    pub(super) fn next(&self) -> Option<Tick> {
        self.buckets.first_key_value().map(|(at, _)| *at)
    }

    /// Takes the next bucket if it is due.
    pub(super) fn due(&mut self, now: Tick) -> Option<(Tick, Vec<SubscriberId>)> {
        self.buckets.first_entry().filter(|bucket| *bucket.key() <= now).map(|bucket| bucket.remove_entry())
    }
}
