//! ngx_postgres, in all its generations: locations answered by PostgreSQL, and NOTIFY for push_stream's channels.
//!
//! The module has had three lives: the original of 2015, a fork of 2018 with LISTEN, and today's rewrite. They share the
//! names of their directives; which of them a configuration was written for shows by its `postgres_server`
//! ([`reading`]). [`server`] is what stands in an upstream, [`query`] and what belongs to it in a location; [`run`]
//! answers a request, [`listen`] passes notifications on.
//!
//! Differs from the originals: values never become SQL ([`crate::pg::sql`]), notifications reach all workers by one
//! connection, the next server is tried where one fails, and what made the originals crash does not.

pub mod database;
mod escape;
mod failure;
mod interpolation;
mod listen;
mod methods;
mod output;
mod pass;
mod plan;
mod pools;
mod query;
mod reading;
mod redirect;
mod result;
mod rewrite;
mod run;
mod server;
mod set;
mod splice;
mod sql;
mod timeouts;
mod variables;

use crate::config::{Builder, Declarations, Directive, SectionRow};
use crate::http::Module;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "postgres",
        sections: &[
            timeouts::Patience::ROW,
            SectionRow::of::<server::Upstream>(&[]),
            SectionRow::of::<pass::Passing>(&[]),
            SectionRow::of::<query::Queries>(&[]),
            SectionRow::of::<interpolation::Interpolation>(&[]),
        ],
        commands: COMMANDS,
        variables: variables::VARIABLES,
    },
    finish: Some(finish),
    apply: Some(listen::apply),
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[
    server::COMMANDS[0],
    server::COMMANDS[1],
    server::COMMANDS[2],
    server::COMMANDS[3],
    server::COMMANDS[4],
    server::COMMANDS[5],
    pass::COMMANDS[0],
    query::COMMANDS[0],
    output::COMMANDS[0],
    rewrite::COMMANDS[0],
    set::COMMANDS[0],
    escape::COMMANDS[0],
    timeouts::COMMANDS[0],
    timeouts::COMMANDS[1],
    interpolation::COMMANDS[0],
];

fn finish(builder: &mut Builder) {
    pass::finish(builder);
    server::finish(builder);
    splice::finish(builder);
}
