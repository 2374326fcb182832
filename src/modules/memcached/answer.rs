//! How memcached's answers are read.

use std::fmt::Write;

use bytes::{Bytes, BytesMut};

use crate::config::value::parse_number;
use crate::http::Request;
use crate::http::upstream::script::{READING, parse_head};
use crate::http::upstream::{Decoder, Ended, Parsed, Protocol};
use crate::http::wire::upstream_head::{Field, HeadParser, UpstreamHead};
use crate::server::log::{Level, shown};

/// memcached's protocol, as text.
pub(super) struct Memcached<'k> {
    key: &'k [u8],
    gzip_flag: u64,
    is_head: bool,
}

/// What the first line of an answer says.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Value { is_gzip: bool, length: u64 },
    Nothing,
}

impl<'k> Memcached<'k> {
    /// For the answer about a key; that to HEAD has no body.
    pub(super) fn new(key: &'k [u8], gzip_flag: u64, is_head: bool) -> Self {
        Self { key, gzip_flag, is_head }
    }

    /// Reads the first line of an answer, which has no line feed any more. An error is in nginx's words.
    fn read(&self, line: &[u8]) -> Result<Line, String> {
        let invalid = |line: &[u8]| format!("memcached sent invalid response: \"{}\"", shown(line));
        let line = line.strip_suffix(b"\r").ok_or_else(|| invalid(line))?;
        if line == b"END" {
            return Ok(Line::Nothing);
        }
        let wrong = |what: &str| {
            let (line, key) = (shown(line), shown(self.key));
            format!("memcached sent invalid {what} in response \"{line}\" for key \"{key}\"")
        };
        let rest = line.strip_prefix(b"VALUE ").ok_or_else(|| invalid(line))?;
        let rest = rest.strip_prefix(self.key).ok_or_else(|| wrong("key"))?;
        let rest = rest.strip_prefix(b" ").ok_or_else(|| invalid(line))?;
        let space = memchr::memchr(b' ', rest).ok_or_else(|| invalid(line))?;
        let is_gzip = match self.gzip_flag {
            0 => false,
            flag => parse_number(&rest[..space]).ok_or_else(|| wrong("flags"))? & flag != 0,
        };
        let length = parse_number(&rest[space + 1..]).ok_or_else(|| wrong("length"))?;
        Ok(Line::Value { is_gzip, length })
    }
}

impl Protocol for Memcached<'_> {
    fn reset(&mut self) {}

    fn parse(&mut self, request: &Request, input: &mut BytesMut) -> Parsed {
        let Some(length) = memchr::memchr(b'\n', input) else { return Parsed::More };
        let line = input.split_to(length + 1);
        let read = self.read(&line[..length]);
        // As a script would say it.
        let mut head = String::new();
        match read {
            Ok(Line::Value { is_gzip, length }) => {
                let encoding = if is_gzip { "Content-Encoding: gzip\n" } else { "" };
                let _infallible = write!(head, "Content-Length: {length}\n{encoding}\n");
            }
            Ok(Line::Nothing) => {
                let key = shown(self.key);
                request.log(Level::Info, &format!("key: \"{key}\" was not found by memcached {READING}"));
                head.push_str("Status: 404\nContent-Length: 0\n\n");
            }
            Err(message) => {
                request.log(Level::Error, &format!("{message} {READING}"));
                return Parsed::Bad;
            }
        }
        match parse_head(&mut HeadParser::of_script(), request, &mut BytesMut::from(head.as_bytes())) {
            Parsed::Head(mut head) => {
                // Nobody reads the value then.
                head.set_closes(self.is_head && head.status() == 200);
                Parsed::Head(head)
            }
            parsed => parsed,
        }
    }

    fn decoder(&self, head: &UpstreamHead) -> Decoder {
        match head.content_length() {
            Some(length) if head.status() == 200 && !self.is_head => Decoder::Ended(Ended::by_memcached(length)),
            _ => Decoder::Empty,
        }
    }

    fn hides(&self, _: &[u8], field: Option<Field>) -> bool {
        field == Some(Field::Status)
    }

    fn rewrite(&self, _: &Request, _: Field, _: &Bytes) -> Option<Bytes> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |line: &str, gzip_flag: u64, expected: Result<Line, &str>| {
            let read = Memcached::new(b"a%20b", gzip_flag, false).read(line.as_bytes());
            assert_eq!(read.as_ref().map_err(String::as_str), expected.as_ref().map_err(|text| *text), "{line:?}");
        };
        let value = |is_gzip, length| Ok(Line::Value { is_gzip, length });
        check("VALUE a%20b 0 12\r", 0, value(false, 12));
        check("VALUE a%20b 6 12\r", 2, value(true, 12));
        check("VALUE a%20b 4 12\r", 2, value(false, 12));
        check("VALUE a%20b x 12\r", 0, value(false, 12));
        check("END\r", 0, Ok(Line::Nothing));
        check("END", 0, Err("memcached sent invalid response: \"END\""));
        check("ERROR\r", 0, Err("memcached sent invalid response: \"ERROR\""));
        check("VALUE a%20b 12\r", 0, Err("memcached sent invalid response: \"VALUE a%20b 12\""));
        check("VALUE a%20bc 0 1\r", 0, Err("memcached sent invalid response: \"VALUE a%20bc 0 1\""));
        let wrong = "memcached sent invalid key in response \"VALUE b 0 12\" for key \"a%20b\"";
        check("VALUE b 0 12\r", 0, Err(wrong));
        let wrong = "memcached sent invalid flags in response \"VALUE a%20b x 12\" for key \"a%20b\"";
        check("VALUE a%20b x 12\r", 2, Err(wrong));
        let wrong = "memcached sent invalid length in response \"VALUE a%20b 0 x\" for key \"a%20b\"";
        check("VALUE a%20b 0 x\r", 2, Err(wrong));
    }
}
