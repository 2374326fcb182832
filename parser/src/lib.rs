//! nginx's configuration grammar: text to a syntax tree with byte spans, and back.
//!
//! ```
//! let source = b"events {}\nhttp {\n    sendfile on;;\n}\n";
//! let ast = pushgate_parser::parse(source);
//!
//! let error = ast.errors().next().expect("there is one semicolon too many");
//! let line = pushgate_parser::LineIndex::new(source).line(error.offset);
//! assert_eq!(format!("{error} in nginx.conf:{line}"), r#"unexpected ";" in nginx.conf:3"#);
//! ```
//!
//! The way of the text, one module each:
//!
//! 1. `grammar`: which bytes make one token (nom);
//! 2. `lex`: tokens with their place, their value, and nginx's limits on them;
//! 3. `parse`: tokens to directives and blocks, and how to go on after an error;
//! 4. `print`: a tree back to text that parses to the same tree.
//!
//! Invariants:
//!
//! - Parsing never fails and never panics, whatever the bytes: what was understood and the errors
//!   stand in one tree, in the order in which nginx would meet them. The first error is the one
//!   that nginx reports, in nginx's words.
//! - The parser knows no directive. Contexts, arity, `;` where a block is meant and the like are
//!   the reader's affair, and so is a block within the data of `map` and its like, which nginx
//!   refuses with [`SyntaxErrorKind::Unexpected`] too.
//! - No I/O: `include` is a directive like any other.
//! - A directive with an error in its words is left out of the tree, and so is its block, except
//!   for the errors in it: whoever reads on finds no consequences of an error that is reported
//!   already.

#![forbid(unsafe_code)]

mod ast;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod grammar;
mod lex;
mod lines;
mod parse;
mod print;

pub use ast::{Ast, Body, Comment, Directive, Item, Quote, Span, Word};
pub use error::{SyntaxError, SyntaxErrorKind};
pub use lines::{LineIndex, Position};
pub use parse::{MAX_DEPTH, parse, parse_parameter};
pub use print::print;
