//! The syntax tree: words, directives, comments and errors, each with its place in the source.

use std::{fmt, slice};

use crate::{error::SyntaxError, print::print};

/// A whole source: a file, or the text of the command line's `-g`.
///
/// `Display` prints it as configuration text; [`print()`] does so without loss where words are not
/// UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ast {
    /// What stands in the source outside of all blocks.
    pub items: Vec<Item>,
}

impl Ast {
    /// All errors, those within blocks too, in the order in which nginx would meet them; it reports
    /// the first.
    pub fn errors(&self) -> impl Iterator<Item = &SyntaxError> {
        Errors { pending: vec![self.items.iter()] }
    }
}

impl fmt::Display for Ast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&print(self)))
    }
}

/// One thing in a block, or outside of all blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A directive without errors in its words.
    Directive(Directive),
    /// A comment. One that interrupts a directive's words stands before that directive.
    Comment(Comment),
    /// An error, at the place where nginx would stop.
    Error(SyntaxError),
}

/// A directive: a name, its arguments, and `;` or a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The first word.
    pub name: Word,
    /// The other words.
    pub args: Vec<Word>,
    /// What ends the words.
    pub body: Body,
    /// Offset of the `;` or `{` that ends the words: nginx's messages about a directive give the
    /// line of this place.
    pub end: u32,
    /// From the name to the end of the `;` or the `}`.
    pub span: Span,
}

impl Directive {
    /// What is in its block; `None` for a directive that ends with `;`.
    pub fn block(&self) -> Option<&[Item]> {
        match &self.body {
            Body::Block(items) => Some(items),
            Body::Semicolon => None,
        }
    }
}

/// What follows a directive's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A `;`.
    Semicolon,
    /// A block in braces.
    Block(Vec<Item>),
}

/// A directive's name or one of its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The bytes that nginx sees: without quotes, escapes replaced.
    pub value: Vec<u8>,
    /// Where it stands, quotes included.
    pub span: Span,
    /// How it is quoted.
    pub quote: Quote,
}

/// How a word is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quote {
    /// Not at all; quotes in the middle of a word are ordinary bytes.
    None,
    /// `'`
    Single,
    /// `"`
    Double,
}

/// A comment, to the end of its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// What follows the `#`, without white space at the end.
    pub text: Vec<u8>,
    /// From the `#` to the end of the text.
    pub span: Span,
}

/// A range of bytes of the source. Places beyond 4 GiB are all counted as the last one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: offset(start), end: offset(end) }
    }
}

/// A place in the source as the tree keeps it.
pub(crate) fn offset(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// Walks the tree without recursion: the blocks on the way to the next item are on its own stack.
struct Errors<'a> {
    pending: Vec<slice::Iter<'a, Item>>,
}

impl<'a> Iterator for Errors<'a> {
    type Item = &'a SyntaxError;

    fn next(&mut self) -> Option<&'a SyntaxError> {
        loop {
            match self.pending.last_mut()?.next() {
                Some(Item::Error(error)) => return Some(error),
                Some(Item::Directive(directive)) => self.pending.extend(directive.block().map(<[_]>::iter)),
                Some(Item::Comment(_)) => {}
                None => drop(self.pending.pop()),
            }
        }
    }
}
