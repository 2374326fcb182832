//! The head of a response, laid out as nginx's header filter does.

use super::ascii::push_decimal;
use super::date::{HTTP_DATE_LENGTH, http_date};

/// The values that go into a head. Who fills it in decides them; only the order and the spelling are decided here.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseHead<'a> {
    /// The status; its text comes from nginx's table unless [`Self::status_line`] is given.
    pub status: u16,
    /// An upstream's own status line (`404 Nothing Here`), digits included.
    pub status_line: Option<&'a [u8]>,
    /// `Server`, unless it stands among [`Self::headers`].
    pub server: Option<&'a [u8]>,
    /// `Date`, unless it stands among [`Self::headers`].
    pub date: Option<&'a [u8; HTTP_DATE_LENGTH]>,
    /// `Content-Type`, without charset; nothing is written if empty.
    pub content_type: &'a [u8],
    /// Follows the type as `; charset=`, if not empty.
    pub charset: &'a [u8],
    /// `Content-Length`
    pub content_length: Option<u64>,
    /// `Last-Modified`, in seconds.
    pub last_modified: Option<i64>,
    /// `Location` where nginx made it absolute from a path. One that was absolute already stands among the other headers.
    pub location: Option<&'a [u8]>,
    /// `Transfer-Encoding: chunked`
    pub chunked: bool,
    /// What becomes of the connection.
    pub connection: After,
    /// `Vary: Accept-Encoding` (`gzip_vary`)
    pub vary: bool,
}

/// What the `Connection` header of a response says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// `close`
    #[default]
    Close,
    /// `keep-alive`, with `Keep-Alive: timeout=` if that is configured.
    KeepAlive {
        /// The second parameter of `keepalive_timeout`, in seconds.
        timeout: Option<u64>,
    },
    /// `upgrade`: with status 101.
    Upgrade,
}

/// The interim answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Appends a head to `out`, with the other headers in their order.
pub fn encode<'a>(out: &mut Vec<u8>, head: &ResponseHead<'_>, headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
    out.reserve(256);
    out.extend_from_slice(b"HTTP/1.1 ");
    match head.status_line {
        Some(line) => out.extend_from_slice(line),
        None => put_status(out, head.status),
    }
    out.extend_from_slice(b"\r\n");
    if let Some(server) = head.server {
        put(out, b"Server: ", server);
    }
    if let Some(date) = head.date {
        put(out, b"Date: ", date);
    }
    if !head.content_type.is_empty() {
        out.extend_from_slice(b"Content-Type: ");
        out.extend_from_slice(head.content_type);
        if !head.charset.is_empty() {
            out.extend_from_slice(b"; charset=");
            out.extend_from_slice(head.charset);
        }
        out.extend_from_slice(b"\r\n");
    }
    if let Some(length) = head.content_length {
        out.extend_from_slice(b"Content-Length: ");
        push_decimal(out, length);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(seconds) = head.last_modified {
        put(out, b"Last-Modified: ", &http_date(seconds));
    }
    if let Some(location) = head.location {
        put(out, b"Location: ", location);
    }
    if head.chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    match head.connection {
        After::Close => out.extend_from_slice(b"Connection: close\r\n"),
        After::Upgrade => out.extend_from_slice(b"Connection: upgrade\r\n"),
        After::KeepAlive { timeout } => {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
            if let Some(seconds) = timeout {
                out.extend_from_slice(b"Keep-Alive: timeout=");
                push_decimal(out, seconds);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
    if head.vary {
        out.extend_from_slice(b"Vary: Accept-Encoding\r\n");
    }
    for (name, value) in headers {
        out.extend_from_slice(name);
        put(out, b": ", value);
    }
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn put(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The status as it stands in a status line: `404 Not Found`, or the three digits and a blank.
pub fn put_status(out: &mut Vec<u8>, status: u16) {
    match status_text(status) {
        Some(text) => out.extend_from_slice(text.as_bytes()),
        None => {
            let digit = |unit: u16| b'0' + (status / unit % 10) as u8;
            out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
        }
    }
}

/// The status lines that nginx has a text for.
pub fn status_text(status: u16) -> Option<&'static str> {
    Some(match status {
        101 => "101 Switching Protocols",
        200 => "200 OK",
        201 => "201 Created",
        202 => "202 Accepted",
        204 => "204 No Content",
        206 => "206 Partial Content",
        301 => "301 Moved Permanently",
        302 => "302 Moved Temporarily",
        303 => "303 See Other",
        304 => "304 Not Modified",
        307 => "307 Temporary Redirect",
        308 => "308 Permanent Redirect",
        400 => "400 Bad Request",
        401 => "401 Unauthorized",
        402 => "402 Payment Required",
        403 => "403 Forbidden",
        404 => "404 Not Found",
        405 => "405 Not Allowed",
        406 => "406 Not Acceptable",
        408 => "408 Request Time-out",
        409 => "409 Conflict",
        410 => "410 Gone",
        411 => "411 Length Required",
        412 => "412 Precondition Failed",
        413 => "413 Request Entity Too Large",
        414 => "414 Request-URI Too Large",
        415 => "415 Unsupported Media Type",
        416 => "416 Requested Range Not Satisfiable",
        421 => "421 Misdirected Request",
        429 => "429 Too Many Requests",
        500 => "500 Internal Server Error",
        501 => "501 Not Implemented",
        502 => "502 Bad Gateway",
        503 => "503 Service Temporarily Unavailable",
        504 => "504 Gateway Time-out",
        505 => "505 HTTP Version Not Supported",
        507 => "507 Insufficient Storage",
        _ => return None,
    })
}

/// How the end of a response's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The head is all: HEAD, 1xx, 204, 304.
    NoBody,
    /// `Content-Length`
    Length(u64),
    /// Chunks.
    Chunked,
    /// The end of the connection: no keep-alive.
    Close,
    /// HTTP/0.9: no head either, and the connection ends.
    Bare,
}

impl Framing {
    /// For an answer to a request of this version; `chunked_transfer_encoding` is the directive.
    pub fn choose(
        version: u16,
        is_head: bool,
        status: u16,
        length: Option<u64>,
        chunked_transfer_encoding: bool,
    ) -> Self {
        if version < 1000 {
            return Self::Bare;
        }
        if is_head || status < 200 || status == 204 || status == 304 {
            return Self::NoBody;
        }
        match length {
            Some(length) => Self::Length(length),
            None if version >= 1001 && chunked_transfer_encoding => Self::Chunked,
            None => Self::Close,
        }
    }

    /// Whether the connection can be used again afterwards.
    pub fn allows_keepalive(self) -> bool {
        !matches!(self, Self::Close | Self::Bare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_headers() {
        let mut out = Vec::new();
        let head = ResponseHead {
            status: 302,
            server: Some(b"nginx"),
            date: Some(&http_date(0)),
            content_type: b"text/html",
            charset: b"utf-8",
            content_length: Some(1234),
            last_modified: Some(0),
            location: Some(b"http://a/"),
            chunked: true,
            connection: After::KeepAlive { timeout: Some(60) },
            vary: true,
            ..ResponseHead::default()
        };
        encode(&mut out, &head, [(&b"X-B"[..], &b"1"[..]), (b"x-a", b"")]);
        let expected = "HTTP/1.1 302 Moved Temporarily
Server: nginx
Date: Thu, 01 Jan 1970 00:00:00 GMT
Content-Type: text/html; charset=utf-8
Content-Length: 1234
Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT
Location: http://a/
Transfer-Encoding: chunked
Connection: keep-alive
Keep-Alive: timeout=60
Vary: Accept-Encoding
X-B: 1
x-a: \x20

";
        assert_eq!(String::from_utf8_lossy(&out), expected.replace('\n', "\r\n"));
    }

    #[test]
    fn status_lines() {
        for (status, expected) in [(200, "200 OK"), (417, "417 "), (599, "599 "), (7, "007 ")] {
            let mut out = Vec::new();
            put_status(&mut out, status);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }

    #[test]
    fn framing() {
        for (version, is_head, status, length, expected) in [
            (9, false, 200, Some(2), Framing::Bare),
            (1000, false, 200, None, Framing::Close),
            (1000, false, 200, Some(2), Framing::Length(2)),
            (1001, false, 200, None, Framing::Chunked),
            (1001, true, 200, None, Framing::NoBody),
            (1001, false, 304, Some(2), Framing::NoBody),
            (1001, false, 204, None, Framing::NoBody),
        ] {
            assert_eq!(Framing::choose(version, is_head, status, length, true), expected, "{version} {status}");
        }
        assert_eq!(Framing::choose(1001, false, 200, None, false), Framing::Close);
    }
}
