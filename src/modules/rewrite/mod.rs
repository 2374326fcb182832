//! ngx_http_rewrite_module: changes a request's path, answers it, or sets variables, step by step.

mod if_;
mod return_;
#[allow(clippy::module_inception, reason = "the directive has the module's name")]
mod rewrite;
mod set;

use crate::config::value::Flag;
use crate::config::{Args, Body, Call, Contexts, Cx, Declarations, Directive, Fault};
use crate::http::rewrite::{self as program, Flow, Program, Step, push_step};
use crate::http::{Module, Phase, Request};
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_rewrite", sections: &[Settings::ROW], commands: COMMANDS, variables: &[] },
    phases: &[(Phase::ServerRewrite, program::run), (Phase::Rewrite, program::run)],
    acts: Some(|settings| settings.get::<Program>().has_steps()),
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

#[cfg(test)]
mod tests {
    use crate::config::{LoadOptions, load_text};

    #[test]
    fn messages() {
        let check = |steps: &str, expected: &[&str]| {
            for text in [
                format!("events {{}} http {{ server {{ {steps} }} }}"),
                format!("events {{}} http {{ server {{ location / {{ {steps} }} }} }}"),
            ] {
                let config = load_text(LoadOptions { offline: true, ..LoadOptions::default() }, text.as_bytes());
                let refused = config.built.diagnostics.iter().filter(|finding| finding.severity.refuses());
                let got: Vec<_> = refused.map(|finding| &finding.message).collect();
                assert_eq!(got, expected, "{text}");
            }
        };
        for right in [
            "return 999;",
            "return 200 $1;",
            "return 404 '';",
            "return $scheme://x;",
            "set $x 1; set $args x=$x; set $arg_y z; return 200 $x;",
            "rewrite ^/(.*)$ /$2 last;",
            "rewrite ^ http://x/$host permanent;",
            "rewrite ^ /x?;",
            "if ($host) { break; }",
            "if ( $host ) { break; }",
            "if ( $host = \"a b\" ) { return 200; }",
            "if ($host = '') { return 200; }",
            "if ($host != $uri) { rewrite ^ /x; }",
            "if ($host !~* (?<part>x)$) { set $y $part; }",
            "if (!-f $document_root/x) { return 404; }",
            "if (-x /bin/sh) { break; }",
        ] {
            check(right, &[]);
        }
        check("return 1000;", &["invalid return code \"1000\""]);
        check("return -1;", &["invalid return code \"-1\""]);
        check("return /path;", &["invalid return code \"/path\""]);
        check("return http://x y;", &["invalid return code \"http://x\""]);
        check("return 200 $;", &["invalid variable name"]);
        check("return 200 a b;", &["invalid number of arguments in \"return\" directive"]);
        check("set x 1;", &["invalid variable name \"x\""]);
        check("set $host x;", &["the duplicate \"host\" variable"]);
        check("rewrite ( /x;", &["pcre2_compile() failed: missing closing parenthesis in \"(\""]);
        check("rewrite ^ /x later;", &["invalid parameter \"later\""]);
        check("rewrite ^ '';", &["empty replacement"]);
        check("if $host { }", &["invalid condition \"$host\""]);
        check("if (host) { }", &["invalid condition \"host\""]);
        check("if ($host { }", &["invalid condition \"$host\""]);
        check("if () { }", &["invalid condition \"\""]);
        check("if ( ) { }", &["invalid condition \")\""]);
        check("if ( { }", &["invalid condition \"(\""]);
        check("if ($host ~ () { }", &["pcre2_compile() failed: missing closing parenthesis in \"(\""]);
        check("if ($host = x y) { }", &["invalid condition \"$host\""]);
        check("if ($host == x) { }", &["unexpected \"==\" in condition"]);
        check("if (-f) { }", &["invalid condition \"-f\""]);
        check("if (-q $uri) { }", &["invalid condition \"-q\""]);
        check("if ($nosuch) { }", &["unknown \"nosuch\" variable"]);
        check("if ($host) { listen 80; }", &["\"listen\" directive is not allowed here"]);
    }
}
