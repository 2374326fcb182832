//! Websocket handshakes: keys, and offers of compression.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::modules::push_stream::fuzz_handshake(data));
