//! Addresses: what `listen` takes, and networks in CIDR form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::number::parse_number;
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

/// An address without a port. As nginx reads it, each number of an IPv4 address may have zeros before it, or be missing
/// for zero.
pub fn parse_ip(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if text.contains(':') {
        return text.parse().ok().map(IpAddr::V6);
    }
    let mut octets = [0; 4];
    let mut words = text.split('.');
    for octet in &mut octets {
        *octet = words.next()?.bytes().try_fold(0_u8, |number, digit| {
            let digit = digit.is_ascii_digit().then_some(digit & 0x0f)?;
            number.checked_mul(10)?.checked_add(digit)
        })?;
    }
    words.next().is_none().then_some(octets.into())
}

/// A network in CIDR form, or a lone address; and whether it was written with bits that its mask leaves out.
pub fn parse_network(text: &str) -> Option<(IpNet, bool)> {
    let (address, length) = match text.split_once('/') {
        None => (text, None),
        Some((address, length)) => (address, Some(parse_number(length.as_bytes())?)),
    };
    let address = parse_ip(address.as_bytes())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = u8::try_from(length.unwrap_or(bits)).ok()?;
    let network = match address {
        IpAddr::V4(address) => IpNet::V4(Ipv4Net::new(address, length).ok()?),
        IpAddr::V6(address) => IpNet::V6(Ipv6Net::new(address, length).ok()?),
    };
    Some((network.trunc(), network.trunc() != network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let check = |text: &str, expected: Option<(&str, bool)>| {
            let got = parse_network(text);
            assert_eq!(
                got.map(|(network, low)| (network.to_string(), low)),
                expected.map(|(n, low)| (n.into(), low)),
                "{text}"
            );
        };
        check("10.0.0.0/8", Some(("10.0.0.0/8", false)));
        check("127.0.0.1/16", Some(("127.0.0.0/16", true)));
        check("127.0.0.1", Some(("127.0.0.1/32", false)));
        check("2001:db8::1/32", Some(("2001:db8::/32", true)));
        check("::/0", Some(("::/0", false)));
        check("010.0.00.1/8", Some(("10.0.0.0/8", true)));
        check("1...", Some(("1.0.0.0/32", false)));
        for wrong in [
            "10.0.0.0/33",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.0x4",
            "300.1.1.1",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "none",
            "",
        ] {
            check(wrong, None);
        }
    }

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
