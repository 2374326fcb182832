//! The only place with `unsafe`: what the operating system asks for.

pub mod nested_poll;
