//! Websocket frames from a client: the same messages however cut, and never more memory than allowed.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::server::delivery::websocket::fuzz(data));
