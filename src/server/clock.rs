//! The clock: the only place that asks what time it is.

use std::cell::Cell;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Instant);

impl Moment {
    /// The time from an earlier moment to this one; zero if that is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    /// The moment that lies so far ahead.
    pub fn after(self, time: Duration) -> Self {
        Self(self.0 + time)
    }

    /// The same for the timers of tokio.
    pub fn instant(self) -> Instant {
        self.0
    }
}

thread_local! {
    /// What a worker has read from the clocks in its present turn.
    static TURN: Cell<Turn> = const { Cell::new(Turn { is_on: false, now: None, second: None }) };
}

#[derive(Clone, Copy)]
struct Turn {
    /// Whether this thread has turns.
    is_on: bool,
    now: Option<Moment>,
    /// The second of the time of day, and when the next begins.
    second: Option<(i64, Moment)>,
}

/// Begins a turn of this thread: to its end all that asks for the moment is told the same one, as in nginx, which reads
/// the clock once for each round of events. A turn is the work on what is ready, some dozens of connections at most.
pub fn begin_turn() {
    TURN.set(Turn { is_on: true, now: None, ..TURN.get() });
}

/// This moment; on a thread that has turns that of its present turn.
pub fn now() -> Moment {
    let turn = TURN.get();
    turn.now.unwrap_or_else(|| {
        let now = Moment(Instant::now());
        TURN.set(Turn { now: turn.is_on.then_some(now), ..turn });
        now
    })
}

/// This moment, for tokio's timers.
pub fn instant() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// The time of CLOCK_MONOTONIC, by which systemd tells what is newer.
pub fn monotonic() -> Duration {
    crate::sys::monotonic()
}

/// The time of day: since the beginning of 1970.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The same in whole seconds. A thread that has turns finds a clock that was set within a second.
pub fn unix_seconds() -> i64 {
    if let Some((second, until)) = TURN.get().second
        && now() < until
    {
        return second;
    }
    let (now, time) = (now(), unix_time());
    let second = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let left = Duration::from_secs(1) - Duration::from_nanos(u64::from(time.subsec_nanos()));
    let turn = TURN.get();
    TURN.set(Turn { second: turn.is_on.then(|| (second, now.after(left))), ..turn });
    second
}

/// Waits for something no longer than a time; `None`: it took too long.
pub async fn timeout<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, future).await.ok()
}
