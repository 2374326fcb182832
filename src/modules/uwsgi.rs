//! ngx_http_uwsgi_module: requests are passed to uwsgi servers, such as those of Python's applications.
//!
//! What it has in common with other modules that pass requests on is in [`crate::http::upstream`]. Nothing is cached.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::value::{Text, Value, parse_number};
use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault};
use crate::http::upstream::family::{
    buffering_settings, cache_settings, exchange_settings, script_settings, tls_settings,
};
use crate::http::upstream::script::Script;
use crate::http::upstream::{Payload, Plan, cache, pass};
use crate::http::wire::packets::{Modifiers, Uwsgi};
use crate::http::{Module, Next, Request};
use crate::modules::upstream::{Pass, Passer, RawPass, Variables, check_sizes, check_tls, check_zones, pass_to};
use crate::server::log::Level;
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_uwsgi",
        sections: &[Exchange::ROW, Buffering::ROW, Tls::ROW, Cache::ROW, Scripts::ROW, Settings::ROW],
        commands: &[PASS, cache::path_row("uwsgi_cache_path")],
        variables: &[],
    },
    finish: Some(|builder| {
        check_sizes::<Exchange, Buffering>(builder, "uwsgi");
        check_zones::<Cache>(builder, "uwsgi");
        check_tls::<Tls>(builder, "uwsgi", |builder, number| {
            builder.peek_number::<Pass>(number).is_some_and(|all| all.iter().any(RawPass::may_be_tls))
        });
    }),
    // Certificates and keys are read while the rights are there to do it.
    apply: Some(|compiled, _| {
        for settings in compiled.config.settings.iter().filter(|settings| settings.get::<Pass>().may_be_tls()) {
            // What can't be made is said by the request that would need it.
            drop(settings.get::<Tls>().0.prepare("uwsgi"));
        }
    }),
    ..Module::EMPTY
};

exchange_settings!(Exchange "uwsgi");
buffering_settings!(Buffering "uwsgi");
tls_settings!(Tls "uwsgi");
cache_settings!(Cache "uwsgi");
script_settings!(Scripts "uwsgi");

settings! {
    /// What is particular to uwsgi.
    pub struct Settings {
        /// The first modifier of the packet: what kind of application is asked. 0 is Python's.
        "uwsgi_modifier1" HTTP_ALL = "0" => pub modifier1: Modifier,
        /// The second modifier of the packet.
        "uwsgi_modifier2" HTTP_ALL = "0" => pub modifier2: Modifier,
        /// What stands at the end of the packet, behind the parameters.
        "uwsgi_string" HTTP_ALL = "" => pub last: Text,
    }
}

const PASS: Directive = Directive {
    name: "uwsgi_pass",
    contexts: Contexts::LOCATION.union(Contexts::IF_LOCATION),
    args: Args::ONE,
    syntax: "[uwsgi:// | suwsgi://]address",
    doc: "Passes a location's requests to a uwsgi server, or to those of an `upstream`; with `suwsgi://` by TLS. It may have \
          variables.\n\nExamples: `uwsgi_pass 127.0.0.1:3031;`, `uwsgi_pass unix:/run/uwsgi/app.sock;`",
    file: file!(),
    apply: |cx, call| pass_to(cx, call, &PASSER),
    ..Directive::BASE
};

static PASSER: Passer = Passer {
    handler: |request| Next::later(run(request)),
    schema: "uwsgi://",
    secure_schema: Some("suwsgi://"),
    variables: Variables::Yes,
};

/// A number of one byte.
#[derive(Clone, Copy, Debug)]
pub struct Modifier(u8);

impl Value for Modifier {
    const SYNTAX: &'static str = "number";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        let number = parse_number(call.bytes(0)).ok_or_else(|| call.fault("invalid number").word(0))?;
        let number = u8::try_from(number).map_err(|_| Fault::new("value must be between 0 and 255").word(0))?;
        Ok(Self(number))
    }

    fn from_default(_: &'static str) -> Self {
        Self(0)
    }
}

async fn run(request: &mut Request) -> Next<'static> {
    let compiled = Arc::clone(&request.compiled);
    let settings = compiled.settings(request.location_id);
    let (exchange, own) = (&settings.get::<Exchange>().0, settings.get::<Settings>());
    let buffering = &settings.get::<Buffering>().0;
    let destination = match Pass::find(request).await {
        Ok(destination) => destination,
        Err(status) => return Next::Status(status),
    };
    let tls = &settings.get::<Tls>().0;
    let tls = match destination.tls_host.map(|host| tls.securing("uwsgi", request, &host)).transpose() {
        Ok(tls) => tls,
        Err(status) => return Next::Status(status),
    };
    let (body, _) = match Payload::receive(request, exchange, buffering).await {
        Ok(received) => received,
        Err(status) => return Next::Status(status),
    };
    let mut packet = Uwsgi::new(Modifiers(own.modifier1.0, own.modifier2.0));
    let put = |name: &[u8], value: &[u8]| packet.put(name, value);
    settings.get::<Scripts>().0.params.list(request, *exchange.pass_headers, put);
    let head = match packet.finish(&own.last) {
        Ok(head) => head.into(),
        Err(length) => {
            request.log(Level::Alert, &format!("uwsgi request is too big: {length}"));
            return Next::Status(500);
        }
    };
    // Other than its relatives, nginx's module passes `Status` on.
    let mut protocol = Script::new(request, false);
    let plan = Plan {
        upstream: destination.upstream,
        exchange,
        buffering,
        cache: &settings.get::<Cache>().0,
        schema: destination.schema,
        uri: Bytes::new(),
        head,
        body,
        framing: None,
        tls,
    };
    pass(request, plan, &mut protocol).await
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn words() {
        let check = |directives: &str, expected: &[&str]| assert_eq!(findings(directives), expected, "{directives}");
        check("uwsgi_modifier1 255; uwsgi_modifier2 0; uwsgi_string !;", &[]);
        check("uwsgi_modifier1 256;", &["value must be between 0 and 255"]);
        check("uwsgi_modifier1 x;", &["\"uwsgi_modifier1\" directive invalid number"]);
        check("uwsgi_temp_path uwsgi; uwsgi_store /data$uri; uwsgi_cache_key $uri;", &[]);
        check("uwsgi_next_upstream http_500 http_503 updating; proxy_next_upstream http_502 http_504;", &[]);
        check("uwsgi_next_upstream http_502;", &["invalid value \"http_502\""]);
        check("uwsgi_temp_path uwsgi x;", &["\"uwsgi_temp_path\" directive invalid value"]);
        let server = |directives: &str| format!("uwsgi_ssl_verify on; server {{ location / {{ {directives} }} }}");
        check(&server("uwsgi_pass 127.0.0.1:1;"), &[]);
        check(&server("uwsgi_pass suwsgi://127.0.0.1:1;"), &["no uwsgi_ssl_trusted_certificate for uwsgi_ssl_verify"]);
    }
}
