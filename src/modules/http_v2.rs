//! ngx_http_v2_module: HTTP/2 to clients. The protocol itself is in [`crate::http::v2`].

use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, VariableRow};
use crate::http::Module;
use crate::http::v2::name;
use crate::http::v2::settings::{Chunks, Http2, Receiving};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_v2",
        sections: &[Http2::ROW, Receiving::ROW, Chunks::ROW],
        commands: COMMANDS,
        variables: VARIABLES,
    },
    ..Module::EMPTY
};

const VARIABLES: &[VariableRow] = &[VariableRow::new(
    "http2",
    |request, _| Some(name(request)),
    "`h2` for HTTP/2 over TLS, `h2c` for HTTP/2 on a plain connection, else empty.",
)];

/// What nginx only warns of by now, whatever it says.
const COMMANDS: &[Directive] = &[
    obsolete("http2_recv_timeout", Contexts::HTTP_SERVER),
    obsolete("http2_idle_timeout", Contexts::HTTP_SERVER),
    obsolete("http2_max_requests", Contexts::HTTP_SERVER),
    obsolete("http2_max_field_size", Contexts::HTTP_SERVER),
    obsolete("http2_max_header_size", Contexts::HTTP_SERVER),
    obsolete("http2_max_concurrent_pushes", Contexts::HTTP_SERVER),
    obsolete("http2_push", Contexts::HTTP_ALL),
    obsolete("http2_push_preload", Contexts::HTTP_ALL),
];

/// What is to be written in their place.
const INSTEAD: &[(&str, &str)] = &[
    ("http2_recv_timeout", "client_header_timeout"),
    ("http2_idle_timeout", "keepalive_timeout"),
    ("http2_max_requests", "keepalive_requests"),
    ("http2_max_field_size", "large_client_header_buffers"),
    ("http2_max_header_size", "large_client_header_buffers"),
];

const fn obsolete(name: &'static str, contexts: Contexts) -> Directive {
    let row = Directive::ignored(name, contexts, Args::ONE, "obsolete, in nginx too", "Obsolete.");
    Directive { syntax: "value", file: file!(), apply: warn, ..row }
}

fn warn(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let name = call.name();
    let then = match INSTEAD.iter().find(|(old, _)| *old == name) {
        Some((_, instead)) => format!("use the \"{instead}\" directive instead"),
        None => "ignored".to_owned(),
    };
    cx.warn("obsolete", format!("the \"{name}\" directive is obsolete, {then}"), call);
    Ok(())
}
