//! Headers of the PROXY protocol: any bytes, however cut, give one and the same header or refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::http::wire::proxy_protocol::fuzz_proxy_protocol(data));
