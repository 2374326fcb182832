//! The process: workers, sockets, delivery, signals, logs, the clock.

pub mod clock;
pub mod local_time;
pub mod log;
pub mod log_file;
