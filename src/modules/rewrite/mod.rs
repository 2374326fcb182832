//! ngx_http_rewrite_module: changes a request's path, answers it, or sets variables, step by step.

mod if_;
mod return_;
#[allow(clippy::module_inception, reason = "the directive has the module's name")]
mod rewrite;
mod set;

use crate::config::value::Flag;
use crate::config::{Args, Body, Call, Contexts, Cx, Declarations, Directive, Fault};
use crate::http::rewrite::{self as program, Flow, Step, push_step};
use crate::http::{Module, Phase, Request};
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_rewrite", sections: &[Settings::ROW], commands: COMMANDS, variables: &[] },
    phases: &[(Phase::ServerRewrite, program::run), (Phase::Rewrite, program::run)],
    ..Module::EMPTY
};

settings! {
    /// What the phase writes to the error log.
    pub struct Settings {
        /// Whether each match of an expression is logged, at `notice`.
        "rewrite_log" HTTP_REWRITE = "off" => pub log: Flag,
        /// Whether reading a variable that no `set` has reached yet is logged, at `warn`.
        "uninitialized_variable_warn" HTTP_REWRITE = "on" => pub warn_uninitialized: Flag,
    }
}

const COMMANDS: &[Directive] = &[
    Directive {
        name: "set",
        contexts: Contexts::REWRITE,
        args: Args::exactly(2),
        syntax: "$variable value",
        doc: "Gives a variable a value, which may be made of text and other variables.",
        file: file!(),
        apply: set::set,
        ..Directive::BASE
    },
    Directive {
        name: "if",
        contexts: Contexts::SERVER.union(Contexts::LOCATION),
        args: Args::SOME,
        body: Body::Block,
        syntax: "(condition)",
        doc: "Carries the steps of its block out when a condition holds, and in a location puts the block's settings \
              in the place of the location's. Conditions: `$variable` (neither empty nor `0`), `=` and `!=` a text, \
              `~`, `~*`, `!~`, `!~*` an expression, and `-f`, `-d`, `-e`, `-x` or their negations with `!` for a file, \
              a folder, either, or one that may be run.\n\nExample: `if ($request_method = POST) { return 405; }`",
        file: file!(),
        apply: if_::if_,
        ..Directive::BASE
    },
    Directive {
        name: "rewrite",
        contexts: Contexts::REWRITE,
        args: Args::between(2, 3),
        syntax: "expression replacement [last | break | redirect | permanent]",
        doc: "Replaces a path that an expression matches. The arguments are kept, after new ones, unless the \
              replacement ends with `?`. `last` finds the location anew, `break` stays in it, `redirect` (302) and \
              `permanent` (301) send the client there, as does a replacement that begins with `http://`, `https://` \
              or `$scheme`.\n\nExample: `rewrite ^/old/(.*)$ /new/$1 last;`",
        file: file!(),
        apply: rewrite::rewrite,
        ..Directive::BASE
    },
    Directive {
        name: "return",
        contexts: Contexts::REWRITE,
        args: Args::between(1, 2),
        syntax: "code [text] | code URL | URL",
        doc: "Answers with a status, and a text or the place to go to. The type of a text is that of the path's \
              extension, or `default_type`. 444 closes the connection without an answer.\n\n\
              Example: `return 301 https://example.org$request_uri;`",
        file: file!(),
        apply: return_::return_,
        ..Directive::BASE
    },
    Directive {
        name: "break",
        contexts: Contexts::REWRITE,
        args: Args::NONE,
        doc: "Ends the steps, and stays in the location.",
        file: file!(),
        apply: break_,
        ..Directive::BASE
    },
];

struct Break;

fn break_(cx: &mut Cx<'_>, _: &Call<'_>) -> Result<(), Fault> {
    push_step(cx, Break);
    Ok(())
}

impl Step for Break {
    fn run(&self, request: &mut Request) -> Flow {
        request.uri_changed = false;
        Flow::Stop
    }
}
