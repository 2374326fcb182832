//! Reading DER, as far as certificates need it: elements, one after the other, never past the end.

/// BOOLEAN
pub(super) const BOOLEAN: u8 = 0x01;
/// INTEGER
pub(super) const INTEGER: u8 = 0x02;
/// BIT STRING
pub(super) const BIT_STRING: u8 = 0x03;
/// OCTET STRING
pub(super) const OCTET_STRING: u8 = 0x04;
/// OBJECT IDENTIFIER
pub(super) const OID: u8 = 0x06;
/// UTF8String
pub(super) const UTF8: u8 = 0x0c;
/// ENUMERATED
pub(super) const ENUMERATED: u8 = 0x0a;
/// UTCTime
pub(super) const UTC_TIME: u8 = 0x17;
/// GeneralizedTime
pub(super) const GENERALIZED_TIME: u8 = 0x18;
/// BMPString
pub(super) const BMP: u8 = 0x1e;
/// UniversalString
pub(super) const UNIVERSAL: u8 = 0x1c;
/// SEQUENCE
pub(super) const SEQUENCE: u8 = 0x30;
/// SET
pub(super) const SET: u8 = 0x31;
/// The explicit tag `[0]`.
pub(super) const EXPLICIT_0: u8 = 0xa0;
/// The explicit tag `[3]`.
pub(super) const EXPLICIT_3: u8 = 0xa3;

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'d> {
    pub(super) tag: u8,
    pub(super) value: &'d [u8],
    /// With tag and length.
    pub(super) whole: &'d [u8],
}

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'d>(&'d [u8]);

impl<'d> Reader<'d> {
    pub(super) fn new(bytes: &'d [u8]) -> Self {
        Self(bytes)
    }

    /// The next element; `None` at the end, and where the bytes are none.
    pub(super) fn element(&mut self) -> Option<Element<'d>> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Element { tag: *tag, value, whole })
    }

    /// The value of the next element, if it has a tag; otherwise nothing is taken.
    pub(super) fn tagged(&mut self, tag: u8) -> Option<&'d [u8]> {
        let mut ahead = *self;
        let element = ahead.element().filter(|element| element.tag == tag)?;
        *self = ahead;
        Some(element.value)
    }

    /// What is in the next element, if it has a tag.
    pub(super) fn inside(&mut self, tag: u8) -> Option<Self> {
        self.tagged(tag).map(Self)
    }
}

/// Writes an element of what is in it.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut written = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..0x80) => written.push(short),
        _ => {
            let digits = length.to_be_bytes();
            let digits = &digits[digits.iter().take_while(|digit| **digit == 0).count()..];
            written.push(0x80 | u8::try_from(digits.len()).unwrap_or(0x7f));
            written.extend_from_slice(digits);
        }
    }
    parts.iter().for_each(|part| written.extend_from_slice(part));
    written
}

/// The numbers of an object identifier, with dots.
pub(super) fn dotted(oid: &[u8]) -> String {
    let mut text = String::new();
    let mut number = 0u64;
    for byte in oid {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if text.is_empty() {
            let first = (number / 40).min(2);
            text = format!("{first}.{}", number - 40 * first);
        } else {
            text.push_str(&format!(".{number}"));
        }
        number = 0;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_end_where_the_bytes_do() {
        assert_eq!(Reader::new(&[0x30, 2, 1, 2, 9]).element().map(|element| element.value), Some(&[1, 2][..]));
        assert_eq!(Reader::new(&[0x30, 3, 1, 2]).element(), None);
        assert_eq!(Reader::new(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 1]).element(), None);
        assert_eq!(Reader::new(&[0x30, 0x80]).element(), None);
        assert_eq!(Reader::new(&[0x30]).element(), None);
    }

    #[test]
    fn what_is_written_can_be_read() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; length];
            let written = element(SEQUENCE, &[&content[..length / 2], &content[length / 2..]]);
            assert_eq!(Reader::new(&written).tagged(SEQUENCE), Some(&content[..]));
        }
    }

    #[test]
    fn object_identifiers() {
        assert_eq!(dotted(&[0x55, 4, 3]), "2.5.4.3");
        assert_eq!(dotted(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1]), "1.2.840.113549.1.9.1");
    }
}
