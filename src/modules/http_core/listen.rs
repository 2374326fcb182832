//! `listen`: the addresses of a server.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::config::value::{parse_listen, parse_number, parse_sec, parse_size};
use crate::config::{
    Args, Builder, Call, Contexts, Cx, Diagnostic, Directive, Fault, Keepalive, ListenAddress, ListenDef,
    ListenOptions, Severity,
};

/// The row that this file brings.
pub(super) const COMMANDS: &[Directive] = &[Directive {
    name: "listen",
    contexts: Contexts::SERVER,
    args: Args::SOME,
    syntax: "address[:port] [default_server] [ssl] [http2] [proxy_protocol] [backlog=number] [rcvbuf=size] \
             [sndbuf=size] [deferred] [bind] [ipv6only=on|off] [reuseport] [so_keepalive=on|off|idle:interval:count]",
    default: "*:80",
    doc: "An address on which the server is reached: an address and port, a port alone, `*:port`, an address of the \
          sixth version in brackets, or `unix:path`. What is set on the socket may be given once for an address.",
    file: file!(),
    apply: listen,
    ..Directive::BASE
}];

/// Where a server listens that does not say so: port 80 for root, 8000 for others.
pub(super) fn default() -> ListenDef {
    let port = if crate::sys::is_root() { 80 } else { 8000 };
    ListenDef {
        address: ListenAddress::Ip((std::net::Ipv4Addr::UNSPECIFIED, port).into()),
        at: None,
        default_server: false,
        ssl: false,
        http2: false,
        proxy_protocol: false,
        options: ListenOptions::default(),
        sets_options: false,
    }
}

fn listen(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let mut listen = ListenDef { address: parse_listen(&call.text(0))?, at: Some(call.at()), ..default() };
    for index in 1..call.len() {
        parameter(&mut listen, cx, call, index)?;
    }
    let server = cx.server().expect("the row allows `listen` in `server` only");
    if server.listens.iter().any(|other| other.address == listen.address) {
        return Err(Fault::new(format!("a duplicate listen {}", listen.address)).word(0));
    }
    server.listens.push(listen);
    Ok(())
}

fn parameter(listen: &mut ListenDef, cx: &mut Cx<'_>, call: &Call<'_>, index: usize) -> Result<(), Fault> {
    let word = call.text(index);
    let (name, value) = word.split_once('=').map_or((&*word, None), |(name, value)| (name, Some(value)));
    let invalid = |what: &str| Fault::new(format!("invalid {what} \"{word}\"")).word(index);
    let options = &mut listen.options;
    let mut sets = true;
    match (name, value) {
        ("default_server" | "default", None) => {
            listen.default_server = true;
            sets = false;
        }
        ("ssl", None) => {
            listen.ssl = true;
            sets = false;
        }
        ("http2", None) => {
            let message = "the \"listen ... http2\" directive is deprecated, use the \"http2\" directive instead";
            cx.warn("deprecated", message, call);
            listen.http2 = true;
            sets = false;
        }
        ("proxy_protocol", None) => {
            listen.proxy_protocol = true;
            sets = false;
        }
        ("bind", None) => options.bind = true,
        ("deferred", None) => options.deferred = true,
        ("reuseport", None) => options.reuseport = true,
        ("backlog", Some(value)) => {
            let number = parse_number(value.as_bytes()).filter(|number| *number > 0);
            options.backlog = Some(number.and_then(|n| i32::try_from(n).ok()).ok_or_else(|| invalid("backlog"))?);
        }
        ("rcvbuf", Some(value)) => options.rcvbuf = Some(size(value).ok_or_else(|| invalid("rcvbuf"))?),
        ("sndbuf", Some(value)) => options.sndbuf = Some(size(value).ok_or_else(|| invalid("sndbuf"))?),
        ("ipv6only", Some("on")) => options.ipv6only = Some(true),
        ("ipv6only", Some("off")) => options.ipv6only = Some(false),
        ("ipv6only", Some(value)) => {
            return Err(Fault::new(format!("invalid ipv6only flags \"{value}\"")).word(index));
        }
        ("so_keepalive", Some(value)) => {
            let keepalive = keepalive(value);
            options.keepalive = Some(keepalive.ok_or_else(|| invalid_keepalive(value, index))?);
        }
        ("setfib" | "fastopen" | "accept_filter", Some(_)) => options.other.push(word.clone().into_owned()),
        ("quic", None) => return Err(invalid("parameter").help("HTTP/3 is not supported")),
        _ => return Err(invalid("parameter")),
    }
    listen.sets_options |= sets;
    Ok(())
}

fn invalid_keepalive(value: &str, index: usize) -> Fault {
    Fault::new(format!("invalid so_keepalive value: \"{value}\"")).word(index)
}

fn size(text: &str) -> Option<usize> {
    usize::try_from(parse_size(text.as_bytes())?).ok()
}

fn keepalive(value: &str) -> Option<Keepalive> {
    match value {
        "on" => return Some(Keepalive::On),
        "off" => return Some(Keepalive::Off),
        _ => {}
    }
    let mut parts = value.split(':');
    let mut next = |read: fn(&[u8]) -> Option<u64>| match parts.next() {
        None | Some("") => Some(None),
        Some(text) => read(text.as_bytes()).and_then(|number| u32::try_from(number).ok()).map(Some),
    };
    let times = Keepalive::Times { idle: next(parse_sec)?, interval: next(parse_sec)?, count: next(parse_number)? };
    let is_empty = times == Keepalive::Times { idle: None, interval: None, count: None };
    (parts.next().is_none() && !is_empty).then_some(times)
}

/// The protocols of an address, as its servers have said them so far.
struct Protocols {
    /// All that any of them said.
    all: u8,
    /// Whether what is set on the socket was said.
    sets_options: bool,
    /// What the servers must say, once two have said something.
    agreed: Option<u8>,
    /// Whether two have said different things.
    differ: bool,
}

impl Protocols {
    /// Adds what another server says; whether nginx warns of it. One alone may say more than the others: all of it on the
    /// first, or beside what is set on the socket.
    fn add(&mut self, said: u8, sets_options: bool) -> bool {
        let before = self.all;
        let is_redefined = if said & !before != 0 {
            let warns = self.sets_options && !sets_options || self.differ || before & !said != 0;
            (self.agreed, self.differ) = (Some(before), true);
            warns
        } else if before & !said != 0 {
            let warns = sets_options || self.agreed.is_some_and(|agreed| agreed != said);
            (self.agreed, self.differ) = (Some(said), true);
            warns
        } else {
            let warns = sets_options && self.differ || self.agreed.is_some_and(|agreed| agreed != said);
            self.agreed = Some(said);
            warns
        };
        self.all |= said;
        self.sets_options |= sets_options;
        is_redefined
    }
}

/// Warnings of addresses whose servers say different protocols.
fn redefined(all: &[&ListenDef]) -> Vec<Diagnostic> {
    let mut known: HashMap<&ListenAddress, Protocols> = HashMap::new();
    let mut findings = Vec::new();
    for listen in all {
        let said = u8::from(listen.proxy_protocol) | u8::from(listen.ssl) << 1 | u8::from(listen.http2) << 2;
        match known.entry(&listen.address) {
            Entry::Vacant(place) => {
                let sets_options = listen.sets_options;
                place.insert(Protocols { all: said, sets_options, agreed: None, differ: false });
            }
            Entry::Occupied(mut place) => {
                if place.get_mut().add(said, listen.sets_options) {
                    let message = format!("protocol options redefined for {}", listen.address);
                    findings.push(Diagnostic::new(Severity::Warn, "redefined-listen", message).near(listen.at));
                }
            }
        }
    }
    findings
}

/// What the servers of one address must agree on.
pub(super) fn finish(builder: &mut Builder) {
    let all: Vec<&ListenDef> = builder.model.servers.iter().flat_map(|server| &server.listens).collect();
    let mut findings = Vec::new();
    for (index, listen) in all.iter().enumerate() {
        let Some(at) = listen.at else { continue };
        let same = || all[..index].iter().filter(|other| other.address == listen.address);
        if let Some(first) = same().find(|other| other.sets_options && listen.sets_options) {
            let message = format!("duplicate listen options for {}", listen.address);
            findings.push(Diagnostic::emerg("duplicate-listen", message).at(at).note("first set here", first.at));
        }
        if let Some(first) = same().find(|other| other.default_server && listen.default_server) {
            let message = format!("a duplicate default server for {}", listen.address);
            findings.push(Diagnostic::emerg("duplicate-default", message).at(at).note("first set here", first.at));
        }
    }
    findings.extend(redefined(&all));
    builder.diagnostics.extend(findings);
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn servers_of_one_address_say_the_same_protocols() {
        let check = |listens: &[&str], is_redefined: bool| {
            let servers: String = listens
                .iter()
                .enumerate()
                .map(|(number, listen)| format!("server {{ server_name s{number}; listen 8443 {listen}; }}"))
                .collect();
            let expected: &[&str] = if is_redefined { &["protocol options redefined for 0.0.0.0:8443"] } else { &[] };
            assert_eq!(findings(&servers), expected, "{listens:?}");
        };
        check(&["ssl", "ssl", "ssl"], false);
        check(&["ssl proxy_protocol", "", ""], false);
        check(&["", "", "ssl"], false);
        check(&["ssl proxy_protocol", "ssl", ""], true);
        check(&["ssl", "proxy_protocol"], true);
        check(&["backlog=9", "ssl"], true);
        check(&["", "ssl backlog=9"], false);
        check(&["ssl", "backlog=9"], true);
        check(&["", "ssl", "ssl"], true);
    }
}
