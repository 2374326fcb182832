//! The address of a directive that passes requests on: `http://host:port/path`, `unix:/path:/uri`.

use crate::config::value::{AddressError, parse_address};

/// A URL without its scheme, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The host or, with `unix:`, the path of a socket; an upstream's name may stand here.
    pub host: String,
    /// The port, and whether it was written.
    pub port: u16,
    /// Whether the port was written.
    pub has_port: bool,
    /// What follows the host: path and arguments.
    pub uri: String,
}

/// Why one can't be read, in nginx's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UrlFault(pub &'static str);

impl Url {
    /// Reads one.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, UrlFault> {
        if let Some(rest) = text.strip_prefix("unix:") {
            let (path, uri) = rest.split_once(':').unwrap_or((rest, ""));
            if path.is_empty() {
                return Err(UrlFault("no path in the unix domain socket"));
            }
            let host = format!("unix:{path}");
            return Ok(Self { host, port: default_port, has_port: false, uri: uri.to_owned() });
        }
        let end = text.find(['/', '?', '#']).unwrap_or(text.len());
        let (authority, uri) = text.split_at(end);
        // A path is put in front of arguments that come without one.
        let uri = if uri.starts_with('?') { format!("/{uri}") } else { uri.to_owned() };
        let (host, port) = match authority.rfind(':') {
            Some(colon) if !authority.ends_with(']') => (&authority[..colon], Some(&authority[colon + 1..])),
            _ => (authority, None),
        };
        if host.is_empty() {
            return Err(UrlFault("no host"));
        }
        let host = match parse_address(authority, default_port, false) {
            Ok(_) | Err(AddressError::Name) => host.to_owned(),
            Err(error) => return Err(UrlFault(error.words())),
        };
        let has_port = port.is_some();
        let port = port.and_then(|port| port.parse().ok()).unwrap_or(default_port);
        Ok(Self { host, port, has_port, uri })
    }

    /// The host as `Host` and `$proxy_host` have it: without the port that everybody expects.
    pub fn host_header(&self, default_port: u16) -> String {
        if self.host.starts_with("unix:") {
            "localhost".to_owned()
        } else if !self.has_port || self.port == default_port {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The port as `$proxy_port` has it.
    pub fn port_text(&self) -> String {
        if self.host.starts_with("unix:") { String::new() } else { self.port.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expected: &str| {
            let read = match Url::parse(text, 80) {
                Ok(url) => format!("{} {} {}", url.host_header(80), url.port_text(), url.uri),
                Err(fault) => fault.0.to_owned(),
            };
            assert_eq!(read, expected, "{text}");
        };
        check("127.0.0.1:1/x", "127.0.0.1:1 1 /x");
        check("127.0.0.1:80", "127.0.0.1 80 ");
        check("app", "app 80 ");
        check("app?a=b", "app 80 /?a=b");
        check("[::1]/", "[::1] 80 /");
        check("[::1]:81", "[::1]:81 81 ");
        check("unix:/tmp/s:/uri", "localhost  /uri");
        check("unix:/tmp/s", "localhost  ");
        check("unix:", "no path in the unix domain socket");
        check("", "no host");
        check(":80", "no host");
        check("a:99999", "invalid port");
        check("a:b", "invalid port");
    }
}
