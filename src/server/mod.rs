//! The process: workers, sockets, delivery, signals, logs, the clock.

pub mod delivery;
