//! Whether a password is the one that was hashed: what nginx does itself, and the system's `crypt` for it.

use base64::alphabet;
use md5::Md5;
use sha1::{Digest, Sha1};

use crate::http::wire::authorization::decode_base64;

/// Whether a password fits what a file has for it.
pub(super) fn is_right(password: &[u8], hash: &[u8]) -> bool {
    if let Some(plain) = hash.strip_prefix(b"{PLAIN}") {
        return plain == password;
    }
    if let Some(encoded) = hash.strip_prefix(b"{SHA}") {
        return decode_base64(encoded, &alphabet::STANDARD).is_some_and(|digest| digest == Sha1::digest(password)[..]);
    }
    if let Some(encoded) = hash.strip_prefix(b"{SSHA}") {
        return decode_base64(encoded, &alphabet::STANDARD).is_some_and(|decoded| salted_sha(password, &decoded));
    }
    if let Some(rest) = hash.strip_prefix(b"$apr1$") {
        let salt = rest.split(|byte| *byte == b'$').next().unwrap_or_default();
        let salt = &salt[..salt.len().min(8)];
        return rest.get(salt.len()..).is_some_and(|tail| tail == [b"$", &apr1(password, salt)[..]].concat());
    }
    // As the system's: a password ends at a zero byte.
    let password = password.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(hash).is_ok_and(|hash| is_known(hash) && pwhash::unix::verify(password, hash))
}

/// Whether `crypt` would take it; a hash of another kind fits no password.
fn is_known(hash: &str) -> bool {
    let kinds = ["$1$", "$2a$", "$2b$", "$2y$", "$5$", "$6$"];
    let is_des = || hash.len() == 13 && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
    kinds.iter().any(|kind| hash.starts_with(kind)) || is_des()
}

/// A digest of twenty bytes, and the salt after it.
fn salted_sha(password: &[u8], decoded: &[u8]) -> bool {
    decoded
        .split_at_checked(20)
        .is_some_and(|(digest, salt)| Sha1::new().chain_update(password).chain_update(salt).finalize()[..] == *digest)
}

/// Apache's digest: the one of `$1$` with another name.
fn apr1(password: &[u8], salt: &[u8]) -> Vec<u8> {
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut digest = Md5::new().chain_update(password).chain_update(b"$apr1$").chain_update(salt);
    for part in password.chunks(16) {
        digest.update(&inner[..part.len()]);
    }
    let mut length = password.len();
    while length > 0 {
        digest.update(if length & 1 == 1 { &[0] } else { password.get(..1).unwrap_or_default() });
        length >>= 1;
    }
    let mut last = digest.finalize();
    for round in 0..1000 {
        let mut digest = Md5::new();
        digest.update(if round % 2 == 1 { password } else { &last });
        if round % 3 != 0 {
            digest.update(salt);
        }
        if round % 7 != 0 {
            digest.update(password);
        }
        digest.update(if round % 2 == 1 { &last } else { password });
        last = digest.finalize();
    }
    let triple =
        |a: usize, b: usize, c: usize| (u32::from(last[a]) << 16) | (u32::from(last[b]) << 8) | u32::from(last[c]);
    let groups = [triple(0, 6, 12), triple(1, 7, 13), triple(2, 8, 14), triple(3, 9, 15), triple(4, 10, 5)];
    let mut text = Vec::with_capacity(22);
    for group in groups {
        put(&mut text, group, 4);
    }
    put(&mut text, u32::from(last[11]), 2);
    text
}

/// Writes six bits at a time, the lowest first.
fn put(text: &mut Vec<u8>, mut bits: u32, letters: usize) {
    const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for _ in 0..letters {
        text.push(LETTERS[(bits & 63) as usize]);
        bits >>= 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes() {
        let check = |hash: &str, password: &str, expected: bool| {
            assert_eq!(is_right(password.as_bytes(), hash.as_bytes()), expected, "{hash} {password}");
        };
        // Made by openssl passwd, htpasswd and Debian's crypt.
        check("{PLAIN}secret", "secret", true);
        check("{PLAIN}secret", "secre", false);
        check("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "password", true);
        check("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "passwort", false);
        check("{SHA}????", "", false);
        check("{SSHA}////", "", false);
        check("abNANd1rDfiNc", "secret", true);
        check("abNANd1rDfiNc", "Secret", false);
        check("$1$abcd$Oy8OD9LGKv7H9yIMreLNV1", "secret", true);
        check("$1$abcd$Oy8OD9LGKv7H9yIMreLNV1", "Secret", false);
        check("$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi.", "secret", true);
        check("$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi.", "Secret", false);
        check(
            "$6$saltstring$AIsRs/Ee56G/tC8MEHhvReZTfx8u3rXXMl6eYrjCG9ibix19DxoMBLogdTET5Ukw9Sf7eZTITsuk0Ry5qulYz.",
            "secret",
            true,
        );
        check(
            "$6$saltstring$AIsRs/Ee56G/tC8MEHhvReZTfx8u3rXXMl6eYrjCG9ibix19DxoMBLogdTET5Ukw9Sf7eZTITsuk0Ry5qulYz.",
            "Secret",
            false,
        );
        check(
            "$6$rounds=1400$salt$IRMegY57CHDfER9At5lNhLy5Co1PkL5t4eqmOHHvZ16BYzYwC9Cvkil5wSDAW5v8gVYGYvsvsrwU9pJ10Oyi8.",
            "secret",
            true,
        );
        check(
            "$6$rounds=1400$salt$IRMegY57CHDfER9At5lNhLy5Co1PkL5t4eqmOHHvZ16BYzYwC9Cvkil5wSDAW5v8gVYGYvsvsrwU9pJ10Oyi8.",
            "Secret",
            false,
        );
        check("$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a", "secret", true);
        check("$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a", "Secret", false);
        check("$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0", "secret", true);
        check("$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0", "Secret", false);
        check("{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0", "secret", true);
        check("{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0", "Secret", false);
        check("abmF1QH4PEr.E", "", true);
        check("$1$abcd$CwbBDotm4UoKv5fATTtzT.", "", true);
        check("$5$saltstring$FdNfA4gXqvCeO6iZs7G/.wwwoywYZqo0l1pwmfWaBA7", "", true);
        check(
            "$6$saltstring$kyGrqt6gmjAdtFLPrflEFifSYLCWWq1pyx95SvqinLDy2UHmj0sTF0MSLMwxPFZc3tu5kQckI8fks0zOPda3n1",
            "",
            true,
        );
        check(
            "$6$rounds=1400$salt$HimG7JIm1FAcolp.xzscpMrA5PiR0lbhqTHb4H9sh09mN3kCI1togLjhUlHSEe8jCt8w/pOYA1tawdRJKffCJ0",
            "",
            true,
        );
        check("$2y$05$abcdefghijklmnopqrstuu0oImNDIy4flhldV9YqunRgBAePKmw7m", "", true);
        check("{SSHA}spXRFxNal2PaKC59rnOlyn0+WxFzYWx0", "", true);
        check("abgCPYIPCO/2s", "a much longer password than sixteen bytes", true);
        check("$1$abcd$VRpi.iNhXQ78qtHYJYelf.", "a much longer password than sixteen bytes", true);
        check(
            "$5$saltstring$W9GxW3aoa.Pm0HjR.Af1t6MrsyYZQ7W8h8hDED/cZK7",
            "a much longer password than sixteen bytes",
            true,
        );
        check(
            "$6$saltstring$Kx5w0Kj2.yCniM9.duzHz1irsyHYGEd8TM7oxJau/vFphMkh1FJRXoYcAAzaYLG7BLZJ7lh68DM5oWQ2yZvdm.",
            "a much longer password than sixteen bytes",
            true,
        );
        check(
            "$6$rounds=1400$salt$ZB4Y9LjCDfGBdMPmG4XBNvRXbquOKCQA88sjKoUZHdQttXzvOYr/WIZ9QG.vZ5KgrFQaahkDBZPyEMP/iXFOM0",
            "a much longer password than sixteen bytes",
            true,
        );
        check(
            "$2y$05$abcdefghijklmnopqrstuuZ9jsKomYa0kVjaP/n39sx.30cJzA68G",
            "a much longer password than sixteen bytes",
            true,
        );
        check("$apr1$saltsalt$4YdsMdvaQmZ0TvJbACAEe0", "a much longer password than sixteen bytes", true);
        check("{SSHA}3PG2Wm5gQxP26Jj7pxbbfCTTpDZzYWx0", "a much longer password than sixteen bytes", true);
        for hash in
            ["", "*", "!", "ab", "ab1CY3cMhPsYo1", "$1$", "$2y$", "$5$", "$6$rounds=", "$apr1$", "$apr1$x", "$9$a$b"]
        {
            check(hash, "", false);
        }
    }
}
