//! Pushgate: nginx with the push-stream, postgres and set-misc modules, in one Rust program.
//!
//! The way of the data is the order of the rooms: [`config`] reads and checks `nginx.conf`, [`compile`] turns it into
//! immutable tables, [`http`] answers requests with the handlers of [`modules`], [`hub`] and [`pg`] are the engines
//! behind channels and PostgreSQL, and [`server`] is the process around it all. `docs/architecture.md` tells more.

pub mod cli;
pub mod compile;
pub mod config;
pub mod http;
pub mod hub;
pub mod modules;
pub mod pg;
pub mod server;
pub mod sys;
pub mod tls;
