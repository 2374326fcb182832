//! `value`, `binary`, `hex`, and `text`, which is many values.

use super::Values;

/// Values without anything around them.
#[derive(Debug)]
pub(in crate::modules::postgres) enum Single {
    /// All of them, with a line feed between.
    Text {
        /// Whether nothing was written yet.
        is_first: bool,
    },
    /// As it is.
    Raw,
    /// Two digits are a byte.
    Hex,
}

impl Single {
    pub(super) fn row(&mut self, values: &Values<'_>, out: &mut Vec<u8>) {
        for value in values {
            match self {
                Self::Text { is_first } => {
                    if !std::mem::take(is_first) {
                        out.push(b'\n');
                    }
                    out.extend_from_slice(value.unwrap_or(b"(null)"));
                }
                Self::Raw => out.extend_from_slice(value.unwrap_or_default()),
                Self::Hex => hex(value.unwrap_or_default(), out),
            }
        }
    }
}

/// Skips `\x`; what is no digit counts as 0, and a lone last digit is the high one.
fn hex(text: &[u8], out: &mut Vec<u8>) {
    let text = text.strip_prefix(b"\\").unwrap_or(text);
    let text = text.strip_prefix(b"x").unwrap_or(text);
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
    for pair in text.chunks(2) {
        out.push(digit(pair[0]) << 4 | pair.get(1).map_or(0, |low| digit(*low)));
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::postgres::output::{Output, testing::encode};

    #[test]
    fn text() {
        let check = |rows: &[&[Option<&str>]], expected: &str| {
            let columns = [("a", 25), ("b", 25)];
            assert_eq!(String::from_utf8_lossy(&encode(&Output::Text, &columns, rows)), expected);
        };
        check(&[], "");
        check(&[&[Some("1"), Some("one")], &[Some("2"), None]], "1\none\n2\n(null)");
        check(&[&[Some(""), Some("")]], "\n");
    }

    #[test]
    fn hex() {
        let check = |text: &str, expected: &[u8]| {
            assert_eq!(encode(&Output::Hex, &[("a", 25)], &[&[Some(text)]]), expected, "{text}");
        };
        check("\\x00ff", b"\x00\xff");
        check("abc", b"\xab\xc0");
        check("zz1", b"\x00\x10");
        check("x41", b"A");
        check("", b"");
    }
}
