//! What can be wrong with the shape of a configuration, in nginx's words.

use std::fmt;

use crate::parse::MAX_DEPTH;

/// An error and its place.
///
/// `Display` gives nginx's words, without the ` in FILE:LINE` that follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntaxError {
    /// The byte that nginx stumbles over, or the first byte of what is too long: nginx reports the
    /// line of this place.
    pub offset: u32,
    /// What is wrong.
    pub kind: SyntaxErrorKind,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyntaxErrorKind {
    /// A `;`, `{` or `}` where none can be, or any byte right behind a closing quote.
    Unexpected(u8),
    /// The file ends within a directive.
    EndInDirective,
    /// The file ends within a block.
    EndInBlock,
    /// The text of `-g` ends within a directive.
    EndOfParameter,
    /// A block in the text of `-g`.
    BlockInParameter,
    /// A word or a comment that doesn't fit into nginx's buffer; its first ten bytes.
    TooLong([u8; 10]),
    /// A quoted string that doesn't fit into nginx's buffer; its quote.
    TooLongString(u8),
    /// More than [`MAX_DEPTH`] blocks within one another.
    ///
    /// Differs from nginx: it has no limit, and so crashes at some depth.
    TooDeep,
}

impl SyntaxErrorKind {
    /// nginx's words, byte for byte: a quoted byte or beginning may be half a character.
    pub fn message(&self) -> Vec<u8> {
        let (before, quoted, after): (&str, &[u8], &str) = match self {
            Self::Unexpected(byte) => ("unexpected \"", &[*byte], "\""),
            Self::EndInDirective => ("unexpected end of file, expecting \";\" or \"}\"", b"", ""),
            Self::EndInBlock => ("unexpected end of file, expecting \"}\"", b"", ""),
            Self::EndOfParameter => ("unexpected end of parameter, expecting \";\"", b"", ""),
            Self::BlockInParameter => ("block directives are not supported in -g option", b"", ""),
            Self::TooLong(beginning) => ("too long parameter \"", beginning, "...\" started"),
            Self::TooLongString(quote) => {
                ("too long parameter, probably missing terminating \"", &[*quote], "\" character")
            }
            Self::TooDeep => {
                return format!("blocks are nested more than {MAX_DEPTH} deep").into_bytes();
            }
        };
        [before.as_bytes(), quoted, after.as_bytes()].concat()
    }
}

impl fmt::Display for SyntaxErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.message()))
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for SyntaxError {}
