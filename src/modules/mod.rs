//! One room for each nginx module.
//!
//! The list is in nginx's order, and the order is behaviour: handlers of a phase and filters run in it.

pub mod access;
pub mod core;
pub mod events;
pub mod http_core;
pub mod postgres;
pub mod rewrite;
pub mod set_misc;
pub mod upstream;

use crate::http::Module;

/// All modules, in nginx's order.
pub static MODULES: &[Module] = &[core::MODULE, events::MODULE, http_core::MODULE, access::MODULE, rewrite::MODULE, upstream::MODULE, set_misc::MODULE, postgres::MODULE];
