//! Byte ranges: what `Range` asks for, whether `If-Range` allows it, and the framing of several parts.

use smallvec::SmallVec;

use super::ascii::push_decimal;
use super::conditional::Validators;
use super::date::parse_http_date;

/// A range with bytes in it: `start < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

impl ByteRange {
    /// `bytes 0-99/1234` (`Content-Range`).
    pub fn content_range(&self, length: u64) -> Vec<u8> {
        let mut out = b"bytes ".to_vec();
        self.push_bounds(&mut out, length);
        out
    }

    fn push_bounds(&self, out: &mut Vec<u8>, length: u64) {
        push_decimal(out, self.start);
        out.push(b'-');
        push_decimal(out, self.end - 1);
        out.push(b'/');
        push_decimal(out, length);
    }
}

/// `bytes */1234`: the `Content-Range` of a 416.
pub fn unsatisfied_range(length: u64) -> Vec<u8> {
    let mut out = b"bytes */".to_vec();
    push_decimal(&mut out, length);
    out
}

/// What a `Range` header leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The header is ignored and all is sent.
    Whole,
    /// 206 with these, in the order asked for.
    Parts(SmallVec<[ByteRange; 1]>),
    /// 416, with [`unsatisfied_range`].
    Unsatisfiable,
}

/// Parses the value of `Range` for an answer of `length` bytes that may be sent in at most `max_ranges` pieces.
pub fn parse(value: &[u8], length: u64, max_ranges: Option<usize>) -> Ranges {
    if max_ranges == Some(0) || value.len() < 7 || !value[..6].eq_ignore_ascii_case(b"bytes=") {
        return Ranges::Whole;
    }
    let mut parts = SmallVec::new();
    let mut size = 0_u64;
    for part in value[6..].split(|&ch| ch == b',') {
        let Some(range) = one(part, length) else {
            return Ranges::Unsatisfiable;
        };
        if range.start < range.end {
            size = match size.checked_add(range.end - range.start) {
                Some(size) if size <= i64::MAX as u64 => size,
                _ => return Ranges::Unsatisfiable,
            };
            if max_ranges.is_some_and(|max| parts.len() >= max) {
                return Ranges::Whole;
            }
            parts.push(range);
        } else if range.start == 0 {
            return Ranges::Whole;
        }
    }
    if parts.is_empty() {
        Ranges::Unsatisfiable
    } else if size > length {
        // Overlaps that add up to more than the whole: an attack or a mistake.
        Ranges::Whole
    } else {
        Ranges::Parts(parts)
    }
}

/// `a-b`, `a-` or `-n`, possibly empty; `None` if it is none of them.
fn one(part: &[u8], length: u64) -> Option<ByteRange> {
    let part = trim(part);
    if let Some(suffix) = part.strip_prefix(b"-") {
        let count = number(suffix)?;
        return Some(ByteRange { start: length.saturating_sub(count), end: length });
    }
    let dash = memchr::memchr(b'-', part)?;
    let start = number(trim(&part[..dash]))?;
    let end = match trim(&part[dash + 1..]) {
        [] => length,
        digits => number(digits)?.saturating_add(1).min(length),
    };
    Some(ByteRange { start, end })
}

fn number(digits: &[u8]) -> Option<u64> {
    super::ascii::parse_off(digits)
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

/// Whether `If-Range` (a tag or a date) is about this very answer, so that a range of it may be sent.
pub fn if_range_holds(value: &[u8], validators: &Validators<'_>) -> bool {
    if value.len() >= 2 && value.ends_with(b"\"") {
        return validators.etag == Some(value);
    }
    validators.last_modified.is_some_and(|time| parse_http_date(value) == Some(time))
}

/// `multipart/byteranges; boundary=...`: `number` is a process-wide counter, so that boundaries differ.
pub fn multipart_content_type(number: u64) -> Vec<u8> {
    format!("multipart/byteranges; boundary={number:020}").into_bytes()
}

/// What stands before one of several parts.
pub fn part_head(number: u64, content_type: &[u8], range: &ByteRange, length: u64) -> Vec<u8> {
    let mut out = format!("\r\n--{number:020}\r\n").into_bytes();
    if !content_type.is_empty() {
        out.extend_from_slice(b"Content-Type: ");
        out.extend_from_slice(content_type);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"Content-Range: bytes ");
    range.push_bounds(&mut out, length);
    out.extend_from_slice(b"\r\n\r\n");
    out
}

/// What stands after the last of several parts.
pub fn last_boundary(number: u64) -> Vec<u8> {
    format!("\r\n--{number:020}--\r\n").into_bytes()
}

/// Holds what must be true of any input; for the fuzzer. The first byte is the length of the answer.
pub fn fuzz_range(data: &[u8]) {
    let Some((&length, value)) = data.split_first() else {
        return;
    };
    let length = u64::from(length);
    for value in [value, &[b"bytes=", value].concat()] {
        if let Ranges::Parts(parts) = parse(value, length, Some(10)) {
            assert!((1..=10).contains(&parts.len()), "as many as allowed");
            assert!(parts.iter().all(|part| part.start < part.end && part.end <= length), "inside the answer");
            assert!(parts.iter().map(|part| part.end - part.start).sum::<u64>() <= length, "no more than all");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn show(value: &str, length: u64, max_ranges: Option<usize>) -> String {
        match parse(value.as_bytes(), length, max_ranges) {
            Ranges::Whole => "whole".into(),
            Ranges::Unsatisfiable => "416".into(),
            Ranges::Parts(parts) => {
                let texts: Vec<_> = parts.iter().map(|part| format!("{}..{}", part.start, part.end)).collect();
                texts.join(" ")
            }
        }
    }

    #[test]
    fn ranges() {
        for (value, expected) in [
            ("bytes=0-4", "0..5"),
            ("BYTES=0-0", "0..1"),
            ("bytes=5-", "5..10"),
            ("bytes=-3", "7..10"),
            ("bytes=-30", "0..10"),
            ("bytes=-0", "416"),
            ("bytes=8-100", "8..10"),
            ("bytes=10-", "416"),
            ("bytes=5-3", "416"),
            ("bytes=0-1,4-5", "0..2 4..6"),
            ("bytes= 0 - 1 , 4-5", "0..2 4..6"),
            ("bytes=0-1,20-30", "0..2"),
            ("bytes=0-9,0-9", "whole"),
            ("bytes=0-1,x", "416"),
            ("bytes=x-1", "416"),
            ("bytes=", "whole"),
            ("bytes=-", "416"),
            ("bytes=1", "416"),
            ("bytes=0-1,", "416"),
            ("bytes=99999999999999999999-", "416"),
            ("lines=0-4", "whole"),
        ] {
            assert_eq!(show(value, 10, None), expected, "{value}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(show("bytes=0-1", 10, Some(0)), "whole");
        assert_eq!(show("bytes=0-1", 10, Some(1)), "0..2");
        assert_eq!(show("bytes=0-1,2-3", 10, Some(1)), "whole");
        assert_eq!(show("bytes=-5", 0, None), "whole");
    }

    #[test]
    fn if_range() {
        let validators = Validators { last_modified: Some(784_111_777), etag: Some(b"\"a\"") };
        for (value, expected) in [
            ("\"a\"", true),
            ("\"b\"", false),
            ("W/\"a\"", false),
            ("Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("Sun, 06 Nov 1994 08:49:38 GMT", false),
            ("never", false),
        ] {
            assert_eq!(if_range_holds(value.as_bytes(), &validators), expected, "{value}");
        }
    }

    #[test]
    fn several_parts() {
        let range = ByteRange { start: 1, end: 3 };
        let head = part_head(7, b"text/plain", &range, 10);
        let expected = b"\r\n--00000000000000000007\r\nContent-Type: text/plain\r\nContent-Range: bytes 1-2/10\r\n\r\n";
        assert_eq!(head.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(last_boundary(7), b"\r\n--00000000000000000007--\r\n");
    }

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..40)) {
            fuzz_range(&data);
        }

        #[test]
        fn any_list(text in "[ a](([0-9]{1,3}| )-([0-9]{0,3}| )|,|-){0,6}") {
            fuzz_range(text.as_bytes());
        }
    }
}
