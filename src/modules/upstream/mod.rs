//! ngx_http_upstream_module: the `upstream` block. What stands in it belongs to the rooms whose servers it names.

use crate::config::value::{parse_number, parse_sec};
use crate::config::{Args, Body, Call, Contexts, Cx, Declarations, Directive, Fault, Status, UpstreamDef};
use crate::http::Module;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_upstream", sections: &[], commands: COMMANDS, variables: &[] },
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[
    Directive {
        name: "upstream",
        contexts: Contexts::HTTP,
        args: Args::ONE,
        body: Body::Block,
        syntax: "name",
        doc: "A group of servers under a name, for the directives that pass requests on.",
        file: file!(),
        apply: upstream,
        ..Directive::BASE
    },
    Directive {
        name: "server",
        contexts: Contexts::UPSTREAM,
        args: Args::SOME,
        syntax: "address [weight=n] [max_conns=n] [max_fails=n] [fail_timeout=time] [backup] [down]",
        status: Status::Ignored("no directive passes requests to such a server yet"),
        doc: "A server of the group.",
        file: file!(),
        apply: server,
        ..Directive::BASE
    },
];

fn upstream(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let name = call.text(0).into_owned();
    if cx.model().upstream(&name).is_some() {
        return Err(Fault::new(format!("duplicate upstream \"{name}\"")).word(0).code("duplicate"));
    }
    let scope = cx.open(Contexts::UPSTREAM, call);
    cx.model().upstreams.push(UpstreamDef { scope, name, has_servers: false });
    cx.walk(scope, call);
    let is_empty = cx.model().upstreams.iter().any(|upstream| upstream.scope == scope && !upstream.has_servers);
    if is_empty {
        return Err(Fault::new("no servers are inside upstream").code("empty-upstream"));
    }
    Ok(())
}

fn server(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    for index in 1..call.len() {
        let word = call.text(index);
        let is_valid = match word.split_once('=') {
            Some(("weight", value)) => parse_number(value.as_bytes()).is_some_and(|weight| weight > 0),
            Some(("max_conns" | "max_fails", value)) => parse_number(value.as_bytes()).is_some(),
            Some(("fail_timeout" | "slow_start", value)) => parse_sec(value.as_bytes()).is_some(),
            _ => matches!(&*word, "backup" | "down" | "resolve"),
        };
        if !is_valid {
            return Err(Fault::new(format!("invalid parameter \"{word}\"")).word(index));
        }
    }
    if let Some(upstream) = cx.upstream() {
        upstream.has_servers = true;
    }
    Ok(())
}
