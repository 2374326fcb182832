//! PostgreSQL's lexer, as far as token boundaries go (its `scan.l`, with `standard_conforming_strings` on).
//!
//! The same code reads a template, where variables may stand in any token, and a rendered statement, where none is
//! left. That both have the same tokens is what makes rendering safe.

use std::ops::Range;

use super::variable::{self, Hole, Place, Untyped};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A keyword or a name without quotes.
    Word,
    /// `"..."`
    QuotedName,
    /// `'...'`, `b'...'`, `x'...'`, `n'...'`; an apostrophe is doubled.
    Text,
    /// `E'...'`: a backslash escapes.
    EscapeText,
    /// `U&'...'`: a backslash starts a code point.
    UnicodeText,
    /// `U&"..."`
    UnicodeName,
    /// `$$...$$`, `$tag$...$tag$`
    DollarText,
    /// `1`, `1.5e3`, with whatever letters stick to it.
    Number,
    /// `$1`
    Parameter,
    /// `+`, `::`, and characters that mean nothing.
    Operator,
    /// One of `()[],;:.`
    Punctuation,
    Space,
    Comment,
}

/// A token: its kind, where it stands, and which of the variables stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) span: Range<usize>,
    pub(crate) holes: Range<usize>,
}

impl Token {
    pub(crate) fn is_significant(&self) -> bool {
        !matches!(self.kind, Kind::Space | Kind::Comment)
    }
}

/// A text cut into tokens that leave nothing out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lexed {
    pub(crate) tokens: Vec<Token>,
    pub(crate) holes: Vec<Hole>,
}

/// A quote or a comment that does not end; where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unterminated(pub(crate) usize);

/// Lexes a template (`variables` says which count) or a finished statement.
pub(crate) fn lex(text: &str, variables: Option<Untyped>) -> Result<Lexed, Unterminated> {
    let mut lexer = Lexer { text: text.as_bytes(), at: 0, variables, holes: Vec::new() };
    let mut tokens = Vec::new();
    while lexer.at < text.len() {
        let (start, first_hole) = (lexer.at, lexer.holes.len());
        let kind = lexer.token()?;
        tokens.push(Token { kind, span: start..lexer.at, holes: first_hole..lexer.holes.len() });
    }
    Ok(Lexed { tokens, holes: lexer.holes })
}

struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    variables: Option<Untyped>,
    holes: Vec<Hole>,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn looks_at(&self, text: &[u8]) -> bool {
        self.text.get(self.at..).is_some_and(|rest| rest.starts_with(text))
    }

    /// Steps over a variable, if there is one here.
    fn hole(&mut self, place: Place) -> bool {
        let Some(untyped) = self.variables else {
            return false;
        };
        match variable::hole_at(self.text, self.at, place, untyped) {
            Some(hole) => {
                self.at = hole.span.end;
                self.holes.push(hole);
                true
            }
            None => false,
        }
    }

    /// Steps over a parameter in the form of 2018, if there is one here.
    fn colon(&mut self) -> bool {
        if self.variables != Some(Untyped::Colon) {
            return false;
        }
        let Some(hole) = variable::colon_at(self.text, self.at) else {
            return false;
        };
        self.at = hole.span.end;
        self.holes.push(hole);
        true
    }

    fn token(&mut self) -> Result<Kind, Unterminated> {
        let kind = match self.peek(0) {
            byte if is_space(byte) => {
                while is_space(self.peek(0)) {
                    self.at += 1;
                }
                Kind::Space
            }
            b'-' if self.peek(1) == b'-' => {
                while self.at < self.text.len() && !matches!(self.peek(0), b'\n' | b'\r') {
                    self.step(Place::Comment);
                }
                Kind::Comment
            }
            b'/' if self.peek(1) == b'*' => self.block_comment()?,
            b'\'' => self.text_token(0, Kind::Text)?,
            b'"' => self.quoted_name(0, Kind::QuotedName)?,
            b'e' | b'E' if self.peek(1) == b'\'' => self.text_token(1, Kind::EscapeText)?,
            b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if self.peek(1) == b'\'' => self.text_token(1, Kind::Text)?,
            b'u' | b'U' if self.peek(1) == b'&' && self.peek(2) == b'\'' => self.text_token(2, Kind::UnicodeText)?,
            b'u' | b'U' if self.peek(1) == b'&' && self.peek(2) == b'"' => self.quoted_name(2, Kind::UnicodeName)?,
            byte if is_word_start(byte) => self.word(),
            b'$' => self.dollar()?,
            byte if byte.is_ascii_digit() => self.number(),
            b'.' if self.peek(1).is_ascii_digit() => self.number(),
            b':' if self.colon() => Kind::Parameter,
            b':' if matches!(self.peek(1), b':' | b'=') => {
                self.at += 2;
                Kind::Operator
            }
            b'(' | b')' | b'[' | b']' | b',' | b';' | b':' | b'.' => {
                self.at += 1;
                Kind::Punctuation
            }
            byte if is_operator(byte) => {
                while is_operator(self.peek(0)) && !self.looks_at(b"--") && !self.looks_at(b"/*") {
                    self.at += 1;
                }
                Kind::Operator
            }
            _ => {
                self.at += 1;
                Kind::Operator
            }
        };
        Ok(kind)
    }

    /// One byte or one variable further, inside of something.
    fn step(&mut self, place: Place) {
        if !self.hole(place) {
            self.at += 1;
        }
    }

    fn block_comment(&mut self) -> Result<Kind, Unterminated> {
        let start = self.at;
        let mut depth = 0_usize;
        while self.at < self.text.len() {
            if self.looks_at(b"/*") {
                depth += 1;
                self.at += 2;
            } else if self.looks_at(b"*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(Kind::Comment);
                }
            } else {
                self.step(Place::Comment);
            }
        }
        Err(Unterminated(start))
    }

    fn text_token(&mut self, prefix: usize, kind: Kind) -> Result<Kind, Unterminated> {
        let start = self.at;
        self.at += prefix + 1;
        while self.at < self.text.len() {
            match self.peek(0) {
                b'\'' if self.peek(1) == b'\'' => self.at += 2,
                b'\'' => {
                    self.at += 1;
                    match self.continuation() {
                        Some(next) => self.at = next,
                        None => return Ok(kind),
                    }
                }
                b'\\' if kind == Kind::EscapeText => {
                    self.at += 1;
                    if self.at < self.text.len() {
                        self.step(Place::Inside);
                    }
                }
                _ => self.step(Place::Inside),
            }
        }
        Err(Unterminated(start))
    }

    /// SQL's `'a'<newline>'b'` is one text, of the kind it began with: the place after the second quote.
    fn continuation(&self) -> Option<usize> {
        let mut at = self.at;
        let mut newline = false;
        loop {
            match self.text.get(at)? {
                b'\n' | b'\r' => newline = true,
                byte if is_space(*byte) => {}
                b'-' if self.text.get(at + 1) == Some(&b'-') => {
                    while !matches!(self.text.get(at + 1)?, b'\n' | b'\r') {
                        at += 1;
                    }
                }
                b'\'' if newline => return Some(at + 1),
                _ => return None,
            }
            at += 1;
        }
    }

    fn quoted_name(&mut self, prefix: usize, kind: Kind) -> Result<Kind, Unterminated> {
        let start = self.at;
        self.at += prefix + 1;
        while self.at < self.text.len() {
            match self.peek(0) {
                b'"' if self.peek(1) == b'"' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return Ok(kind);
                }
                _ => self.step(Place::Inside),
            }
        }
        Err(Unterminated(start))
    }

    fn word(&mut self) -> Kind {
        loop {
            match self.peek(0) {
                b'$' if self.hole(Place::Fragment) => {}
                b'$' => self.at += 1,
                byte if is_word(byte) => self.at += 1,
                _ => return Kind::Word,
            }
        }
    }

    fn number(&mut self) -> Kind {
        loop {
            match self.peek(0) {
                // `1..2` is a range of plpgsql, not a number.
                b'.' if self.peek(1) == b'.' => return Kind::Number,
                b'e' | b'E' if matches!(self.peek(1), b'+' | b'-') && self.peek(2).is_ascii_digit() => {
                    self.at += 2;
                }
                b'$' if self.hole(Place::Fragment) => {}
                byte if is_word(byte) || byte == b'.' => self.at += 1,
                _ => return Kind::Number,
            }
        }
    }

    /// `$tag$...$tag$`, a variable, or `$1`.
    fn dollar(&mut self) -> Result<Kind, Unterminated> {
        if let Some(length) = self.dollar_delimiter() {
            let start = self.at;
            let delimiter = &self.text[start..start + length];
            let closes = memchr::memmem::find(&self.text[start + length..], delimiter).is_some();
            // In a template `$a$b` are two variables unless a second `$a$` follows.
            if closes || matches!(self.variables, None | Some(Untyped::Keep)) || length == 2 {
                self.at += length;
                while self.at < self.text.len() {
                    if self.looks_at(delimiter) {
                        self.at += length;
                        return Ok(Kind::DollarText);
                    }
                    self.step(Place::Inside);
                }
                return Err(Unterminated(start));
            }
        }
        if self.hole(Place::Alone) {
            let typed = self.holes.last().is_some_and(|hole| hole.cast.is_some());
            return Ok(if typed { Kind::Parameter } else { self.word() });
        }
        self.at += 1;
        if !self.peek(0).is_ascii_digit() {
            return Ok(Kind::Operator);
        }
        while is_word(self.peek(0)) {
            self.at += 1;
        }
        Ok(Kind::Parameter)
    }

    fn dollar_delimiter(&self) -> Option<usize> {
        let tag = self.text.get(self.at + 1..)?;
        if tag.first().is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let length = tag.iter().take_while(|byte| is_word(**byte)).count();
        (tag.get(length) == Some(&b'$')).then_some(length + 2)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// Bytes of a word, but for `$`.
pub(crate) fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit()
}

fn is_operator(byte: u8) -> bool {
    b"+-*/<>=~!@#%^&|`?".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The significant tokens of a statement, each in brackets.
    fn check(sql: &str, expected: &str) {
        let shown = match lex(sql, None) {
            Ok(lexed) => {
                let tokens = lexed.tokens.iter().filter(|token| token.is_significant());
                tokens.map(|token| format!("[{}]", &sql[token.span.clone()])).collect()
            }
            Err(Unterminated(at)) => format!("unterminated at {at}"),
        };
        assert_eq!(shown, expected, "{sql}");
    }

    #[test]
    fn tokens() {
        check("select a.b, 1.5e+3 from t", "[select][a][.][b][,][1.5e+3][from][t]");
        check("a::int4=-1", "[a][::][int4][=-][1]");
        check("'it''s' \"a\"\"b\" ''", "['it''s'][\"a\"\"b\"]['']");
        check(r"E'a\'b' e'\\' 'c\'", r"[E'a\'b'][e'\\']['c\']");
        check("$$a'b$$ $t$ $$ $t$ $1", "[$$a'b$$][$t$ $$ $t$][$1]");
        check("a--b\nc/*d/*e*/f*/g", "[a][c][g]");
        check("U&'d\\0061' u&\"x\" x'1f' b'0'", "[U&'d\\0061'][u&\"x\"][x'1f'][b'0']");
        check("foo$bar café", "[foo$bar][café]");
        check("a<--b", "[a][<]");
        check("array[1,2]", "[array][[][1][,][2][]]");
    }

    #[test]
    fn a_text_goes_on_after_a_newline() {
        check("E'a'\n'\\'b' c", "[E'a'\n'\\'b'][c]");
        check("'a' -- x\n 'b'", "['a' -- x\n 'b']");
        check("'a' 'b'", "['a']['b']");
    }

    #[test]
    fn what_does_not_end() {
        check("select 'a", "unterminated at 7");
        check("\"a", "unterminated at 0");
        check("/* /* */", "unterminated at 0");
        check("$a$ b", "unterminated at 0");
    }
}
