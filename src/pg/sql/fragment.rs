//! `:@:key` in a query of 2018: a piece of SQL out of a text such as `{"key": "..."}`, which the variable `$meta` holds.

use super::quote::decode_json;
use super::template::TemplateError;

/// What begins one.
const MARK: &str = ":@:";

/// So many are put in place; a piece may name others.
const MOST: usize = 30;

/// Whether a text names a piece.
#[must_use]
pub fn has_fragments(text: &str) -> bool {
    text.contains(MARK)
}

/// Puts the pieces in place. They are the configuration's own SQL, or that of whoever writes `$meta`.
// Differs from nginx: where the piece is missing the worker crashes there.
pub fn expand_fragments(text: &str, meta: &str) -> Result<String, TemplateError> {
    let mut text = text.to_owned();
    for _ in 0..MOST {
        let Some((before, rest)) = text.split_once(MARK) else { return Ok(text) };
        let length = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let (key, after) = rest.split_at(length);
        let piece = find(meta, key).ok_or_else(|| TemplateError::NoFragment(key.to_owned()))?;
        text = format!("{before}{piece}{after}");
    }
    Err(TemplateError::TooManyFragments)
}

/// The string that follows `"key":`.
fn find(meta: &str, key: &str) -> Option<String> {
    let name = format!("\"{key}\"");
    let after = meta.match_indices(&name).find_map(|(at, _)| {
        let value = meta[at + name.len()..].trim_start().strip_prefix(':')?.trim_start();
        value.starts_with('"').then_some(value)
    })?;
    let mut is_escaped = false;
    let end = after.char_indices().skip(1).find(|(_, letter)| {
        let ends = *letter == '"' && !is_escaped;
        is_escaped = *letter == '\\' && !is_escaped;
        ends
    });
    decode_json(&after[..=end?.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, meta: &str, expected: &str) {
        let shown = expand_fragments(text, meta).unwrap_or_else(|error| error.to_string());
        assert_eq!(shown, expected, "{text} with {meta}");
    }

    #[test]
    fn pieces() {
        let meta =
            r#"{"cols": "a, :b", "where" : "x = :i:id\u000Aand y", "quoted": "say \"hi\" \\", "more": ":@:cols"}"#;
        check("select 1", meta, "select 1");
        check("select :@:cols from t", meta, "select a, :b from t");
        check("select 1 where :@:where)", meta, "select 1 where x = :i:id\nand y)");
        check("':@:quoted'", meta, "'say \"hi\" \\'");
        check(":@:more", meta, "a, :b");
        check(":@:none", meta, "no \"none\" in $meta");
        check(":@:", meta, "no \"\" in $meta");
        check(":@:a", r#""a": 5, "a":"open"#, "no \"a\" in $meta");
        check(":@:a", r#"{"a": ":@:a"}"#, "pieces of $meta that name themselves");
        check(":@:a", "", "no \"a\" in $meta");
    }
}
