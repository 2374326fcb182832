//! The only place with `unsafe`: what the operating system asks for.

#![allow(unsafe_code, reason = "this folder is where the calls to libc are")]

pub mod nested_poll;
mod process;
mod send_file;
mod time;

pub use process::{
    HeldSignals, daemonize, die_with_parent, drop_thread_privileges, group_id, host_name, is_root, raise_file_limit,
    signal, thread_id, user_ids,
};
pub use send_file::send_file;
pub use time::{LocalFields, Zone, format_time, local_time};
