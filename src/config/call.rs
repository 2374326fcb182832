//! One directive as it was written: its words and where they stand.

use pushgate_parser as ast;

use super::diagnostic::Fault;
use super::source::{Position, SourceId};

/// One use of a directive.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub(super) directive: &'a ast::Directive,
    pub(super) source: SourceId,
}

impl<'a> Call<'a> {
    /// The directive's name, or the first word of an entry in a data block.
    pub fn name(&self) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(&self.directive.name.value)
    }

    /// The bytes of the first word.
    pub fn name_bytes(&self) -> &'a [u8] {
        &self.directive.name.value
    }

    /// How many words follow the name.
    pub fn len(&self) -> usize {
        self.directive.args.len()
    }

    /// Whether no word follows the name.
    pub fn is_empty(&self) -> bool {
        self.directive.args.is_empty()
    }

    /// One of the words after the name, as bytes. The checker has seen to the count; a missing one reads as empty.
    pub fn bytes(&self, index: usize) -> &'a [u8] {
        self.directive.args.get(index).map_or(&[], |word| &word.value)
    }

    /// The same as text, for messages and for words that nginx compares with ASCII.
    pub fn text(&self, index: usize) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(self.bytes(index))
    }

    /// All the words after the name.
    pub fn words(&self) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator + 'a {
        self.directive.args.iter().map(|word| word.value.as_slice())
    }

    /// Whether one of the words after the name was quoted.
    pub fn quoted(&self, index: usize) -> bool {
        self.directive.args.get(index).is_some_and(|word| word.quote != ast::Quote::None)
    }

    /// Where the directive stands.
    pub fn at(&self) -> Position {
        let words = &self.directive.args;
        let last = words.last().unwrap_or(&self.directive.name);
        let span = ast::Span { start: self.directive.name.span.start, end: last.span.end };
        Position { source: self.source, span, end: self.directive.end }
    }

    /// Where the block ends: nginx names this place for what it finds when it merges.
    pub fn block_end(&self) -> Position {
        let end = self.directive.span.end.saturating_sub(1);
        Position { span: ast::Span { start: end, end: self.directive.span.end }, end, source: self.source }
    }

    /// Where one of the words after the name stands.
    pub fn word_at(&self, index: usize) -> Position {
        match self.directive.args.get(index) {
            None => self.at(),
            Some(word) => Position { span: word.span, ..self.at() },
        }
    }

    /// Where the name stands.
    pub fn name_at(&self) -> Position {
        Position { span: self.directive.name.span, ..self.at() }
    }

    /// A fault in the form `"name" directive TEXT`, as nginx writes what a generic setter refuses.
    pub fn fault(&self, text: &str) -> Fault {
        Fault::new(format!("\"{}\" directive {text}", self.name()))
    }

    /// The fault of a directive that was given twice.
    pub fn duplicate(&self) -> Fault {
        self.fault("is duplicate").code("duplicate")
    }

    /// The fault of a number, size or time that can't be read.
    pub fn invalid_value(&self) -> Fault {
        self.fault("invalid value").word(0)
    }

    /// The items of the block, if there is one.
    pub(super) fn block(&self) -> &'a [ast::Item] {
        match &self.directive.body {
            ast::Body::Semicolon => &[],
            ast::Body::Block(items) => items,
        }
    }

    /// Whether a block follows.
    pub fn has_block(&self) -> bool {
        matches!(self.directive.body, ast::Body::Block(_))
    }
}
