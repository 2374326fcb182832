//! push_stream: templates of any form, around texts of any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushgate::modules::push_stream::fuzz_templates(data));
