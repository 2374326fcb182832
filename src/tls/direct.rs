//! Certificates that webpki takes for none: those of the first version of X.509, as `openssl x509 -req` makes
//! them, and those that could sign others, as `openssl req -x509` makes them. They are good if somebody who is trusted has
//! signed them directly, or if they are trusted themselves.

use rustls_pki_types::CertificateDer;
use webpki::CertRevocationList;

use super::trust::{Refusal, Role};
use super::x509::{Certificate, EXTENDED_KEY_USAGE};

/// Extensions that are heeded here or by who uses the certificate, or that limit what it may sign: keyUsage,
/// subjectAltName, basicConstraints, extKeyUsage.
const KNOWN: &[&[u8]] = &[&[0x55, 0x1d, 0x0f], &[0x55, 0x1d, 0x11], &[0x55, 0x1d, 0x13], EXTENDED_KEY_USAGE];

/// Judges a certificate; `None`: nobody has signed it who is trusted.
pub(super) fn judge(
    leaf: &Certificate<'_>,
    trusted: &[CertificateDer<'static>],
    revoked: &[CertRevocationList<'static>],
    now: i64,
    role: Role,
) -> Option<Result<(), Refusal>> {
    let signed = |issuer: Certificate<'_>| issuer.subject == leaf.issuer && leaf.signed.is_by(&issuer.key);
    trusted.iter().filter_map(|issuer| Certificate::new(issuer)).find_map(|issuer| signed(issuer).then_some(()))?;
    Some(hold(leaf, revoked, now, role))
}

fn hold(leaf: &Certificate<'_>, revoked: &[CertRevocationList<'static>], now: i64, role: Role) -> Result<(), Refusal> {
    if now < leaf.begins {
        return Err(Refusal::new(9, "certificate is not yet valid"));
    }
    if now > leaf.ends {
        return Err(Refusal::new(10, "certificate has expired"));
    }
    if leaf.extensions().any(|extension| extension.is_critical && !KNOWN.contains(&extension.oid)) {
        return Err(Refusal::new(34, "unhandled critical extension"));
    }
    if leaf.purposes().is_some_and(|purposes| !purposes.contains(&role.purpose())) {
        return Err(Refusal::new(26, "unsuitable certificate purpose"));
    }
    if revoked.is_empty() {
        return Ok(());
    }
    let mut own = revoked.iter().filter(|list| list.issuer() == leaf.issuer).peekable();
    if own.peek().is_none() {
        return Err(Refusal::new(3, "unable to get certificate CRL"));
    }
    match own.all(|list| matches!(list.find_serial(leaf.serial), Ok(None))) {
        true => Ok(()),
        false => Err(Refusal::new(23, "certificate revoked")),
    }
}
