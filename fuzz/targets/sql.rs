//! SQL templates: no value changes the tokens of a statement.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // The template ends at the first NUL, the value follows it.
    let cut = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    if let Ok(template) = std::str::from_utf8(&data[..cut]) {
        pushgate::pg::sql::fuzz_template(template, data.get(cut + 1..).unwrap_or_default());
    }
});
