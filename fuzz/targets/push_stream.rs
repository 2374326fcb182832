//! push_stream: channel paths, templates, what clients know already, offers of compression.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::modules::push_stream::fuzz(data));
