//! Subscribers over plain HTTP.

use super::role::Mode;
use crate::http::{Next, Request};

/// Answers a subscriber.
pub(super) fn handle(_: &mut Request, _: Mode) -> Next<'_> {
    Next::Status(501)
}
