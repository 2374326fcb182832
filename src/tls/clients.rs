//! Clients are asked for their certificates. A bad one does not end the handshake: the answer is to say so, as nginx's does.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{provider, signed};

/// Asks for a certificate, and takes any that the client has the key of. [`Trust::judge`](super::trust::Trust::judge) says later whether it is good.
#[derive(Debug)]
pub struct Asking {
    hints: Vec<DistinguishedName>,
}

impl Asking {
    /// Asks for one that any of these vouches for.
    pub fn new(hints: &[CertificateDer<'static>]) -> Arc<Self> {
        let subject = |certificate| webpki::anchor_from_trusted_cert(certificate).map(|anchor| anchor.subject.to_vec());
        let hints = hints.iter().filter_map(|certificate| subject(certificate).ok());
        Arc::new(Self { hints: hints.map(|subject| DistinguishedName::in_sequence(&subject)).collect() })
    }
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signed::in_tls12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signed::in_tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
