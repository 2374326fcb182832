//! What somebody's key has signed, in certificates, in OCSP's answers and in handshakes.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::{CertificateError, DigitallySignedStruct};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

use super::der::{BIT_STRING, Reader, SEQUENCE, element};
use super::provider;
use super::x509::Certificate;

/// A message with its signature.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'d> {
    /// What is signed, whole.
    pub(super) message: &'d [u8],
    /// How, in DER without its head.
    algorithm: &'d [u8],
    signature: &'d [u8],
}

impl<'d> Signed<'d> {
    /// Reads the message, the algorithm and the signature, which stand one after the other.
    pub(super) fn read(reader: &mut Reader<'d>) -> Option<Self> {
        let message = reader.element().filter(|element| element.tag == SEQUENCE)?.whole;
        let algorithm = reader.tagged(SEQUENCE)?;
        Some(Self { message, algorithm, signature: bits(reader)? })
    }

    /// Whether the key has signed it.
    pub(super) fn is_by(&self, key: &PublicKey<'_>) -> bool {
        let algorithms = provider().signature_verification_algorithms.all.iter();
        algorithms
            .filter(|algorithm| algorithm.signature_alg_id().as_ref() == self.algorithm)
            .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == key.algorithm)
            .any(|algorithm| algorithm.verify_signature(key.bits, self.message, self.signature).is_ok())
    }
}

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PublicKey<'d> {
    /// Of which kind, in DER without its head.
    pub(super) algorithm: &'d [u8],
    /// The key itself.
    pub(super) bits: &'d [u8],
}

impl<'d> PublicKey<'d> {
    /// Reads a SubjectPublicKeyInfo, without its head.
    pub(super) fn new(info: &'d [u8]) -> Option<Self> {
        let mut reader = Reader::new(info);
        Some(Self { algorithm: reader.tagged(SEQUENCE)?, bits: bits(&mut reader)? })
    }

    /// The SubjectPublicKeyInfo, without its head.
    pub(super) fn info(&self) -> Vec<u8> {
        [element(SEQUENCE, &[self.algorithm]), element(BIT_STRING, &[&[0], self.bits])].concat()
    }

    /// The same, whole.
    pub(super) fn der(&self) -> Vec<u8> {
        element(SEQUENCE, &[&self.info()])
    }
}

/// A string of whole bytes.
fn bits<'d>(reader: &mut Reader<'d>) -> Option<&'d [u8]> {
    reader.tagged(BIT_STRING)?.strip_prefix(&[0])
}

/// Looks whether who shows a certificate has its key, in a handshake of TLS 1.2. rustls's own way refuses certificates of
/// the first version.
pub(super) fn in_tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let mapping = provider().signature_verification_algorithms.mapping.iter();
    let algorithms = mapping.filter(|(scheme, _)| *scheme == signed.scheme).flat_map(|(_, algorithms)| *algorithms);
    let key = Certificate::new(certificate).ok_or(CertificateError::BadEncoding)?.key;
    let is_good = algorithms
        .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == key.algorithm)
        .any(|algorithm| algorithm.verify_signature(key.bits, message, signed.signature()).is_ok());
    match is_good {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(CertificateError::BadSignature.into()),
    }
}

/// The same in one of TLS 1.3.
pub(super) fn in_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let key = Certificate::new(certificate).ok_or(CertificateError::BadEncoding)?.key.der();
    let algorithms = &provider().signature_verification_algorithms;
    verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key), signed, algorithms)
}
