//! Any bytes: parsing doesn't panic, places are right, and what is printed parses to the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|source: &[u8]| pushgate_parser::fuzz::check(source));
