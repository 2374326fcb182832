//! One room for each nginx module.
//!
//! The list is in nginx's order, and the order is behaviour: handlers of a phase and filters run in it.

pub mod access;
pub mod core;
pub mod events;
pub mod geo;
pub mod http_core;
pub mod log;
pub mod map;
pub mod rewrite;
pub mod split_clients;

use crate::http::Module;

/// All modules, in nginx's order.
pub static MODULES: &[Module] = &[
    core::MODULE,
    events::MODULE,
    http_core::MODULE,
    log::MODULE,
    access::MODULE,
    geo::MODULE,
    map::MODULE,
    split_clients::MODULE,
    rewrite::MODULE,
];
