//! The only place with `unsafe`: what the operating system asks for.

#![allow(unsafe_code, reason = "this folder is where the calls to libc are")]

mod process;
mod time;

pub use process::{daemonize, host_name, is_root, drop_privileges, group_id, raise_file_limit, signal, thread_id, user_ids};
pub use time::{LocalFields, local_time};
