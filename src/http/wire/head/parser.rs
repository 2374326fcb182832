//! The parser that makes a [`RequestHead`] from the bytes of a connection.
//!
//! [`HeadParser`] is fed the same growing buffer until it says [`Progress::Complete`] or [`Progress::Bad`]; it goes on
//! from the last whole line, so a head that comes in pieces costs little more than one that comes at once.

use std::rc::Rc;

use bytes::Bytes;

use super::room::Room;
use super::{Connection, Header, RequestHead};
use crate::http::wire::ascii::{find_ignore_case, parse_off};
use crate::http::wire::header::{self, HeaderProgress, Known};
use crate::http::wire::method::Method;
use crate::http::wire::request_line::{self, LineError, LineProgress, RequestLine};
use crate::http::wire::span::Span;
use crate::http::wire::{host, uri};

/// What the configuration says about heads. nginx takes the default server's, as no other is known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadOptions {
    /// `client_header_buffer_size`
    pub client_header_buffer_size: usize,
    /// The number in `large_client_header_buffers`.
    pub large_buffers: usize,
    /// The size in `large_client_header_buffers`.
    pub large_buffer_size: usize,
    /// `underscores_in_headers`
    pub underscores_in_headers: bool,
    /// `ignore_invalid_headers`
    pub ignore_invalid_headers: bool,
    /// `merge_slashes`
    pub merge_slashes: bool,
    /// The head was put together from an HTTP/2 request; its line says so.
    pub is_http2: bool,
    /// Whether the parser is to stop once it knows the host: other options may hold for what follows.
    pub stops_at_host: bool,
}

impl Default for HeadOptions {
    fn default() -> Self {
        Self {
            client_header_buffer_size: 1024,
            large_buffers: 4,
            large_buffer_size: 8192,
            underscores_in_headers: false,
            ignore_invalid_headers: true,
            merge_slashes: true,
            stops_at_host: false,
            is_http2: false,
        }
    }
}

/// What came of the bytes so far.
#[derive(Debug)]
pub enum Progress {
    /// More bytes are needed.
    Incomplete,
    /// A whole head; it took this many bytes of the input, and what follows is the body or the next request.
    Complete {
        /// The head; shared from the beginning, as a request and its subrequests will share it.
        head: Rc<RequestHead>,
        /// Its length in the input, empty lines before it included.
        consumed: usize,
    },
    /// The host is known, in lower case, and more is to be parsed with the options that hold for it.
    Host(Bytes),
    /// The request is refused.
    Bad(Refusal),
}

/// A request that is answered with an error and the end of the connection.
#[derive(Debug)]
pub struct Refusal {
    /// The status to answer with, 494 included: its page says 400.
    pub status: u16,
    /// What nginx writes into its error log, at `info`.
    pub reason: Vec<u8>,
    /// What it was doing: the log goes on with ` while ` and this.
    pub action: &'static str,
    /// What is known of the request: at least the first line's bytes, for the log.
    pub head: Rc<RequestHead>,
}

/// Makes a [`RequestHead`] from the bytes of a connection. One for each request.
#[derive(Debug, Default)]
pub struct HeadParser {
    /// Where the next line starts.
    at: usize,
    /// Where the request line starts, after empty lines.
    start: usize,
    has_line: bool,
    /// The line has been accepted.
    in_headers: bool,
    /// It has stopped at the host.
    has_stopped: bool,
    room: Room,
    head: Rc<RequestHead>,
    /// The lower-cased host and the decoded path, when they differ from what was sent.
    derived: Vec<u8>,
}

/// Where the parser stops.
enum Reached {
    /// At the end of what has come.
    More,
    /// Behind the host.
    Host,
    /// At the end of the head.
    End,
}

/// A refusal before the head is put together.
struct Fault {
    status: u16,
    reason: Vec<u8>,
}

impl Fault {
    fn bad(reason: impl Into<Vec<u8>>) -> Self {
        Self { status: 400, reason: reason.into() }
    }
}

impl HeadParser {
    /// A parser at the start of a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing but empty lines has come yet, so that a close or a time-out here is no error.
    pub fn is_idle(&self, input: &[u8]) -> bool {
        !self.has_line && input.iter().all(|ch| matches!(ch, b'\r' | b'\n'))
    }

    /// What the parser is doing, as nginx's log says it after ` while `.
    pub fn action(&self) -> &'static str {
        if self.in_headers { "reading client request headers" } else { "reading client request line" }
    }

    /// What is known of a head that never comes to its end.
    pub fn give_up(&mut self, input: &[u8]) -> Rc<RequestHead> {
        self.take(input)
    }

    /// Goes on with `input`: all bytes since the request's start, with what has come since the last call at the end.
    pub fn parse(&mut self, input: &[u8], options: &HeadOptions) -> Progress {
        match self.advance(input, options) {
            Ok(Reached::End) => {
                let consumed = self.at;
                Progress::Complete { head: self.take(&input[..consumed]), consumed }
            }
            Ok(Reached::Host) => {
                self.has_stopped = true;
                let span = self.head.host;
                let host = match span.start().checked_sub(DERIVED) {
                    Some(start) => Span::new(start, span.end() - DERIVED).of(&self.derived),
                    None => span.of(input),
                };
                Progress::Host(Bytes::copy_from_slice(host))
            }
            Ok(Reached::More) => Progress::Incomplete,
            Err(fault) => Progress::Bad(Refusal {
                status: fault.status,
                reason: fault.reason,
                action: self.action(),
                head: self.take(input),
            }),
        }
    }

    /// Goes on as far as it is to go at once.
    fn advance(&mut self, input: &[u8], options: &HeadOptions) -> Result<Reached, Fault> {
        if !self.has_line && !self.request_line(input, options)? {
            return Ok(Reached::More);
        }
        if self.head.line.version < 1000 {
            return Ok(Reached::End);
        }
        loop {
            if options.stops_at_host && !self.has_stopped && !self.head.host.is_empty() {
                return Ok(Reached::Host);
            }
            match self.header_line(input, options)? {
                None => return Ok(Reached::More),
                Some(true) => {}
                Some(false) => {
                    self.check(input)?;
                    return Ok(Reached::End);
                }
            }
        }
    }

    fn request_line(&mut self, input: &[u8], options: &HeadOptions) -> Result<bool, Fault> {
        while let Some(b'\r' | b'\n') = input.get(self.at) {
            self.at += 1;
            self.room.skip(options);
        }
        self.start = self.at;
        let rest = &input[self.at..];
        let reach = self.room.reach(options);
        match request_line::parse(&rest[..reach.min(rest.len())], options.is_http2) {
            LineProgress::Complete(line, length) => {
                self.room.take(length, options);
                self.at += length;
                self.has_line = true;
                self.accept_line(input, line, options)?;
                self.in_headers = true;
                Ok(true)
            }
            LineProgress::Incomplete if rest.len() >= reach => {
                Err(Fault { status: 414, reason: b"client sent too long URI".to_vec() })
            }
            LineProgress::Incomplete => Ok(false),
            LineProgress::Bad(error) => {
                if error == LineError::Method09 {
                    self.head().line.version = 9;
                }
                Err(Fault { status: error.status(), reason: error.reason().into() })
            }
        }
    }

    /// Takes over the line's parts: decodes the path, checks the host.
    fn accept_line(&mut self, input: &[u8], line: RequestLine, options: &HeadOptions) -> Result<(), Fault> {
        let start = self.start;
        let uri = line.uri.shifted(start);
        // First, so that the log has it whatever is wrong.
        self.head().line = RequestLine {
            method_name: line.method_name.shifted(start),
            line: line.line.shifted(start),
            scheme: line.scheme.shifted(start),
            uri,
            protocol: line.protocol.shifted(start),
            ..line
        };
        let text = uri.of(input);
        let (mut path, mut args) = (uri, Span::default());
        if line.complex || line.empty_path {
            let found =
                uri::normalize(text, options.merge_slashes).map_err(|_| Fault::bad("client sent invalid request"))?;
            path = self.derive(&found.path);
            if let Some(question) = line.question
                && !found.args.is_empty()
            {
                let begin = start + question + 1;
                args = Span::new(begin, begin + found.args.len());
            }
        } else if let Some(question) = line.question {
            path = Span::new(uri.start(), start + question);
            args = Span::new(start + question + 1, uri.end());
        }
        let head = self.head();
        head.path = path;
        head.args = args;
        if let Some(span) = line.host {
            self.accept_host(input, span.shifted(start))
                .ok_or_else(|| Fault::bad("client sent invalid host in request line"))?;
        }
        Ok(())
    }

    /// Takes the header line at `self.at`: `None` if it is not whole yet, `false` if it is the one that ends the head.
    #[inline]
    fn header_line(&mut self, input: &[u8], options: &HeadOptions) -> Result<Option<bool>, Fault> {
        let rest = &input[self.at..];
        let reach = self.room.reach(options);
        let visible = &rest[..reach.min(rest.len())];
        match header::parse(visible, options.underscores_in_headers) {
            HeaderProgress::Complete(line, length) => {
                let start = self.at;
                self.room.take(length, options);
                self.at += length;
                let (name, value) = (line.name.shifted(start), line.value.shifted(start));
                if line.invalid && options.ignore_invalid_headers {
                    self.head().ignored.push(Span::new(start, value.end()));
                } else {
                    self.add(input, name, value)?;
                }
                Ok(Some(true))
            }
            HeaderProgress::End(length) => {
                self.at += length;
                Ok(Some(false))
            }
            HeaderProgress::Bad(at) => {
                let mut reason = b"client sent invalid header line: \"".to_vec();
                reason.extend_from_slice(&visible[..at]);
                reason.extend_from_slice(format!("\\x{:02x}...\"", visible[at]).as_bytes());
                Err(Fault::bad(reason))
            }
            HeaderProgress::Incomplete if rest.len() >= reach => {
                let mut reason = b"client sent too long header line: \"".to_vec();
                // nginx cuts what would not fit one log line.
                reason.extend_from_slice(&visible[..visible.len().min(1748)]);
                reason.extend_from_slice(b"...\"");
                Err(Fault { status: 494, reason })
            }
            HeaderProgress::Incomplete => Ok(None),
        }
    }

    fn add(&mut self, input: &[u8], name: Span, value: Span) -> Result<(), Fault> {
        let known = Known::from_name(name.of(input));
        let head = self.head();
        if let Some(known) = known {
            let place = &mut head.known[known as usize];
            if *place == 0 {
                *place = u32::try_from(head.headers.len() + 1).unwrap_or(u32::MAX);
            } else if known.is_unique() {
                let previous = head.headers[*place as usize - 1];
                return Err(duplicate(input, known, Header { name, value }, previous));
            }
        }
        head.headers.push(Header { name, value });
        known.map_or(Ok(()), |known| self.interpret(input, known, value))
    }

    /// What the server reads out of a header as soon as it comes.
    fn interpret(&mut self, input: &[u8], known: Known, span: Span) -> Result<(), Fault> {
        let value = span.of(input);
        match known {
            Known::Host => {
                let length = host::validate(value).ok_or_else(|| Fault::bad("client sent invalid host header"))?;
                if self.head.line.host.is_none() {
                    self.set_host(input, Span::new(span.start(), span.start() + length));
                }
            }
            Known::Connection => {
                if find_ignore_case(value, b"close").is_some() {
                    self.head().connection = Connection::Close;
                } else if find_ignore_case(value, b"keep-alive").is_some() {
                    self.head().connection = Connection::KeepAlive;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn accept_host(&mut self, input: &[u8], span: Span) -> Option<()> {
        let length = host::validate(span.of(input))?;
        self.set_host(input, Span::new(span.start(), span.start() + length));
        Some(())
    }

    fn set_host(&mut self, input: &[u8], span: Span) {
        let text = span.of(input);
        let is_lower = !text.iter().any(u8::is_ascii_uppercase);
        let host = if is_lower { span } else { self.derive(&text.to_ascii_lowercase()) };
        self.head().host = host;
    }

    /// Keeps text that is not in the input. Its place counts from [`DERIVED`] until the head is put together.
    fn derive(&mut self, text: &[u8]) -> Span {
        let start = DERIVED + self.derived.len();
        self.derived.extend_from_slice(text);
        Span::new(start, start + text.len())
    }

    /// What is wrong with the head as a whole.
    fn check(&mut self, input: &[u8]) -> Result<(), Fault> {
        let head = self.head();
        let value = |known| head.first(known).map(|header| header.value.of(input));
        if head.line.version > 1000 && value(Known::Host).is_none() {
            return Err(Fault::bad(match head.line.version {
                2000.. => "client sent neither \":authority\" nor \"Host\" header",
                _ => "client sent HTTP/1.1 request without \"Host\" header",
            }));
        }
        let content_length = match value(Known::ContentLength) {
            Some(text) => {
                Some(parse_off(text).ok_or_else(|| Fault::bad("client sent invalid \"Content-Length\" header"))?)
            }
            None => None,
        };
        let coding = value(Known::TransferEncoding);
        head.content_length = content_length;
        if let Some(coding) = coding {
            if head.line.version < 1001 {
                return Err(Fault::bad("client sent HTTP/1.0 request with \"Transfer-Encoding\" header"));
            }
            if !coding.eq_ignore_ascii_case(b"chunked") {
                let mut reason = b"client sent unknown \"Transfer-Encoding\": \"".to_vec();
                reason.extend_from_slice(coding);
                reason.push(b'"');
                return Err(Fault { status: 501, reason });
            }
            if content_length.is_some() {
                return Err(Fault::bad(
                    "client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
                ));
            }
            head.chunked = true;
        }
        let refused = match head.line.method {
            Method::Connect => "client sent CONNECT method",
            Method::Trace => "client sent TRACE method",
            _ => return Ok(()),
        };
        Err(Fault { status: 405, reason: refused.into() })
    }

    /// The head, which nobody shares as long as it is being made.
    #[inline]
    fn head(&mut self) -> &mut RequestHead {
        Rc::make_mut(&mut self.head)
    }

    /// The head, with its own copy of `input`.
    fn take(&mut self, input: &[u8]) -> Rc<RequestHead> {
        let head = Rc::make_mut(&mut self.head);
        if !self.has_line {
            let rest = &input[self.start..];
            let length = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            head.line.line = Span::new(self.start, self.start + length);
        }
        head.request_length = self.at - self.start;
        let mut bytes = Vec::with_capacity(input.len() + self.derived.len());
        bytes.extend_from_slice(input);
        bytes.extend_from_slice(&self.derived);
        for span in [&mut head.path, &mut head.host] {
            if span.start() >= DERIVED {
                *span = Span::new(span.start() - DERIVED + input.len(), span.end() - DERIVED + input.len());
            }
        }
        head.bytes = bytes.into();
        Rc::clone(&self.head)
    }
}

/// Places from here on are in the derived text: no head is that long.
const DERIVED: usize = 1 << 31;

fn duplicate(input: &[u8], known: Known, again: Header, previous: Header) -> Fault {
    let what: &[u8] = if known == Known::Host { b"host header" } else { b"header line" };
    let mut reason = b"client sent duplicate ".to_vec();
    reason.extend_from_slice(what);
    for (before, header) in [(&b": \""[..], again), (b", previous value: \"", previous)] {
        reason.extend_from_slice(before);
        reason.extend_from_slice(header.name.of(input));
        reason.extend_from_slice(b": ");
        reason.extend_from_slice(header.value.of(input));
        reason.push(b'"');
    }
    Fault::bad(reason)
}

/// Holds what must be true of any input; for the fuzzer.
pub fn fuzz_head(data: &[u8]) {
    let options = HeadOptions {
        client_header_buffer_size: 64,
        large_buffers: 2,
        large_buffer_size: 128,
        ..HeadOptions::default()
    };
    let cut = data.first().map_or(0, |&ch| usize::from(ch) % (data.len() + 1));
    let mut parser = HeadParser::new();
    let first = parser.parse(&data[..cut], &options);
    let pieces = match first {
        Progress::Incomplete => parser.parse(data, &options),
        decided @ (Progress::Complete { .. } | Progress::Bad(_) | Progress::Host(_)) => decided,
    };
    let whole = HeadParser::new().parse(data, &options);
    assert_eq!(summary(&whole), summary(&pieces), "the same however it is cut");
    let (mut parser, stopping) = (HeadParser::new(), HeadOptions { stops_at_host: true, ..options });
    let resumed = match parser.parse(data, &stopping) {
        Progress::Host(host) => {
            let resumed = parser.parse(data, &stopping);
            if let Progress::Complete { head, .. } = &resumed {
                assert_eq!(head.host(), &host[..], "the host stays");
            }
            resumed
        }
        decided => decided,
    };
    assert_eq!(summary(&whole), summary(&resumed), "the same with a stop at the host");
    if let Progress::Complete { head, consumed } = &whole {
        assert!(*consumed <= data.len() && head.request_length() <= *consumed, "no more than came");
        assert!(head.path().starts_with(b"/"), "a path is absolute");
        assert!(!head.host().iter().any(u8::is_ascii_uppercase), "a host is lower-case");
        assert!(!(head.is_chunked() && head.content_length().is_some()), "one length");
        assert!(head.version() < 1001 || head.known(Known::Host).is_some(), "a host since 1.1");
    }
}

/// Everything about a result that must not depend on how the input was cut.
fn summary(progress: &Progress) -> (u16, Vec<u8>, usize) {
    match progress {
        Progress::Incomplete => (0, Vec::new(), 0),
        Progress::Host(host) => (1, host.to_vec(), 0),
        Progress::Bad(refusal) => (refusal.status, refusal.reason.clone(), 0),
        Progress::Complete { head, consumed } => {
            let mut text = [head.method_name(), head.path(), head.args(), head.host()].join(&b'|');
            for (name, value) in head.headers() {
                text.extend_from_slice(&[name, value].join(&b':'));
            }
            (200, text, *consumed)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parses `input`, which must be decided at its end and not before: also when it comes byte by byte.
    fn run(input: &[u8], options: &HeadOptions) -> Progress {
        let mut parser = HeadParser::new();
        for end in 0..input.len() {
            let step = parser.parse(&input[..end], options);
            if !matches!(step, Progress::Incomplete) {
                assert_eq!(summary(&step), summary(&HeadParser::new().parse(input, options)));
                return HeadParser::new().parse(input, options);
            }
        }
        parser.parse(input, options)
    }

    fn head(input: &str) -> Rc<RequestHead> {
        match run(input.as_bytes(), &HeadOptions::default()) {
            Progress::Complete { head, .. } => head,
            other => panic!("{input:?} gave {other:?}"),
        }
    }

    /// `200`, or the status and the reason.
    fn verdict(input: &str, options: &HeadOptions) -> String {
        match run(input.as_bytes(), options) {
            Progress::Incomplete | Progress::Host(_) => "incomplete".into(),
            Progress::Complete { .. } => "200".into(),
            Progress::Bad(refusal) => {
                let reason = String::from_utf8_lossy(&refusal.reason).into_owned();
                format!("{} {}", refusal.status, reason.trim_start_matches("client sent "))
            }
        }
    }

    fn check(input: &str, expected: &str) {
        assert_eq!(verdict(input, &HeadOptions::default()), expected, "{input:?}");
    }

    fn check_get(headers: &str, expected: &str) {
        check(&format!("GET / HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"), expected);
    }

    fn check_post(headers: &str, expected: &str) {
        check(&format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n"), expected);
    }

    #[test]
    fn bad_lines() {
        for (input, expected) in [
            ("GET / HTTP/2.0\r\n", "505 invalid version"),
            ("\x16\x03\x01\0\x05abc", "400 invalid method"),
            ("GET /%zz HTTP/1.1\r\n", "400 invalid request"),
            ("GET http:///x HTTP/1.1\r\n", "400 invalid host in request line"),
            ("POST /\r\n", "400 invalid method in HTTP/0.9 request"),
            ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "405 TRACE method"),
            ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", "405 CONNECT method"),
            ("GET /\r\n", "200"),
            ("\r\n\r\nGET /a HTTP/1.0\r\n\r\n", "200"),
            ("GET /a HTTP/1.1\nHost: x\n\n", "200"),
        ] {
            check(input, expected);
        }
    }

    #[test]
    fn bad_headers() {
        for (headers, expected) in [
            ("Host: a\r\nX-A\r\n", "200"),
            ("Host: a\r\nX_A: 1\r\n", "200"),
            ("Host: a\r\nX(A): 1\r\n", "200"),
            ("Host: a\r\nX-A: 1\r\nx-a: 2\r\n", "200"),
            ("Host: a\r\nX A: 1\r\n", "400 invalid header line: \"X\\x20...\""),
            ("Host: a\r\n: 1\r\n", "400 invalid header line: \"\\x3a...\""),
            ("Host: a\r\nX-A: one\r\n two\r\n", "400 invalid header line: \"\\x20...\""),
            ("Host: a\r\nX-A: \0\r\n", "400 invalid header line: \"X-A: \\x00...\""),
            ("Host : a\r\n", "400 invalid header line: \"Host\\x20...\""),
        ] {
            check_get(headers, expected);
        }
    }

    #[test]
    fn bad_hosts() {
        for (headers, expected) in [
            ("", "400 HTTP/1.1 request without \"Host\" header"),
            ("Host: a\r\nhost: b\r\n", "400 duplicate host header: \"host: b\", previous value: \"Host: a\""),
            ("Host:\r\n", "400 invalid host header"),
            ("Host: a/b\r\n", "400 invalid host header"),
            ("Host: a b\r\n", "400 invalid host header"),
            ("Host: a..b\r\n", "400 invalid host header"),
            ("Host: a:b:c\r\n", "200"),
        ] {
            check_get(headers, expected);
        }
        check("GET / HTTP/1.0\r\n\r\n", "200");
    }

    #[test]
    fn bad_lengths() {
        let invalid = "400 invalid \"Content-Length\" header";
        for (headers, expected) in [
            ("Content-Length: 5", "200"),
            ("Content-Length: abc", invalid),
            ("Content-Length: -1", invalid),
            ("Content-Length: 1, 1", invalid),
            ("Content-Length:", invalid),
            ("Content-Length: 99999999999999999999999", invalid),
            (
                "Content-Length: 1\r\nContent-Length: 1",
                "400 duplicate header line: \"Content-Length: 1\", previous value: \"Content-Length: 1\"",
            ),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked",
                "400 \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
            ),
            ("Transfer-Encoding: Chunked", "200"),
            ("Transfer-Encoding: gzip", "501 unknown \"Transfer-Encoding\": \"gzip\""),
            ("Transfer-Encoding: chunked, chunked", "501 unknown \"Transfer-Encoding\": \"chunked, chunked\""),
        ] {
            check_post(headers, expected);
        }
        check(
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400 HTTP/1.0 request with \"Transfer-Encoding\" header",
        );
    }

    const SMALL: HeadOptions = HeadOptions {
        client_header_buffer_size: 512,
        large_buffers: 2,
        large_buffer_size: 1024,
        underscores_in_headers: false,
        ignore_invalid_headers: true,
        merge_slashes: true,
        is_http2: false,
        stops_at_host: false,
    };

    /// `$request_length`, or the status of the refusal.
    fn size(input: &str) -> usize {
        match run(input.as_bytes(), &SMALL) {
            Progress::Complete { head, .. } => head.request_length(),
            Progress::Bad(refusal) => refusal.status.into(),
            Progress::Incomplete | Progress::Host(_) => 0,
        }
    }

    #[test]
    fn large_uris() {
        for (length, expected) in [(400, 446), (900, 946), (1100, 414), (3000, 414)] {
            let input = format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "u".repeat(length));
            assert_eq!(size(&input), expected, "{length}");
        }
    }

    #[test]
    fn large_headers() {
        let many = |count| (0..count).map(|at| format!("X-{at}: {}\r\n", "v".repeat(200))).collect::<String>();
        for (headers, expected) in [
            (format!("X-A: {}\r\n", "h".repeat(800)), 853),
            (format!("X-A: {}\r\n", "h".repeat(1100)), 494),
            (format!("Cookie: {}\r\n", "c".repeat(2000)), 494),
            (many(5), 1081),
            (many(20), 494),
        ] {
            let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}Connection: close\r\n\r\n");
            assert_eq!(size(&input), expected, "{}", headers.len());
        }
    }

    #[test]
    fn a_wrong_byte_is_refused_before_the_line_is_too_long() {
        let long = "a".repeat(3000);
        check_with_small(&format!("GET /\x01{long}"), "400 invalid request");
        check_with_small(&format!("GET / HTTP/1.1\r\nA\tb{long}"), "400 invalid header line: \"A\\x09...\"");
    }

    fn check_with_small(input: &str, expected: &str) {
        assert_eq!(verdict(input, &SMALL), expected);
    }

    #[test]
    fn parts() {
        let head = head(
            "GET http://ExAmple.:8/%61/../B?c=%64#e HTTP/1.1 \r\nHost: other\r\nX-A: 1\r\nx-a: 2\r\nX_B: 3\r\n\
             Cookie: a\r\nCookie: b\r\nconnection: Keep-Alive\r\n\r\n",
        );
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(head.request_line()), "GET http://ExAmple.:8/%61/../B?c=%64#e HTTP/1.1 ");
        assert_eq!(text(head.request_uri()), "/%61/../B?c=%64#e");
        assert_eq!(text(head.path()), "/B");
        assert_eq!(text(&head.path_bytes()), "/B");
        assert_eq!(text(head.args()), "c=%64");
        assert_eq!(text(&head.args_bytes()), "c=%64");
        assert_eq!(text(head.host()), "example");
        assert_eq!(text(head.protocol()), "HTTP/1.1 ");
        assert_eq!(head.method(), Method::Get);
        assert_eq!(head.connection(), Connection::KeepAlive);
        assert_eq!(head.known(Known::Host), Some(&b"other"[..]));
        assert_eq!(head.known_bytes(Known::Range), None);
        assert_eq!(head.variable(b"x_a").as_deref(), Some(&b"1, 2"[..]));
        assert_eq!(head.variable(b"cookie").as_deref(), Some(&b"a; b"[..]));
        assert_eq!(head.variable(b"x_b"), None);
        assert_eq!(head.all(b"X-a").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(head.ignored_lines().collect::<Vec<_>>(), [b"X_B: 3"]);
        assert!(head.has_valid_request_uri());
    }

    #[test]
    fn keepalive() {
        for (version, connection, expected) in [
            ("1.1", "", true),
            ("1.0", "", false),
            ("1.1", "Connection: Close\r\n", false),
            ("1.0", "Connection: keep-alive\r\n", true),
            ("1.1", "Connection: upgrade, close\r\n", false),
        ] {
            let head = head(&format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n"));
            assert_eq!(head.wants_keepalive(), expected, "{version} {connection}");
        }
    }

    #[test]
    fn what_follows_is_left() {
        let input = b"\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b";
        let Progress::Complete { head, consumed } = HeadParser::new().parse(input, &HeadOptions::default()) else {
            panic!("a whole head");
        };
        assert_eq!(&input[consumed..], b"GET /b");
        assert_eq!(head.request_length(), consumed - 2);
        assert_eq!(head.request_line(), b"GET /a HTTP/1.1");
    }

    #[test]
    fn a_refusal_knows_the_line() {
        for (input, expected) in [
            ("\x16\x03\x01", "\x16\x03\x01"),
            ("\r\nget / HTTP/1.1\r\nHost: a\r\n\r\n", "get / HTTP/1.1"),
            ("GET /%00 HTTP/1.1\r\n\r\n", "GET /%00 HTTP/1.1"),
        ] {
            let Progress::Bad(refusal) = run(input.as_bytes(), &HeadOptions::default()) else {
                panic!("{input:?} is wrong");
            };
            assert_eq!(refusal.head.request_line(), expected.as_bytes());
        }
    }

    #[test]
    fn underscores_and_odd_names_can_be_let_in() {
        let options =
            HeadOptions { underscores_in_headers: true, ignore_invalid_headers: false, ..HeadOptions::default() };
        let input = b"GET / HTTP/1.0\r\nX_B: 3\r\nX(C): 4\r\n\r\n";
        let Progress::Complete { head, .. } = run(input, &options) else { panic!("a whole head") };
        assert_eq!(head.variable(b"x_b").as_deref(), Some(&b"3"[..]));
        assert_eq!(head.headers().len(), 2);
    }

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..80)) {
            fuzz_head(&data);
        }

        #[test]
        fn what_is_written_is_read(
            path in "/[a-z]{1,9}(/[a-z0-9_]{1,9}){0,3}",
            args in "(\\?[a-z=&%]{1,9})?",
            headers in prop::collection::vec(("x-[a-zA-Z-]{1,9}", "([!-~]([ -~]{0,9}[!-~])?)?"), 0..20),
        ) {
            let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = head(&format!("GET {path}{args} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
            prop_assert_eq!(head.path(), path.as_bytes());
            prop_assert_eq!(head.args(), args.trim_start_matches('?').as_bytes());
            let found: Vec<_> = head.headers().skip(1).collect();
            let written: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            prop_assert_eq!(found, written);
        }

        #[test]
        fn almost_requests(
            line in "(\r\n){0,2}(GET|POST|get) (http://[aA.:]{0,3})?/?[a/.%2?#]{0,8} (HTTP/1.[019])?\r?\n",
            headers in "((Host|host|X-A|X_A|Content-Length|Transfer-Encoding|Connection|a b|): ?(a|B.c|1|chunked|close|\0)?\r?\n){0,5}\r?\n?",
            rest in "[a-z]{0,90}",
        ) {
            fuzz_head(format!("{line}{headers}{rest}").as_bytes());
        }
    }
}
