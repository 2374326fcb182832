//! FastCGI's records: any bytes, however cut, give one and the same output or refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::http::wire::records::fuzz_records(data));
