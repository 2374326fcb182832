//! One room for each nginx module.
//!
//! The list is in nginx's order, and the order is behaviour: handlers of a phase and filters run from its end to its
//! beginning, as in nginx.

pub mod core;
pub mod events;
pub mod http_core;

use crate::http::Module;

/// All modules, in nginx's order.
#[rustfmt::skip]
pub static MODULES: &[Module] = &[
    core::MODULE,
    events::MODULE,
    http_core::MODULE,
];
