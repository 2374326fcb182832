//! `ssl_stapling`: a responder is asked about the server's own certificates, beside the handshakes.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::task::spawn_local;

use super::responder::Responder;
use crate::compile::{Compiled, ServerId};
use crate::config::{Diagnostic, Severity};
use crate::http::resolver::Resolving;
use crate::server::clock;
use crate::server::log::Level;
use crate::tls::files::Identity;
use crate::tls::ocsp::Question;
use crate::tls::stapling::Stapling;
use crate::tls::x509::Certificate;

/// A certificate with who knows of it.
#[derive(Clone, Debug)]
pub(super) struct Staple {
    /// The certificate as it is shown.
    pub(super) stapling: Arc<Stapling>,
    responder: Arc<Responder>,
    /// The certificate's file.
    name: Arc<str>,
}

/// What is said about stapling.
pub(super) struct Wishes<'w> {
    /// Certificates that may be the issuer's, beside those that come with the certificate.
    pub(super) trusted: &'w [CertificateDer<'static>],
    /// The responder's URL, where it is not the certificate's own.
    pub(super) responder: Option<&'w str>,
    /// Whether it is looked at who has signed the answer.
    pub(super) strictly: bool,
    /// Whether the responder's name is looked up now: not if a resolver will, nor by `check`.
    pub(super) looks_up: bool,
}

impl Staple {
    /// Finds out whom to ask about a certificate. A finding says why nobody is, as in nginx.
    pub(super) fn new(identity: &Identity, name: &str, wishes: &Wishes<'_>) -> Result<Self, Diagnostic> {
        let ignored =
            |why: &str| Diagnostic::new(Severity::Warn, "no-stapling", format!("\"ssl_stapling\" ignored, {why}"));
        let (leaf, others) = identity.cert.split_first().ok_or_else(|| ignored("no certificate"))?;
        let issuers = others.iter().chain(wishes.trusted).map(AsRef::as_ref);
        let question = Question::of(leaf, issuers)
            .ok_or_else(|| ignored(&format!("issuer certificate not found for certificate \"{name}\"")))?;
        let own = Certificate::new(leaf).and_then(|certificate| certificate.responder());
        let url = wishes.responder.map(str::to_owned).or(own);
        let url = url.ok_or_else(|| ignored(&format!("no OCSP responder URL in the certificate \"{name}\"")))?;
        let responder = Responder::new(&url, wishes.looks_up)
            .map_err(|why| ignored(&format!("{why} in OCSP responder \"{url}\" in the certificate \"{name}\"")))?;
        let stapling = Stapling::new(Arc::clone(identity), question, wishes.strictly);
        Ok(Self { stapling, responder: Arc::new(responder), name: name.into() })
    }

    /// Asks if it is time to. The handshake does not wait for the answer.
    pub(super) fn refresh(&self, compiled: &Arc<Compiled>, server: ServerId) {
        if self.stapling.begin(clock::unix_seconds()) {
            let (staple, compiled) = (self.clone(), Arc::clone(compiled));
            spawn_local(async move {
                let resolving = compiled.settings(compiled.server_location(server)).get::<Resolving>();
                let answer = staple.responder.ask(&staple.stapling.question, resolving, &staple.name).await;
                if let Err(why) = staple.stapling.answered(answer, clock::unix_seconds()) {
                    staple.responder.complain(Level::Error, &why, &staple.name);
                }
            });
        }
    }
}
