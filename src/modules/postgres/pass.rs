//! `postgres_pass`: which upstream answers a location's requests.

use std::sync::Arc;

use bytes::Bytes;

use super::reading::Reading;
use super::server::{Servers, Upstream, conninfo_fault, error};
use crate::compile::Compiled;
use crate::config::value::Template;
use crate::config::{
    Args, Builder, Call, Contexts, Cx, Diagnostic, Directive, Fault, Merge, Position, Section, Severity, Slot,
};
use crate::http::Request;
use crate::http::content::Content;
use crate::server::log::{Level, shown};

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "postgres_pass",
    contexts: Contexts::LOCATION.union(Contexts::IF_LOCATION),
    args: Args::SOME,
    syntax: "upstream | connection string",
    doc: "Lets a location's requests be answered by PostgreSQL: by the upstream of that name, which may hold variables, \
          or by the server of a libpq connection string in several words; its connections are not kept.\n\n\
          Example: `postgres_pass host=127.0.0.1 dbname=test user=test;`",
    file: file!(),
    apply: postgres_pass,
    ..Directive::BASE
}];

/// Where a location's queries go.
#[derive(Clone, Debug)]
pub(super) struct Passing {
    pub(super) to: Option<To>,
    /// Where it was said.
    pub(super) at: Option<Position>,
}

#[derive(Clone, Debug)]
pub(super) enum To {
    /// An upstream; the name as written.
    Name(Template, String),
    /// A server without an upstream.
    Direct(Arc<Servers>),
}

/// What a block says.
#[derive(Debug, Default)]
pub(super) struct RawPassing {
    to: Option<To>,
    at: Option<Position>,
    /// The grammar of the upstream, if it is known.
    pub(super) reading: Option<Reading>,
}

impl Section for Passing {
    type Raw = RawPassing;
    const ALWAYS: bool = true;

    fn merge(raw: &RawPassing, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        // Like the handler, it goes only into the blocks that belong to the location.
        let inside = Contexts::IF_LOCATION | Contexts::LIMIT_EXCEPT;
        match parent.filter(|_| raw.to.is_none() && inside.contains(cx.context)) {
            Some(parent) => parent.clone(),
            None => Self { to: raw.to.clone(), at: raw.at },
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn postgres_pass(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if cx.edit::<Passing>().to.is_some() {
        return Err(call.duplicate());
    }
    let (to, reading) = if call.len() > 1 {
        let words: Vec<_> = call.words().map(String::from_utf8_lossy).collect();
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let servers = Servers::direct(&words).map_err(|error| conninfo_fault("postgres_pass", &error))?;
        (To::Direct(Arc::new(servers)), Some(Reading::Libpq))
    } else {
        named(cx, call)?
    };
    let raw = cx.edit::<Passing>();
    (raw.to, raw.reading, raw.at) = (Some(to), reading, Some(call.at()));
    let ends_with_slash = cx.location().is_some_and(|location| location.name.ends_with('/'));
    let content = cx.edit::<Content>();
    content.handler = Some(super::run::handle);
    content.auto_redirect = ends_with_slash;
    Ok(())
}

fn named(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(To, Option<Reading>), Fault> {
    let name = call.text(0).into_owned();
    if name.is_empty() {
        return Err(match Reading::of(cx) {
            Reading::Address => Fault::new("postgres: empty upstream in \"postgres_pass\" directive"),
            Reading::Libpq | Reading::Either => error(call, "empty upstream name"),
        });
    }
    let template = Template::word(call, 0, cx)?;
    let reading = Reading::of_upstream(cx, &name);
    Ok((To::Name(template, name), reading))
}

/// The upstream of a name, in a configuration that holds.
pub(super) fn upstream<'c>(compiled: &'c Compiled, name: &str) -> Option<&'c Arc<Servers>> {
    let (_, upstream) = compiled.config.built.model.upstream(name)?;
    compiled.config.settings(upstream.scope).get::<Upstream>().servers.as_ref()
}

/// The servers for a request; an error is the status for it.
pub(super) fn servers(request: &Request, reading: Reading) -> Result<Arc<Servers>, u16> {
    let (template, written) = match &request.settings::<Passing>().to {
        Some(To::Direct(servers)) => return Ok(Arc::clone(servers)),
        Some(To::Name(template, written)) => (template, written),
        None => return Err(500),
    };
    let name: Bytes = request.eval(template);
    let name = String::from_utf8_lossy(&name);
    let old = reading == Reading::Address;
    if name.is_empty() {
        let start = if old { "postgres: " } else { "" };
        let location = shown(&request.location().name).to_string();
        let message = format!("{start}empty \"postgres_pass\" (was: \"{written}\") in location \"{location}\"");
        request.log(Level::Error, &message);
        return Err(500);
    }
    upstream(&request.compiled, &name).map(Arc::clone).ok_or_else(|| {
        let exists = request.compiled.config.built.model.upstream(&name).is_some();
        let message = match old {
            _ if exists => "postgres: trying to connect to something that is not PostgreSQL database".to_owned(),
            true => format!("postgres: upstream name \"{name}\" not found"),
            false => format!("no port in upstream \"{name}\""),
        };
        request.log(Level::Error, &message);
        500
    })
}

/// Names that no upstream has, and those of upstreams of another kind: nginx finds these only when a request comes.
pub(super) fn finish(builder: &mut Builder) {
    let mut findings = Vec::new();
    for scope in (0..builder.scopes.len()).filter_map(|number| builder.peek_number::<Passing>(number)) {
        let Some(To::Name(template, name)) = &scope.to else { continue };
        if template.constant().is_none() {
            continue;
        }
        let is_postgres = |scope| builder.peek::<Upstream>(scope).is_some_and(|raw| raw.grammar().is_some());
        let finding = match builder.model.upstream(name) {
            None => Diagnostic::emerg("unknown-upstream", format!("no port in upstream \"{name}\"")),
            Some((_, upstream)) if is_postgres(upstream.scope) => continue,
            Some(_) => {
                let message = format!("upstream \"{name}\" has no postgres_server");
                let help = "the location will answer 500 to every request";
                findings.push(Diagnostic::new(Severity::Lint, "not-postgres", message).near(scope.at).help(help));
                continue;
            }
        };
        findings.push(match scope.at {
            Some(at) => finding.at(at),
            None => finding,
        });
    }
    builder.diagnostics.extend(findings);
}
