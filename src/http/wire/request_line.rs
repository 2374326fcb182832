//! The request line: method, URI in origin or absolute form, version.
//!
//! Works on the bytes that have come so far, whole line or not, because nginx refuses at the first wrong byte: TLS
//! spoken to a plain port is answered before any line end has been seen.

use super::method::Method;
use super::span::Span;

/// Why a request line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// The method is not a word of capitals, `_` and `-`.
    Method,
    /// Anything else that is not a request line.
    Request,
    /// HTTP/2 or later (505).
    Version,
    /// HTTP/0.9 knows only GET.
    Method09,
}

impl LineError {
    /// nginx's words for it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Method => "client sent invalid method",
            Self::Request => "client sent invalid request",
            Self::Version => "client sent invalid version",
            Self::Method09 => "client sent invalid method in HTTP/0.9 request",
        }
    }

    /// The status it is answered with.
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::Method | Self::Request | Self::Method09 => 400,
        }
    }
}

/// How far a line has got.
#[derive(Debug)]
pub(crate) enum LineProgress {
    /// Nothing wrong so far, but no line end yet.
    Incomplete,
    /// The whole line, line end included, and its length.
    Complete(RequestLine, usize),
    /// Refused.
    Bad(LineError),
}

/// The parts of a request line, as places in the line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestLine {
    pub(crate) method: Method,
    pub(crate) method_name: Span,
    /// The line without its end.
    pub(crate) line: Span,
    /// The scheme of an absolute URI.
    pub(crate) scheme: Span,
    /// The host of an absolute URI, as sent.
    pub(crate) host: Option<Span>,
    /// From the path (or the `?`) to the end of the URI.
    pub(crate) uri: Span,
    /// The first `?`, if there is one.
    pub(crate) question: Option<usize>,
    /// The path needs [`super::uri::normalize`]: dots after a slash, double slashes, `%`, `#`.
    pub(crate) complex: bool,
    /// `http://host?args`: the path is empty and stands for `/`.
    pub(crate) empty_path: bool,
    /// From `HTTP/` to the end of the line; empty in HTTP/0.9.
    pub(crate) protocol: Span,
    /// Major * 1000 + minor; 9 for HTTP/0.9.
    pub(crate) version: u16,
}

/// Parses the line at the start of `input`. `is_http2`: it was put together from an HTTP/2 request.
pub(crate) fn parse(input: &[u8], is_http2: bool) -> LineProgress {
    let cursor = Cursor { input, at: 0, is_http2 };
    match cursor.line() {
        Ok(Some((line, length))) => LineProgress::Complete(line, length),
        Ok(None) => LineProgress::Incomplete,
        Err(error) => LineProgress::Bad(error),
    }
}

/// `Ok(None)`: more bytes are needed.
type Step<T> = Result<Option<T>, LineError>;

/// Takes the value out of a step, or returns from the function.
macro_rules! step {
    ($step:expr) => {
        match $step {
            Ok(Some(value)) => value,
            Ok(None) => return Ok(None),
            Err(error) => return Err(error),
        }
    };
}

/// The next byte, or back to the caller for more.
macro_rules! peek {
    ($cursor:expr) => {
        match $cursor.input.get($cursor.at) {
            Some(&ch) => ch,
            None => return Ok(None),
        }
    };
}

struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
    is_http2: bool,
}

impl Cursor<'_> {
    fn line(mut self) -> Step<(RequestLine, usize)> {
        let mut line = RequestLine::default();
        line.method_name = step!(self.method());
        line.method = Method::from_name(line.method_name.of(self.input));
        while peek!(self) == b' ' {
            self.at += 1;
        }
        let start = self.at;
        if peek!(self) == b'/' {
            step!(self.uri(&mut line, start));
        } else if peek!(self).is_ascii_alphabetic() {
            step!(self.absolute(&mut line));
        } else {
            return Err(LineError::Request);
        }
        step!(self.version(&mut line));
        Ok(Some((line, self.at)))
    }

    fn method(&mut self) -> Step<Span> {
        loop {
            match peek!(self) {
                b'A'..=b'Z' | b'_' | b'-' => self.at += 1,
                b' ' if self.at > 0 => break,
                _ => return Err(LineError::Method),
            }
        }
        Ok(Some(Span::new(0, self.at)))
    }

    /// `scheme://host:port`, then a path, arguments, or nothing.
    fn absolute(&mut self, line: &mut RequestLine) -> Step<()> {
        let start = self.at;
        while matches!(peek!(self), b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.') {
            self.at += 1;
        }
        line.scheme = Span::new(start, self.at);
        for expected in b"://" {
            if peek!(self) != *expected {
                return Err(LineError::Request);
            }
            self.at += 1;
        }
        let host = self.at;
        if peek!(self) == b'[' {
            self.at += 1;
            while is_literal(peek!(self)) {
                self.at += 1;
            }
            if peek!(self) != b']' {
                return Err(LineError::Request);
            }
            self.at += 1;
        } else {
            while matches!(peek!(self), b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-') {
                self.at += 1;
            }
        }
        line.host = Some(Span::new(host, self.at));
        if peek!(self) == b':' {
            self.at += 1;
            while peek!(self).is_ascii_digit() {
                self.at += 1;
            }
        }
        let start = self.at;
        match peek!(self) {
            b'/' => self.uri(line, start),
            b'?' => {
                line.empty_path = true;
                self.uri(line, start)
            }
            b' ' => {
                // No path at all: nginx takes the first slash of `://` for it.
                let slash = line.scheme.end() + 1;
                line.uri = Span::new(slash, slash + 1);
                Ok(Some(()))
            }
            _ => Err(LineError::Request),
        }
    }

    /// The URI up to the space or line end after it.
    fn uri(&mut self, line: &mut RequestLine, start: usize) -> Step<()> {
        let mut slash = false;
        loop {
            let ch = peek!(self);
            match URI_CLASS[usize::from(ch)] {
                Class::Plain => slash = false,
                Class::Slash if line.question.is_none() => {
                    line.complex |= slash;
                    slash = true;
                }
                Class::Dot if line.question.is_none() => {
                    line.complex |= slash;
                    slash = false;
                }
                Class::Percent if line.question.is_none() => line.complex = true,
                Class::Question if line.question.is_none() => line.question = Some(self.at),
                Class::Hash => line.complex = true,
                Class::Slash | Class::Dot | Class::Percent | Class::Question => {}
                Class::End => break,
                Class::Wrong => return Err(LineError::Request),
            }
            self.at += 1;
        }
        line.uri = Span::new(start, self.at);
        Ok(Some(()))
    }

    /// ` HTTP/x.y` and the line end, or the line end alone (HTTP/0.9).
    fn version(&mut self, line: &mut RequestLine) -> Step<()> {
        while peek!(self) == b' ' {
            self.at += 1;
        }
        let start = self.at;
        // What nearly all send.
        if self.input[start..].starts_with(b"HTTP/1.1\r\n") && !self.is_http2 {
            line.version = 1001;
            line.line = Span::new(0, start + 8);
            line.protocol = Span::new(start, start + 8);
            self.at += 10;
            return Ok(Some(()));
        }
        match peek!(self) {
            b'H' => {
                for expected in b"HTTP/" {
                    if peek!(self) != *expected {
                        return Err(LineError::Request);
                    }
                    self.at += 1;
                }
                line.version = step!(self.major()) * 1000 + step!(self.minor());
                while peek!(self) == b' ' {
                    self.at += 1;
                }
            }
            b'\r' | b'\n' => line.version = 9,
            _ => return Err(LineError::Request),
        }
        line.line = Span::new(0, self.at);
        if line.version != 9 {
            line.protocol = Span::new(start, self.at);
        }
        if peek!(self) == b'\r' {
            self.at += 1;
        }
        if peek!(self) != b'\n' {
            return Err(LineError::Request);
        }
        self.at += 1;
        if line.version == 9 && line.method != Method::Get {
            return Err(LineError::Method09);
        }
        Ok(Some(()))
    }

    /// The digits before the dot. Only 1 is possible: 0 is no version that is ever written down, 2 is 505, except where
    /// HTTP/2 is spoken.
    fn major(&mut self) -> Step<u16> {
        let major = if self.is_http2 { 2 } else { 1 };
        match peek!(self) {
            b'1' if major == 1 => self.at += 1,
            b'2' if major == 2 => self.at += 1,
            b'2'..=b'9' => return Err(LineError::Version),
            _ => return Err(LineError::Request),
        }
        match peek!(self) {
            b'.' => self.at += 1,
            b'0'..=b'9' => return Err(LineError::Version),
            _ => return Err(LineError::Request),
        }
        Ok(Some(major))
    }

    /// Up to three digits.
    fn minor(&mut self) -> Step<u16> {
        let mut minor = 0_u16;
        let start = self.at;
        loop {
            let ch = peek!(self);
            if ch.is_ascii_digit() && minor <= 99 {
                minor = minor * 10 + u16::from(ch - b'0');
                self.at += 1;
            } else if matches!(ch, b'\r' | b'\n' | b' ') && self.at > start {
                return Ok(Some(minor));
            } else {
                return Err(LineError::Request);
            }
        }
    }
}

/// What may stand between `[` and `]`.
fn is_literal(ch: u8) -> bool {
    ch.is_ascii_alphanumeric() || b":-._~!$&'()*+,;=".contains(&ch)
}

#[derive(Clone, Copy)]
enum Class {
    Plain,
    Slash,
    Dot,
    Percent,
    Question,
    Hash,
    End,
    Wrong,
}

const URI_CLASS: [Class; 256] = {
    let mut table = [Class::Plain; 256];
    let mut ch = 0;
    while ch < 0x20 {
        table[ch] = Class::Wrong;
        ch += 1;
    }
    table[0x7f] = Class::Wrong;
    table[b'\r' as usize] = Class::End;
    table[b'\n' as usize] = Class::End;
    table[b' ' as usize] = Class::End;
    table[b'/' as usize] = Class::Slash;
    table[b'.' as usize] = Class::Dot;
    table[b'%' as usize] = Class::Percent;
    table[b'?' as usize] = Class::Question;
    table[b'#' as usize] = Class::Hash;
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// What became of a line: the parts, `more`, or the error.
    fn show(input: &str) -> String {
        let bytes = input.as_bytes();
        let text = |span: Span| String::from_utf8_lossy(span.of(bytes)).into_owned();
        match parse(bytes, false) {
            LineProgress::Incomplete => "more".into(),
            LineProgress::Bad(error) => format!("{error:?}"),
            LineProgress::Complete(line, length) => format!(
                "{} {}{} {}{}{}",
                text(line.method_name),
                line.host.map(text).unwrap_or_default(),
                text(line.uri),
                line.version,
                if line.complex { " complex" } else { "" },
                if length == input.len() { "" } else { " rest" },
            ),
        }
    }

    #[test]
    fn lines_that_are_taken() {
        for (input, expected) in [
            ("GET / HTTP/1.1\r\n", "GET / 1001"),
            ("GET  /a HTTP/1.1\r\n", "GET /a 1001"),
            ("GET /a  HTTP/1.1 \r\n", "GET /a 1001"),
            ("GET / HTTP/1.2\r\n", "GET / 1002"),
            ("GET / HTTP/1.999\r\n", "GET / 1999"),
            ("GET / HTTP/1.0\n", "GET / 1000"),
            ("GET /\r\n", "GET / 9"),
            ("GET / \n", "GET / 9"),
            ("M-SEARCH / HTTP/1.1\r\n", "M-SEARCH / 1001"),
            ("GET http://a.b:80/c?d HTTP/1.1\r\n", "GET a.b/c?d 1001"),
            ("GET http://a HTTP/1.1\r\n", "GET a/ 1001"),
            ("GET http://a?x HTTP/1.1\r\n", "GET a?x 1001"),
            ("GET http://[::1]:8/ HTTP/1.1\r\n", "GET [::1]/ 1001"),
            ("GET http:///x HTTP/1.1\r\n", "GET /x 1001"),
            ("GET /a//b HTTP/1.1\r\n", "GET /a//b 1001 complex"),
            ("GET /.a HTTP/1.1\r\n", "GET /.a 1001 complex"),
            ("GET /a.b HTTP/1.1\r\n", "GET /a.b 1001"),
            ("GET /a?//%2e HTTP/1.1\r\n", "GET /a?//%2e 1001"),
            ("GET /a?b#c HTTP/1.1\r\n", "GET /a?b#c 1001 complex"),
            ("GET /%61 HTTP/1.1\r\nHost", "GET /%61 1001 complex rest"),
        ] {
            assert_eq!(show(input), expected, "{input:?}");
        }
    }

    #[test]
    fn lines_that_are_refused() {
        for (input, expected) in [
            ("GET / HTTP/1.1x", "Request"),
            ("GET / HTTP/2.0\r\n", "Version"),
            ("GET / HTTP/2", "Version"),
            ("GET / HTTP/11.1\r\n", "Version"),
            ("GET / HTTP/0.9\r\n", "Request"),
            ("GET / HTTP/1.\r\n", "Request"),
            ("GET / HTTP/1.1000\r\n", "Request"),
            ("GET / http/1.1\r\n", "Request"),
            ("GET a HTTP/1.1\r\n", "Request"),
            ("GET * HTTP/1.1\r\n", "Request"),
            ("CONNECT a:443 HTTP/1.1\r\n", "Request"),
            ("GET /a b HTTP/1.1\r\n", "Request"),
            ("GET /\x01 HTTP/1.1\r\n", "Request"),
            ("GET http://a_b/ HTTP/1.1\r\n", "Request"),
            ("GET / HTTP/1.1\r\r\n", "Request"),
            ("POST /\r\n", "Method09"),
            ("get / HTTP/1.1\r\n", "Method"),
            ("G@T / HTTP/1.1\r\n", "Method"),
            ("/ HTTP/1.1\r\n", "Method"),
            (" GET / HTTP/1.1\r\n", "Method"),
            ("\x16\x03\x01", "Method"),
        ] {
            assert_eq!(show(input), expected, "{input:?}");
        }
    }

    #[test]
    fn every_prefix_of_a_good_line_asks_for_more() {
        let line = "GET http://a:1/b?c HTTP/1.1 \r\n";
        for end in 0..line.len() {
            assert_eq!(show(&line[..end]), "more", "{:?}", &line[..end]);
        }
    }
}
