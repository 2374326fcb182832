//! The process: workers, sockets, delivery, signals, logs, the clock.

pub mod clock;
pub mod counts;
mod crew;
pub mod delivery;
mod folders;
mod inherited;
pub mod live;
pub mod local_time;
pub mod log;
pub mod log_buffer;
pub mod log_file;
mod process;
pub mod sockets;
pub mod syslog;
mod systemd;
mod upgrade;
pub mod worker;

pub use process::run;
