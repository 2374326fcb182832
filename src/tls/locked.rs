//! Keys that a password locks: in PKCS#8's way, and in the older one of OpenSSL.

use aes::{Aes128, Aes192, Aes256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cbc::Decryptor;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt, KeyInit, KeyIvInit, block_padding::Pkcs7};
use des::TdesEde3;
use md5::{Digest, Md5};
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

use super::der::{Reader, SEQUENCE};

/// Nobody was there to type a password.
const UNREAD: &str = "error:04800068:PEM routines::bad password read";
/// None of the passwords is right.
const WRONG: &str = "error:1C800064:Provider routines::bad decrypt error:11800074:PKCS12 routines::pkcs12 cipherfinal \
                     error:maybe wrong password";
/// The same of a key of the older kind.
const WRONG_OLDER: &str = "error:1C800064:Provider routines::bad decrypt error:04800065:PEM routines::bad decrypt";

/// Unlocks a key in PEM by the first password that fits. `None`: it is not locked. An error is OpenSSL's reason.
pub(super) fn unlock(pem: &[u8], passwords: &[Vec<u8>]) -> Option<Result<PrivateKeyDer<'static>, &'static str>> {
    let text = String::from_utf8_lossy(pem);
    if let Some(lines) = section(&text, "ENCRYPTED PRIVATE KEY") {
        let der = STANDARD.decode(lines.concat()).unwrap_or_default();
        let open = |password: &Vec<u8>| {
            let key = EncryptedPrivateKeyInfoRef::try_from(&der[..]).ok()?.decrypt(password).ok()?;
            Some(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
        };
        return Some(first(passwords, WRONG, open));
    }
    ["RSA PRIVATE KEY", "EC PRIVATE KEY"].iter().find_map(|label| {
        let lines = section(&text, label)?;
        let how = lines.iter().find_map(|line| line.strip_prefix("DEK-Info:"))?.trim();
        // Headers have a colon, which is no digit of base64.
        let content: String = lines.iter().copied().filter(|line| !line.contains(':')).collect();
        let sealed = STANDARD.decode(content).unwrap_or_default();
        Some(first(passwords, WRONG_OLDER, |password| {
            let der = open_older(how, &sealed, password)?;
            Some(match label.starts_with("RSA") {
                true => PrivatePkcs1KeyDer::from(der).into(),
                false => PrivateSec1KeyDer::from(der).into(),
            })
        }))
    })
}

fn first(
    passwords: &[Vec<u8>],
    wrong: &'static str,
    open: impl Fn(&Vec<u8>) -> Option<PrivateKeyDer<'static>>,
) -> Result<PrivateKeyDer<'static>, &'static str> {
    let reason = if passwords.is_empty() { UNREAD } else { wrong };
    passwords.iter().find_map(open).ok_or(reason)
}

/// The lines between the marks of a section.
fn section<'t>(text: &'t str, label: &str) -> Option<Vec<&'t str>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != begin);
    lines.next()?;
    Some(lines.take_while(|line| *line != end).collect())
}

/// Opens a key of the older kind; `how` is as in `DEK-Info`: the cipher, and what it begins with.
fn open_older(how: &str, sealed: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let (cipher, iv) = how.split_once(',')?;
    let digit = |at| u8::from_str_radix(iv.trim().get(at..at + 2)?, 16).ok();
    let iv: Vec<u8> = (0..iv.trim().len() / 2).map(|byte| digit(2 * byte)).collect::<Option<_>>()?;
    // The key is made of MD5s, each of the one before with the password and the first bytes of the beginning.
    let salt = iv.get(..8)?;
    let mut key = Vec::new();
    for _ in 0..2 {
        let before = key.len().saturating_sub(16);
        let next = Md5::new().chain_update(&key[before..]).chain_update(password).chain_update(salt).finalize();
        key.extend_from_slice(&next);
    }
    let plain = match cipher {
        "AES-128-CBC" => decrypt::<Aes128>(&key[..16], &iv, sealed),
        "AES-192-CBC" => decrypt::<Aes192>(&key[..24], &iv, sealed),
        "AES-256-CBC" => decrypt::<Aes256>(&key, &iv, sealed),
        "DES-EDE3-CBC" => decrypt::<TdesEde3>(&key[..24], &iv, sealed),
        _ => None,
    };
    // A wrong password may by chance come to an end that looks right, but not to a sequence that is that long.
    plain.filter(|der| Reader::new(der).inside(SEQUENCE).is_some())
}

fn decrypt<C: BlockCipherDecrypt + KeyInit>(key: &[u8], iv: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = sealed.to_vec();
    let plain = Decryptor::<C>::new_from_slices(key, iv).ok()?.decrypt_padded::<Pkcs7>(&mut buffer).ok()?;
    Some(plain.to_vec())
}
