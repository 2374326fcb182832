//! Who a server that we connect to is by its certificate, as OpenSSL judges it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::EndEntityCert;

use super::der::{Reader, SEQUENCE};
use super::trust::{Refusal, Trust};
use super::x509::Certificate;
use super::{names, provider, signed};

/// Looks at a server's certificate; that the server has its key is looked at in any case.
#[derive(Debug)]
pub struct Judge {
    /// Who may vouch for servers; `None`: anybody will do, and any name.
    pub trust: Option<Trust>,
}

impl Judge {
    /// Why a handshake has failed, if it was for the certificate: the refusal, or `None` for another name.
    pub fn reason(error: &rustls::Error) -> Option<Option<Refusal>> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::NotValidForName) => Some(None),
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => {
                why.downcast_ref::<Refusal>().copied().map(Some)
            }
            _ => None,
        }
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let chain: Vec<_> = std::iter::once(own).chain(others).cloned().collect();
        trust.judge(&chain, now).map_err(|refusal| CertificateError::Other(OtherError(Arc::new(refusal))))?;
        match is_of(own, name) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::NotValidForName.into()),
        }
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

/// Whether a certificate is one of this name. The common name counts where no others of hosts are in it.
fn is_of(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    if EndEntityCert::try_from(certificate).is_ok_and(|own| own.verify_is_valid_for_subject_name(name).is_ok()) {
        return true;
    }
    let (Some(read), ServerName::DnsName(host)) = (Certificate::new(certificate), name) else { return false };
    let other_names = read.extensions().find(|extension| extension.oid == OTHER_NAMES);
    let has_hosts = other_names.is_some_and(|extension| {
        let mut all = Reader::new(extension.value).inside(SEQUENCE);
        std::iter::from_fn(|| all.as_mut()?.element()).any(|element| element.tag == HOST)
    });
    !has_hosts && names::common(read.subject).iter().any(|pattern| fits(host.as_ref().as_bytes(), pattern))
}

/// subjectAltName
const OTHER_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// A host's name, among the kinds of names.
const HOST: u8 = 0x82;

/// Whether a host is the one of a pattern, whose first label may be `*`.
fn fits(host: &[u8], pattern: &[u8]) -> bool {
    if host.eq_ignore_ascii_case(pattern) {
        return true;
    }
    let (Some(rest), Some(dot)) = (pattern.strip_prefix(b"*"), memchr::memchr(b'.', host)) else { return false };
    // It stands for a label of a name that has two more.
    dot > 0 && host[dot..].eq_ignore_ascii_case(rest) && rest.iter().filter(|byte| **byte == b'.').count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |host: &str, pattern: &str| fits(host.as_bytes(), pattern.as_bytes());
        assert!(check("a.example.org", "A.example.org") && check("a.example.org", "*.Example.org"));
        assert!(!check("a.b.example.org", "*.example.org") && !check("example.org", "*.example.org"));
        assert!(!check("example.org", "*.org") && !check(".example.org", "*.example.org") && !check("a", "*"));
    }
}
