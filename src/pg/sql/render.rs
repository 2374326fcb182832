//! A template and the values of a request make a statement, or a refusal.

use std::ops::Range;

use bytes::Bytes;
use thiserror::Error;

use super::lexer::{Kind, Token, is_word, lex};
use super::quote::{decode_json, double_into, quote_identifier, quote_literal, unbackslash, undouble};
use super::template::{Command, Expected, Role, Slot, Template, excerpt};
use super::variable::Untyped;
use super::{MAX_NAME, Origin};
use crate::pg::connection::{Param, Query};
use crate::server::log::shown;

/// A variable's value at a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Value<'a> {
    /// The bytes; none if the variable is unset.
    pub bytes: Option<&'a [u8]>,
    /// What made them.
    pub origin: Origin,
}

impl<'a> Value<'a> {
    /// A value that nothing has quoted.
    #[must_use]
    pub fn raw(bytes: &'a [u8]) -> Self {
        Self { bytes: Some(bytes), origin: Origin::Raw }
    }
}

/// What a template became.
#[derive(Clone, Debug)]
pub enum Statement {
    /// For the pool.
    Query(Query),
    /// For the listener.
    Listen(String),
    /// For the listener.
    Unlisten(String),
    /// For the listener.
    UnlistenAll,
}

/// A value that may not be where it would have to be: the client's fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("value of \"${variable}\" refused: {reason}: \"{value}\"")]
pub struct Refusal {
    /// The variable, without `$`.
    pub variable: String,
    /// Why.
    pub reason: RefusalReason,
    /// The beginning of the value, escaped for a log.
    pub value: String,
}

/// Why a value is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RefusalReason {
    /// It would change the statement.
    #[error("it is not one SQL token here")]
    NotOneToken,
    /// A name from outside where a value belongs would compare a column with itself.
    #[error("it is a name where a value is expected")]
    NameForValue,
    /// As `from 5`.
    #[error("it is not a name")]
    NotAName,
    /// Part of a word, or of code.
    #[error("only letters, digits and \"_\" are allowed here")]
    NotAWord,
    /// Nothing where SQL needs something.
    #[error("it is empty")]
    Empty,
    /// The text of a statement is UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// PostgreSQL knows no NUL in a text.
    #[error("it contains a NUL byte")]
    Nul,
    /// It is not quoted as it claims to be.
    #[error("its quoting is broken")]
    BrokenQuoting,
    /// PostgreSQL would cut it, and never match it.
    #[error("a name of more than {MAX_NAME} bytes")]
    NameTooLong,
}

use RefusalReason as Reason;

/// A value without the quotes that were put around it.
enum Meaning<'a> {
    Null,
    Raw(&'a str),
    /// It was JSON, which in SQL looks like a quoted name.
    Json(String),
    Text(String),
}

impl Template {
    /// Puts the values in place; `values` are those of [`variables`](Self::variables), in the same order.
    pub fn render(&self, values: &[Value<'_>]) -> Result<Statement, Refusal> {
        match self.command {
            Command::Listen(token) => self.channel(token, values).map(Statement::Listen),
            Command::Unlisten(token) => self.channel(token, values).map(Statement::Unlisten),
            Command::UnlistenAll => Ok(Statement::UnlistenAll),
            Command::Query => self.query(values).map(Statement::Query),
        }
    }

    /// Pastes the values in as the original did: whoever can choose a value can choose the statement. For who must have
    /// it (`postgres_unsafe_interpolation`); variables with a type stay parameters.
    pub fn paste(&self, values: &[Value<'_>]) -> Result<Query, Refusal> {
        let mut out = Output::default();
        for token in &self.tokens {
            for piece in self.pieces(token) {
                let slot = match piece {
                    Piece::Text(text) => {
                        out.text(text);
                        continue;
                    }
                    Piece::Slot(slot) => slot,
                };
                let value = values.get(slot.variable).copied().unwrap_or_default();
                let placed = match slot.role {
                    Role::Bound(_) | Role::BoundWhole(_) | Role::Identifier => out.place(slot.role, value),
                    _ => std::str::from_utf8(value.bytes.unwrap_or_default())
                        .map_err(|_| Reason::NotUtf8)
                        .and_then(no_nul)
                        .map(|text| out.sql.push_str(text)),
                };
                placed.map_err(|reason| self.refusal(slot, value, reason))?;
            }
        }
        Ok(Query { sql: out.sql, params: out.params, reusable: self.is_constant, ..Query::default() })
    }

    fn query(&self, values: &[Value<'_>]) -> Result<Query, Refusal> {
        let mut out = Output::default();
        for token in &self.tokens {
            let start = out.sql.len();
            for piece in self.pieces(token) {
                match piece {
                    Piece::Text(text) => out.text(text),
                    Piece::Slot(slot) => {
                        let value = values.get(slot.variable).copied().unwrap_or_default();
                        out.place(slot.role, value).map_err(|reason| self.refusal(slot, value, reason))?;
                    }
                }
            }
            if token.is_significant() {
                out.spans.push(start..out.sql.len());
            }
        }
        if !self.is_constant {
            self.check(&out, values)?;
        }
        Ok(Query { sql: out.sql, params: out.params, reusable: self.is_constant, ..Query::default() })
    }

    /// The proof: the finished text has the template's tokens at the places where they were put.
    fn check(&self, out: &Output, values: &[Value<'_>]) -> Result<(), Refusal> {
        let expected = self.tokens.iter().filter(|token| token.is_significant()).zip(&out.spans);
        let lexed = lex(&out.sql, None).unwrap_or_default();
        let mut found = lexed.tokens.iter().filter(|token| token.is_significant());
        // Where nothing else is known the first value in the text is to blame.
        let mut blamed =
            self.slots.iter().find(|slot| !matches!(slot.role, Role::Bound(_) | Role::BoundWhole(_) | Role::Comment));
        for (token, span) in expected {
            if !token.holes.is_empty() {
                blamed = self.slots.get(token.holes.start);
            }
            let fits = found.next().is_some_and(|found| found.span == *span && kind_fits(token, found.kind));
            // `$cmd $channel` must not smuggle a LISTEN past the listener.
            let is_command = span.start == out.spans[0].start && !token.holes.is_empty();
            if !fits || (is_command && is_listen(&out.sql[span.clone()])) {
                return self.refuse(blamed, values);
            }
        }
        if found.next().is_some() { self.refuse(blamed, values) } else { Ok(()) }
    }

    fn refuse(&self, slot: Option<&Slot>, values: &[Value<'_>]) -> Result<(), Refusal> {
        // A template that is not constant has a slot to blame.
        let Some(slot) = slot else { return Ok(()) };
        let value = values.get(slot.variable).copied().unwrap_or_default();
        Err(self.refusal(slot, value, Reason::NotOneToken))
    }

    /// The channel's name that the operand of LISTEN means.
    fn channel(&self, token: usize, values: &[Value<'_>]) -> Result<String, Refusal> {
        let token = &self.tokens[token];
        let mut name = String::new();
        let mut last = None;
        for piece in self.pieces(token) {
            match piece {
                Piece::Text(text) if token.kind == Kind::QuotedName => name.push_str(text),
                Piece::Text(text) => name.push_str(&text.to_ascii_lowercase()),
                Piece::Slot(slot) => {
                    let value = values.get(slot.variable).copied().unwrap_or_default();
                    last = Some((slot, value));
                    let meant = channel_part(value).map_err(|reason| self.refusal(slot, value, reason))?;
                    if token.kind == Kind::QuotedName {
                        double_into(&mut name, &meant, &['"']);
                    } else {
                        name.push_str(&meant);
                    }
                }
            }
        }
        if token.kind == Kind::QuotedName {
            name = undouble(&name, '"').unwrap_or(name);
        }
        // Whether it is too long is for the listener to say: it may be the escaped form of a shorter one.
        match last {
            _ if !name.is_empty() => Ok(name),
            Some((slot, value)) => Err(self.refusal(slot, value, Reason::Empty)),
            None => Err(Refusal { variable: String::new(), reason: Reason::Empty, value: String::new() }),
        }
    }

    fn pieces<'t>(&'t self, token: &'t Token) -> impl Iterator<Item = Piece<'t>> {
        let mut at = token.span.start;
        let mut pieces = Vec::with_capacity(2 * token.holes.len() + 1);
        for slot in &self.slots[token.holes.clone()] {
            pieces.push(Piece::Text(&self.text[at..slot.hole.span.start]));
            pieces.push(Piece::Slot(slot));
            at = slot.hole.span.end;
        }
        pieces.push(Piece::Text(&self.text[at..token.span.end]));
        pieces.into_iter()
    }

    fn refusal(&self, slot: &Slot, value: Value<'_>, reason: Reason) -> Refusal {
        let quoted = shown(value.bytes.unwrap_or_default()).to_string();
        Refusal { variable: self.variables[slot.variable].clone(), reason, value: excerpt(&quoted) }
    }
}

enum Piece<'t> {
    Text(&'t str),
    Slot(&'t Slot),
}

fn is_listen(word: &str) -> bool {
    word.eq_ignore_ascii_case("listen") || word.eq_ignore_ascii_case("unlisten")
}

/// Whether a token may be of another kind than the template's: only where the whole of it was a variable.
fn kind_fits(token: &Token, found: Kind) -> bool {
    token.kind == found
        || match token.kind {
            Kind::Word => !token.holes.is_empty() && matches!(found, Kind::Number | Kind::Text | Kind::QuotedName),
            // `$name::id`
            Kind::Parameter => !token.holes.is_empty() && matches!(found, Kind::QuotedName | Kind::Word),
            _ => false,
        }
}

/// What a value gives to a channel's name.
fn channel_part(value: Value<'_>) -> Result<String, Reason> {
    match meaning(value)? {
        Meaning::Null => Err(Reason::Empty),
        Meaning::Raw(text) => Ok(text.to_owned()),
        Meaning::Json(text) | Meaning::Text(text) => Ok(text),
    }
}

fn meaning(value: Value<'_>) -> Result<Meaning<'_>, Reason> {
    let text = std::str::from_utf8(value.bytes.unwrap_or_default()).map_err(|_| Reason::NotUtf8)?;
    let decoded = match value.origin {
        Origin::Raw => return no_nul(text).map(Meaning::Raw),
        Origin::JsonQuoted if text == "null" => return Ok(Meaning::Null),
        Origin::SqlQuoted if text == "NULL" => return Ok(Meaning::Null),
        Origin::JsonQuoted => decode_json(text),
        Origin::SqlQuoted => undouble(text, '\''),
        Origin::SqlBackslashed => unbackslash(text),
    };
    let decoded = decoded.ok_or(Reason::BrokenQuoting)?;
    no_nul(&decoded)?;
    Ok(if value.origin == Origin::JsonQuoted { Meaning::Json(decoded) } else { Meaning::Text(decoded) })
}

fn no_nul(text: &str) -> Result<&str, Reason> {
    if text.contains('\0') { Err(Reason::Nul) } else { Ok(text) }
}

#[derive(Default)]
struct Output {
    sql: String,
    params: Vec<Param>,
    ends_in_parameter: bool,
    /// Where each significant token was put.
    spans: Vec<Range<usize>>,
}

impl Output {
    /// Text of the template. A word that follows a parameter at once (`$x::6ä`) must not grow together with its number.
    fn text(&mut self, text: &str) {
        if self.ends_in_parameter && text.bytes().next().is_some_and(is_word) {
            self.sql.push(' ');
        }
        self.ends_in_parameter &= text.is_empty();
        self.sql.push_str(text);
    }

    fn place(&mut self, role: Role, value: Value<'_>) -> Result<(), Reason> {
        match role {
            Role::Comment => {}
            Role::Bound(oid) | Role::BoundWhole(oid) => {
                let bound = match (role, value.bytes) {
                    (Role::BoundWhole(_), Some(b"")) => Some(Bytes::new()),
                    _ => bound(value)?,
                };
                self.params.push(Param { oid, value: bound });
                self.sql.push_str(&format!("${}", self.params.len()));
                self.ends_in_parameter = true;
                return Ok(());
            }
            Role::Identifier => match meaning(value)? {
                Meaning::Null | Meaning::Raw("") => self.sql.push_str("NULL"),
                Meaning::Raw(name) => self.sql.push_str(&name_token(name)?),
                Meaning::Json(name) | Meaning::Text(name) => self.sql.push_str(&name_token(&name)?),
            },
            Role::Bare(expected) => self.sql.push_str(&bare(expected, meaning(value)?)?),
            Role::WordPart => match meaning(value)? {
                Meaning::Raw(text) if text.bytes().all(is_word) => self.sql.push_str(text),
                Meaning::Json(text) | Meaning::Text(text) if text.bytes().all(is_word) => self.sql.push_str(&text),
                _ => return Err(Reason::NotAWord),
            },
            Role::Inside(kind) => self.place_inside(kind, value)?,
        }
        self.ends_in_parameter = false;
        Ok(())
    }

    fn place_inside(&mut self, kind: Kind, value: Value<'_>) -> Result<(), Reason> {
        let is_name = matches!(kind, Kind::QuotedName | Kind::UnicodeName);
        let text = match meaning(value)? {
            Meaning::Null if is_name => return Err(Reason::Empty),
            Meaning::Null if value.origin == Origin::JsonQuoted => "null".to_owned(),
            Meaning::Null => String::new(),
            Meaning::Raw(text) => text.to_owned(),
            Meaning::Json(name) if is_name => name,
            // Within a text, JSON is wanted as JSON: '{"id": $id}'.
            Meaning::Json(_) => String::from_utf8_lossy(value.bytes.unwrap_or_default()).into_owned(),
            Meaning::Text(text) => text,
        };
        let marks: &[char] = match kind {
            Kind::QuotedName => &['"'],
            Kind::UnicodeName => &['"', '\\'],
            Kind::EscapeText | Kind::UnicodeText => &['\'', '\\'],
            // What does not fit between the dollars fails the check.
            Kind::DollarText => &[],
            _ => &['\''],
        };
        double_into(&mut self.sql, &text, marks);
        Ok(())
    }
}

/// The value of a parameter: what the SQL quoting says, and everything else as it is.
fn bound(value: Value<'_>) -> Result<Option<Bytes>, Reason> {
    let bytes = value.bytes.unwrap_or_default();
    if bytes.is_empty() {
        return Ok(None);
    }
    match value.origin {
        Origin::Raw => Ok(Some(Bytes::copy_from_slice(bytes))),
        Origin::JsonQuoted | Origin::SqlQuoted | Origin::SqlBackslashed => match meaning(value)? {
            Meaning::Null => Ok(None),
            // As JSON: `$quoted::json`.
            Meaning::Raw(_) | Meaning::Json(_) => Ok(Some(Bytes::copy_from_slice(bytes))),
            Meaning::Text(text) => Ok(Some(Bytes::from(text))),
        },
    }
}

fn name_token(name: &str) -> Result<String, Reason> {
    match name.len() {
        0 => Err(Reason::Empty),
        1..=MAX_NAME => Ok(quote_identifier(name)),
        _ => Err(Reason::NameTooLong),
    }
}

/// A value as a token of its own.
fn bare(expected: Expected, meaning: Meaning<'_>) -> Result<String, Reason> {
    let takes_name = expected != Expected::Value;
    let takes_value = expected != Expected::Name;
    match meaning {
        Meaning::Null if takes_value => Ok("NULL".to_owned()),
        Meaning::Null => Err(Reason::Empty),
        Meaning::Json(name) if takes_name => name_token(&name),
        Meaning::Json(_) => Err(Reason::NameForValue),
        Meaning::Text(text) if takes_value => Ok(quote_literal(&text)),
        Meaning::Text(_) => Err(Reason::NotAName),
        Meaning::Raw("") => Err(Reason::Empty),
        Meaning::Raw(text) => bare_raw(text, takes_name, takes_value),
    }
}

fn bare_raw(text: &str, takes_name: bool, takes_value: bool) -> Result<String, Reason> {
    if is_number(text) {
        return if takes_value { Ok(text.to_owned()) } else { Err(Reason::NotAName) };
    }
    // A sign would be a token of its own, and `a -$x` must not begin a comment.
    if text.strip_prefix('-').is_some_and(is_number) {
        return if takes_value { Ok(quote_literal(text)) } else { Err(Reason::NotAName) };
    }
    if is_name(text) {
        let is_constant = ["true", "false", "null"].iter().any(|constant| text.eq_ignore_ascii_case(constant));
        return if takes_name || is_constant { Ok(text.to_owned()) } else { Err(Reason::NameForValue) };
    }
    if let Some(inner) = undouble(text, '\'') {
        return if takes_value { Ok(quote_literal(&inner)) } else { Err(Reason::NotAName) };
    }
    match undouble(text, '"') {
        Some(name) if takes_name => name_token(&name),
        Some(_) => Err(Reason::NameForValue),
        None => Err(Reason::NotOneToken),
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.bytes().all(is_word) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Digits with a fraction and an exponent, as PostgreSQL has them.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    digits(whole) && digits(fraction) && exponent.is_none_or(|text| digits(text.trim_start_matches(['+', '-'])))
}

/// For the fuzzer: whatever the template and the value, the tokens are those of a harmless value, or it is refused.
#[doc(hidden)]
pub fn fuzz_template(template: &str, value: &[u8]) {
    for untyped in [Untyped::Place, Untyped::Keep, Untyped::Colon] {
        let Ok(template) = Template::parse(template, untyped) else {
            continue;
        };
        // Without variables the text is the configuration's own, and the server's to judge.
        if template.is_constant {
            continue;
        }
        for origin in [Origin::Raw, Origin::JsonQuoted, Origin::SqlQuoted, Origin::SqlBackslashed] {
            let values = vec![Value { bytes: Some(value), origin }; template.variables.len()];
            if let Ok(Statement::Query(query)) = template.render(&values) {
                let tokens = |tokens: &[Token]| tokens.iter().filter(|token| token.is_significant()).count();
                let rendered = lex(&query.sql, None).unwrap_or_default();
                assert_eq!(tokens(&rendered.tokens), tokens(&template.tokens), "{}", query.sql);
            }
        }
    }
}
