//! The grammar proper: which bytes make one token.
//!
//! Every byte begins some token, so [`token`] fails at the end of the source only.

use memchr::memchr;
use nom::{
    IResult, Parser,
    branch::alt,
    bytes::complete::{tag, take, take_while, take_while_m_n, take_while1},
    character::complete::one_of,
    combinator::{map, opt, recognize},
    multi::{many0_count, many1_count},
    sequence::{delimited, preceded},
};

type Parsed<'a, Output = &'a [u8]> = IResult<&'a [u8], Output>;

/// A token as it stands in the source, escapes and all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RawToken<'a> {
    /// `;`, `{` or `}`.
    Punctuation(char),
    /// What follows the `#`, up to the line feed.
    Comment(&'a [u8]),
    /// What follows the quote `'`, up to the next one; if there is none, up to the end of the
    /// source.
    Single(&'a [u8]),
    /// The same with `"`.
    Double(&'a [u8]),
    /// A word without quotes around it.
    Bare(&'a [u8]),
}

/// nginx's white space: no form feed, nothing beyond ASCII.
pub(crate) fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The white space before a token, if any.
pub(crate) fn white_space(input: &[u8]) -> Parsed<'_> {
    take_while(is_white_space).parse(input)
}

/// One token. Its first byte decides: within a bare word `#`, `}` and quotes are ordinary bytes.
pub(crate) fn token(input: &[u8]) -> Parsed<'_, RawToken<'_>> {
    alt((
        map(one_of(";{}"), RawToken::Punctuation),
        map(preceded(tag("#"), rest_of_line), RawToken::Comment),
        map(quoted("'"), RawToken::Single),
        map(quoted("\""), RawToken::Double),
        map(bare, RawToken::Bare),
    ))
    .parse(input)
}

/// Up to the line feed or the end.
fn rest_of_line(input: &[u8]) -> Parsed<'_> {
    take(memchr(b'\n', input).unwrap_or(input.len())).parse(input)
}

/// The inside of a string. It ends at the next such quote that is not the second half of a pair.
fn quoted<'a>(quote: &'static str) -> impl FnMut(&'a [u8]) -> Parsed<'a> {
    move |input| {
        let plain = take_while1(|byte| byte != b'\\' && !quote.as_bytes().contains(&byte));
        delimited(tag(quote), recognize(many0_count(alt((plain, pair)))), opt(tag(quote))).parse(input)
    }
}

/// A bare word ends before white space, `;`, or a `{` that is not part of `${`.
fn bare(input: &[u8]) -> Parsed<'_> {
    let plain = take_while1(|byte| !is_white_space(byte) && !matches!(byte, b';' | b'{' | b'\\' | b'$'));
    recognize(many1_count(alt((plain, pair, variable)))).parse(input)
}

/// A backslash takes the byte after it along, whatever it is.
fn pair(input: &[u8]) -> Parsed<'_> {
    recognize((tag("\\"), take_while_m_n(0, 1, |_| true))).parse(input)
}

/// Braces right behind a `$` belong to the word, however many.
fn variable(input: &[u8]) -> Parsed<'_> {
    recognize((tag("$"), take_while(|byte| byte == b'{'))).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: RawToken<'_>, rest: &str) {
        assert_eq!(token(source.as_bytes()), Ok((rest.as_bytes(), expected)), "{source}");
    }

    #[test]
    fn a_bare_word_ends_where_nginx_ends_it() {
        check("listen 80;", RawToken::Bare(b"listen"), " 80;");
        check("80;", RawToken::Bare(b"80"), ";");
        check("http{", RawToken::Bare(b"http"), "{");
        check("a}b#c\"d'e\r\n", RawToken::Bare(b"a}b#c\"d'e"), "\r\n");
        check("${a}b{", RawToken::Bare(b"${a}b"), "{");
        check("x${{{y {", RawToken::Bare(b"x${{{y"), " {");
        check("$a{2}", RawToken::Bare(b"$a"), "{2}");
        check("a\\ b\\;c\\{d e", RawToken::Bare(b"a\\ b\\;c\\{d"), " e");
        check("\\${a", RawToken::Bare(b"\\$"), "{a");
        check("\\", RawToken::Bare(b"\\"), "");
    }

    #[test]
    fn a_string_ends_at_its_own_quote() {
        check(r#""a 'b' {;}# \" c"d"#, RawToken::Double(br#"a 'b' {;}# \" c"#), "d");
        check(r#"'a "b" \' c';"#, RawToken::Single(br#"a "b" \' c"#), ";");
        check(r#""\\";"#, RawToken::Double(br"\\"), ";");
        check("\"\"", RawToken::Double(b""), "");
        check("\"open;\n", RawToken::Double(b"open;\n"), "");
        check("\"open\\", RawToken::Double(b"open\\"), "");
    }

    #[test]
    fn a_comment_ends_with_its_line() {
        check("# a; { \" \\\nb", RawToken::Comment(b" a; { \" \\"), "\nb");
        check("#", RawToken::Comment(b""), "");
    }
}
