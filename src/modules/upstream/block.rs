//! `upstream`, `server`, `keepalive`, `zone`.

use std::net::ToSocketAddrs;
use std::sync::Arc;

use super::keepalive::Times;
use super::method::Method;
use super::resolve::Named;
use crate::config::value::{AddressError, parse_address, parse_number, parse_size};
use crate::config::{
    Args, Body, Builder, Call, Contexts, Cx, Diagnostic, Directive, Fault, ListenAddress, Merge, Position, Section,
    Slot, Status, UpstreamDef,
};
use crate::http::limit::zone::Zone;
use crate::http::upstream::Upstream;
use crate::http::upstream::family::server_parameter;
use crate::http::upstream::peers::{Balancer, RoundRobin, Server};
use crate::http::upstream::pool::Keepalive;

/// The rows that this file brings.
pub(super) const COMMANDS: &[Directive] = &[
    Directive {
        name: "upstream",
        contexts: Contexts::HTTP,
        args: Args::ONE,
        body: Body::Block,
        syntax: "name",
        doc: "A group of servers under a name, for the directives that pass requests on.\n\n\
              Example: `upstream app { server 127.0.0.1:8080; keepalive 16; }`",
        file: file!(),
        apply: upstream,
        ..Directive::BASE
    },
    Directive {
        name: "server",
        contexts: Contexts::UPSTREAM,
        args: Args::SOME,
        syntax: "address [weight=n] [max_conns=n] [max_fails=n] [fail_timeout=time] [backup] [down] [resolve] \
                 [service=name]",
        doc: "A server of the group: an address, a name, or `unix:` and a path. Servers take turns by their `weight` (1). \
              One that fails `max_fails` (1) times within `fail_timeout` (10s) is left out for that long; `backup` is \
              used when all others are out, `down` never. With `resolve` a name is looked up again while the server runs, \
              by the `resolver` of the upstream or of `http`; with `service` by SRV records, which say ports, weights and \
              backups. Both need a `zone`.",
        file: file!(),
        apply: server,
        ..Directive::BASE
    },
    Directive {
        name: "keepalive",
        contexts: Contexts::UPSTREAM,
        syntax: "connections",
        once: true,
        doc: "How many idle connections to the servers of the group each worker keeps. HTTP needs \
              `proxy_http_version 1.1;` and `proxy_set_header Connection \"\";` beside it.",
        file: file!(),
        apply: keepalive,
        ..Directive::BASE
    },
    Directive {
        name: "zone",
        contexts: Contexts::UPSTREAM,
        args: Args::between(1, 2),
        syntax: "name [size]",
        status: Status::Ignored("what is known of servers is always shared by all workers"),
        doc: "The shared memory in which nginx's workers keep what they know of the servers.",
        file: file!(),
        apply: zone,
        ..Directive::BASE
    },
    super::hash::COMMAND,
    super::ip_hash::COMMAND,
    super::least_conn::COMMAND,
    super::random::COMMAND,
];

/// The servers of an upstream; `None` where it has none of this kind.
#[derive(Debug)]
pub struct Block(pub Option<Arc<Upstream>>, pub(super) Vec<Named>);

/// What the block says.
#[derive(Debug, Default)]
pub struct RawBlock {
    name: String,
    servers: Vec<Written>,
    pub(super) keepalive: Option<usize>,
    /// How servers are chosen; `None`: in turn.
    pub(super) method: Option<Method>,
}

/// A `server` as it was written.
#[derive(Debug)]
struct Written {
    at: Position,
    server: Server,
    /// A name to look up, and the port.
    name: Option<(String, u16)>,
    resolve: bool,
    service: Option<String>,
}

impl RawBlock {
    /// Whether there are names to be looked up while the server runs.
    pub(super) fn has_names(&self) -> bool {
        self.servers.iter().any(Written::is_later)
    }
}

impl Written {
    fn is_later(&self) -> bool {
        self.resolve && self.name.is_some()
    }
}

impl Section for Block {
    type Raw = RawBlock;
    const ALWAYS: bool = true;

    fn merge(raw: &RawBlock, _: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        if cx.context != Contexts::UPSTREAM || raw.servers.is_empty() {
            return Self(None, Vec::new());
        }
        let (mut servers, mut names) = (Vec::new(), Vec::new());
        for (origin, written) in (0..).zip(&raw.servers) {
            let Some((name, port)) = &written.name else {
                servers.push(written.server.clone());
                continue;
            };
            if written.is_later() {
                let (host, service, server) = (name.clone(), written.service.clone(), written.server.clone());
                names.push(Named { host, port: *port, service, server, origin });
                continue;
            }
            match resolve(name, *port, cx) {
                Some(addresses) => servers.extend(addresses.into_iter().map(|address| {
                    let target = Server::plain(address, "").target;
                    Server { target, ..written.server.clone() }
                })),
                None => {
                    let message = format!("host not found in upstream \"{}\"", written.server.written);
                    cx.report(Diagnostic::emerg("unknown-host", message).at(written.at));
                }
            }
        }
        let times = cx.said::<Times>();
        let keepalive = raw.keepalive.map(|max| Keepalive {
            max,
            requests: *times.requests,
            time: *times.time,
            timeout: *times.timeout,
        });
        let balancer: Arc<dyn Balancer> = match &raw.method {
            Some(method) => Arc::clone(&method.balancer),
            None => Arc::new(RoundRobin),
        };
        let upstream = Upstream::new(&raw.name, &servers, balancer, keepalive);
        names.iter().for_each(|named| named.begin(&upstream));
        Self(Some(Arc::new(upstream)), names)
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// Looks a name up, as a start does; `check` looks nothing up, and takes it that all names are there.
fn resolve(name: &str, port: u16, cx: &Merge<'_>) -> Option<Vec<ListenAddress>> {
    if cx.options.offline {
        return Some(Vec::new());
    }
    let addresses: Vec<_> = (name, port).to_socket_addrs().ok()?.map(ListenAddress::Ip).collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// The servers of an address or name that stands in a directive itself. An error is a name that nobody knows.
pub fn plain(name: &str, host: &str, port: u16, cx: &Merge<'_>) -> Option<Arc<Upstream>> {
    let text = if host.starts_with("unix:") { host.to_owned() } else { format!("{host}:{port}") };
    let addresses = match parse_address(&text, port, false) {
        Ok(address) => vec![address],
        Err(_) => resolve(host, port, cx)?,
    };
    Some(Arc::new(Upstream::plain(name, &addresses)))
}

/// The upstream of a name, in a configuration that holds.
pub fn find<'c>(config: &'c crate::config::Config, name: &str) -> Option<&'c Arc<Upstream>> {
    let (_, upstream) = config.built.model.upstream(name)?;
    config.settings(upstream.scope).get::<Block>().0.as_ref()
}

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
    let written = call.text(0).into_owned();
    let placeholder = ListenAddress::Unix(written.as_str().into());
    let (address, name) = match parse_address(&written, 80, false) {
        Ok(address) => (address, None),
        Err(AddressError::Name) => {
            let (host, port) = written.rsplit_once(':').unwrap_or((&written, "80"));
            let port = port.parse().unwrap_or(80);
            (placeholder, Some((host.to_owned(), port)))
        }
        Err(error) => return Err(Fault::new(format!("{} in upstream \"{written}\"", error.words())).word(0)),
    };
    let allows_backup = cx.edit::<Block>().method.as_ref().is_none_or(|method| method.allows_backup);
    let mut server = Server::plain(address, &written);
    let (mut resolve, mut service) = (false, None);
    for index in 1..call.len() {
        let word = call.text(index);
        if word == "backup" && !allows_backup {
            let message = format!("balancing method does not support parameter \"{word}\"");
            return Err(Fault::new(message).word(index));
        }
        if word == "resolve" {
            resolve = true;
        } else if let Some(name) = word.strip_prefix("service=").filter(|name| !name.is_empty()) {
            service = Some(name.to_owned());
        } else if server_parameter(&word, &mut server).is_none() {
            let fault = Fault::new(format!("invalid parameter \"{word}\"")).word(index);
            let is_commercial = ["slow_start=", "route=", "drain"].iter().any(|known| word.starts_with(known));
            return Err(if is_commercial {
                fault.help("nginx's commercial version has it, Pushgate has not")
            } else {
                fault
            });
        }
    }
    if service.is_some() && !resolve {
        let message = format!("service upstream \"{written}\" requires \"resolve\" parameter");
        return Err(Fault::new(message).word(0));
    }
    if service.is_some() && written.contains(':') {
        return Err(Fault::new(format!("service upstream \"{written}\" may not have port")).word(0));
    }
    let mut group = String::new();
    if let Some(upstream) = cx.upstream() {
        upstream.has_servers = true;
        group.clone_from(&upstream.name);
    }
    let raw = cx.edit::<Block>();
    raw.name = group;
    raw.servers.push(Written { at: call.at(), server, name, resolve, service });
    Ok(())
}

fn keepalive(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let max = parse_number(call.bytes(0)).and_then(|max| usize::try_from(max).ok()).filter(|max| *max > 0);
    let Some(max) = max else {
        return Err(Fault::new(format!("invalid value \"{}\" in \"keepalive\" directive", call.text(0))).word(0));
    };
    cx.edit::<Block>().keepalive = Some(max);
    Ok(())
}

fn zone(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if call.bytes(0).is_empty() {
        return Err(Fault::new("invalid zone name \"\"").word(0));
    }
    let name = call.text(0);
    if call.len() == 1 {
        return Zone::named(cx, &name, "zone").map(drop);
    }
    let text = call.text(1);
    let size = parse_size(call.bytes(1)).filter(|size| *size > 0);
    let size = size.ok_or_else(|| Fault::new(format!("invalid zone size \"{text}\"")).word(1))?;
    if size < 8 * 4096 {
        return Err(Fault::new(format!("zone \"{name}\" is too small")).word(1));
    }
    Zone::reserve(cx, &name, size, "zone")
}

/// Upstreams with nothing but backups.
pub(super) fn finish(builder: &mut Builder) {
    let mut findings = Vec::new();
    for upstream in &builder.model.upstreams {
        let Some(raw) = builder.peek::<Block>(upstream.scope) else { continue };
        if !raw.servers.is_empty() && raw.servers.iter().all(|written| written.server.backup) {
            let finding = Diagnostic::emerg("only-backups", format!("no servers in upstream \"{}\"", upstream.name));
            findings.push(match builder.scope(upstream.scope).at {
                Some(at) => finding.at(at),
                None => finding,
            });
        }
    }
    builder.diagnostics.extend(findings);
}
