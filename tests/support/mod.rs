//! What the black-box tests share: a private PostgreSQL, the server under test, ports, HTTP and websocket clients.
//!
//! Everything is blocking: a test is one thread that talks to real processes over real sockets. Nothing here sleeps for a
//! fixed time; [`wait::until`] waits for a condition, with a deadline.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::print_stderr, reason = "the log of a server whose test fails")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

pub(crate) mod browser;
pub(crate) mod daemon;
pub(crate) mod dnsmasq;
pub(crate) mod foreign;
pub(crate) mod http;
pub(crate) mod ocsp;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod pushgate;
pub(crate) mod recipe;
pub(crate) mod site_of_postgres;
pub(crate) mod tls;
pub(crate) mod wait;
pub(crate) mod websocket;
