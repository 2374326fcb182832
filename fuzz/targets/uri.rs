//! Paths: normalizing ends, stays below the root, and is the same the second time.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::http::wire::uri::fuzz_uri(data));
