//! OCSP responders: where they are, and what they answer by HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::resolver::Resolving;
use crate::http::wire::escape::{Escape, escape};
use crate::http::wire::upstream_head::{Field, HeadParser, Progress};
use crate::server::clock;
use crate::server::live::log;
use crate::server::log::{Level, shown};
use crate::server::sockets::reason;
use crate::tls::ocsp::Question;

/// A responder.
#[derive(Clone, Debug)]
pub(super) struct Responder {
    host: String,
    port: u16,
    path: String,
    /// Where it was when the configuration was read.
    addresses: Vec<SocketAddr>,
}

/// How long a responder may take to answer; nginx's own.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest answer that is read, with its head.
const MAX_ANSWER: u64 = 64 * 1024;

impl Responder {
    /// Reads a URL. If its host is looked up, one that can't be found is a fault, as in nginx. An error is what is wrong
    /// with it.
    pub(super) fn new(url: &str, looks_up: bool) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_at_checked(7).ok_or("invalid URL prefix")?;
        if !scheme.eq_ignore_ascii_case("http://") || rest.is_empty() {
            return Err("invalid URL prefix");
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let end = authority.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match authority[end..].split_once(':') {
            None => (authority, 80),
            Some((name, port)) => {
                let port = port.parse().ok().filter(|port| *port > 0).ok_or("invalid port")?;
                (&authority[..end + name.len()], port)
            }
        };
        if host.is_empty() {
            return Err("no host");
        }
        let mut path = path.to_owned();
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        let responder = Self { host: host.to_owned(), port, path, addresses: Vec::new() };
        let addresses = match responder.plain_address() {
            Some(address) => vec![address],
            None if !looks_up => Vec::new(),
            None => (host, port).to_socket_addrs().map_err(|_| "host not found")?.collect(),
        };
        Ok(Self { addresses, ..responder })
    }

    /// The address of a host that is given as one.
    fn plain_address(&self) -> Option<SocketAddr> {
        let host = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host);
        host.parse::<IpAddr>().ok().map(|host| SocketAddr::new(host, self.port))
    }

    /// Asks. `None`: there is no answer, which was logged; `about` names the certificate for that.
    pub(super) async fn ask(&self, question: &Question, resolving: &Resolving, about: &str) -> Option<Vec<u8>> {
        let asking = async {
            let address = self.address(resolving, about).await?;
            self.exchange(address, question).await.map_err(|error| match error.get_ref() {
                Some(words) => words.to_string(),
                None => format!("connect() failed ({})", reason(&error)),
            })
        };
        let answer = clock::timeout(PATIENCE, asking).await;
        let answer = answer.unwrap_or_else(|| Err("OCSP responder timed out (110: Connection timed out)".to_owned()));
        answer.map_err(|message| self.complain(Level::Error, &message, about)).ok()
    }

    /// Logs what was wrong with an answer.
    pub(super) fn complain(&self, level: Level, message: &str, about: &str) {
        let context = format!("while requesting certificate status, responder: {}", self.host);
        let about = if about.is_empty() { String::new() } else { format!(", certificate: \"{about}\"") };
        log(level, &format!("{message} {context}{about}"));
    }

    async fn address(&self, resolving: &Resolving, about: &str) -> Result<SocketAddr, String> {
        if let Some(address) = self.plain_address() {
            return Ok(address);
        }
        let Some(resolver) = &resolving.resolver.0 else {
            let message = format!("no resolver defined to resolve {}", self.host);
            let Some(address) = self.addresses.first() else { return Err(message) };
            self.complain(Level::Warn, &message, about);
            return Ok(*address);
        };
        let found = resolver.resolve(&self.host, *resolving.timeout).await;
        let found = found.map_err(|failure| format!("{} could not be resolved ({failure})", self.host))?;
        let first = found.addresses.first().ok_or_else(|| format!("{} has no address", self.host))?;
        Ok(SocketAddr::new(*first, self.port))
    }

    async fn exchange(&self, address: SocketAddr, question: &Question) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address).await?;
        let question = STANDARD.encode(question.der());
        let question = escape(question.as_bytes(), Escape::UriComponent);
        let slash = if self.path.ends_with('/') { "" } else { "/" };
        let (path, host, question) = (&self.path, &self.host, String::from_utf8_lossy(&question));
        let request = format!("GET {path}{slash}{question} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        body(answer).map_err(io::Error::other)
    }
}

/// The content of an answer; an error is why it has none, in nginx's words.
fn body(answer: Vec<u8>) -> Result<Vec<u8>, String> {
    let mut parser = HeadParser::default();
    let length = match parser.parse(&answer) {
        Progress::Complete(length) => length,
        Progress::Incomplete => return Err("OCSP responder prematurely closed connection".to_owned()),
        Progress::Bare | Progress::Bad(_) => return Err("OCSP responder sent invalid response".to_owned()),
    };
    let answer = Bytes::from(answer);
    let (head, _) = parser.take(answer.slice(..length));
    match head.field(Field::ContentType) {
        Some(kind) if !kind.eq_ignore_ascii_case(b"application/ocsp-response") => {
            Err(format!("OCSP responder sent invalid \"Content-Type\" header: \"{}\"", shown(kind)))
        }
        _ if head.status() != 200 => Err(format!("OCSP responder answered with status {}", head.status())),
        _ => Ok(answer[length..].to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Result<(&str, u16, &str), &str>) {
        let responder = Responder::new(url, false);
        let found = responder.as_ref().map(|found| (&*found.host, found.port, &*found.path)).map_err(|error| *error);
        assert_eq!(found, expected, "{url}");
    }

    #[test]
    fn urls() {
        check("http://ocsp.example", Ok(("ocsp.example", 80, "/")));
        check("HTTP://ocsp.example:8080/a/b", Ok(("ocsp.example", 8080, "/a/b")));
        check("http://[::1]:81/", Ok(("[::1]", 81, "/")));
        check("http://[::1]?x", Ok(("[::1]", 80, "/?x")));
        check("https://ocsp.example", Err("invalid URL prefix"));
        check("http://", Err("invalid URL prefix"));
        check("http://:80/", Err("no host"));
        check("http://a:0/", Err("invalid port"));
        check("ä", Err("invalid URL prefix"));
    }

    #[test]
    fn answers() {
        let read = |answer: &str| body(answer.as_bytes().to_vec());
        assert_eq!(read("HTTP/1.0 200 OK\r\nContent-Type: application/ocsp-response\r\n\r\nabc"), Ok(b"abc".to_vec()));
        assert_eq!(read("HTTP/1.0 200 OK\r\n\r\n"), Ok(Vec::new()));
        let refused = |answer: &str| read(answer).expect_err("no answer");
        assert_eq!(refused("HTTP/1.0 200 OK\r\nCont"), "OCSP responder prematurely closed connection");
        assert_eq!(refused("SSH-2.0\r\n\r\n"), "OCSP responder sent invalid response");
        assert_eq!(refused("HTTP/1.0 404 No\r\n\r\n"), "OCSP responder answered with status 404");
        let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n";
        assert_eq!(refused(html), "OCSP responder sent invalid \"Content-Type\" header: \"text/html\"");
    }
}
