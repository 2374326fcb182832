//! push_stream: paths that name channels.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::modules::push_stream::fuzz_channel_path(data));
