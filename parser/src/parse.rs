//! Tokens to directives and blocks, and how to go on after an error.
//!
//! Blocks are kept on a stack of our own, so that no nesting overflows the thread's. One directive
//! gets one error. What belongs to a directive with an error is read for further errors and
//! otherwise ignored.

use std::mem;

use crate::{
    ast::{Ast, Body, Directive, Item, Span, Word},
    error::{SyntaxError, SyntaxErrorKind},
    lex::{Lexer, Token},
};

/// How many blocks may stand within one another: far more than any configuration has, and few
/// enough that code that walks the tree recursively is safe.
pub const MAX_DEPTH: usize = 128;

/// Parses the text of a configuration file.
pub fn parse(source: &[u8]) -> Ast {
    Parser::new(source, Source::File).run()
}

/// Parses the text of the command line's `-g`: it must end with `;`, has no blocks, and its words
/// may have any length.
pub fn parse_parameter(source: &[u8]) -> Ast {
    Parser::new(source, Source::Parameter).run()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    File,
    Parameter,
}

struct Parser<'a> {
    source: Source,
    lexer: Lexer<'a>,
    /// What was found in the innermost open block, or outside of all blocks.
    items: Vec<Item>,
    /// The open blocks around that, outermost first.
    open: Vec<OpenBlock>,
    /// How many braces are open whose directive is not in the tree.
    ignored: usize,
    /// The words of the directive that is being read.
    words: Vec<Word>,
    /// Whether that directive has had its error.
    is_faulty: bool,
    /// Whether a string ended strangely: it may have swallowed braces, so their balance proves
    /// nothing from here on.
    are_braces_lost: bool,
}

/// A block whose `}` was not met yet.
struct OpenBlock {
    name: Word,
    args: Vec<Word>,
    /// Offset of the `{`.
    brace: u32,
    /// What stands before this directive in the block around it.
    before: Vec<Item>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a [u8], source: Source) -> Self {
        Self {
            source,
            lexer: Lexer::new(text, source == Source::File),
            items: Vec::new(),
            open: Vec::new(),
            ignored: 0,
            words: Vec::new(),
            is_faulty: false,
            are_braces_lost: false,
        }
    }

    fn run(mut self) -> Ast {
        loop {
            match self.lexer.next() {
                Token::Word(word) => self.words.push(word),
                Token::Comment(comment) => self.keep(Item::Comment(comment)),
                Token::Punctuation(';', place) => self.end_directive(place),
                Token::Punctuation('{', place) => self.open_block(place),
                Token::Punctuation(_, place) => self.close_brace(place),
                Token::BadWord(error) => self.bad_word(error),
                Token::BadComment(error) => self.items.push(Item::Error(error)),
                Token::End(place) => return self.finish(place),
            }
        }
    }

    fn end_directive(&mut self, place: u32) {
        if !self.is_within_directive() {
            return self.error(place, SyntaxErrorKind::Unexpected(b';'));
        }
        if let Some((name, args)) = self.take_words() {
            let span = Span { start: name.span.start, end: place.saturating_add(1) };
            self.keep(Item::Directive(Directive { name, args, body: Body::Semicolon, end: place, span }));
        }
    }

    fn open_block(&mut self, place: u32) {
        let error = self.block_error();
        if let Some(kind) = error {
            self.error(place, kind);
        }
        match self.take_words() {
            Some((name, args)) if error.is_none() && self.ignored == 0 => {
                let before = mem::take(&mut self.items);
                self.open.push(OpenBlock { name, args, brace: place, before });
            }
            _ => self.ignored += 1,
        }
    }

    /// Why no block can begin here.
    fn block_error(&self) -> Option<SyntaxErrorKind> {
        let is_ignored = self.is_faulty || self.ignored > 0;
        match self.source {
            _ if !self.is_within_directive() => Some(SyntaxErrorKind::Unexpected(b'{')),
            _ if is_ignored => None,
            Source::Parameter => Some(SyntaxErrorKind::BlockInParameter),
            Source::File => (self.open.len() == MAX_DEPTH).then_some(SyntaxErrorKind::TooDeep),
        }
    }

    fn close_brace(&mut self, place: u32) {
        let is_within_directive = self.is_within_directive();
        if is_within_directive && !self.is_faulty {
            self.error(place, SyntaxErrorKind::Unexpected(b'}'));
        }
        self.take_words();

        if self.ignored > 0 {
            self.ignored -= 1;
        } else if let Some(block) = self.open.pop() {
            self.close_block(block, place.saturating_add(1));
        } else if !is_within_directive && !self.are_braces_lost {
            self.error(place, SyntaxErrorKind::Unexpected(b'}'));
        }
    }

    fn close_block(&mut self, block: OpenBlock, end: u32) {
        let OpenBlock { name, args, brace, before } = block;
        let body = Body::Block(mem::replace(&mut self.items, before));
        let span = Span { start: name.span.start, end };
        self.items.push(Item::Directive(Directive { name, args, body, end: brace, span }));
    }

    fn bad_word(&mut self, error: SyntaxError) {
        if !self.is_faulty {
            self.items.push(Item::Error(error));
        }
        self.is_faulty = true;
        self.are_braces_lost |= !matches!(error.kind, SyntaxErrorKind::TooLong(_));
    }

    fn finish(mut self, place: u32) -> Ast {
        if let Some(kind) = self.end_error() {
            self.error(place, kind);
        }
        while let Some(block) = self.open.pop() {
            self.close_block(block, place);
        }
        Ast { items: self.items }
    }

    /// Why the source cannot end here.
    fn end_error(&self) -> Option<SyntaxErrorKind> {
        let is_within_block = self.ignored > 0 || !self.open.is_empty();
        match self.source {
            _ if self.is_faulty => None,
            Source::File if self.is_within_directive() => Some(SyntaxErrorKind::EndInDirective),
            Source::Parameter if self.is_within_directive() => Some(SyntaxErrorKind::EndOfParameter),
            Source::File if is_within_block && !self.are_braces_lost => Some(SyntaxErrorKind::EndInBlock),
            Source::File | Source::Parameter => None,
        }
    }

    fn is_within_directive(&self) -> bool {
        self.is_faulty || !self.words.is_empty()
    }

    /// Ends the directive that is being read: its name and arguments, if it has no error.
    fn take_words(&mut self) -> Option<(Word, Vec<Word>)> {
        let mut words = mem::take(&mut self.words).into_iter();
        if mem::take(&mut self.is_faulty) {
            return None;
        }
        Some((words.next()?, words.collect()))
    }

    fn error(&mut self, offset: u32, kind: SyntaxErrorKind) {
        self.items.push(Item::Error(SyntaxError { offset, kind }));
    }

    fn keep(&mut self, item: Item) {
        if self.ignored == 0 {
            self.items.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::LineIndex;

    /// The errors with their lines, and what is understood, each item in one line.
    #[track_caller]
    fn check(source: &str, errors: &[&str], tree: &str) {
        check_ast(parse(source.as_bytes()), source, errors, tree);
    }

    #[track_caller]
    fn check_parameter(source: &str, errors: &[&str], tree: &str) {
        check_ast(parse_parameter(source.as_bytes()), source, errors, tree);
    }

    #[track_caller]
    fn check_ast(ast: Ast, source: &str, errors: &[&str], tree: &str) {
        let lines = LineIndex::new(source.as_bytes());
        let found: Vec<_> = ast.errors().map(|error| format!("{error} in :{}", lines.line(error.offset))).collect();
        assert_eq!(found, errors, "{source}");
        let text = ast.to_string();
        assert_eq!(text.split_whitespace().collect::<Vec<_>>().join(" "), tree, "{source}");
    }

    #[test]
    fn a_configuration_is_understood() {
        check(
            "events {}\r\nhttp { # why\r\n server { listen 80; } }",
            &[],
            "events {} http { # why server { listen 80; } }",
        );
        check("# nothing here\n", &[], "# nothing here");
        check("", &[], "");
    }

    #[test]
    fn places_are_kept() {
        let source = b"a {\n  'b' c\n;\n}\n";
        let ast = parse(source);
        let Some(Item::Directive(a)) = ast.items.first() else { panic!("a is a directive") };
        assert_eq!((a.end, a.span), (2, Span { start: 0, end: 15 }));
        let Some([Item::Directive(b)]) = a.block() else { panic!("b is a directive") };
        assert_eq!((b.end, b.span), (12, Span { start: 6, end: 13 }));
        assert_eq!((b.name.span, b.args[0].span), (Span { start: 6, end: 9 }, Span { start: 10, end: 11 }));
    }

    #[test]
    fn errors_of_the_structure() {
        check("events {}\n;\na;", &[r#"unexpected ";" in :2"#], "events {} a;");
        check("a 1;;\nb {}", &[r#"unexpected ";" in :1"#], "a 1; b {}");
        check("a {}\n}\nb;", &[r#"unexpected "}" in :2"#], "a {} b;");
        check("http {\n  sendfile on\n}\nb;", &[r#"unexpected "}" in :3"#], "http {} b;");
        check("a b\n}\nc;", &[r#"unexpected "}" in :2"#], "c;");
        check(
            "a;\n{ b; { c; } ; }\nd;",
            &["unexpected \"{\" in :2", "unexpected \"{\" in :2", "unexpected \";\" in :2"],
            "a; d;",
        );
    }

    #[test]
    fn errors_at_the_end() {
        check("a {}\nb 1\n", &[r#"unexpected end of file, expecting ";" or "}" in :3"#], "a {}");
        check("a {\n  b {\n    c;\n  }\n", &[r#"unexpected end of file, expecting "}" in :5"#], "a { b { c; } }");
        check("a {\n b 'c;\n}\n", &[r#"unexpected end of file, expecting ";" or "}" in :4"#], "a {}");
        check("a {\n b \\", &[r#"unexpected end of file, expecting ";" or "}" in :2"#], "a {}");
        check("a 'b'", &[r#"unexpected end of file, expecting ";" or "}" in :1"#], "");
    }

    #[test]
    fn a_directive_has_one_error_and_takes_its_block_along() {
        check("a \"b\"c 'd'e;\nf;", &[r#"unexpected "c" in :1"#], "f;");
        check("a {\n b 'c'd { e; ; }\n f; }", &["unexpected \"d\" in :2", "unexpected \";\" in :2"], "a { f; }");
        check("a 'b'}\nc;", &[r#"unexpected "}" in :1"#], "c;");
        check("a 'b'c\n} d;", &[r#"unexpected "c" in :1"#], "d;");
        check("a 'b'c", &[r#"unexpected "c" in :1"#], "");
    }

    #[test]
    fn a_missing_quote_gives_one_error() {
        check("a {\n  b \"c;\n}\nd {\n  e \"f\";\n  g;\n}\n", &[r#"unexpected "f" in :5"#], "a { g; }");
        check("a {\n  b \"c;\n  d {\n  e \"f\";\n  g;\n}\n}\nh;", &[r#"unexpected "f" in :4"#], "a { g; } h;");
    }

    #[test]
    fn a_long_word_spoils_its_directive_and_a_long_comment_nothing() {
        let long = "x".repeat(5000);
        check(
            &format!("a {{\n b /{long};\n c; }}"),
            &[r#"too long parameter "/xxxxxxxxx..." started in :2"#],
            "a { c; }",
        );
        check(&format!("a\n#{long}\n b;\n"), &[r##"too long parameter "#xxxxxxxxx..." started in :2"##], "a b;");
        check(
            &format!("a;\nb 'x\n{long}' c;\nd;"),
            &[r#"too long parameter, probably missing terminating "'" character in :2"#],
            "a; d;",
        );
    }

    #[test]
    fn the_command_line() {
        check_parameter("daemon off; user 'a b';", &[], "daemon off; user 'a b';");
        check_parameter("daemon off", &[r#"unexpected end of parameter, expecting ";" in :1"#], "");
        check_parameter("a; events { b; } c;", &["block directives are not supported in -g option in :1"], "a; c;");
        check_parameter("a; events { b;", &["block directives are not supported in -g option in :1"], "a;");
        check_parameter("a; }", &[r#"unexpected "}" in :1"#], "a;");
        check_parameter(";", &[r#"unexpected ";" in :1"#], "");
    }

    #[test]
    fn depth_has_a_limit() {
        let nested = |depth: usize| format!("{}b;{}c;", "a {".repeat(depth), "}".repeat(depth));
        assert_eq!(parse(nested(MAX_DEPTH).as_bytes()).errors().count(), 0);

        let ast = parse(nested(100_000).as_bytes());
        assert_eq!(ast.errors().map(ToString::to_string).collect::<Vec<_>>(), ["blocks are nested more than 128 deep"]);
        assert_eq!(ast.items.len(), 2);
        assert_eq!(parse("a {".repeat(100_000).as_bytes()).errors().count(), 2);
    }
}
