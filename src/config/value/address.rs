//! Addresses: what `listen` takes, and networks in CIDR form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::config::{Fault, ListenAddress};

/// Why an address can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// `invalid host`
    Host,
    /// `invalid port`
    Port,
    /// `no path in the unix domain socket`
    Path,
    /// The name needs a resolver; its part before the port is given to that.
    Name,
}

impl AddressError {
    /// nginx's words for it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Host => "invalid host",
            Self::Port => "invalid port",
            Self::Path => "no path in the unix domain socket",
            Self::Name => "host not found",
        }
    }
}

/// Reads `address[:port]`, `[v6][:port]` or, where `listening`, a lone `port` or `*[:port]`.
pub fn parse_address(text: &str, default_port: u16, listening: bool) -> Result<ListenAddress, AddressError> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() { Err(AddressError::Path) } else { Ok(ListenAddress::Unix(PathBuf::from(path))) };
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(AddressError::Host)?;
        let host: Ipv6Addr = host.parse().map_err(|_| AddressError::Host)?;
        let port = match rest.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if rest.is_empty() => default_port,
            None => return Err(AddressError::Host),
        };
        return Ok(ListenAddress::Ip(SocketAddr::new(IpAddr::V6(host), port)));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, parse_port(port)?),
        None if listening && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
            ("*", parse_port(text)?)
        }
        None => (text, default_port),
    };
    let host = match host {
        "*" if listening => Ipv4Addr::UNSPECIFIED,
        "" => return Err(AddressError::Host),
        "localhost" => Ipv4Addr::LOCALHOST,
        _ => host.parse().map_err(|_| AddressError::Name)?,
    };
    Ok(ListenAddress::Ip(SocketAddr::new(IpAddr::V4(host), port)))
}

/// The address of a `listen`, with nginx's words where it is wrong.
pub fn parse_listen(text: &str) -> Result<ListenAddress, Fault> {
    parse_address(text, 80, true).map_err(|error| {
        let message = match error {
            AddressError::Name => format!("host not found in \"{text}\" of the \"listen\" directive"),
            _ => format!("{} in \"{text}\" of the \"listen\" directive", error.words()),
        };
        Fault::new(message).word(0)
    })
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(AddressError::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        let check = |text: &str, expected: Result<&str, AddressError>| {
            let got = parse_address(text, 80, true);
            assert_eq!(got.map(|address| address.to_string()), expected.map(str::to_owned), "{text:?}");
        };
        check("8080", Ok("0.0.0.0:8080"));
        check("*:8080", Ok("0.0.0.0:8080"));
        check("127.0.0.1", Ok("127.0.0.1:80"));
        check("127.0.0.1:81", Ok("127.0.0.1:81"));
        check("[::1]:81", Ok("[::1]:81"));
        check("[::]", Ok("[::]:80"));
        check("localhost:81", Ok("127.0.0.1:81"));
        check("unix:/s.sock", Ok("unix:/s.sock"));
        check("unix:", Err(AddressError::Path));
        check("[::1", Err(AddressError::Host));
        check("99999", Err(AddressError::Port));
        check("127.0.0.1:0", Err(AddressError::Port));
        check("127.0.0.1:", Err(AddressError::Port));
        check("127.0.0.1:+5", Err(AddressError::Port));
        check("example.org:80", Err(AddressError::Name));
    }
}
