//! ngx_http_upstream_module: the `upstream` block. What stands in it belongs to the rooms whose servers it names.

use crate::config::{Args, Body, Call, Contexts, Cx, Declarations, Directive, Fault, UpstreamDef};
use crate::http::Module;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_upstream", sections: &[], commands: COMMANDS, variables: &[] },
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[Directive {
    name: "upstream",
    contexts: Contexts::HTTP,
    args: Args::ONE,
    body: Body::Block,
    syntax: "name",
    doc: "A group of servers under a name, for the directives that pass requests on.",
    file: file!(),
    apply: upstream,
    ..Directive::BASE
}];

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
