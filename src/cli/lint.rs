//! Our own rules about a whole configuration: what loads, but can't be what was meant.
//!
//! Rooms have rules of their own about their directives; here are those that are about the shape of any configuration.

use crate::config::{Config, Diagnostic};

/// What the rules find.
pub(super) fn run(_config: &Config) -> Vec<Diagnostic> {
    Vec::new()
}
