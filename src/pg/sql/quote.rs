//! PostgreSQL's quoting, and the undoing of what `set_quote_json_str` and its kin have quoted.

/// `'...'`, for `standard_conforming_strings`, which our connections always have.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    quote(text, '\'')
}

/// `"..."`
#[must_use]
pub fn quote_identifier(text: &str) -> String {
    quote(text, '"')
}

fn quote(text: &str, mark: char) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(mark);
    double_into(&mut quoted, text, &[mark]);
    quoted.push(mark);
    quoted
}

/// Appends a text with each of the `marks` doubled.
pub(crate) fn double_into(out: &mut String, text: &str, marks: &[char]) {
    for c in text.chars() {
        if marks.contains(&c) {
            out.push(c);
        }
        out.push(c);
    }
}

/// What a `'...'` with doubled apostrophes (`postgres_escape`) or a `"..."` with doubled quotes says.
pub(crate) fn undouble(text: &str, mark: char) -> Option<String> {
    let inside = text.strip_prefix(mark)?.strip_suffix(mark)?;
    let mut decoded = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        if c == mark && chars.next() != Some(mark) {
            return None;
        }
        decoded.push(c);
    }
    Some(decoded)
}

/// What a `'...'` or `E'...'` of `set_quote_sql_str` and `set_quote_pgsql_str` says.
pub(crate) fn unbackslash(text: &str) -> Option<String> {
    let text = text.strip_prefix('E').unwrap_or(text);
    let mut chars = text.strip_prefix('\'')?.strip_suffix('\'')?.chars();
    let mut decoded = String::new();
    while let Some(c) = chars.next() {
        decoded.push(match c {
            '\'' => return None,
            '\\' => match chars.next()? {
                '0' => '\0',
                'b' => '\u{8}',
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                'Z' => '\u{1a}',
                other => other,
            },
            other => other,
        });
    }
    Some(decoded)
}

/// What a JSON string says.
pub(crate) fn decode_json(text: &str) -> Option<String> {
    // JSON proper wants control characters escaped, and set_quote_json_str escapes all of them but DEL.
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for text in ["", "a", "it's", "\"", "\\", "a\\'b", "канал", "'';--"] {
            assert_eq!(undouble(&quote_literal(text), '\'').as_deref(), Some(text));
            assert_eq!(undouble(&quote_identifier(text), '"').as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_not_quoted_is_refused() {
        for text in ["", "'", "a'", "'a'b'", "'a", "''a'"] {
            assert_eq!(undouble(text, '\''), None, "{text}");
        }
        for text in ["'a'b'", r"'a\'", "E'", "a"] {
            assert_eq!(unbackslash(text), None, "{text}");
        }
    }

    #[test]
    fn backslashes() {
        assert_eq!(unbackslash(r"'a\'\n\\n\$'").as_deref(), Some("a'\n\\n$"));
        assert_eq!(unbackslash(r"E'\\304'").as_deref(), Some("\\304"));
    }

    #[test]
    fn json() {
        assert_eq!(decode_json(r#""a\"b\\\u001f\n""#).as_deref(), Some("a\"b\\\u{1f}\n"));
        assert_eq!(decode_json("null"), None);
        assert_eq!(decode_json(r#""a"b""#), None);
    }
}
