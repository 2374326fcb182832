//! Connection strings of `postgres_server`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| pushgate::pg::conninfo::fuzz_conninfo(text));
