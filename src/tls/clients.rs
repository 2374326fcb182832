//! Who a client is by its certificate. A bad one does not end the handshake: the answer is to say so, as nginx's does.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};

use super::provider;
use super::x509::Certificate;

/// Whom to trust.
#[derive(Debug, Default)]
pub struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    revoked: Vec<CertRevocationList<'static>>,
    /// How many certificates may stand between a client's and a trusted one.
    depth: usize,
}

/// Why a client's certificate is not good, in OpenSSL's numbers and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// OpenSSL's number.
    pub number: u32,
    /// OpenSSL's words.
    pub reason: &'static str,
}

impl Refusal {
    const fn new(number: u32, reason: &'static str) -> Self {
        Self { number, reason }
    }

    /// Whether it only says that nobody who is trusted vouches for the certificate.
    pub fn is_unknown_issuer(self) -> bool {
        matches!(self.number, 2 | 18..=21)
    }
}

impl Trust {
    /// Trusts some certificates, less those that lists name.
    pub fn new(
        trusted: &[CertificateDer<'static>],
        revoked: &[CertificateRevocationListDer<'static>],
        depth: usize,
    ) -> Result<Self, webpki::Error> {
        let anchor = |certificate| webpki::anchor_from_trusted_cert(certificate).map(|anchor| anchor.to_owned());
        let anchors = trusted.iter().map(anchor).collect::<Result<_, _>>()?;
        let list = |der: &CertificateRevocationListDer<'_>| {
            OwnedCertRevocationList::from_der(der).map(CertRevocationList::from)
        };
        let revoked = revoked.iter().map(list).collect::<Result<_, _>>()?;
        Ok(Self { anchors, revoked, depth })
    }

    /// Looks whether somebody who is trusted vouches for a client, now.
    pub fn judge(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Refusal> {
        let Some((leaf, others)) = chain.split_first() else { return Ok(()) };
        let end = EndEntityCert::try_from(leaf).map_err(|error| explain(&error, leaf, others))?;
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            let options = options.with_depth(RevocationCheckDepth::Chain);
            options.with_status_policy(UnknownStatusPolicy::Deny).build()
        });
        let depth = self.depth;
        let is_short = move |path: &VerifiedPath<'_>| match path.intermediate_certificates().count() <= depth {
            true => Ok(()),
            false => Err(webpki::Error::MaximumPathDepthExceeded),
        };
        let algorithms = provider().signature_verification_algorithms.all;
        end.verify_for_usage(
            algorithms,
            &self.anchors,
            others,
            now,
            KeyUsage::client_auth(),
            revocation,
            Some(&is_short),
        )
        .map_err(|error| explain(&error, leaf, others))?;
        Ok(())
    }
}

fn explain(error: &webpki::Error, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Refusal {
    use webpki::Error as E;
    let is_self_issued = Certificate::new(leaf).is_some_and(|certificate| certificate.is_self_issued());
    match error {
        E::UnknownIssuer | E::CaUsedAsEndEntity if is_self_issued => Refusal::new(18, "self-signed certificate"),
        E::UnknownIssuer if others.is_empty() => Refusal::new(21, "unable to verify the first certificate"),
        E::UnknownIssuer => Refusal::new(20, "unable to get local issuer certificate"),
        E::CertExpired { .. } => Refusal::new(10, "certificate has expired"),
        E::CertNotValidYet { .. } => Refusal::new(9, "certificate is not yet valid"),
        E::CertRevoked => Refusal::new(23, "certificate revoked"),
        E::CrlExpired { .. } => Refusal::new(12, "CRL has expired"),
        E::UnknownRevocationStatus => Refusal::new(3, "unable to get certificate CRL"),
        E::InvalidSignatureForPublicKey => Refusal::new(7, "certificate signature failure"),
        E::MaximumPathDepthExceeded => Refusal::new(22, "certificate chain too long"),
        E::PathLenConstraintViolated => Refusal::new(25, "path length constraint exceeded"),
        E::RequiredEkuNotFoundContext(_) => Refusal::new(26, "unsuitable certificate purpose"),
        E::EndEntityUsedAsCa => Refusal::new(79, "invalid CA certificate"),
        E::NameConstraintViolation => Refusal::new(47, "permitted subtree violation"),
        _ => Refusal::new(1, "unspecified certificate verification error"),
    }
}

/// Asks for a certificate, and takes any that the client has the key of. [`Trust::judge`] says later whether it is good.
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
        verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
