//! push_stream: what clients say that they know already.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::modules::push_stream::fuzz_resume(data));
