//! `set_encode_base32`, `set_decode_base32`, and the settings of both.

use super::step::{In, Outcome};
use crate::config::value::{Flag, Value};
use crate::config::{Call, Cx, Fault, Merge, Section, Slot};

/// How base32 is written.
#[derive(Clone, Debug)]
pub(super) struct Base32 {
    padding: bool,
    alphabet: [u8; 32],
}

/// What a block says.
#[derive(Debug, Default)]
pub(super) struct RawBase32 {
    padding: Option<bool>,
    alphabet: Option<[u8; 32]>,
}

const DEFAULT: Base32 = Base32 { padding: true, alphabet: *b"0123456789abcdefghijklmnopqrstuv" };

impl Section for Base32 {
    type Raw = RawBase32;

    fn merge(raw: &RawBase32, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        let parent = parent.unwrap_or(&DEFAULT);
        Self { padding: raw.padding.unwrap_or(parent.padding), alphabet: raw.alphabet.unwrap_or(parent.alphabet) }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// `set_base32_padding`
pub(super) fn padding(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let flag = Flag::parse(call, cx)?;
    let slot = &mut cx.edit::<Base32>().padding;
    if slot.is_some() {
        return Err(call.duplicate());
    }
    *slot = Some(*flag);
    Ok(())
}

/// `set_misc_base32_padding`, its older name
pub(super) fn old_padding(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let message =
        "the \"set_misc_base32_padding\" directive is deprecated, use the \"set_base32_padding\" directive instead";
    cx.warn("deprecated", message, call);
    padding(cx, call)
}

/// `set_base32_alphabet`
pub(super) fn alphabet(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let length = call.bytes(0).len();
    let alphabet = call
        .bytes(0)
        .try_into()
        .map_err(|_| call.fault(&format!("takes an alphabet of {length} bytes but 32 expected")).word(0))?;
    let slot = &mut cx.edit::<Base32>().alphabet;
    if slot.is_some() {
        return Err(call.duplicate());
    }
    *slot = Some(alphabet);
    Ok(())
}

/// `set_encode_base32`
pub(super) fn encode(given: In<'_>) -> Outcome {
    Ok(settings(given).encode(given.text()).into())
}

/// `set_decode_base32`
pub(super) fn decode(given: In<'_>) -> Outcome {
    Ok(settings(given).decode(given.text()).into())
}

fn settings<'r>(given: In<'r>) -> &'r Base32 {
    given.request().map_or(&DEFAULT, |request| request.settings::<Base32>())
}

impl Base32 {
    fn encode(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len().div_ceil(5) * 8);
        for chunk in text.chunks(5) {
            let mut bits = [0; 8];
            bits[3..3 + chunk.len()].copy_from_slice(chunk);
            let bits = u64::from_be_bytes(bits);
            let symbols = (chunk.len() * 8).div_ceil(5);
            out.extend((0..symbols).map(|symbol| self.alphabet[(bits >> (35 - 5 * symbol)) as usize & 31]));
            if self.padding {
                out.extend(std::iter::repeat_n(b'=', 8 - symbols));
            }
        }
        out
    }

    /// Reads up to the first `=`; a length that no text can have gives nothing.
    fn decode(&self, text: &[u8]) -> Vec<u8> {
        let end = memchr::memchr(b'=', text).unwrap_or(text.len());
        if matches!(end % 8, 1 | 3 | 6) {
            return Vec::new();
        }
        let mut out = Vec::with_capacity(end * 5 / 8);
        for chunk in text[..end].chunks(8) {
            // The original's table is not filled in for bytes outside the alphabet: they count 0 there.
            let value = |byte: &u8| self.alphabet.iter().position(|symbol| symbol == byte).unwrap_or(0) as u64;
            let bits = chunk.iter().enumerate().fold(0, |bits, (index, byte)| bits | value(byte) << (35 - 5 * index));
            out.extend_from_slice(&bits.to_be_bytes()[3..3 + chunk.len() * 5 / 8]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_texts() {
        let check = |base32: &Base32, text: &str, expected: &str| {
            assert_eq!(String::from_utf8(base32.encode(text.as_bytes())).unwrap(), expected);
            assert_eq!(String::from_utf8(base32.decode(expected.as_bytes())).unwrap(), text);
        };
        for (text, expected) in [
            ("", ""),
            ("a", "c4======"),
            ("ab", "c5h0===="),
            ("abc", "c5h66==="),
            ("abcde", "c5h66p35"),
            ("foobar", "cpnmuoj1e8======"),
        ] {
            check(&DEFAULT, text, expected);
        }
        let own = Base32 { padding: false, alphabet: *b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" };
        check(&own, "foobar", "MZXW6YTBOI");
    }

    #[test]
    fn foreign_texts() {
        let check = |text: &str, expected: &[u8]| assert_eq!(DEFAULT.decode(text.as_bytes()), expected, "{text}");
        check("c", b"");
        check("cpn", b"");
        check("cpnmuo", b"");
        check("cpnmu", b"foo");
        check("zzzzzzzz", &[0; 5]);
        check("C4", &[1]);
        check("=c4", b"");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text: Vec<u8>) {
            prop_assert_eq!(DEFAULT.decode(&DEFAULT.encode(&text)), text);
        }
    }
}
