//! Variables in the text of a template: nginx's `$name` and `${name}`, and the newest module's `$name::type`.

use std::ops::Range;

use super::lexer::is_word;
use super::types;

/// What a variable without `::type` is: the one thing in which the generations of the module disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untyped {
    /// Its value is placed there (2015, 2018).
    Place,
    /// It is no variable at all, and stays as it is written (newest).
    Keep,
    /// Its value is placed there, and `:name` and `:i:name` are parameters too (2018, a query that begins with `:`).
    Colon,
}

/// Where the lexer came upon it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A token begins with it.
    Alone,
    /// In a word or a number.
    Fragment,
    /// Between quotes.
    Inside,
    /// In a comment.
    Comment,
}

/// A variable in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) span: Range<usize>,
    pub(crate) name: Range<usize>,
    pub(crate) place: Place,
    /// What follows it as `::type`, if a token begins here.
    pub(crate) cast: Option<Cast>,
}

/// What to do about a `::type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cast {
    /// A parameter of this type; 0 if the name is the server's affair, and then it stays behind the parameter.
    Bind(u32),
    /// The same, of a value that is an empty text when it is empty, and NULL only when it is unset.
    BindWhole(u32),
    /// `::id`: a quoted name.
    Identifier,
}

/// The variable that begins at `at`, if one does.
pub(crate) fn hole_at(text: &[u8], at: usize, place: Place, untyped: Untyped) -> Option<Hole> {
    let rest = text.get(at..)?.strip_prefix(b"$")?;
    let (name, mut end) = match rest.strip_prefix(b"{") {
        Some(inner) if untyped != Untyped::Keep => {
            let length = name_length(inner);
            (inner.get(length) == Some(&b'}') && length > 0).then_some(())?;
            (at + 2..at + 2 + length, at + 3 + length)
        }
        Some(_) => return None,
        None => {
            let length = match rest.first()? {
                b'1'..=b'9' => 1,
                _ => name_length(rest),
            };
            (length > 0).then_some(())?;
            (at + 1..at + 1 + length, at + 1 + length)
        }
    };
    let mut cast = None;
    let type_name = text.get(end..).and_then(|rest| rest.strip_prefix(b"::"));
    if let Some(type_name) = type_name.filter(|_| place == Place::Alone) {
        let length = name_length(type_name);
        let known = types::parameter(&type_name[..length]);
        // A type that only the server knows (`numeric(10,2)`, an enum) stays a cast of the parameter.
        cast = Some(known.unwrap_or(Cast::Bind(0)));
        if known.is_some() {
            end += 2 + length;
        }
    }
    (untyped != Untyped::Keep || cast.is_some()).then_some(Hole { span: at..end, name, place, cast })
}

/// The parameter in the form of 2018 that begins at `at`, if one does: `:name`, or `:i:name` where a letter is the type.
pub(crate) fn colon_at(text: &[u8], at: usize) -> Option<Hole> {
    let rest = text.get(at..)?.strip_prefix(b":")?;
    if rest.first()?.is_ascii_digit() {
        return None;
    }
    let first = name_length(rest);
    let typed = match rest.get(..first)? {
        [letter] => rest.get(2..).filter(|_| rest[1..].starts_with(b":")).map(|after| (*letter, name_length(after))),
        _ => None,
    };
    let (start, length, oid) = match typed {
        // `:n::int` is a name and a cast.
        Some((letter, length)) if length > 0 => (at + 3, length, letter_type(letter)),
        _ => (at + 1, first, types::TEXT),
    };
    (length > 0).then(|| Hole {
        span: at..start + length,
        name: start..start + length,
        place: Place::Alone,
        cast: Some(Cast::BindWhole(oid)),
    })
}

fn letter_type(letter: u8) -> u32 {
    match letter {
        b't' | b's' => types::TEXT,
        b'd' | b'i' | b'n' => 23,
        b'f' => 701,
        b'b' => 16,
        b'j' => 114,
        _ => 0,
    }
}

fn name_length(text: &[u8]) -> usize {
    text.iter().take_while(|byte| is_word(**byte) && byte.is_ascii()).count()
}
