//! The only place with `unsafe`: what the operating system asks for.

#![allow(unsafe_code, reason = "this folder is where the calls to libc are")]

mod descriptors;
pub mod nested_poll;
mod open_at;
mod process;
mod send_file;
mod tcp_info;
mod thread;
mod time;

pub use descriptors::{hand_on, inherited};
pub use open_at::open_at;
pub use process::{
    HeldSignals, Limit, daemonize, die_with_parent, drop_thread_privileges, group_id, host_name, is_root, set_limit,
    signal, thread_id, user_ids,
};
pub use send_file::send_file;
pub use tcp_info::tcp_info;
pub use thread::{change_folder, set_affinity, set_priority};
pub use time::{LocalFields, Zone, format_time, local_time, monotonic, set_zone};
