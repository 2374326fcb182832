//! Stage 4: PostgreSQL. No HTTP, no configuration types.
//!
//! * [`conninfo`] reads what `postgres_server` takes;
//! * [`connection`] is one connection: log in, ask, take rows as they come, cancel;
//! * [`pool`] keeps a worker's connections to one upstream;
//! * [`listener`] is the one connection of a process that LISTENs for an upstream, apart from every pool;
//! * [`sql`] makes statements out of templates so that no value can become SQL.
//!
//! [`stream`] (sockets and TLS), [`wire`] (messages) and [`statements`] (the prepared statements of a connection)
//! stand below them.

pub mod connection;
pub mod conninfo;
pub mod error;
pub mod journal;
pub mod listener;
pub mod pool;
pub mod pooler;
pub mod sql;
mod statements;
pub(crate) mod stream;
#[cfg(test)]
mod testing;
mod wire;

pub use wire::fuzz_messages;
