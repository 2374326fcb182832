//! Heads of upstreams' answers: any bytes, however cut, give one and the same head or refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::http::wire::upstream_head::fuzz_upstream_head(data));
