//! Request heads: any bytes, however cut, give one and the same head or refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::http::wire::head::parser::fuzz_head(data));
