//! Who a client says that it is: basic authentication, and the base64 that it comes in.

use base64::Engine;
use base64::alphabet::{self, Alphabet};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Basic authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basic {
    /// The user; not empty.
    pub user: Vec<u8>,
    /// The password.
    pub password: Vec<u8>,
}

impl Basic {
    /// Reads the value of `Authorization`; `None`: it is none of this kind.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (scheme, encoded) = header.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let blanks = encoded.iter().take_while(|byte| **byte == b' ').count();
        let decoded = decode_base64(&encoded[blanks..], &alphabet::STANDARD)?;
        let colon = memchr::memchr(b':', &decoded).filter(|colon| *colon > 0)?;
        Some(Self { user: decoded[..colon].to_vec(), password: decoded[colon + 1..].to_vec() })
    }
}

/// nginx's decoder: the text ends at the first `=`, wherever that stands, and bits left over mean nothing.
pub fn decode_base64(text: &[u8], alphabet: &Alphabet) -> Option<Vec<u8>> {
    let end = memchr::memchr(b'=', text).unwrap_or(text.len());
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone);
    GeneralPurpose::new(alphabet, config).decode(&text[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_passwords() {
        let check = |header: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(user, password)| Basic { user: user.into(), password: password.into() });
            assert_eq!(Basic::parse(header.as_bytes()), expected, "{header}");
        };
        check("Basic YW5uOnB3", Some(("ann", "pw")));
        check("basic   YW5uOnB3", Some(("ann", "pw")));
        check("Basic YW5uOmE6Yg==", Some(("ann", "a:b")));
        check("Basic YW5uOg", Some(("ann", "")));
        check("Basic YW5u", None);
        check("Basic OnB3", None);
        check("Basic ", None);
        check("Basic", None);
        check("Basic ??", None);
        check("Bearer YW5uOnB3", None);
    }
}
