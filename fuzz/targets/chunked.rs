//! Chunked bodies: the same data however cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::http::wire::body::fuzz_chunked(data));
