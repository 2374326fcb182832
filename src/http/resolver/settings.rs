//! `resolver` and `resolver_timeout`, as a configuration says them.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use super::Resolver;
use super::message::Kind;
use crate::config::value::{AddressError, Msec, Value, parse_address, parse_sec};
use crate::config::{Args, Call, Cx, Fault, ListenAddress};
use crate::settings;

settings! {
    /// Who knows the addresses of names.
    pub struct Resolving {
        /// The name servers that are asked for names which are known only when a request comes, and for servers of an
        /// upstream with `resolve`: addresses, with a port or without (53). `valid` is for how long answers hold instead
        /// of what they say themselves; `ipv4=off` and `ipv6=off` leave these addresses out.
        ///
        /// Example: `resolver 127.0.0.53 valid=30s ipv6=off;`
        "resolver" HTTP_ALL = "" => pub resolver: Servers,
        /// How long looking up a name may take.
        "resolver_timeout" HTTP_ALL = "30s" => pub timeout: Msec,
    }
}

/// The name servers; `None`: names can't be looked up.
#[derive(Clone, Debug, Default)]
pub struct Servers(pub Option<Arc<Resolver>>);

impl Value for Servers {
    const ARGS: Args = Args::SOME;
    const SYNTAX: &'static str = "address ... [valid=time] [ipv4=on|off] [ipv6=on|off] [status_zone=zone]";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let mut resolver = Resolver {
            servers: Vec::new(),
            valid: None,
            kinds: Vec::new(),
            turn: 0.into(),
            names: std::sync::Mutex::default(),
        };
        let (mut ipv4, mut ipv6) = (true, true);
        for index in 0..call.len() {
            let word = call.text(index);
            let invalid = || Fault::new(format!("invalid parameter: {word}")).word(index);
            let flag = |value| match value {
                "on" => Ok(true),
                "off" => Ok(false),
                _ => Err(invalid()),
            };
            match word.split_once('=') {
                Some(("valid", time)) => {
                    let time = parse_sec(time.as_bytes()).ok_or_else(invalid)?;
                    resolver.valid = (time > 0).then(|| Duration::from_secs(time));
                }
                Some(("ipv4", value)) => ipv4 = flag(value)?,
                Some(("ipv6", value)) => ipv6 = flag(value)?,
                Some(("status_zone", _)) => {}
                _ => resolver.servers.extend(
                    addresses(&word, cx)
                        .map_err(|why| Fault::new(format!("{why} in resolver \"{word}\"")).word(index))?,
                ),
            }
        }
        if !ipv4 && !ipv6 {
            return Err(Fault::new("\"ipv4\" and \"ipv6\" cannot both be \"off\""));
        }
        let kinds = [(ipv4, Kind::A), (ipv6, Kind::Aaaa)];
        resolver.kinds = kinds.into_iter().filter(|(is_on, _)| *is_on).map(|(_, kind)| kind).collect();
        if resolver.servers.is_empty() && !cx.options().offline {
            return Err(Fault::new("no name servers defined"));
        }
        // Where no names are looked up now there may be none.
        let is_empty = resolver.servers.is_empty();
        Ok(Self((!is_empty).then(|| Arc::new(resolver))))
    }

    fn from_default(_: &'static str) -> Self {
        Self::default()
    }
}

/// The addresses of a name server. One that is itself given by name is looked up by the system, as at a start.
fn addresses(text: &str, cx: &Cx<'_>) -> Result<Vec<std::net::SocketAddr>, &'static str> {
    match parse_address(text, PORT, false) {
        Ok(ListenAddress::Ip(address)) => Ok(vec![address]),
        Ok(ListenAddress::Unix(_)) => Err("invalid host"),
        Err(AddressError::Name) if cx.options().offline => Ok(Vec::new()),
        Err(AddressError::Name) => {
            let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
            let found = (host, port.parse().unwrap_or(PORT)).to_socket_addrs().map(Iterator::collect);
            found.map_err(|_| AddressError::Name.words())
        }
        Err(error) => Err(error.words()),
    }
}

/// The port of DNS.
const PORT: u16 = 53;
