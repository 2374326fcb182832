//! OCSP (RFC 6960): the question whether a certificate is revoked, and what a responder says to it. Nothing is sent here.

use sha1::{Digest, Sha1};

use super::der::{ENUMERATED, EXPLICIT_0, GENERALIZED_TIME, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE, element};
use super::signed::{PublicKey, Signed};
use super::x509::{Certificate, seconds};

/// A question about one certificate.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who vouches for it, in DER without its head.
    issuer: Vec<u8>,
    /// Their key, in DER without its head.
    key: Vec<u8>,
    serial: Vec<u8>,
    /// Certificates that may have signed the answer where it is not looked at whether they may.
    others: Vec<Vec<u8>>,
}

/// What is known of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is not revoked.
    Good,
    /// It is.
    Revoked,
    /// The responder does not know it.
    Unknown,
}

/// A responder's answer, found to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub status: Status,
    /// Until when, seconds since 1970; `None`: it does not say.
    pub until: Option<i64>,
}

/// By how much clocks may differ, seconds.
const SKEW: i64 = 300;

/// SHA-1 as an algorithm.
const SHA1: &[u8] = &[0x30, 9, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0];
/// The same alone.
const SHA1_OID: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];
/// The kind of answer that there is.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
/// The purpose of who answers in an issuer's name.
const OCSP_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];

impl Question {
    /// Asks about a certificate. The issuer's name and key are in DER, without their heads.
    pub fn new(certificate: &[u8], issuer: &[u8], key: &[u8]) -> Option<Self> {
        PublicKey::new(key)?;
        let serial = Certificate::new(certificate)?.serial.to_vec();
        Some(Self { issuer: issuer.to_vec(), key: key.to_vec(), serial, others: Vec::new() })
    }

    /// Asks about the first of some certificates, whose issuer is among the others. `None`: it is not there.
    pub fn of<'c>(certificate: &[u8], others: impl Iterator<Item = &'c [u8]> + Clone) -> Option<Self> {
        let read = Certificate::new(certificate)?;
        let is_issuer = |other: &&'c [u8]| {
            Certificate::new(other).is_some_and(|other| other.subject == read.issuer && read.signed.is_by(&other.key))
        };
        let issuer = Certificate::new(others.clone().find(is_issuer)?)?;
        let asked = Self::new(certificate, issuer.subject, &issuer.key.info())?;
        Some(Self { others: others.map(<[u8]>::to_vec).collect(), ..asked })
    }

    /// The question in DER.
    pub fn der(&self) -> Vec<u8> {
        let id = element(SEQUENCE, &[&self.id()]);
        let list = element(SEQUENCE, &[&element(SEQUENCE, &[&id])]);
        element(SEQUENCE, &[&element(SEQUENCE, &[&list])])
    }

    /// What the question is about, for who remembers answers.
    pub fn id(&self) -> Vec<u8> {
        let (name, key) = self.hashes();
        let parts =
            [element(OCTET_STRING, &[&name]), element(OCTET_STRING, &[&key]), element(INTEGER, &[&self.serial])];
        [SHA1, &parts.concat()].concat()
    }

    fn hashes(&self) -> ([u8; 20], [u8; 20]) {
        let key = PublicKey::new(&self.key).map_or(&[][..], |key| key.bits);
        (Sha1::digest(element(SEQUENCE, &[&self.issuer])).into(), Sha1::digest(key).into())
    }

    /// Reads an answer. It must be signed by the issuer or in its name; if not `strictly`, by anybody whose certificate is
    /// there. An error is why it is of no use, in nginx's words.
    pub fn read(&self, der: &[u8], now: i64, strictly: bool) -> Result<Answer, String> {
        let mut outer = Reader::new(der).inside(SEQUENCE).ok_or("d2i_OCSP_RESPONSE() failed")?;
        let success = outer.tagged(ENUMERATED).ok_or("d2i_OCSP_RESPONSE() failed")?;
        if let Some(number) = success.first().filter(|number| **number != 0) {
            return Err(format!("OCSP response not successful ({number}: {})", failure(*number)));
        }
        let basic = basic(&mut outer).ok_or("OCSP_response_get1_basic() failed")?;
        let mut whole = basic;
        let signed = Signed::read(&mut whole).ok_or("OCSP_response_get1_basic() failed")?;
        if !self.is_signed(&signed, whole, now, strictly) {
            return Err("OCSP_basic_verify() failed".to_owned());
        }
        let mut singles = responses(signed.message).ok_or("OCSP_response_get1_basic() failed")?;
        let missing = "certificate status not found in the OCSP response";
        while let Some(mut single) = singles.inside(SEQUENCE) {
            if single.inside(SEQUENCE).is_some_and(|id| self.is_about(id)) {
                let Single { status, begins, until } = Single::read(single).ok_or(missing)?;
                let is_valid = begins <= now + SKEW && until.is_none_or(|until| until > begins && until >= now - SKEW);
                return match is_valid {
                    true => Ok(Answer { status, until }),
                    false => Err("OCSP_check_validity() failed".to_owned()),
                };
            }
        }
        Err(missing.to_owned())
    }

    /// Whether the answer is signed by who may; `rest` stands behind the signature.
    fn is_signed(&self, signed: &Signed<'_>, mut rest: Reader<'_>, now: i64, strictly: bool) -> bool {
        let Some(issuer) = PublicKey::new(&self.key) else { return false };
        if signed.is_by(&issuer) {
            return true;
        }
        let mut shown =
            rest.inside(EXPLICIT_0).and_then(|mut shown| shown.inside(SEQUENCE)).unwrap_or_else(|| Reader::new(&[]));
        let shown = std::iter::from_fn(|| shown.element().map(|certificate| certificate.whole));
        let may_answer = |certificate: &Certificate<'_>| {
            certificate.issuer == self.issuer
                && certificate.holds(now)
                && certificate.purposes().is_some_and(|purposes| purposes.contains(&OCSP_SIGNING))
                && certificate.signed.is_by(&issuer)
        };
        let others = self.others.iter().map(Vec::as_slice).filter(|_| !strictly);
        let mut signers = shown.chain(others).filter_map(Certificate::new);
        signers.any(|signer| (!strictly || may_answer(&signer)) && signed.is_by(&signer.key))
    }

    /// Whether something is about the certificate that was asked about.
    fn is_about(&self, mut id: Reader<'_>) -> bool {
        let algorithm = id.inside(SEQUENCE).and_then(|mut algorithm| algorithm.tagged(OID));
        let (name, key) = self.hashes();
        algorithm == Some(SHA1_OID)
            && id.tagged(OCTET_STRING) == Some(&name)
            && id.tagged(OCTET_STRING) == Some(&key)
            && id.tagged(INTEGER) == Some(&self.serial)
    }
}

/// What is said of one certificate.
struct Single {
    status: Status,
    begins: i64,
    until: Option<i64>,
}

impl Single {
    /// Reads what stands behind the certificate's id.
    fn read(mut reader: Reader<'_>) -> Option<Self> {
        let status = match reader.element()?.tag {
            0x80 => Status::Good,
            0xa1 => Status::Revoked,
            _ => Status::Unknown,
        };
        let begins = seconds(false, reader.tagged(GENERALIZED_TIME)?)?;
        let until = match reader.inside(EXPLICIT_0) {
            Some(mut until) => Some(seconds(false, until.tagged(GENERALIZED_TIME)?)?),
            None => None,
        };
        Some(Self { status, begins, until })
    }
}

/// What is inside of an answer of the kind that is known.
fn basic<'d>(outer: &mut Reader<'d>) -> Option<Reader<'d>> {
    let mut bytes = outer.inside(EXPLICIT_0)?.inside(SEQUENCE)?;
    let is_basic = bytes.tagged(OID)? == BASIC;
    Reader::new(bytes.tagged(OCTET_STRING).filter(|_| is_basic)?).inside(SEQUENCE)
}

/// What is said of each certificate.
fn responses(message: &[u8]) -> Option<Reader<'_>> {
    let mut data = Reader::new(message).inside(SEQUENCE)?;
    data.tagged(EXPLICIT_0);
    // Who answers.
    data.element()?;
    data.tagged(GENERALIZED_TIME)?;
    data.inside(SEQUENCE)
}

fn failure(number: u8) -> &'static str {
    match number {
        1 => "malformedrequest",
        2 => "internalerror",
        3 => "trylater",
        5 => "sigrequired",
        6 => "unauthorized",
        _ => "(UNKNOWN)",
    }
}

/// OpenSSL's word for a status.
impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;

    /// An authority, and a certificate with the serial number 255, by OpenSSL.
    const ASKED: &[u8] = include_bytes!("testdata/asked.pem");
    /// `openssl ocsp -no_nonce -reqout`
    const QUESTION: &[u8] = include_bytes!("testdata/ocsp-question.der");
    /// Answers that are good for a century: signed in the authority's name, and by who has another certificate of it.
    const DELEGATE: &[u8] = include_bytes!("testdata/ocsp-delegate.der");
    const STRANGER: &[u8] = include_bytes!("testdata/ocsp-stranger.der");
    /// A day in 2027.
    const NOW: i64 = 1_800_000_000;

    fn question() -> Question {
        let all: Vec<_> = CertificateDer::pem_slice_iter(ASKED).map(|read| read.expect("a certificate")).collect();
        Question::of(&all[1], all.iter().map(AsRef::as_ref)).expect("the issuer is there")
    }

    #[test]
    fn questions_are_those_of_openssl() {
        assert_eq!(question().der(), QUESTION);
    }

    #[test]
    fn answers_are_signed_by_who_may() {
        let question = question();
        let read = |answer, strictly| question.read(answer, NOW, strictly).map(|answer| answer.status);
        assert_eq!(read(DELEGATE, true), Ok(Status::Good));
        assert_eq!(read(STRANGER, false), Ok(Status::Good));
        assert_eq!(read(STRANGER, true), Err("OCSP_basic_verify() failed".to_owned()));
        assert_eq!(question.read(DELEGATE, NOW * 4, false), Err("OCSP_check_validity() failed".to_owned()));
        let other = Question { serial: vec![1], ..question.clone() };
        let missing = "certificate status not found in the OCSP response";
        assert_eq!(other.read(DELEGATE, NOW, true), Err(missing.to_owned()));
        assert_eq!(read(&[0x30, 3, 0x0a, 1, 3], true), Err("OCSP response not successful (3: trylater)".to_owned()));
    }

    #[test]
    fn no_answer_is_read_past_its_end_or_changed() {
        let question = question();
        for length in 0..DELEGATE.len() {
            assert!(question.read(&DELEGATE[..length], NOW, false).is_err());
        }
        for at in 0..DELEGATE.len() {
            let mut changed = DELEGATE.to_vec();
            changed[at] ^= 0x41;
            // What is changed in the certificates or the status's own head may still be signed rightly, by nobody else.
            if let Ok(answer) = question.read(&changed, NOW, true) {
                assert_eq!(answer.status, Status::Good, "{at}");
            }
        }
    }
}
