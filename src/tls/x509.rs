//! What a certificate says, for variables and logs. That it is good is for others to find out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::der::{BOOLEAN, EXPLICIT_0, EXPLICIT_3, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE, UTC_TIME};
use super::names;
use super::signed::{PublicKey, Signed};

/// The parts of a certificate.
#[derive(Debug)]
pub struct Certificate<'d> {
    /// What its issuer has signed, and how.
    pub(super) signed: Signed<'d>,
    /// The number that its issuer gave it.
    pub(super) serial: &'d [u8],
    /// Who vouches for it, in DER without its head.
    pub(super) issuer: &'d [u8],
    /// Whose it is, in DER without its head.
    pub(super) subject: &'d [u8],
    /// The key that it is about.
    pub(super) key: PublicKey<'d>,
    extensions: Option<Reader<'d>>,
    /// From when on it holds, seconds since 1970.
    pub begins: i64,
    /// Until when.
    pub ends: i64,
}

impl<'d> Certificate<'d> {
    /// Reads it; `None`: it is none.
    pub fn new(der: &'d [u8]) -> Option<Self> {
        let signed = Signed::read(&mut Reader::new(der).inside(SEQUENCE)?)?;
        let mut inner = Reader::new(signed.message).inside(SEQUENCE)?;
        inner.tagged(EXPLICIT_0);
        let serial = inner.tagged(INTEGER)?;
        inner.tagged(SEQUENCE)?;
        let issuer = inner.tagged(SEQUENCE)?;
        let mut validity = inner.inside(SEQUENCE)?;
        let mut time = || validity.element().and_then(|element| seconds(element.tag == UTC_TIME, element.value));
        let (begins, ends) = (time()?, time()?);
        let subject = inner.tagged(SEQUENCE)?;
        let key = PublicKey::new(inner.tagged(SEQUENCE)?)?;
        // Identifiers of issuer and subject may come before.
        let mut extensions = None;
        while let Some(element) = inner.element() {
            if element.tag == EXPLICIT_3 {
                extensions = Reader::new(element.value).inside(SEQUENCE);
            }
        }
        Some(Self { signed, serial, issuer, subject, key, extensions, begins, ends })
    }

    /// What its extensions say.
    pub(super) fn extensions(&self) -> impl Iterator<Item = Extension<'d>> {
        let mut left = self.extensions;
        std::iter::from_fn(move || {
            let mut extension = left.as_mut()?.inside(SEQUENCE)?;
            let oid = extension.tagged(OID)?;
            let is_critical = extension.tagged(BOOLEAN).is_some_and(|value| value != [0]);
            Some(Extension { oid, is_critical, value: extension.tagged(OCTET_STRING)? })
        })
    }

    /// The purposes that its key is for; `None`: any.
    pub(super) fn purposes(&self) -> Option<Vec<&'d [u8]>> {
        let extension = self.extensions().find(|extension| extension.oid == EXTENDED_KEY_USAGE)?;
        let mut purposes = Reader::new(extension.value).inside(SEQUENCE)?;
        Some(std::iter::from_fn(|| purposes.tagged(OID)).collect())
    }

    /// Where its issuer answers by OCSP whether it is revoked: the first URL that it names.
    pub fn responder(&self) -> Option<String> {
        let extension = self.extensions().find(|extension| extension.oid == AUTHORITY_INFORMATION)?;
        let mut accesses = Reader::new(extension.value).inside(SEQUENCE)?;
        while let Some(mut access) = accesses.inside(SEQUENCE) {
            let is_ocsp = access.tagged(OID) == Some(OCSP);
            if let Some(url) = access.tagged(URL).filter(|_| is_ocsp) {
                return Some(String::from_utf8_lossy(url).into_owned());
            }
        }
        None
    }

    /// Whether it holds at a time, seconds since 1970.
    pub(super) fn holds(&self, now: i64) -> bool {
        (self.begins..=self.ends).contains(&now)
    }

    /// The subject, as RFC 2253 writes it.
    pub fn subject(&self) -> String {
        names::rfc2253(self.subject)
    }

    /// The issuer, as RFC 2253 writes it.
    pub fn issuer(&self) -> String {
        names::rfc2253(self.issuer)
    }

    /// The subject in the older form, `/CN=...`.
    pub fn subject_line(&self) -> String {
        names::oneline(self.subject)
    }

    /// The issuer in the older form.
    pub fn issuer_line(&self) -> String {
        names::oneline(self.issuer)
    }

    /// Whether it names itself as its issuer.
    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// The serial number in hexadecimal.
    pub fn serial(&self) -> String {
        let digits = match self.serial {
            [0, rest @ ..] if !rest.is_empty() => rest,
            all => all,
        };
        hex(digits).to_uppercase()
    }
}

/// A part of a certificate that not all have.
pub(super) struct Extension<'d> {
    pub(super) oid: &'d [u8],
    /// Whether who does not know it must not take the certificate.
    pub(super) is_critical: bool,
    pub(super) value: &'d [u8],
}

/// extKeyUsage
pub(super) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// authorityInfoAccess
const AUTHORITY_INFORMATION: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];
/// The access by OCSP.
const OCSP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1];
/// A URL, among the kinds of names.
const URL: u8 = 0x86;

/// The SHA-1 of a certificate, in hexadecimal.
pub fn fingerprint(der: &[u8]) -> String {
    hex(&Sha1::digest(der))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A certificate in PEM.
pub fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// `YYMMDDhhmmssZ`, or with four digits for the year: seconds since 1970.
pub(super) fn seconds(is_short: bool, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = text.split_at_checked(if is_short { 2 } else { 4 })?;
    let year: i64 = year.parse().ok()?;
    let year = match year {
        0..50 if is_short => year + 2000,
        50..100 if is_short => year + 1900,
        year => year,
    };
    let number = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (number(0)?, number(2)?);
    // Days since 1970, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
            - 719_469;
    Some(days * 86_400 + number(4)? * 3600 + number(6)? * 60 + number(8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl req -x509 -newkey ec ... -subj '/C=DE/O=A, b+c "x" <é>;\\/CN= #lead /emailAddress=a@b/2.5.4.99=z'`
    const PEM: &[u8] = include_bytes!("testdata/odd-names.pem");

    #[test]
    fn names_as_openssl_writes_them() {
        use rustls_pki_types::pem::PemObject;
        let der = rustls_pki_types::CertificateDer::from_pem_slice(PEM).expect("a certificate");
        let certificate = Certificate::new(&der).expect("readable");
        let expected = include_str!("testdata/odd-names.txt");
        let times = format!("{} {}", certificate.begins, certificate.ends);
        let all = [
            certificate.subject(),
            certificate.issuer(),
            certificate.subject_line(),
            certificate.serial(),
            fingerprint(&der),
            times,
        ];
        assert_eq!(all.join("\n"), expected.trim_end());
        assert_eq!(pem(&der).as_bytes(), PEM);
        assert!(certificate.is_self_issued());
        // However it is cut off, it is not read past its end.
        for length in 0..der.len() {
            drop(Certificate::new(&der[..length]).map(|certificate| certificate.subject()));
        }
    }
}
