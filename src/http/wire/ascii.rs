//! Byte scanning that several parsers share.

/// The first place of `needle` in `haystack`, whatever the case. `needle` is lower-case.
pub(crate) fn find_ignore_case(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window.eq_ignore_ascii_case(needle))
}

/// The value of a hexadecimal digit.
#[inline]
pub(crate) fn hex_value(ch: u8) -> Option<u8> {
    match ch {
        b'0'..=b'9' => Some(ch - b'0'),
        b'a'..=b'f' => Some(ch - b'a' + 10),
        b'A'..=b'F' => Some(ch - b'A' + 10),
        _ => None,
    }
}

/// A decimal number without sign or space that fits `off_t`, as `ngx_atoof` reads it.
pub(crate) fn parse_off(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter()
        .try_fold(0_i64, |value, &ch| {
            let digit = (ch as char).to_digit(10)?;
            value.checked_mul(10)?.checked_add(i64::from(digit))
        })?
        .try_into()
        .ok()
}

/// Writes `value` in decimal at the end of `out`.
#[inline]
pub(crate) fn push_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
