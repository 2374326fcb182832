//! Who is trusted to vouch for others, and whether a certificate is good.

use std::fmt;

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};

use super::ocsp::Question;
use super::x509::Certificate;
use super::{direct, provider};

/// Whose certificates are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Those of clients.
    #[default]
    Client,
    /// Those of servers that we connect to.
    Server,
}

impl Role {
    fn usage(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
        }
    }

    /// The purpose that a key must have for it, if its certificate names any.
    pub(super) fn purpose(self) -> &'static [u8] {
        match self {
            Self::Client => &[0x2b, 6, 1, 5, 5, 7, 3, 2],
            Self::Server => &[0x2b, 6, 1, 5, 5, 7, 3, 1],
        }
    }
}

/// Whom to trust.
#[derive(Debug, Default)]
pub struct Trust {
    trusted: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    revoked: Vec<CertRevocationList<'static>>,
    /// How many certificates may stand between the first and a trusted one.
    depth: usize,
    role: Role,
}

/// Why a certificate is not good, in OpenSSL's numbers and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// OpenSSL's number; 0 for what a responder says.
    pub number: u32,
    /// OpenSSL's words.
    pub reason: &'static str,
}

impl std::error::Error for Refusal {}

/// As nginx logs it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => f.write_str(self.reason),
            number => write!(f, "({number}:{})", self.reason),
        }
    }
}

/// A certificate on the way from the first to a trusted one, for who asks a responder about it.
#[derive(Clone, Debug)]
pub struct Link {
    /// What is asked.
    pub question: Question,
    /// The URL of the responder that it names.
    pub responder: Option<String>,
}

impl Link {
    fn new(certificate: &[u8], issuer: &[u8], key: &[u8]) -> Option<Self> {
        let responder = Certificate::new(certificate)?.responder();
        Some(Self { question: Question::new(certificate, issuer, key)?, responder })
    }
}

impl Refusal {
    /// A refusal for a reason.
    pub const fn new(number: u32, reason: &'static str) -> Self {
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
        role: Role,
    ) -> Result<Self, webpki::Error> {
        let anchor = |certificate| webpki::anchor_from_trusted_cert(certificate).map(|anchor| anchor.to_owned());
        let anchors = trusted.iter().map(anchor).collect::<Result<_, _>>()?;
        let list = |der: &CertificateRevocationListDer<'_>| {
            OwnedCertRevocationList::from_der(der).map(CertRevocationList::from)
        };
        let revoked = revoked.iter().map(list).collect::<Result<_, _>>()?;
        Ok(Self { trusted: trusted.to_vec(), anchors, revoked, depth, role })
    }

    /// Looks whether somebody who is trusted vouches for who shows this chain, now. What comes back is the way to them, without the
    /// end.
    pub fn judge(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Vec<Link>, Refusal> {
        use webpki::Error::{CaUsedAsEndEntity, UnsupportedCertVersion};
        let Some((leaf, others)) = chain.split_first() else { return Ok(Vec::new()) };
        match self.find_path(leaf, others, now) {
            Err(error @ (CaUsedAsEndEntity | UnsupportedCertVersion)) => {
                let read = Certificate::new(leaf).ok_or_else(|| explain(&error, leaf, others))?;
                let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
                direct::judge(&read, &self.trusted, &self.revoked, seconds, self.role)
                    .unwrap_or_else(|| Err(explain(&webpki::Error::UnknownIssuer, leaf, others)))?;
                let issuer = self.trusted.iter().filter_map(|trusted| Certificate::new(trusted));
                let issuer = issuer.filter(|issuer| issuer.subject == read.issuer && !read.is_self_issued());
                Ok(issuer.take(1).filter_map(|issuer| Link::new(leaf, issuer.subject, &issuer.key.info())).collect())
            }
            found => found.map_err(|error| explain(&error, leaf, others)),
        }
    }

    fn find_path(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Vec<Link>, webpki::Error> {
        let end = EndEntityCert::try_from(leaf)?;
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
        let path = end.verify_for_usage(
            algorithms,
            &self.anchors,
            others,
            now,
            self.role.usage(),
            revocation,
            Some(&is_short),
        )?;
        let mut links = Vec::new();
        let mut below = leaf.to_vec();
        for above in path.intermediate_certificates() {
            let above = above.der().to_vec();
            let issuer = Certificate::new(&above);
            links.extend(issuer.and_then(|issuer| Link::new(&below, issuer.subject, &issuer.key.info())));
            below = above;
        }
        let anchor = path.anchor();
        links.extend(Link::new(&below, &anchor.subject, &anchor.subject_public_key_info));
        Ok(links)
    }
}

fn explain(error: &webpki::Error, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Refusal {
    use webpki::Error as E;
    let is_self_issued = Certificate::new(leaf).is_some_and(|certificate| certificate.is_self_issued());
    match error {
        E::UnknownIssuer | E::CaUsedAsEndEntity if is_self_issued => Refusal::new(18, "self-signed certificate"),
        E::UnknownIssuer if others.is_empty() => Refusal::new(21, "unable to verify the first certificate"),
        // OpenSSL looks no further than that, too.
        E::UnknownIssuer | E::MaximumPathDepthExceeded => Refusal::new(20, "unable to get local issuer certificate"),
        // It is over before it begins: OpenSSL looks at each by itself.
        E::CertExpired { .. } | E::InvalidCertValidity => Refusal::new(10, "certificate has expired"),
        E::CertNotValidYet { .. } => Refusal::new(9, "certificate is not yet valid"),
        E::CertRevoked => Refusal::new(23, "certificate revoked"),
        E::CrlExpired { .. } => Refusal::new(12, "CRL has expired"),
        E::UnknownRevocationStatus => Refusal::new(3, "unable to get certificate CRL"),
        E::InvalidSignatureForPublicKey => Refusal::new(7, "certificate signature failure"),
        E::PathLenConstraintViolated => Refusal::new(25, "path length constraint exceeded"),
        E::RequiredEkuNotFoundContext(_) => Refusal::new(26, "unsuitable certificate purpose"),
        E::EndEntityUsedAsCa => Refusal::new(79, "invalid CA certificate"),
        E::NameConstraintViolation => Refusal::new(47, "permitted subtree violation"),
        _ => Refusal::new(1, "unspecified certificate verification error"),
    }
}
