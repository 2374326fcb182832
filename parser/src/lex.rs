//! Tokens with their place and their value, and the errors that concern one token: what follows a
//! string, and what doesn't fit into nginx's buffer.

use memchr::memchr;

use crate::{
    ast::{Comment, Quote, Span, Word, offset},
    error::{SyntaxError, SyntaxErrorKind},
    grammar::{RawToken, is_white_space, token, white_space},
};

/// The size of the buffer through which nginx reads a file. A token has to fit in.
pub(crate) const BUFFER: usize = 4096;

/// What the lexer finds next.
#[derive(Debug)]
pub(crate) enum Token {
    Word(Word),
    Comment(Comment),
    /// `;`, `{` or `}`.
    Punctuation(char, u32),
    /// An error in a word or behind it: the directive around it cannot be trusted.
    BadWord(SyntaxError),
    /// An error in a comment, which does no harm to the directive around it.
    BadComment(SyntaxError),
    /// The end of the source.
    End(u32),
}

/// Cuts a source into tokens.
pub(crate) struct Lexer<'a> {
    source: &'a [u8],
    rest: &'a [u8],
    is_file: bool,
    is_behind_string: bool,
}

impl<'a> Lexer<'a> {
    /// A file goes through nginx's buffer; the text of `-g` does not.
    pub(crate) fn new(source: &'a [u8], is_file: bool) -> Self {
        Self { source, rest: source, is_file, is_behind_string: false }
    }

    /// The next token; at the end of the source, always its end.
    pub(crate) fn next(&mut self) -> Token {
        if let Some(error) = self.unexpected_behind_string() {
            return Token::BadWord(error);
        }
        if let Ok((rest, _)) = white_space(self.rest) {
            self.rest = rest;
        }
        let start = self.place();
        let Ok((rest, raw)) = token(self.rest) else {
            return Token::End(offset(start));
        };
        self.rest = rest;
        match raw {
            RawToken::Punctuation(byte) => Token::Punctuation(byte, offset(start)),
            RawToken::Comment(text) => self.comment(start, text),
            RawToken::Single(raw) => self.string(start, raw, Quote::Single, b'\''),
            RawToken::Double(raw) => self.string(start, raw, Quote::Double, b'"'),
            RawToken::Bare(raw) => self.bare(start, raw),
        }
    }

    /// Behind a closing quote nginx wants white space, the end of the words, or a `)`, which begins
    /// a new word.
    fn unexpected_behind_string(&mut self) -> Option<SyntaxError> {
        if !std::mem::take(&mut self.is_behind_string) {
            return None;
        }
        let byte = *self.rest.first()?;
        let is_expected = is_white_space(byte) || matches!(byte, b';' | b'{' | b')');
        (!is_expected).then(|| SyntaxError { offset: offset(self.place()), kind: SyntaxErrorKind::Unexpected(byte) })
    }

    fn comment(&self, start: usize, text: &[u8]) -> Token {
        if !self.fits(start, 1 + text.len()) {
            return Token::BadComment(self.too_long(start, start));
        }
        let text = text.trim_ascii_end().to_vec();
        let span = Span::new(start, start + 1 + text.len());
        Token::Comment(Comment { text, span })
    }

    fn string(&mut self, start: usize, raw: &[u8], quote: Quote, byte: u8) -> Token {
        let inside = start + 1;
        let end = self.place();
        let is_closed = end > inside + raw.len();
        self.is_behind_string = is_closed;

        if !self.fits(inside, raw.len()) {
            let kind = SyntaxErrorKind::TooLongString(byte);
            return Token::BadWord(SyntaxError { offset: offset(start), kind });
        }
        // nginx notices the next token only when it sees its first byte: the quote and one white
        // space take room, too.
        if !self.fits(inside, end - inside + self.white_space_ahead()) {
            return Token::BadWord(self.too_long(start, inside));
        }
        Token::Word(Word { value: unescape(raw), span: Span::new(start, end), quote })
    }

    fn bare(&self, start: usize, raw: &[u8]) -> Token {
        if !self.fits(start, raw.len() + self.white_space_ahead()) {
            return Token::BadWord(self.too_long(start, start));
        }
        let span = Span::new(start, start + raw.len());
        Token::Word(Word { value: unescape(raw), span, quote: Quote::None })
    }

    /// nginx gives up when its buffer holds nothing but one token and there is more to read.
    fn fits(&self, start: usize, length: usize) -> bool {
        !self.is_file || length < BUFFER || start + BUFFER >= self.source.len()
    }

    fn white_space_ahead(&self) -> usize {
        usize::from(self.rest.first().is_some_and(|&byte| is_white_space(byte)))
    }

    fn too_long(&self, start: usize, inside: usize) -> SyntaxError {
        let beginning = self.source.get(inside..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        SyntaxError { offset: offset(start), kind: SyntaxErrorKind::TooLong(beginning) }
    }

    fn place(&self) -> usize {
        self.source.len() - self.rest.len()
    }
}

/// The byte that an escape stands for. Before any other byte a backslash is an ordinary byte.
fn escaped(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\'' | b'\\' => Some(byte),
        b't' => Some(b'\t'),
        b'r' => Some(b'\r'),
        b'n' => Some(b'\n'),
        _ => None,
    }
}

/// Whether a backslash before this byte disappears.
pub(crate) fn is_escapable(byte: u8) -> bool {
    escaped(byte).is_some()
}

/// Replaces the escapes; other pairs stay as they are.
fn unescape(mut raw: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    while let Some(backslash) = memchr(b'\\', raw) {
        let (plain, pair) = raw.split_at(backslash);
        value.extend_from_slice(plain);
        let (pair, rest) = pair.split_at(pair.len().min(2));
        match pair {
            [_, byte] if let Some(byte) = escaped(*byte) => value.push(byte),
            _ => value.extend_from_slice(pair),
        }
        raw = rest;
    }
    value.extend_from_slice(raw);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All tokens of a file, in short.
    fn tokens(source: &[u8], is_file: bool) -> String {
        let mut lexer = Lexer::new(source, is_file);
        let mut found = Vec::new();
        loop {
            found.push(match lexer.next() {
                Token::Word(word) if word.value.len() > 100 => {
                    format!("{} bytes", word.value.len())
                }
                Token::Word(word) => format!("{:?} {}", word.quote, word.value.escape_ascii()),
                Token::Comment(comment) if comment.text.len() > 100 => {
                    format!("# {} bytes", comment.text.len())
                }
                Token::Comment(comment) => format!("#{}", comment.text.escape_ascii()),
                Token::Punctuation(byte, _) => byte.to_string(),
                Token::BadWord(error) => format!("{error} at {}", error.offset),
                Token::BadComment(error) => format!("{error} at {}, in a comment", error.offset),
                Token::End(_) => return found.join(", "),
            });
        }
    }

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(tokens(source.as_bytes(), true), expected, "{source:?}");
    }

    #[test]
    fn escapes_are_replaced() {
        check(r#"a\"b\'c\\d\te\rf\ng;"#, r#"None a\"b\'c\\d\te\rf\ng, ;"#);
        check(r#""\"\'\\\t\r\n""#, r#"Double \"\'\\\t\r\n"#);
        check(r"\.php$ a\ b \$c", r"None \\.php$, None a\\ b, None \\$c");
        check(r"\\n '\\\'' \", r"None \\n, Single \\\', None \\");
    }

    #[test]
    fn only_some_bytes_may_follow_a_string() {
        check("\"a\";'b'{\"c\"\t'd')e", "Double a, ;, Single b, {, Double c, Single d, None )e");
        check("\"a\"b ;", "Double a, unexpected \"b\" at 3, None b, ;");
        check("'a'}", "Single a, unexpected \"}\" at 3, }");
        check("'a'#c", "Single a, unexpected \"#\" at 3, #c");
        check("'a'\"b\"", "Single a, unexpected \"\"\" at 3, Double b");
        check("'a'", "Single a");
    }

    #[test]
    fn comments_begin_only_where_words_do() {
        check("a#b #c # d \r\ne", "None a#b, #c # d, None e");
        check("#\n\\#a", "#, None \\\\#a");
    }

    /// nginx's limit, at its exact place: the token, and what nginx must read to see its end, has
    /// to be shorter than the buffer, unless the file ends there.
    #[test]
    fn a_token_fits_into_the_buffer() {
        let long = |before: &str, length: usize, after: &str| format!("{before}{}{after}", "x".repeat(length));

        check(&long("a /", 4094, ";b;"), "None a, 4095 bytes, ;, None b, ;");
        check(&long("a /", 4093, " ;b;"), "None a, 4094 bytes, ;, None b, ;");
        check(&long("a /", 4094, " ;b;"), r#"None a, too long parameter "/xxxxxxxxx..." started at 2, ;, None b, ;"#);
        check(&long("a /", 4095, ";b;"), r#"None a, too long parameter "/xxxxxxxxx..." started at 2, ;, None b, ;"#);
        check(&long("a ", 4096, ""), "None a, 4096 bytes");

        check(&long("a '", 4094, "';b;"), "None a, 4094 bytes, ;, None b, ;");
        check(&long("a '", 4093, "' ;b;"), "None a, 4093 bytes, ;, None b, ;");
        check(&long("a '", 4094, "' ;b;"), r#"None a, too long parameter "xxxxxxxxxx..." started at 2, ;, None b, ;"#);
        check(&long("a '", 4095, "';b;"), r#"None a, too long parameter "xxxxxxxxxx..." started at 2, ;, None b, ;"#);
        check(
            &long("a '", 4096, "';b;"),
            r#"None a, too long parameter, probably missing terminating "'" character at 2, ;, None b, ;"#,
        );
        check(&long("a \"", 4096, ""), "None a, 4096 bytes");
        check(
            &long("a \"", 4097, ""),
            r#"None a, too long parameter, probably missing terminating """ character at 2"#,
        );

        check(&long("#", 4094, "\nb;"), "# 4094 bytes, None b, ;");
        check(
            &long("#", 4095, "\nb;"),
            r##"too long parameter "#xxxxxxxxx..." started at 0, in a comment, None b, ;"##,
        );
        check(&long("#", 4095, ""), "# 4095 bytes");
        check(&format!("a{}b;", " ".repeat(10_000)), "None a, None b, ;");
    }

    #[test]
    fn the_command_line_has_no_limit() {
        let source = format!("a '{0}' /{0};", "x".repeat(10_000));
        assert_eq!(tokens(source.as_bytes(), false), "None a, 10000 bytes, 10001 bytes, ;");
    }
}
