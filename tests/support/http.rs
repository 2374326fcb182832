//! A small HTTP client that sends and shows raw bytes.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::wait::PATIENCE;

/// An answer: one that ended by the end of the connection.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
        Some(Self { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// The value of a header, by its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

pub(crate) fn connect(port: u16) -> TcpStream {
    let stream =
        TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|e| panic!("cannot connect to port {port}: {e}"));
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything that comes after `request` until the server closes; it may well be nothing.
pub(crate) fn raw(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    let mut answer = Vec::new();
    // The server may close before it has read all: what it said by then counts.
    let _sent = stream.write_all(request);
    let _ended = stream.read_to_end(&mut answer);
    answer
}

#[track_caller]
pub(crate) fn get(port: u16, target: &str) -> Response {
    request(port, "GET", target, "", "")
}

#[track_caller]
pub(crate) fn post(port: u16, target: &str, body: &str) -> Response {
    request(port, "POST", target, "", body)
}

/// One request on a connection of its own; `headers` are whole lines, each ended by `\r\n`.
#[track_caller]
pub(crate) fn request(port: u16, method: &str, target: &str, headers: &str, body: &str) -> Response {
    let length =
        if body.is_empty() && method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let text =
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}{length}\r\n{body}");
    let answer = raw(port, text.as_bytes());
    Response::parse(&answer)
        .unwrap_or_else(|| panic!("{method} {target}: not an answer: {:?}", String::from_utf8_lossy(&answer)))
}

/// Percent-encodes text for use as the value of an argument.
pub(crate) fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
