//! One header line, and the headers that nginx itself looks at.

use super::span::Span;

/// A header that has a meaning to the server, found without comparing names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Known {
    Host,
    Connection,
    IfModifiedSince,
    IfUnmodifiedSince,
    IfMatch,
    IfNoneMatch,
    UserAgent,
    Referer,
    ContentLength,
    ContentRange,
    ContentType,
    Range,
    IfRange,
    TransferEncoding,
    Te,
    Expect,
    Upgrade,
    AcceptEncoding,
    Via,
    Authorization,
    KeepAlive,
    XForwardedFor,
    Cookie,
}

impl Known {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::Cookie as usize + 1;

    /// The known header of this name, whatever its case.
    #[inline]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let (known, spelling): (Self, &[u8]) = match (name.len(), name.first()? | 0x20) {
            (2, b't') => (Self::Te, b"te"),
            (3, b'v') => (Self::Via, b"via"),
            (4, b'h') => (Self::Host, b"host"),
            (5, b'r') => (Self::Range, b"range"),
            (6, b'c') => (Self::Cookie, b"cookie"),
            (6, b'e') => (Self::Expect, b"expect"),
            (7, b'r') => (Self::Referer, b"referer"),
            (7, b'u') => (Self::Upgrade, b"upgrade"),
            (8, b'i') if name[3] | 0x20 == b'm' => (Self::IfMatch, b"if-match"),
            (8, b'i') => (Self::IfRange, b"if-range"),
            (10, b'c') => (Self::Connection, b"connection"),
            (10, b'k') => (Self::KeepAlive, b"keep-alive"),
            (10, b'u') => (Self::UserAgent, b"user-agent"),
            (12, b'c') => (Self::ContentType, b"content-type"),
            (13, b'c') => (Self::ContentRange, b"content-range"),
            (13, b'a') => (Self::Authorization, b"authorization"),
            (13, b'i') => (Self::IfNoneMatch, b"if-none-match"),
            (14, b'c') => (Self::ContentLength, b"content-length"),
            (15, b'a') => (Self::AcceptEncoding, b"accept-encoding"),
            (15, b'x') => (Self::XForwardedFor, b"x-forwarded-for"),
            (17, b'i') => (Self::IfModifiedSince, b"if-modified-since"),
            (17, b't') => (Self::TransferEncoding, b"transfer-encoding"),
            (19, b'i') => (Self::IfUnmodifiedSince, b"if-unmodified-since"),
            _ => return None,
        };
        name.eq_ignore_ascii_case(spelling).then_some(known)
    }

    /// Whether a second one makes the request bad.
    pub(crate) fn is_unique(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::IfModifiedSince
                | Self::IfUnmodifiedSince
                | Self::IfMatch
                | Self::IfNoneMatch
                | Self::ContentLength
                | Self::ContentRange
                | Self::IfRange
                | Self::TransferEncoding
                | Self::Expect
                | Self::Authorization
        )
    }
}

/// How far a header line has got. Places are relative to the line's start.
#[derive(Debug, PartialEq)]
pub(crate) enum HeaderProgress {
    /// Nothing wrong so far, but no line end yet.
    Incomplete,
    /// A header, and the line's length.
    Complete(HeaderLine, usize),
    /// The empty line that ends the head, and its length.
    End(usize),
    /// Refused; the log shows the line up to this byte.
    Bad(usize),
}

/// A header as parsed.
#[derive(Debug, PartialEq)]
pub(crate) struct HeaderLine {
    pub(crate) name: Span,
    pub(crate) value: Span,
    /// The name has characters other than letters, digits and dashes (underscores too, unless allowed).
    pub(crate) invalid: bool,
}

/// Parses the header line at the start of `input`.
#[inline]
pub(crate) fn parse(input: &[u8], underscores: bool) -> HeaderProgress {
    let mut invalid = false;
    let mut name_end = 0;
    let stop = loop {
        let Some(&ch) = input.get(name_end) else {
            return HeaderProgress::Incomplete;
        };
        match NAME_CLASS[usize::from(ch)] {
            Class::Plain => {}
            Class::Underscore => invalid |= !underscores,
            Class::Odd => invalid = true,
            Class::Stop => break ch,
        }
        name_end += 1;
    };
    match stop {
        b'\r' | b'\n' if name_end == 0 => return end_of_head(input),
        b':' | b'\r' | b'\n' if name_end > 0 => {}
        _ => return HeaderProgress::Bad(name_end),
    }
    let mut start = name_end;
    if stop == b':' {
        start += 1;
        while input.get(start) == Some(&b' ') {
            start += 1;
        }
    }
    let Some(length) = memchr::memchr3(b'\r', b'\n', 0, &input[start..]) else {
        return HeaderProgress::Incomplete;
    };
    let end = start + length;
    let value = &input[start..end];
    let trailing = value.iter().rev().take_while(|&&ch| ch == b' ').count();
    let value = Span::new(start, end - trailing);
    let mut at = end;
    while input.get(at) == Some(&b'\r') {
        at += 1;
    }
    match input.get(at) {
        Some(b'\n') => {}
        None => return HeaderProgress::Incomplete,
        Some(0) => return HeaderProgress::Bad(at),
        // nginx's log shows the line as far as the value was good.
        Some(_) => return HeaderProgress::Bad(value.end()),
    }
    let line = HeaderLine { name: Span::new(0, name_end), value, invalid };
    HeaderProgress::Complete(line, at + 1)
}

fn end_of_head(input: &[u8]) -> HeaderProgress {
    match input {
        [b'\n', ..] => HeaderProgress::End(1),
        [b'\r', b'\n', ..] => HeaderProgress::End(2),
        [b'\r'] => HeaderProgress::Incomplete,
        _ => HeaderProgress::Bad(0),
    }
}

#[derive(Clone, Copy)]
enum Class {
    /// Letters, digits, dash.
    Plain,
    Underscore,
    /// Makes the header one to ignore.
    Odd,
    /// Ends the name, rightly or wrongly.
    Stop,
}

const NAME_CLASS: [Class; 256] = {
    let mut table = [Class::Odd; 256];
    let mut ch = 0;
    while ch < 128 {
        let byte = ch as u8;
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            table[ch] = Class::Plain;
        } else if byte <= b' ' || byte == 0x7f || byte == b':' {
            table[ch] = Class::Stop;
        }
        ch += 1;
    }
    table[b'_' as usize] = Class::Underscore;
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn show(input: &str) -> String {
        let text = |span: Span| String::from_utf8_lossy(span.of(input.as_bytes())).into_owned();
        match parse(input.as_bytes(), false) {
            HeaderProgress::Incomplete => "more".into(),
            HeaderProgress::End(length) => format!("end {length}"),
            HeaderProgress::Bad(at) => format!("bad {at}"),
            HeaderProgress::Complete(line, length) => format!(
                "{}={}{}{}",
                text(line.name),
                text(line.value),
                if line.invalid { " invalid" } else { "" },
                if length == input.len() { "" } else { " rest" },
            ),
        }
    }

    #[test]
    fn lines() {
        for (input, expected) in [
            ("Host: a\r\n", "Host=a"),
            ("Host:a\n", "Host=a"),
            ("X-A:   sp  \r\n", "X-A=sp"),
            ("X-A: a  b\r\nY", "X-A=a  b rest"),
            ("X-A: \tb\t\r\n", "X-A=\tb\t"),
            ("X-A:\r\n", "X-A="),
            ("X-A:  \r\n", "X-A="),
            ("X-A: 1\r\r\n", "X-A=1"),
            ("X-A\r\n", "X-A="),
            ("X_A: 1\r\n", "X_A=1 invalid"),
            ("X(A): 1\r\n", "X(A)=1 invalid"),
            ("X-A: \x01\r\n", "X-A=\x01"),
            ("\r\n", "end 2"),
            ("\nrest", "end 1"),
            ("X A: 1\r\n", "bad 1"),
            (": 1\r\n", "bad 0"),
            (" two\r\n", "bad 0"),
            ("\tX: y\r\n", "bad 0"),
            ("Host : a\r\n", "bad 4"),
            ("X-A: \0\r\n", "bad 5"),
            ("X-A: a\rb\r\n", "bad 6"),
            ("X-A: a  \rb\r\n", "bad 6"),
            ("\rx", "bad 0"),
            ("\r", "more"),
            ("X-A: a\r", "more"),
            ("X-A: ", "more"),
            ("X", "more"),
        ] {
            assert_eq!(show(input), expected, "{input:?}");
        }
    }

    #[test]
    fn known_names() {
        for (name, expected) in [
            ("hOST", Some(Known::Host)),
            ("Content-Length", Some(Known::ContentLength)),
            ("if-match", Some(Known::IfMatch)),
            ("If-Range", Some(Known::IfRange)),
            ("if-foot", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(Known::from_name(name.as_bytes()), expected, "{name}");
        }
    }
}
