//! The clock: the only place that asks what time it is.

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

/// This moment.
pub fn now() -> Moment {
    Moment(Instant::now())
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

/// The same in whole seconds.
pub fn unix_seconds() -> i64 {
    i64::try_from(unix_time().as_secs()).unwrap_or(i64::MAX)
}

/// Waits for something no longer than a time; `None`: it took too long.
pub async fn timeout<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, future).await.ok()
}
