//! ngx_set_misc: directives that give variables computed values, as steps of the rewrite phase beside `set`.
//!
//! Every one of them is a function of the texts it is given; [`step`] runs it and assigns what comes of it. A function that
//! can't do with what it is given answers the request with 500.

mod quote;
mod step;

use crate::config::{Args, Contexts, Declarations, Directive};
use crate::http::{Module, Quoting};

use self::step::{In, Outcome, filter};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "set_misc", sections: &[], commands: COMMANDS, variables: &[] },
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[
    Directive {
        name: "set_quote_json_str",
        doc: "Makes a JSON string of a text, `null` of an empty one.",
        apply: |cx, call| filter(cx, call, quote::json, Some(Quoting::Json)),
        ..FILTER
    },
    Directive {
        name: "set_quote_sql_str",
        doc: "Makes an SQL literal of a text, with backslashes.",
        apply: |cx, call| filter(cx, call, quote::sql, Some(Quoting::SqlBackslashes)),
        ..FILTER
    },
    Directive {
        name: "set_quote_pgsql_str",
        doc: "Makes an SQL literal of a text as PostgreSQL reads it: `E'...'`.",
        apply: |cx, call| filter(cx, call, quote::pgsql, Some(Quoting::SqlBackslashes)),
        ..FILTER
    },
];

/// A row for what changes one text.
const FILTER: Directive = Directive {
    contexts: Contexts::HTTP_REWRITE,
    args: Args::between(1, 2),
    syntax: "$variable [text]",
    file: file!(),
    ..Directive::BASE
};
