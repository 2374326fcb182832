//! Codecs of text: hexadecimal, base64, URIs; and `set_if_empty`.

use base64::Engine;
use base64::alphabet::{self, Alphabet};
use bytes::Bytes;

use super::step::{In, Outcome};
use crate::http::wire::authorization;

/// `set_if_empty`
pub(super) fn if_empty(given: In<'_>) -> Outcome {
    let index = usize::from(given.at(0).is_empty());
    Ok(Bytes::copy_from_slice(given.at(index)))
}

/// `set_encode_hex`
pub(super) fn encode_hex(given: In<'_>) -> Outcome {
    Ok(hex(given.text()))
}

/// Lower-case digits.
pub(super) fn hex(bytes: &[u8]) -> Bytes {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    digits.collect::<Vec<u8>>().into()
}

/// `set_decode_hex`
pub(super) fn decode_hex(given: In<'_>) -> Outcome {
    let (pairs, rest) = given.text().as_chunks::<2>();
    let decoded: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    decoded.filter(|_| rest.is_empty()).map(Bytes::from).ok_or_else(|| "set_decode_hex: invalid value".to_owned())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// `set_encode_base64`
pub(super) fn encode_base64(given: In<'_>) -> Outcome {
    Ok(base64::engine::general_purpose::STANDARD.encode(given.text()).into())
}

/// `set_encode_base64url`
pub(super) fn encode_base64url(given: In<'_>) -> Outcome {
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(given.text()).into())
}

/// `set_decode_base64`
pub(super) fn decode_base64(given: In<'_>) -> Outcome {
    decode(given.text(), &alphabet::STANDARD).ok_or_else(|| "set_decode_base64: invalid value".to_owned())
}

/// `set_decode_base64url`
pub(super) fn decode_base64url(given: In<'_>) -> Outcome {
    decode(given.text(), &alphabet::URL_SAFE).ok_or_else(|| "set_decode_base64url: invalid value".to_owned())
}

fn decode(text: &[u8], alphabet: &Alphabet) -> Option<Bytes> {
    authorization::decode_base64(text, alphabet).map(Bytes::from)
}

/// `set_escape_uri`
pub(super) fn escape_uri(given: In<'_>) -> Outcome {
    const KEPT: &[u8] = b"!$'()*,-.@_`|~";
    let mut out = Vec::with_capacity(given.text().len());
    for byte in given.text() {
        if byte.is_ascii_alphanumeric() || KEPT.contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    Ok(out.into())
}

/// `set_unescape_uri`
pub(super) fn unescape_uri(given: In<'_>) -> Outcome {
    let mut out = Vec::with_capacity(given.text().len());
    let mut rest = given.text().iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let Some(first) = rest.next() else { break };
                let Some(high) = digit(first) else {
                    // The sign alone is dropped.
                    out.push(first);
                    continue;
                };
                // After one digit, what is none is dropped with it.
                if let Some(low) = rest.next().and_then(digit) {
                    out.push(high << 4 | low);
                }
            }
            _ => out.push(byte),
        }
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::modules::set_misc::step::Function;

    fn check(function: Function, text: &[u8], expected: Result<&[u8], &str>) {
        let got = function(In::test(&[text]));
        let got = got.as_ref().map(|bytes| &bytes[..]).map_err(String::as_str);
        assert_eq!(got, expected, "{}", text.escape_ascii());
    }

    #[test]
    fn hexadecimal() {
        check(encode_hex, b"\x00\xffa", Ok(b"00ff61"));
        check(decode_hex, b"00fF61", Ok(b"\x00\xffa"));
        for wrong in [&b"6"[..], b"zz", b"0x41", b"61 62", b"+1"] {
            check(decode_hex, wrong, Err("set_decode_hex: invalid value"));
        }
    }

    #[test]
    fn base64() {
        check(encode_base64, b"fooba", Ok(b"Zm9vYmE="));
        check(encode_base64url, b"\xff\xfe\xfd\xfc", Ok(b"__79_A"));
        check(decode_base64, b"Zm9vYg", Ok(b"foob"));
        check(decode_base64, b"Zm9vYg=", Ok(b"foob"));
        check(decode_base64, b"Zm9=v", Ok(b"fo"));
        check(decode_base64, b"====", Ok(b""));
        check(decode_base64, b"YR", Ok(b"a"));
        check(decode_base64url, b"-_-_", Ok(b"\xfb\xff\xbf"));
        for wrong in [&b"Y"[..], b"!!!!", b"YW Jj", b"-_-_", b"\xd0\xb6"] {
            check(decode_base64, wrong, Err("set_decode_base64: invalid value"));
        }
        check(decode_base64url, b"++//", Err("set_decode_base64url: invalid value"));
    }

    #[test]
    fn uris() {
        check(
            escape_uri,
            b"a b/?&=#%+\x00\x7f\xd0\"<>\\{}^[];:",
            Ok(b"a%20b%2F%3F%26%3D%23%25%2B%00%7F%D0%22%3C%3E%5C%7B%7D%5E%5B%5D%3B%3A"),
        );
        check(escape_uri, b"!$'()*,-.09@AZ_`az|~", Ok(b"!$'()*,-.09@AZ_`az|~"));
        for (text, expected) in [
            (&b"a%20b+c"[..], &b"a b c"[..]),
            (b"%zz", b"zz"),
            (b"%4z!", b"!"),
            (b"%4", b""),
            (b"a%", b"a"),
            (b"x%%41y", b"x%41y"),
            (b"%00x", b"\0x"),
        ] {
            check(unescape_uri, text, Ok(expected));
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text: Vec<u8>) {
            let pairs: [(Function, Function); 4] = [
                (encode_hex, decode_hex),
                (encode_base64, decode_base64),
                (encode_base64url, decode_base64url),
                (escape_uri, unescape_uri),
            ];
            for (encode, decode) in pairs {
                let encoded = encode(In::test(&[&text])).unwrap();
                prop_assert_eq!(decode(In::test(&[&encoded])).unwrap(), &text);
            }
        }
    }
}
