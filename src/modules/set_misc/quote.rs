//! Quoting for SQL and JSON. What these make is marked (by the kind of quoting), so that it is not quoted twice.

use bytes::Bytes;

use super::step::{In, Outcome};
use crate::http::wire::escape::{JsonDigits, push_json};

/// `set_quote_sql_str`: a literal in MySQL's way.
pub(super) fn sql(given: In<'_>) -> Outcome {
    let mut out = Vec::with_capacity(given.text().len() + 2);
    literal(given.text(), &mut out);
    Ok(out.into())
}

/// `set_quote_pgsql_str`: a literal in PostgreSQL's way; what is not UTF-8 is written in octal.
pub(super) fn pgsql(given: In<'_>) -> Outcome {
    let text = given.text();
    if text.is_empty() {
        return Ok(Bytes::from_static(b"''"));
    }
    let mut quoted = vec![b'E'];
    literal(text, &mut quoted);
    if is_utf8(&quoted) {
        return Ok(quoted.into());
    }
    let mut out = Vec::with_capacity(quoted.len() * 2);
    for byte in quoted {
        match byte {
            0x80.. => out.extend_from_slice(format!("\\\\{byte:o}").as_bytes()),
            _ => out.push(byte),
        }
    }
    Ok(out.into())
}

/// `set_quote_json_str`: a JSON string, or `null` for nothing.
pub(super) fn json(given: In<'_>) -> Outcome {
    let text = given.text();
    if text.is_empty() {
        return Ok(Bytes::from_static(b"null"));
    }
    let mut out = Vec::with_capacity(text.len() + 2);
    out.push(b'"');
    push_json(&mut out, text, JsonDigits::Lower);
    out.push(b'"');
    Ok(out.into())
}

/// `'…'` with backslashes before what is special to some database.
fn literal(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'\'');
    for byte in text {
        match byte {
            0 => out.extend_from_slice(b"\\0"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0x1a => out.extend_from_slice(b"\\Z"),
            b'\\' | b'\'' | b'"' | b'$' => out.extend_from_slice(&[b'\\', *byte]),
            _ => out.push(*byte),
        }
    }
    out.push(b'\'');
}

/// What the original takes for UTF-8: of a long sequence it looks at the last byte only.
fn is_utf8(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(first) = rest.first() {
        let length = match first {
            0..0x80 => 1,
            0xc0..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0..0xf8 => 4,
            _ => return false,
        };
        let last = rest.get(length - 1);
        if length > 1 && !last.is_some_and(|last| (0x80..0xc0).contains(last)) {
            return false;
        }
        rest = &rest[length..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(quote: fn(In<'_>) -> Outcome, text: &[u8], expected: &str) {
        let got = quote(In::test(&[text])).unwrap();
        assert_eq!(got.escape_ascii().to_string(), expected.as_bytes().escape_ascii().to_string());
    }

    #[test]
    fn sql_strings() {
        check(sql, b"", "''");
        check(sql, b"it's \0\x08\t\n\r\x1a \\ \" $ \x7f", "'it\\'s \\0\\b\\t\\n\\r\\Z \\\\ \\\" \\$ \x7f'");
    }

    #[test]
    fn pgsql_strings() {
        check(pgsql, b"", "''");
        check(pgsql, "ü'".as_bytes(), "E'ü\\''");
        check(pgsql, b"\xc3", "E'\\\\303'");
        assert_eq!(pgsql(In::test(&[b"\xe4\x20\x80x"])).unwrap(), &b"E'\xe4\x20\x80x'"[..]);
    }

    #[test]
    fn json_strings() {
        check(json, b"", "null");
        check(json, "a\"b\\c/\u{1f}\n\u{7f}ü".as_bytes(), "\"a\\\"b\\\\c/\\u001f\\n\u{7f}ü\"");
    }
}
