//! Flags, numbers, sizes and times, as nginx reads them.

use std::ops::Deref;
use std::time::Duration;

use super::{Call, Cx, Fault, Value};

/// `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag(pub bool);

impl Deref for Flag {
    type Target = bool;

    fn deref(&self) -> &bool {
        &self.0
    }
}

impl Value for Flag {
    const SYNTAX: &'static str = "on | off";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        let word = call.text(0);
        if word.eq_ignore_ascii_case("on") {
            Ok(Self(true))
        } else if word.eq_ignore_ascii_case("off") {
            Ok(Self(false))
        } else {
            let name = call.name();
            Err(Fault::new(format!("invalid value \"{word}\" in \"{name}\" directive, it must be \"on\" or \"off\""))
                .word(0))
        }
    }

    fn from_default(text: &'static str) -> Self {
        Self(text == "on")
    }
}

/// A whole number, not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub u64);

impl Deref for Number {
    type Target = u64;

    fn deref(&self) -> &u64 {
        &self.0
    }
}

impl Value for Number {
    const SYNTAX: &'static str = "number";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        parse_number(call.bytes(0)).map(Self).ok_or_else(|| call.fault("invalid number").word(0))
    }

    fn from_default(text: &'static str) -> Self {
        Self(parse_number(text.as_bytes()).unwrap_or_default())
    }
}

/// A size in bytes: `512`, `8k`, `1m`. nginx knows gigabytes only of an [`Offset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl Deref for Size {
    type Target = u64;

    fn deref(&self) -> &u64 {
        &self.0
    }
}

impl Value for Size {
    const SYNTAX: &'static str = "size";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        parse_size(call.bytes(0)).map(Self).ok_or_else(|| call.invalid_value())
    }

    fn from_default(text: &'static str) -> Self {
        Self(parse_size(text.as_bytes()).unwrap_or_default())
    }
}

/// A size of what lies on disks or passes through: as [`Size`], and in gigabytes too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset(pub u64);

impl Deref for Offset {
    type Target = u64;

    fn deref(&self) -> &u64 {
        &self.0
    }
}

impl Value for Offset {
    const SYNTAX: &'static str = "size";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        parse_offset(call.bytes(0)).map(Self).ok_or_else(|| call.invalid_value())
    }

    fn from_default(text: &'static str) -> Self {
        Self(parse_offset(text.as_bytes()).unwrap_or_default())
    }
}

/// A time to the millisecond: `60s`, `500ms`, `1m30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msec(pub Duration);

impl Deref for Msec {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl Value for Msec {
    const SYNTAX: &'static str = "time";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        parse_msec(call.bytes(0)).map(Self).ok_or_else(|| call.invalid_value())
    }

    fn from_default(text: &'static str) -> Self {
        Self(parse_msec(text.as_bytes()).unwrap_or_default())
    }
}

/// A time in whole seconds: `60`, `1h30m`, `2d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sec(pub u64);

impl Deref for Sec {
    type Target = u64;

    fn deref(&self) -> &u64 {
        &self.0
    }
}

impl Value for Sec {
    const SYNTAX: &'static str = "time";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        parse_sec(call.bytes(0)).map(Self).ok_or_else(|| call.invalid_value())
    }

    fn from_default(text: &'static str) -> Self {
        Self(parse_sec(text.as_bytes()).unwrap_or_default())
    }
}

/// Digits only, and no more than nginx's signed 64 bits hold.
pub fn parse_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit).filter(|number| *number <= i64::MAX as u64)
    })
}

/// Digits and `k` or `m`, in either case.
pub fn parse_size(text: &[u8]) -> Option<u64> {
    let (digits, scale) = match text.split_last()? {
        (b'k' | b'K', digits) => (digits, 1 << 10),
        (b'm' | b'M', digits) => (digits, 1 << 20),
        _ => (text, 1),
    };
    parse_number(digits)?.checked_mul(scale).filter(|size| *size <= i64::MAX as u64)
}

/// A size that may be in gigabytes: `g`.
pub fn parse_offset(text: &[u8]) -> Option<u64> {
    match text.split_last()? {
        (b'g' | b'G', digits) => parse_number(digits)?.checked_mul(1 << 30).filter(|size| *size <= i64::MAX as u64),
        _ => parse_size(text),
    }
}

/// A time to the millisecond.
pub fn parse_msec(text: &[u8]) -> Option<Duration> {
    parse_time(text, true).map(Duration::from_millis)
}

/// A time in seconds.
pub fn parse_sec(text: &[u8]) -> Option<u64> {
    parse_time(text, false)
}

/// Units from the largest to the smallest, each at most once; a number without a unit is seconds and stands last.
fn parse_time(text: &[u8], in_msec: bool) -> Option<u64> {
    const DAY: u64 = 24 * 60 * 60;
    const UNITS: [(&[u8], u64); 8] = [
        (b"y", 365 * DAY * 1000),
        (b"M", 30 * DAY * 1000),
        (b"w", 7 * DAY * 1000),
        (b"d", DAY * 1000),
        (b"h", 60 * 60 * 1000),
        (b"m", 60 * 1000),
        (b"s", 1000),
        (b"ms", 1),
    ];
    let mut rest = text;
    let mut total = 0u64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = parse_number(&rest[..digits])?;
        rest = &rest[digits..];
        let letters = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        let (unit, scale) = match &rest[..letters] {
            b"" => (6, 1000),
            written => UNITS.iter().position(|(name, _)| *name == written).map(|unit| (unit, UNITS[unit].1))?,
        };
        if unit < next_unit || (unit == 7 && !in_msec) {
            return None;
        }
        next_unit = unit + 1;
        rest = &rest[letters..];
        total = total.checked_add(number.checked_mul(scale)?)?;
        let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
        if letters == 0 && rest.len() > blanks {
            return None;
        }
        rest = &rest[blanks..];
    }
    if text.is_empty() {
        return None;
    }
    let total = if in_msec { total } else { total / 1000 };
    (total <= i64::MAX as u64).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, msec: Option<u64>| {
            assert_eq!(parse_msec(text.as_bytes()), msec.map(Duration::from_millis), "{text:?}");
        };
        check("0", Some(0));
        check("60", Some(60_000));
        check("1m30s", Some(90_000));
        check("1m 30s", Some(90_000));
        check("1m30", Some(90_000));
        check("10ms", Some(10));
        check("1d", Some(86_400_000));
        check("30s1m", None);
        check("1m1m", None);
        check("", None);
        check("s", None);
        check("-1", None);
        check("1x", None);
        check("99999999999999999999", None);
        assert_eq!(parse_sec(b"10ms"), None);
        assert_eq!(parse_sec(b"1M"), Some(30 * 86_400));
    }

    #[test]
    fn sizes() {
        let check = |text: &str, size: Option<u64>| assert_eq!(parse_size(text.as_bytes()), size, "{text:?}");
        check("1", Some(1));
        check("1k", Some(1024));
        check("1K", Some(1024));
        check("2m", Some(2 << 20));
        check("1g", None);
        check("k", None);
        check("1x", None);
        check("-1", None);
        check("99999999999999999999", None);
        assert_eq!(parse_offset(b"1g"), Some(1 << 30));
        assert_eq!(parse_offset(b"5m"), Some(5 << 20));
        assert_eq!(parse_offset(b"99999999999g"), None);
    }
}
