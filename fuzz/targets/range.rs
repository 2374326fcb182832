//! Range headers: ranges lie within the length.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::http::wire::range::fuzz_range(data));
