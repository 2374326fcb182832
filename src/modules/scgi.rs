//! ngx_http_scgi_module: requests are passed to SCGI servers.
//!
//! What it has in common with other modules that pass requests on is in [`crate::http::upstream`]. Nothing is cached.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::{Args, Contexts, Declarations, Directive};
use crate::http::upstream::family::{buffering_settings, cache_settings, exchange_settings, script_settings};
use crate::http::upstream::script::Script;
use crate::http::upstream::{Payload, Plan, cache, pass};
use crate::http::wire::packets::Scgi;
use crate::http::{Module, Next, Request};
use crate::modules::upstream::{Pass, Passer, Variables, check_sizes, check_zones, pass_to};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_scgi",
        sections: &[Exchange::ROW, Buffering::ROW, Cache::ROW, Scripts::ROW],
        commands: &[PASS, cache::path_row("scgi_cache_path")],
        variables: &[],
    },
    finish: Some(|builder| {
        check_sizes::<Exchange, Buffering>(builder, "scgi");
        check_zones::<Cache>(builder, "scgi");
    }),
    ..Module::EMPTY
};

exchange_settings!(Exchange "scgi");
buffering_settings!(Buffering "scgi");
cache_settings!(Cache "scgi");
script_settings!(Scripts "scgi");

const PASS: Directive = Directive {
    name: "scgi_pass",
    contexts: Contexts::LOCATION.union(Contexts::IF_LOCATION),
    args: Args::ONE,
    syntax: "address",
    doc: "Passes a location's requests to an SCGI server, or to those of an `upstream`. It may have variables. The servers \
          want a parameter `SCGI` that is 1; `CONTENT_LENGTH` is always passed.\n\n\
          Examples: `scgi_pass 127.0.0.1:9000;`, `scgi_pass unix:/run/app.sock;`",
    file: file!(),
    apply: |cx, call| pass_to(cx, call, &PASSER),
    ..Directive::BASE
};

static PASSER: Passer = Passer {
    handler: |request| Next::later(run(request)),
    schema: "scgi://",
    secure_schema: None,
    variables: Variables::Yes,
};

async fn run(request: &mut Request) -> Next<'static> {
    let compiled = Arc::clone(&request.compiled);
    let settings = compiled.settings(request.location_id);
    let (exchange, buffering) = (&settings.get::<Exchange>().0, &settings.get::<Buffering>().0);
    let destination = match Pass::find(request).await {
        Ok(destination) => destination,
        Err(status) => return Next::Status(status),
    };
    let (body, length) = match Payload::receive(request, exchange, buffering).await {
        Ok(received) => received,
        Err(status) => return Next::Status(status),
    };
    let mut packet = Scgi::new(length);
    let put = |name: &[u8], value: &[u8]| packet.put(name, value);
    settings.get::<Scripts>().0.params.list(request, *exchange.pass_headers, put);
    let mut protocol = Script::new(request, true);
    let plan = Plan {
        upstream: destination.upstream,
        exchange,
        buffering,
        cache: &settings.get::<Cache>().0,
        schema: destination.schema,
        uri: Bytes::new(),
        head: packet.finish().into(),
        body,
        framing: None,
        tls: None,
    };
    pass(request, plan, &mut protocol).await
}
