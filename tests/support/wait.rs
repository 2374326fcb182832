//! Waiting for conditions, with a deadline.

use std::time::{Duration, Instant};

/// Long enough for a loaded machine; a condition that holds is noticed within milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `condition` holds; panics with `what` when it doesn't in time.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, condition), "waited {PATIENCE:?} in vain until {what}");
}

/// Whether `condition` comes to hold within `time`.
pub(crate) fn holds_within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
