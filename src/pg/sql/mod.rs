//! SQL templates that no value can break out of.
//!
//! A template is what stands in `postgres_query`: SQL with nginx variables in it. It is cut into PostgreSQL's tokens
//! once, when the configuration is read, so it is known of each variable where it stands. At a request the values are
//! placed, each in the way of its place, and the finished text is cut into tokens again: they must be the very tokens
//! of the template, or the statement is refused. A value therefore never is more than the one token, or the inside of
//! the one token, that the template has at its place.
//!
//! | place | a value becomes |
//! |---|---|
//! | `$name::type` | a parameter of that type, empty or unset: NULL |
//! | `$name::unknown_type` | a parameter, cast by the server |
//! | `$name::id` | a quoted name; empty or unset: `NULL` |
//! | `'...$name...'` and the other quotes | the inside, quoted for them |
//! | `pre_$name` | a part of the word: letters, digits, `_` |
//! | `= $name`, `limit $name`, `f($name)` ... | a number, `true`, `false`, `null`, or a text quoted before |
//! | `from $name`, `t.$name`, `as $name` ... | a name |
//! | `$name` elsewhere | a name, a number or a text quoted before |
//! | in a comment | nothing |
//! | in the body of `DO` or `CREATE FUNCTION` | letters, digits, `_`: it is code |
//!
//! A bare name is refused where a value belongs: with `where id = $arg_id` the client would write `id`, and get all rows.
//!
//! `LISTEN`, `UNLISTEN` and `UNLISTEN *` are no queries: they come out as [`Statement::Listen`] and so on, with the
//! channel's name decoded. The name is what was meant:
//!
//! * written in the template without quotes it is folded to lower case, as PostgreSQL does;
//! * written there in quotes it is kept;
//! * of a variable it is the value: decoded if `set_quote_json_str` or its kin made it, and otherwise just as it is, not
//!   folded, for a name that comes from outside was never an SQL word. (The original splices, so there `Foo` becomes
//!   `foo` and never matches the channel `Foo`.)

mod fragment;
mod lexer;
mod quote;
mod render;
mod template;
mod types;
mod variable;

pub use fragment::{expand_fragments, has_fragments};
pub use quote::{quote_identifier, quote_literal};
pub use render::{Refusal, RefusalReason, Statement, Value, fuzz_template};
pub use template::{Template, TemplateError};
pub use types::type_name;
pub use variable::Untyped;

/// The longest name that PostgreSQL does not cut, in bytes.
pub const MAX_NAME: usize = 63;

/// Where a variable's value comes from, which tells what its quotes mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Anything.
    #[default]
    Raw,
    /// `set_quote_json_str`: `"..."` or `null`.
    JsonQuoted,
    /// `postgres_escape`: `'...'` with doubled apostrophes, or `NULL`.
    SqlQuoted,
    /// `set_quote_sql_str`, `set_quote_pgsql_str`: `'...'` or `E'...'` with backslashes.
    SqlBackslashed,
}

#[cfg(test)]
mod tests;
