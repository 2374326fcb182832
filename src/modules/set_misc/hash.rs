//! Digests: `set_md5`, `set_sha1` in hexadecimal, `set_hmac_sha1`, `set_hmac_sha256` as raw bytes.

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::step::{In, Outcome};
use super::text::hex;

/// `set_md5`
pub(super) fn md5(given: In<'_>) -> Outcome {
    Ok(hex(&Md5::digest(given.text())))
}

/// `set_sha1`
pub(super) fn sha1(given: In<'_>) -> Outcome {
    Ok(hex(&Sha1::digest(given.text())))
}

/// `set_hmac_sha1`
pub(super) fn hmac_sha1(given: In<'_>) -> Outcome {
    let mut mac = Hmac::<Sha1>::new_from_slice(given.at(0)).map_err(|error| error.to_string())?;
    mac.update(given.at(1));
    Ok(Bytes::copy_from_slice(&mac.finalize().into_bytes()))
}

/// `set_hmac_sha256`
pub(super) fn hmac_sha256(given: In<'_>) -> Outcome {
    let mut mac = Hmac::<Sha256>::new_from_slice(given.at(0)).map_err(|error| error.to_string())?;
    mac.update(given.at(1));
    Ok(Bytes::copy_from_slice(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::set_misc::step::Function;

    #[test]
    fn digests() {
        let check = |function: Function, texts: &[&[u8]], expected: &str| {
            assert_eq!(function(In::test(texts)).unwrap(), expected, "{texts:?}");
        };
        check(md5, &[b""], "d41d8cd98f00b204e9800998ecf8427e");
        check(md5, &[b"abc"], "900150983cd24fb0d6963f7d28e17f72");
        check(sha1, &[b"abc"], "a9993e364706816aba3e25717850c26c9cd0d89d");
    }

    #[test]
    fn macs() {
        let check = |function: Function, key: &[u8], text: &[u8], expected: &str| {
            assert_eq!(hex(&function(In::test(&[key, text])).unwrap()), expected, "{key:?} {text:?}");
        };
        check(hmac_sha1, b"key", b"abc", "4fd0b215276ef12f2b3e4c8ecac2811498b656fc");
        check(hmac_sha1, b"", b"", "fbdb1d1b18aa6c08324b7d64b71fb76370690e1d");
        check(hmac_sha256, b"key", b"abc", "9c196e32dc0175f86f4b1cb89289d6619de6bee699e4c378e68309ed97a1a6ab");
        check(hmac_sha256, b"", b"abc", "fd7adb152c05ef80dccf50a1fa4c05d5a3ec6da95575fc312ae7c5d091836351");
    }
}
