//! ngx_http_realip_module: believes a trusted proxy who the client is.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::config::value::{Flag, Value, parse_ip, parse_network, parse_number};
use crate::config::{
    Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot, VariableRow,
};
use crate::http::{Module, Next, Peer, Phase, Request};
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_realip",
        sections: &[RealIp::ROW, SectionRow::of::<Trusted>(&[])],
        commands: COMMANDS,
        variables: VARIABLES,
    },
    phases: &[(Phase::PostRead, believe), (Phase::Preaccess, believe)],
    acts: Some(|settings| settings.get::<Trusted>().is_anyone()),
    ..Module::EMPTY
};

settings! {
    /// Where the client's address is read.
    pub struct RealIp {
        /// The header that names the client: `X-Real-IP`, `X-Forwarded-For`, or another one; or `proxy_protocol`, the
        /// header of the connection (`listen ... proxy_protocol`).
        "real_ip_header" HTTP_ALL = "X-Real-IP" => pub header: Header,
        /// Whether the address is the last in the header that is not a trusted proxy's, rather than the last.
        "real_ip_recursive" HTTP_ALL = "off" => pub recursive: Flag,
    }
}

const COMMANDS: &[Directive] = &[Directive {
    name: "set_real_ip_from",
    contexts: Contexts::HTTP_ALL,
    syntax: "address | CIDR | unix:",
    doc: "Clients that are trusted to name the real one. The whole list is inherited where a block names none.\n\n\
          Example: `set_real_ip_from 192.168.1.0/24;`",
    file: file!(),
    apply: set_real_ip_from,
    ..Directive::BASE
}];

const VARIABLES: &[VariableRow] = &[
    VariableRow::new(
        "realip_remote_addr",
        |r, _| Some(r.connection.peer.text().into()),
        "The address of the connection's other end.",
    ),
    VariableRow::new("realip_remote_port", remote_port, "The port of the connection's other end."),
];

/// What names the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// A header of the request, in lower case.
    Named(Vec<u8>),
    /// That of the PROXY protocol.
    ProxyProtocol,
}

impl Value for Header {
    const SYNTAX: &'static str = "field | X-Real-IP | X-Forwarded-For | proxy_protocol";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(match call.bytes(0) {
            b"proxy_protocol" => Self::ProxyProtocol,
            name => Self::Named(name.to_ascii_lowercase()),
        })
    }

    fn from_default(text: &'static str) -> Self {
        Self::Named(text.as_bytes().to_ascii_lowercase())
    }
}

/// Who is trusted.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    networks: Vec<IpNet>,
    unix: bool,
}

impl Section for Trusted {
    type Raw = Option<Self>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        raw.clone().or_else(|| parent.cloned()).unwrap_or_default()
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

impl Trusted {
    fn is_anyone(&self) -> bool {
        self.unix || !self.networks.is_empty()
    }

    fn trusts(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Unix(_) => self.unix,
            Peer::Ip(address) => {
                let address = address.ip().to_canonical();
                self.networks.iter().any(|network| network.contains(&address))
            }
        }
    }
}

fn set_real_ip_from(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let word = call.text(0);
    if word == "unix:" {
        cx.edit::<Trusted>().get_or_insert_default().unix = true;
        return Ok(());
    }
    let Some((network, has_host_bits)) = parse_network(&word) else {
        let fault = match word.contains('/') {
            true => Fault::new(format!("invalid parameter \"{word}\"")).help("an example: 10.0.0.0/8"),
            false => Fault::new(format!("host not found in set_real_ip_from \"{word}\""))
                .help("names are not resolved here: write the address"),
        };
        return Err(fault.word(0));
    };
    if has_host_bits {
        cx.warn("low-address-bits", format!("low address bits of {word} are meaningless"), call);
    }
    cx.edit::<Trusted>().get_or_insert_default().networks.push(network);
    Ok(())
}

fn believe(request: &mut Request) -> Next<'_> {
    let trusted = request.settings::<Trusted>();
    // Once a client was named the peer is another one, which is not asked again.
    if request.peer != request.connection.peer || !trusted.trusts(&request.peer) {
        return Next::Declined;
    }
    let settings = request.settings::<RealIp>();
    let named = |list: &[u8]| client(&request.peer, list, trusted, *settings.recursive).0;
    let found = match &settings.header {
        Header::Named(name) if is_list(name) => forwarded(request, name, trusted, *settings.recursive),
        Header::Named(name) => request.head.all(name).next().and_then(named),
        Header::ProxyProtocol => request.connection.proxied().and_then(|proxied| {
            let client = named(proxied.source.address.as_bytes())?;
            Some(SocketAddr::new(client.ip(), proxied.source.port))
        }),
    };
    if let Some(client) = found {
        request.peer = Peer::Ip(client);
    }
    Next::Declined
}

/// Whether a header that comes several times is one list. Of any other header the first one counts.
fn is_list(name: &[u8]) -> bool {
    matches!(name, b"x-forwarded-for" | b"x-real-ip")
}

/// The client that headers name, from the last of them on.
fn forwarded(request: &Request, name: &[u8], trusted: &Trusted, recursive: bool) -> Option<SocketAddr> {
    let values: Vec<&[u8]> = request.head.all(name).collect();
    let mut found = None;
    for value in values.iter().rev() {
        let peer = found.map_or_else(|| request.peer.clone(), Peer::Ip);
        let (client, is_whole) = client(&peer, value, trusted, recursive);
        found = client.or(found);
        if !recursive || !is_whole {
            break;
        }
    }
    found
}

/// The client that a list of addresses names, each added by the proxy that the one after it stands for; and whether
/// those that were to be read all are addresses.
fn client(peer: &Peer, list: &[u8], trusted: &Trusted, recursive: bool) -> (Option<SocketAddr>, bool) {
    let mut client = None;
    let mut list = list;
    while trusted.trusts(&client.map_or_else(|| peer.clone(), Peer::Ip)) {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b',');
        // What stands first belongs to the word there, as in nginx.
        let end = list.iter().rposition(|byte| !is_blank(byte)).map_or(1, |last| last + 1).min(list.len());
        let start = list[..end].iter().skip(1).rposition(is_blank).map_or(0, |blank| blank + 2);
        let Some(address) = parse(&list[start..end]) else { return (client, false) };
        client = Some(address);
        if !recursive || start == 0 {
            return (client, true);
        }
        list = &list[..start - 1];
    }
    (client, false)
}

/// An address with or without a port, in brackets or not.
fn parse(word: &[u8]) -> Option<SocketAddr> {
    let alone = |word: &[u8]| parse_ip(word).map(|address| SocketAddr::new(address, 0));
    if let Some(address) = alone(word) {
        return Some(address);
    }
    let (address, port) = match word.strip_prefix(b"[") {
        Some(rest) => {
            let end = rest.iter().position(|byte| *byte == b']')?;
            match rest[end + 1..].split_first() {
                None => return alone(&rest[..end]),
                Some((b':', port)) => (&rest[..end], port),
                Some(_) => return None,
            }
        }
        None => {
            let colon = word.iter().position(|byte| *byte == b':')?;
            (&word[..colon], &word[colon + 1..])
        }
    };
    let port = parse_number(port).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?;
    Some(SocketAddr::new(parse_ip(address)?, port))
}

fn remote_port(request: &Request, _: &str) -> crate::config::Value {
    match &request.connection.peer {
        Peer::Ip(address) => Some(address.port().to_string().into()),
        Peer::Unix(_) => Some(bytes::Bytes::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    fn check(list: &str, recursive: bool, expected: &str) {
        let network = "10.0.0.0/8".parse().expect("a network");
        let trusted = Trusted { networks: vec![network], unix: false };
        let peer = Peer::Ip(([10, 0, 0, 9], 1).into());
        let (client, _) = client(&peer, list.as_bytes(), &trusted, recursive);
        assert_eq!(client.map(|client| client.to_string()).unwrap_or_default(), expected, "{list} {recursive}");
    }

    #[test]
    fn lists() {
        check("1.2.3.4", false, "1.2.3.4:0");
        check("1.2.3.4, 5.6.7.8", false, "5.6.7.8:0");
        check("1.2.3.4,10.0.0.1", false, "10.0.0.1:0");
        check("1.2.3.4,10.0.0.1", true, "1.2.3.4:0");
        check("1.2.3.4, 5.6.7.8, 10.0.0.1 , ", true, "5.6.7.8:0");
        check("10.0.0.2, 10.0.0.1", true, "10.0.0.2:0");
        check("unknown, 10.0.0.1", true, "10.0.0.1:0");
        check("unknown", true, "");
        check(",1.2.3.4", false, "");
        check(",1.2.3.4, 10.0.0.1", true, "10.0.0.1:0");
        check(" , ", true, "");
        check("x", true, "");
        check("", true, "");
    }

    #[test]
    fn words() {
        let check = |word: &str, expected: &[&str]| {
            assert_eq!(findings(&format!("set_real_ip_from {word};")), expected, "{word}");
        };
        check("10.0.0.0/8", &[]);
        check("2001:db8::1", &[]);
        check("unix:", &[]);
        check("10.0.0.1/8", &["low address bits of 10.0.0.1/8 are meaningless"]);
        check("10.0.0.1/99", &["invalid parameter \"10.0.0.1/99\""]);
        check("example.org", &["host not found in set_real_ip_from \"example.org\""]);
    }

    #[test]
    fn addresses() {
        let check = |word: &str, expected: &str| {
            assert_eq!(parse(word.as_bytes()).map(|address| address.to_string()).unwrap_or_default(), expected);
        };
        check("1.2.3.4:80", "1.2.3.4:80");
        check("::1", "[::1]:0");
        check("[::1]", "[::1]:0");
        check("[::1]:80", "[::1]:80");
        check("[1.2.3.4]:80", "1.2.3.4:80");
        for wrong in ["1.2.3", "1.2.3.4:0", "1.2.3.4:", "1.2.3.4:65536", "[::1]:", "[::1]80", "[::1"] {
            check(wrong, "");
        }
    }
}
