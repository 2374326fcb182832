//! What ngx_http_proxy_module is told of the requests that it makes.

use crate::config::value::Template;
use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, Status};
use crate::http::Module;
use crate::{choice, settings};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_proxy", sections: &[Ignored::ROW], commands: COMMANDS, variables: &[] },
    ..Module::EMPTY
};

const NO_PROXY: Status = Status::Ignored("only `proxy_pass` uses it, which is not supported yet");

settings! {
    /// What only `proxy_pass` uses.
    pub struct Ignored {
        /// The version of HTTP that upstreams are spoken to in.
        @NO_PROXY; "proxy_http_version" HTTP_ALL = "1.0" => pub http_version: HttpVersion,
    }
}

choice! {
    /// `proxy_http_version`
    pub enum HttpVersion {
        /// HTTP/1.0
        "1.0" => V10,
        /// HTTP/1.1
        "1.1" => V11,
    }
}

const COMMANDS: &[Directive] = &[Directive {
    name: "proxy_set_header",
    contexts: Contexts::HTTP_ALL,
    args: Args::exactly(2),
    syntax: "field value",
    status: NO_PROXY,
    doc: "Sets a header of the requests to upstreams.",
    file: file!(),
    apply: set_header,
    ..Directive::BASE
}];

fn set_header(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    Template::word(call, 1, cx).map(drop)
}
