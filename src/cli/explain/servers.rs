//! Which address and server a request comes to.

use bytes::Bytes;

use super::{Ask, Target};
use crate::compile::{Compiled, Listener, ServerId};
use crate::config::{ListenAddress, Position, ServerDef, ServerName};

/// The address and the server, and why.
#[derive(Debug)]
pub(super) struct Chosen {
    /// The number of the listener.
    pub(super) listener: usize,
    pub(super) listen_at: Option<Position>,
    pub(super) server: ServerId,
    pub(super) reason: String,
}

/// Chooses both; an error says why nobody answers.
pub(super) fn choose(compiled: &Compiled, ask: &Ask) -> Result<Chosen, String> {
    let name = ask.host_name()?;
    let number = listener(compiled, ask.target.as_ref(), &name)?;
    let listener = &compiled.listeners[number];
    let servers = &compiled.config.built.model.servers;
    let found = listener.names.find(&name).map(|(server, _)| server);
    let server = found.unwrap_or(listener.default_server);
    let definition = &servers[server.0 as usize];
    let reason = match found {
        Some(_) => matching_name(definition, &name),
        None => default_reason(definition, listener, &name),
    };
    let listens = definition.listens.iter().find(|listen| listen.address == listener.address);
    Ok(Chosen { listener: number, listen_at: listens.and_then(|listen| listen.at), server, reason })
}

/// The listener of an address and port: the address itself, else one for all addresses, else (as no name is resolved)
/// the first whose servers know the host, or the first of the port.
fn listener(compiled: &Compiled, target: Option<&Target>, name: &Bytes) -> Result<usize, String> {
    let Some(target) = target else {
        let nobody = || "no server listens anywhere".to_owned();
        return if compiled.listeners.is_empty() { Err(nobody()) } else { Ok(0) };
    };
    let of_port = |listener: &Listener| match &listener.address {
        ListenAddress::Ip(address) if address.port() == target.port => Some(address.ip()),
        ListenAddress::Ip(_) | ListenAddress::Unix(_) => None,
    };
    let find = |fits: &dyn Fn(&Listener, std::net::IpAddr) -> bool| {
        compiled.listeners.iter().position(|listener| of_port(listener).is_some_and(|ip| fits(listener, ip)))
    };
    let found = match target.address {
        Some(address) => find(&|_, ip| ip == address)
            .or_else(|| find(&|_, ip| ip.is_unspecified() && (ip.is_ipv4() == address.is_ipv4()))),
        None => find(&|listener, _| listener.names.find(name).is_some()).or_else(|| find(&|_, _| true)),
    };
    found.ok_or_else(|| {
        let addresses: Vec<String> = compiled.listeners.iter().map(|listener| listener.address.to_string()).collect();
        let asked = target.address.map_or_else(String::new, |address| format!("{address} "));
        format!("nothing listens on {asked}port {}; there are: {}", target.port, addresses.join(", "))
    })
}

/// Which of a server's names brought the request to it, in the order of the search.
fn matching_name(server: &ServerDef, host: &Bytes) -> String {
    let text = String::from_utf8_lossy(host);
    let fits = |name: &ServerName| match name {
        ServerName::Exact(exact) => (*exact == text).then_some((0, 0, "is its name")),
        ServerName::Suffix(suffix) => text
            .strip_suffix(suffix.as_str())
            .filter(|rest| rest.ends_with('.'))
            .map(|rest| (1, rest.len(), "the longest wildcard at the front that fits")),
        ServerName::Prefix(prefix) => text
            .strip_prefix(prefix.as_str())
            .filter(|rest| rest.starts_with('.'))
            .map(|rest| (2, rest.len(), "the longest wildcard at the end that fits")),
        ServerName::Regex(regex) => {
            regex.is_match(host).unwrap_or(false).then_some((3, 0, "the first expression that matches"))
        }
    };
    let best = server.names.iter().filter_map(|(name, written, _)| Some((fits(name)?, written)));
    match best.min_by_key(|((kind, rest, _), _)| (*kind, *rest)) {
        Some(((0, ..), _)) if text.is_empty() => "it is the one for requests without a host".to_owned(),
        Some(((0, ..), _)) => format!("\"{text}\" is one of its names"),
        Some(((.., why), written)) => format!("\"{written}\" is {why}"),
        None => format!("it has the name \"{text}\""),
    }
}

fn default_reason(server: &ServerDef, listener: &Listener, host: &Bytes) -> String {
    let is_named = server.listens.iter().any(|listen| listen.address == listener.address && listen.default_server);
    let which = if is_named { "the default_server" } else { "the first server" };
    match &host[..] {
        b"" => format!("the request has no host; it is {which} of the address"),
        host => format!("no server has the name \"{}\"; it is {which} of the address", String::from_utf8_lossy(host)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_text};

    const HTTP: &str = "
        server { listen 127.0.0.1:81; server_name first; }
        server { listen 127.0.0.1:81; server_name a.org *.a.org www.*; }
        server { listen 127.0.0.1:81; server_name ~^b \"\"; }
        server { listen 82; listen 127.0.0.2:82; server_name c; }
        server { listen 82 default_server; server_name d; }";

    /// Checks the address, the server's first name, and the reason.
    #[track_caller]
    fn check(url: &str, expected: Result<(&str, &str, &str), &str>) {
        let text = format!("events {{}} http {{ {HTTP} }}");
        let options = LoadOptions { offline: true, ..LoadOptions::default() };
        let compiled = Compiled::new(load_text(options, text.as_bytes()));
        let ask = Ask::of(url, "GET".into()).expect("the URLs of these tests are good");
        let chosen = choose(&compiled, &ask);
        let address = |chosen: &Chosen| compiled.listeners[chosen.listener].address.to_string();
        let name = |chosen: &Chosen| String::from_utf8_lossy(&compiled.server(chosen.server).name).into_owned();
        let found = chosen.map(|chosen| (address(&chosen), name(&chosen), chosen.reason));
        let expected = expected.map(|(address, name, reason)| (address.into(), name.into(), reason.into()));
        assert_eq!(found, expected.map_err(str::to_owned), "{url}");
    }

    #[test]
    fn names() {
        let at = "127.0.0.1:81";
        check("http://A.org.:81/", Ok((at, "a.org", "\"a.org\" is one of its names")));
        check("http://x.a.org:81/", Ok((at, "a.org", "\"*.a.org\" is the longest wildcard at the front that fits")));
        check("http://www.x:81/", Ok((at, "a.org", "\"www.*\" is the longest wildcard at the end that fits")));
        check("http://box:81/", Ok((at, "~^b", "\"~^b\" is the first expression that matches")));
        check("http://x:81/", Ok((at, "first", "no server has the name \"x\"; it is the first server of the address")));
        check("/", Ok((at, "~^b", "it is the one for requests without a host")));
    }

    #[test]
    fn addresses() {
        let default = |host| format!("no server has the name \"{host}\"; it is the default_server of the address");
        check("http://127.0.0.1:82/", Ok(("0.0.0.0:82", "d", &default("127.0.0.1"))));
        check(
            "http://127.0.0.2:82/",
            Ok(("127.0.0.2:82", "c", "no server has the name \"127.0.0.2\"; it is the first server of the address")),
        );
        check("http://c:82/", Ok(("0.0.0.0:82", "c", "\"c\" is one of its names")));
        check("http://c/", Err("nothing listens on port 80; there are: 127.0.0.1:81, 0.0.0.0:82, 127.0.0.2:82"));
        check(
            "http://127.0.0.3:81/",
            Err("nothing listens on 127.0.0.3 port 81; there are: 127.0.0.1:81, 0.0.0.0:82, 127.0.0.2:82"),
        );
        check("http://a b:81/", Err("the host \"a b:81\" is answered with 400"));
    }
}
