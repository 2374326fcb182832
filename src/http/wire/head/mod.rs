//! A request's head.
//!
//! A [`RequestHead`] owns one copy of the head's bytes, followed there by the few things that are derived from them (a
//! decoded path, a lower-cased host); everything else in it is a place in that buffer.

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::SmallVec;

use super::header::Known;
use super::method::Method;
use super::request_line::RequestLine;
use super::span::Span;

pub mod parser;

mod room;

/// What the `Connection` header asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: the version decides.
    #[default]
    Unset,
    /// `close`
    Close,
    /// `keep-alive`
    KeepAlive,
}

/// One header of a request.
#[derive(Clone, Copy, Debug)]
struct Header {
    name: Span,
    value: Span,
}

/// A parsed request head.
#[derive(Clone, Debug)]
pub struct RequestHead {
    bytes: Bytes,
    line: RequestLine,
    request_length: usize,
    path: Span,
    args: Span,
    host: Span,
    connection: Connection,
    chunked: bool,
    open_ended: bool,
    content_length: Option<u64>,
    headers: SmallVec<[Header; 12]>,
    /// One more than the place in `headers` of the first of each known header, 0 for none.
    known: [u32; Known::COUNT],
    ignored: Vec<Span>,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            bytes: Bytes::new(),
            line: RequestLine { version: 1000, ..RequestLine::default() },
            request_length: 0,
            path: Span::default(),
            args: Span::default(),
            host: Span::default(),
            connection: Connection::Unset,
            chunked: false,
            open_ended: false,
            content_length: None,
            headers: SmallVec::new(),
            known: [0; Known::COUNT],
            ignored: Vec::new(),
        }
    }
}

impl RequestHead {
    /// The method.
    pub fn method(&self) -> Method {
        self.line.method
    }

    /// The method as written (`$request_method`).
    pub fn method_name(&self) -> &[u8] {
        self.at(self.line.method_name)
    }

    /// The first line without its end (`$request`).
    pub fn request_line(&self) -> &[u8] {
        self.at(self.line.line)
    }

    /// The URI as sent, without scheme and host (`$request_uri`).
    pub fn request_uri(&self) -> &[u8] {
        self.at(self.line.uri)
    }

    /// [`Self::request_uri`], sharing the head's memory.
    pub fn request_uri_bytes(&self) -> Bytes {
        self.share(self.line.uri)
    }

    /// Whether [`Self::request_uri`] may be sent on as it stands: not if it lacks its path (`http://host?args`).
    pub fn has_valid_request_uri(&self) -> bool {
        !self.line.empty_path
    }

    /// The path, decoded and normalized (`$uri` at the start).
    pub fn path(&self) -> &[u8] {
        self.at(self.path)
    }

    /// [`Self::path`], sharing the head's memory.
    pub fn path_bytes(&self) -> Bytes {
        self.share(self.path)
    }

    /// The arguments (`$args` at the start), raw.
    pub fn args(&self) -> &[u8] {
        self.at(self.args)
    }

    /// [`Self::args`], sharing the head's memory.
    pub fn args_bytes(&self) -> Bytes {
        self.share(self.args)
    }

    /// The version as major * 1000 + minor: 1001 for HTTP/1.1, 9 for HTTP/0.9.
    pub fn version(&self) -> u16 {
        self.line.version
    }

    /// The version as written (`$server_protocol`); empty in HTTP/0.9.
    pub fn protocol(&self) -> &[u8] {
        self.at(self.line.protocol)
    }

    /// The host of the request line or else of `Host`: lower-case, without port and final dot; empty if none is given.
    pub fn host(&self) -> &[u8] {
        self.at(self.host)
    }

    /// Line and headers as they came: parsed again, they make this head again.
    pub fn raw(&self) -> Bytes {
        let end = self.end().min(self.bytes.len());
        self.bytes.slice(self.line.line.start().min(end)..end)
    }

    /// Where it ends in what came, empty lines before it included.
    pub fn end(&self) -> usize {
        self.line.line.start() + self.request_length
    }

    /// The length of line and headers (`$request_length` before the body).
    pub fn request_length(&self) -> usize {
        self.request_length
    }

    /// [`Self::host`], sharing the head's memory.
    pub fn host_bytes(&self) -> Bytes {
        self.share(self.host)
    }

    /// What `Connection` asks for.
    pub fn connection(&self) -> Connection {
        self.connection
    }

    /// Whether the client wants to go on using the connection.
    pub fn wants_keepalive(&self) -> bool {
        match self.connection {
            Connection::Unset => self.line.version > 1000,
            Connection::Close => false,
            Connection::KeepAlive => true,
        }
    }

    /// The body's length as announced.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Whether the body comes in chunks.
    pub fn is_chunked(&self) -> bool {
        self.chunked
    }

    /// Whether a body follows whose end is the end of its HTTP/2 stream: no length was announced.
    pub fn is_open_ended(&self) -> bool {
        self.open_ended
    }

    /// Says that such a body follows.
    pub fn set_open_ended(&mut self) {
        self.open_ended = true;
    }

    /// Whether it came by HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.line.version == 2000
    }

    /// Name and value of each header, as sent, in order; ignored ones are left out.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.headers.iter().map(|header| (self.at(header.name), self.at(header.value)))
    }

    /// The first header of this kind.
    #[inline]
    pub fn known(&self, known: Known) -> Option<&[u8]> {
        self.first(known).map(|header| self.at(header.value))
    }

    /// [`Self::known`], sharing the head's memory.
    pub fn known_bytes(&self, known: Known) -> Option<Bytes> {
        self.first(known).map(|header| self.share(header.value))
    }

    /// The values of all headers of this name, in order; the case does not matter.
    pub fn all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.headers().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// `$http_...`: all headers whose name, lower-cased and with `_` for `-`, is `variable`, joined by commas
    /// (semicolons for `cookie`).
    pub fn variable(&self, variable: &[u8]) -> Option<Cow<'_, [u8]>> {
        let mut values = self.headers().filter(|(name, _)| names_variable(name, variable)).map(|(_, value)| value);
        let first = values.next()?;
        let Some(second) = values.next() else {
            return Some(Cow::Borrowed(first));
        };
        let separator: &[u8] = if variable == b"cookie" { b"; " } else { b", " };
        let mut joined = [first, separator, second].concat();
        for value in values {
            joined.extend_from_slice(separator);
            joined.extend_from_slice(value);
        }
        Some(Cow::Owned(joined))
    }

    /// The lines that were left out because of their names; nginx logs each as `client sent invalid header line: "..."`.
    pub fn ignored_lines(&self) -> impl Iterator<Item = &[u8]> {
        self.ignored.iter().map(|&span| self.at(span))
    }

    #[inline]
    fn first(&self, known: Known) -> Option<&Header> {
        let place = self.known[known as usize].checked_sub(1)?;
        self.headers.get(place as usize)
    }

    #[inline]
    fn at(&self, span: Span) -> &[u8] {
        span.of(&self.bytes)
    }

    fn share(&self, span: Span) -> Bytes {
        if span.end() <= self.bytes.len() && !span.is_empty() {
            self.bytes.slice(span.start()..span.end())
        } else {
            Bytes::new()
        }
    }
}

/// Whether a header's name is a variable's.
pub fn names_variable(name: &[u8], variable: &[u8]) -> bool {
    name.len() == variable.len()
        && name.iter().zip(variable).all(|(&ch, &wanted)| match ch {
            b'-' => wanted == b'_',
            _ => ch.to_ascii_lowercase() == wanted,
        })
}
