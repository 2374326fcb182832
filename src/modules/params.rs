//! What ngx_http_scgi_module and ngx_http_uwsgi_module are told to pass on, and where they would keep long answers.
//!
//! nginx's stock configurations, and those for a server without root's rights, have these directives on the `http`
//! level, where they do nothing by themselves. They are checked here, so that such a file loads; the directives that
//! would use them are not supported.

use crate::config::value::{Template, Value};
use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, Status};
use crate::http::Module;
use crate::http::TempPath;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_uwsgi", sections: &[], commands: COMMANDS, variables: &[] },
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[
    row("uwsgi_param", "only `uwsgi_pass` uses it, which is not supported"),
    row("scgi_param", "only `scgi_pass` uses it, which is not supported"),
    temp_path("uwsgi_temp_path", "only `uwsgi_pass` uses it, which is not supported"),
    temp_path("scgi_temp_path", "only `scgi_pass` uses it, which is not supported"),
];

const fn temp_path(name: &'static str, reason: &'static str) -> Directive {
    Directive {
        name,
        args: TempPath::ARGS,
        once: true,
        syntax: TempPath::SYNTAX,
        doc: "Where nginx keeps long answers of an application server for a while.",
        apply: |cx, call| TempPath::parse(call, cx).map(drop),
        ..row(name, reason)
    }
}

const fn row(name: &'static str, reason: &'static str) -> Directive {
    Directive {
        name,
        contexts: Contexts::HTTP_ALL,
        args: Args::between(2, 3),
        syntax: "parameter value [if_not_empty]",
        status: Status::Ignored(reason),
        doc: "A parameter that nginx passes to an application server.",
        file: file!(),
        apply: param,
        ..Directive::BASE
    }
}

fn param(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if call.len() == 3 && call.bytes(2) != b"if_not_empty" {
        let fault = Fault::new(format!("invalid parameter \"{}\"", call.text(2))).word(2);
        return Err(fault.help("it may be: if_not_empty"));
    }
    Template::word_for_servers(call, 1, cx).map(drop)
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn words() {
        assert_eq!(findings("uwsgi_param A $host if_not_empty; scgi_param A b;"), [""; 0]);
        assert_eq!(findings("uwsgi_temp_path uwsgi; scgi_temp_path scgi 1 2;"), [""; 0]);
        assert_eq!(findings("uwsgi_temp_path uwsgi x;"), ["\"uwsgi_temp_path\" directive invalid value"]);
        assert_eq!(findings("uwsgi_param A b maybe;"), ["invalid parameter \"maybe\""]);
        assert_eq!(findings("uwsgi_param A $nosuch;"), [""; 0]);
    }
}
