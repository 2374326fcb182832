//! What PostgreSQL sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::pg::fuzz_messages(data));
