//! nginx's configuration grammar.
#![forbid(unsafe_code)]
