//! The head of an upstream's answer, taken and refused as nginx does it.

use bytes::Bytes;
use smallvec::SmallVec;

use super::ascii::parse_off;
use super::header::{self, HeaderProgress};
use super::span::Span;

/// A header of an answer that has a meaning to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Field {
    Status,
    ContentType,
    ContentLength,
    Date,
    LastModified,
    ETag,
    Server,
    WwwAuthenticate,
    Location,
    Refresh,
    SetCookie,
    ContentDisposition,
    CacheControl,
    Expires,
    AcceptRanges,
    Connection,
    KeepAlive,
    Vary,
    Upgrade,
    AccelExpires,
    AccelRedirect,
    AccelLimitRate,
    AccelBuffering,
    AccelCharset,
    TransferEncoding,
    ContentEncoding,
}

impl Field {
    /// The field of this name, whatever its case.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let (field, spelling): (Self, &[u8]) = match (name.len(), name.first()? | 0x20) {
            (4, b'd') => (Self::Date, b"date"),
            (4, b'e') => (Self::ETag, b"etag"),
            (4, b'v') => (Self::Vary, b"vary"),
            (6, b's') if name[1] | 0x20 == b't' => (Self::Status, b"status"),
            (6, b's') => (Self::Server, b"server"),
            (7, b'e') => (Self::Expires, b"expires"),
            (7, b'r') => (Self::Refresh, b"refresh"),
            (7, b'u') => (Self::Upgrade, b"upgrade"),
            (8, b'l') => (Self::Location, b"location"),
            (10, b'c') => (Self::Connection, b"connection"),
            (10, b'k') => (Self::KeepAlive, b"keep-alive"),
            (10, b's') => (Self::SetCookie, b"set-cookie"),
            (12, b'c') => (Self::ContentType, b"content-type"),
            (13, b'a') => (Self::AcceptRanges, b"accept-ranges"),
            (13, b'c') => (Self::CacheControl, b"cache-control"),
            (13, b'l') => (Self::LastModified, b"last-modified"),
            (14, b'c') => (Self::ContentLength, b"content-length"),
            (15, b'x') if name[8] | 0x20 == b'e' => (Self::AccelExpires, b"x-accel-expires"),
            (15, b'x') => (Self::AccelCharset, b"x-accel-charset"),
            (16, b'c') => (Self::ContentEncoding, b"content-encoding"),
            (16, b'w') => (Self::WwwAuthenticate, b"www-authenticate"),
            (16, b'x') => (Self::AccelRedirect, b"x-accel-redirect"),
            (17, b't') => (Self::TransferEncoding, b"transfer-encoding"),
            (17, b'x') => (Self::AccelBuffering, b"x-accel-buffering"),
            (18, b'x') => (Self::AccelLimitRate, b"x-accel-limit-rate"),
            (19, b'c') => (Self::ContentDisposition, b"content-disposition"),
            _ => return None,
        };
        name.eq_ignore_ascii_case(spelling).then_some(field)
    }

    /// Whether it is for the server in front.
    pub fn is_accel(self) -> bool {
        matches!(
            self,
            Self::AccelExpires | Self::AccelRedirect | Self::AccelLimitRate | Self::AccelBuffering | Self::AccelCharset
        )
    }

    /// Whether only the first of several counts; nginx drops the others with a warning.
    fn is_first_only(self) -> bool {
        matches!(
            self,
            Self::Status
                | Self::ContentType
                | Self::Date
                | Self::LastModified
                | Self::ETag
                | Self::Server
                | Self::Location
                | Self::Expires
                | Self::AcceptRanges
                | Self::AccelExpires
                | Self::AccelRedirect
                | Self::AccelLimitRate
                | Self::AccelBuffering
                | Self::AccelCharset
                | Self::ContentEncoding
        )
    }
}

/// One header.
#[derive(Clone, Copy, Debug)]
struct Header {
    name: Span,
    value: Span,
    field: Option<Field>,
}

/// A parsed head.
#[derive(Clone, Debug, Default)]
pub struct UpstreamHead {
    bytes: Bytes,
    status: u16,
    version: u16,
    status_line: Span,
    headers: SmallVec<[Header; 12]>,
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
}

impl UpstreamHead {
    /// The answer of a server that sends content without a head, as HTTP/0.9 had it.
    pub fn bare() -> Self {
        Self { status: 200, version: 9, close: true, ..Self::default() }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The version as major * 1000 + minor; 9 if there was no head.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The status line after the version: `404 Nothing Here`.
    pub fn status_line(&self) -> Bytes {
        self.part(self.status_line)
    }

    /// `Content-Length`
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Whether the body comes in chunks.
    pub fn is_chunked(&self) -> bool {
        self.chunked
    }

    /// How long it is.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the connection ends after this answer.
    pub fn closes(&self) -> bool {
        self.close
    }

    /// The headers that count, in order: their name, value and meaning.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8], Option<Field>)> {
        self.headers.iter().map(|header| (header.name.of(&self.bytes), header.value.of(&self.bytes), header.field))
    }

    /// A part of it, sharing its memory.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    /// The first header of a meaning.
    pub fn field(&self, field: Field) -> Option<&[u8]> {
        self.headers.iter().find(|header| header.field == Some(field)).map(|header| header.value.of(&self.bytes))
    }

    /// [`Self::field`], sharing the head's memory.
    pub fn field_bytes(&self, field: Field) -> Option<Bytes> {
        self.headers.iter().find(|header| header.field == Some(field)).map(|header| self.part(header.value))
    }

    fn part(&self, span: Span) -> Bytes {
        match span.is_empty() || span.end() > self.bytes.len() {
            true => Bytes::new(),
            false => self.bytes.slice(span.start()..span.end()),
        }
    }
}

/// What a script's head says of its status.
impl UpstreamHead {
    /// Takes the status from `Status`, or from what there is without it, if no status line has said it; `false`: it is
    /// none.
    pub fn read_status(&mut self) -> bool {
        if self.status != 0 {
            return true;
        }
        let header = |field| self.headers.iter().find(|header| header.field == Some(field));
        self.version = 1001;
        match header(Field::Status) {
            Some(header) => {
                let text = header.value.of(&self.bytes);
                let digits = text.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
                let Some(digits) = digits else { return false };
                self.status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
                self.status_line = header.value;
            }
            None => self.status = if header(Field::Location).is_some() { 302 } else { 200 },
        }
        true
    }

    /// Says whether the connection ends after this answer.
    pub fn set_closes(&mut self, closes: bool) {
        self.close = closes;
    }
}

/// What came of the bytes so far.
#[derive(Debug)]
pub enum Progress {
    /// More bytes are needed.
    Incomplete,
    /// The head, which took so many bytes of the input.
    Complete(usize),
    /// There is no head: the content begins at once. nginx logs `upstream sent no valid HTTP/1.0 header`.
    Bare,
    /// The answer is no good; nginx's words for the log.
    Bad(Vec<u8>),
}

/// Makes an [`UpstreamHead`] from the bytes of a connection. One for each answer.
#[derive(Debug, Default)]
pub struct HeadParser {
    at: usize,
    head: UpstreamHead,
    /// What was wrong and did no harm, in nginx's words.
    warnings: Vec<Vec<u8>>,
    begins: Begins,
}

/// How a head begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Begins {
    /// With a status line.
    #[default]
    Status,
    /// With headers.
    Headers,
    /// With a status line if it looks like one.
    Either,
}

impl HeadParser {
    /// For the head that a script writes, as CGI has it.
    pub fn of_script() -> Self {
        Self { begins: Begins::Headers, ..Self::default() }
    }

    /// For the head of a script that may write a status line, too.
    pub fn of_script_or_server() -> Self {
        Self { begins: Begins::Either, ..Self::default() }
    }

    /// Goes on with `input`: all bytes since the answer's start. After [`Progress::Complete`] comes [`Self::take`].
    pub fn parse(&mut self, input: &[u8]) -> Progress {
        if self.at == 0 && self.begins != Begins::Headers {
            match status_line(input) {
                Line::Incomplete => return Progress::Incomplete,
                Line::Invalid if self.begins == Begins::Either => self.begins = Begins::Headers,
                Line::Invalid => return Progress::Bare,
                Line::Complete { version, status, text, length } => {
                    self.head.version = version;
                    self.head.status = status;
                    self.head.status_line = text;
                    self.head.close = version < 1001;
                    self.at = length;
                }
            }
        }
        loop {
            // IIS may send a second status line.
            if input[self.at..].starts_with(b"HTTP/") {
                let Some(length) = memchr::memchr(b'\n', &input[self.at..]) else { return Progress::Incomplete };
                self.at += length + 1;
                continue;
            }
            match header::parse(&input[self.at..], true) {
                HeaderProgress::Incomplete => return Progress::Incomplete,
                HeaderProgress::End(length) => {
                    if self.head.chunked {
                        self.head.content_length = None;
                    }
                    return Progress::Complete(self.at + length);
                }
                HeaderProgress::Bad(end) => {
                    let shown = &input[self.at..self.at + end];
                    let next = input.get(self.at + end).copied().unwrap_or_default();
                    let mut reason = b"upstream sent invalid header: \"".to_vec();
                    reason.extend_from_slice(shown);
                    reason.extend_from_slice(format!("\\x{next:02x}...\"").as_bytes());
                    return Progress::Bad(reason);
                }
                HeaderProgress::Complete(line, length) => {
                    let (name, value) = (line.name.shifted(self.at), line.value.shifted(self.at));
                    if let Err(reason) = self.accept(input, name, value) {
                        return Progress::Bad(reason);
                    }
                    self.at += length;
                }
            }
        }
    }

    /// The head, whose bytes these are, and nginx's warnings about it.
    pub fn take(&mut self, bytes: Bytes) -> (Box<UpstreamHead>, Vec<Vec<u8>>) {
        let Self { head, warnings, .. } = std::mem::take(self);
        (Box::new(UpstreamHead { bytes, ..head }), warnings)
    }

    /// Takes a header in.
    fn accept(&mut self, input: &[u8], name: Span, value: Span) -> Result<(), Vec<u8>> {
        let (name_text, text) = (name.of(input), value.of(input));
        let field = Field::from_name(name_text);
        let line = |before: &str, after: &str| [before.as_bytes(), name_text, b": ", text, after.as_bytes()].concat();
        let earlier = field.and_then(|field| self.head.headers.iter().find(|header| header.field == Some(field)));
        let both = b"upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time";
        if let (Some(earlier), Some(field)) = (earlier, field) {
            let duplicate = |after| {
                let before =
                    [b"\", previous value: \"", earlier.name.of(input), b": ", earlier.value.of(input)].concat();
                [line("upstream sent duplicate header line: \"", ""), before, after].concat()
            };
            if matches!(field, Field::ContentLength | Field::TransferEncoding) {
                return Err(duplicate(b"\"".to_vec()));
            }
            if field.is_first_only() {
                let warning = duplicate(b"\", ignored".to_vec());
                self.warnings.push(warning);
                return Ok(());
            }
        }
        match field {
            Some(Field::ContentLength) => {
                if self.head.chunked {
                    return Err(both.to_vec());
                }
                let length = parse_off(text);
                let length = length.ok_or_else(|| line("upstream sent invalid \"Content-Length\" header: \"", "\""))?;
                self.head.content_length = Some(length);
            }
            Some(Field::TransferEncoding) => {
                if self.head.content_length.is_some() {
                    return Err(both.to_vec());
                }
                if !text.eq_ignore_ascii_case(b"chunked") {
                    return Err([b"upstream sent unknown \"Transfer-Encoding\": \"", text, b"\""].concat());
                }
                self.head.chunked = true;
            }
            Some(Field::Connection) => {
                self.head.close |= text.windows(5).any(|word| word.eq_ignore_ascii_case(b"close"));
            }
            _ => {}
        }
        self.head.headers.push(Header { name, value, field });
        Ok(())
    }
}

enum Line {
    Incomplete,
    Invalid,
    Complete { version: u16, status: u16, text: Span, length: usize },
}

/// Reads `HTTP/1.1 200 OK`, or refuses as nginx does.
fn status_line(input: &[u8]) -> Line {
    for (at, wanted) in b"HTTP/".iter().enumerate() {
        match input.get(at) {
            None => return Line::Incomplete,
            Some(byte) if byte == wanted => {}
            Some(_) => return Line::Invalid,
        }
    }
    let mut at = 5;
    let major = match number(input, &mut at, b'.') {
        Ok(number) if number > 0 => number,
        Ok(_) => return Line::Invalid,
        Err(line) => return line,
    };
    let minor = match number(input, &mut at, b' ') {
        Ok(number) => number,
        Err(line) => return line,
    };
    while input.get(at) == Some(&b' ') {
        at += 1;
    }
    let start = at;
    let mut status = 0;
    while at < start + 3 {
        match input.get(at) {
            None => return Line::Incomplete,
            Some(digit @ b'0'..=b'9') => status = status * 10 + u16::from(digit - b'0'),
            Some(_) => return Line::Invalid,
        }
        at += 1;
    }
    match input.get(at) {
        None => return Line::Incomplete,
        // IIS sends 403.1 and the like.
        Some(b' ' | b'.' | b'\r' | b'\n') => {}
        Some(_) => return Line::Invalid,
    }
    let Some(length) = memchr::memchr2(b'\r', b'\n', &input[at..]) else { return Line::Incomplete };
    let end = at + length;
    let length = match (input[end], input.get(end + 1)) {
        (b'\n', _) => end + 1,
        (_, Some(b'\n')) => end + 2,
        (_, None) => return Line::Incomplete,
        (_, Some(_)) => return Line::Invalid,
    };
    // A version far ahead of ours is just a high one.
    let version = major.saturating_mul(1000).saturating_add(minor);
    Line::Complete { version, status, text: Span::new(start, end), length }
}

/// Digits of a version up to what follows them.
fn number(input: &[u8], at: &mut usize, end: u8) -> Result<u16, Line> {
    let mut number = 0;
    let start = *at;
    loop {
        let byte = *input.get(*at).ok_or(Line::Incomplete)?;
        *at += 1;
        match byte {
            b'0'..=b'9' if number < 100 => number = number * 10 + u16::from(byte - b'0'),
            _ if byte == end && *at > start + 1 => return Ok(number),
            _ => return Err(Line::Invalid),
        }
    }
}

/// Holds what must be true of any input; for the fuzzer.
pub fn fuzz_upstream_head(data: &[u8]) {
    let cut = data.first().map_or(0, |&byte| usize::from(byte) % (data.len() + 1));
    for new in [HeadParser::default, HeadParser::of_script, HeadParser::of_script_or_server] {
        let whole = read(&mut new(), data);
        let mut parser = new();
        let first = read(&mut parser, &data[..cut]);
        if first == "incomplete" {
            assert_eq!(whole, read(&mut parser, data), "the same however it is cut");
        } else {
            assert_eq!(whole, first, "what is decided stays decided");
        }
    }
}

fn read(parser: &mut HeadParser, input: &[u8]) -> String {
    match parser.parse(input) {
        Progress::Incomplete => "incomplete".to_owned(),
        Progress::Bare => "bare".to_owned(),
        Progress::Bad(reason) => String::from_utf8_lossy(&reason).into_owned(),
        Progress::Complete(length) => {
            let (head, warnings) = parser.take(Bytes::copy_from_slice(&input[..length]));
            let mut text = format!("{} {}", head.version(), String::from_utf8_lossy(&head.status_line()));
            for (name, value, _) in head.headers() {
                text.push_str(&format!("|{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
            }
            for warning in warnings {
                text.push_str(&format!("|! {}", String::from_utf8_lossy(&warning)));
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let check = |input: &str, expected: &str| {
            assert_eq!(read(&mut HeadParser::default(), input.as_bytes()), expected, "{input:?}");
            fuzz_upstream_head(input.as_bytes());
        };
        check("HTTP/1.1 200 OK\r\nA: b\r\nx-C:d \n\r\n", "1001 200 OK|A=b|x-C=d");
        check("HTTP/1.1 200\n\n", "1001 200");
        check("HTTP/1.1 100 Continue\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n", "1001 100 Continue|A=b");
        check("HTTP/1.1 200 OK\r\nHTTP/1", "incomplete");
        check("HTTP/1.0 403.1 No\r\n\r\n", "1000 403.1 No");
        check("HTTP/1.1 299 Odd Reason\r\n\r\n", "1001 299 Odd Reason");
        check("HTTP/1.1 200 OK\r\nA: b\r\n", "incomplete");
        check("HTT", "incomplete");
        check("", "incomplete");
        check("garbage", "bare");
        check("HTTP/1.1 abc\r\n\r\n", "bare");
        check("HTTP/1.1 2000 x\r\n\r\n", "bare");
        check("HTTP/71.1 200 OK\r\n\r\n", "65535 200 OK");
        check("HTTP/0.9 200 x\r\n\r\n", "bare");
        check("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "upstream sent invalid header: \"no\\x20...\"");
        check(
            "HTTP/1.1 200 OK\r\nServer: a\r\nserver: b\r\n\r\n",
            concat!(
                "1001 200 OK|Server=a|! upstream sent duplicate header line: \"server: b\", ",
                "previous value: \"Server: a\", ignored"
            ),
        );
        check("HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n", "1001 200 OK|Set-Cookie=a|Set-Cookie=b");
    }

    #[test]
    fn scripts() {
        let check = |parser: fn() -> HeadParser, input: &str, expected: &str, status: Option<u16>| {
            let mut parser = parser();
            let Progress::Complete(length) = parser.parse(input.as_bytes()) else {
                assert_eq!(read(&mut parser, input.as_bytes()), expected, "{input:?}");
                return;
            };
            let (mut head, _) = parser.take(Bytes::copy_from_slice(&input.as_bytes()[..length]));
            let found = head.read_status().then(|| head.status());
            assert_eq!((String::from_utf8_lossy(&head.status_line()), found), (expected.into(), status), "{input:?}");
        };
        let (script, either) = (HeadParser::of_script, HeadParser::of_script_or_server);
        check(script, "Status: 404 Not Here\r\n\r\n", "404 Not Here", Some(404));
        check(script, "HTTP/1.1 404 Not Here\r\nA: b\r\n\r\n", "", Some(200));
        check(either, "Status: 404 Not Here\r\n\r\n", "404 Not Here", Some(404));
        check(either, "HTTP/1.1 404 Not Here\r\nStatus: 200\r\n\r\n", "404 Not Here", Some(404));
        check(either, "HTTPS: on\r\nLocation: /\r\n\r\n", "", Some(302));
        check(either, "HTTP", "incomplete", None);
        check(either, "A: b\r\n\r\n", "", Some(200));
        check(either, "Status: no\r\n\r\n", "", None);
    }

    #[test]
    fn lengths() {
        let check = |headers: &str, expected: &str| {
            let input = format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n");
            assert_eq!(read(&mut HeadParser::default(), input.as_bytes()), expected, "{headers:?}");
        };
        check(
            "Content-Length: 2\r\nContent-Length: 3",
            concat!(
                "upstream sent duplicate header line: \"Content-Length: 3\", ",
                "previous value: \"Content-Length: 2\""
            ),
        );
        check("Content-Length: x", "upstream sent invalid \"Content-Length\" header: \"Content-Length: x\"");
        let both = "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time";
        check("Content-Length: 2\r\nTransfer-Encoding: chunked", both);
        check("Transfer-Encoding: chunked\r\nContent-Length: 2", both);
        check("Transfer-Encoding: gzip", "upstream sent unknown \"Transfer-Encoding\": \"gzip\"");
    }
}
