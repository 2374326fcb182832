//! rustls's configuration of a server, from what was read and chosen.

use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, StoresServerSessions};
use rustls::sign::CertifiedKey;

use super::choice::Choice;
use super::clients::Asking;
use super::files::Identity;
use super::sessions::{Context, Sessions, TicketKey, Tickets, Zone};
use super::stapling::Stapling;
use crate::server::clock;

/// What a server offers.
#[derive(Clone, Default)]
pub struct Offer {
    /// The versions, ciphers and groups.
    pub choice: Choice,
    /// The most that is put into one record, bytes.
    pub record: usize,
    /// Whether clients are asked for a certificate.
    pub asking: Option<Arc<Asking>>,
    /// What sessions are bound to.
    pub context: Context,
    /// For how many seconds a session can be taken up again.
    pub session_timeout: u64,
    /// Where sessions are kept here.
    pub zone: Option<Arc<Zone>>,
    /// Whether clients get tickets, and with which keys.
    pub tickets: Option<Arc<Vec<TicketKey>>>,
    /// Whether a request may come with the first bytes.
    pub early_data: bool,
    /// The protocols that are spoken inside, the best first.
    pub protocols: Vec<Vec<u8>>,
}

/// How much may come early.
const EARLY_DATA: u32 = 16_384;

/// The size of a zone for those who name none but need one.
const EARLY_ZONE: u64 = 1 << 20;

/// A certificate of a server.
#[derive(Clone, Debug)]
pub enum Shown {
    /// As it is.
    Plain(Identity),
    /// With what a responder says of it.
    Stapled(Arc<Stapling>),
}

impl Shown {
    fn identity(&self) -> Identity {
        match self {
            Self::Plain(identity) => Arc::clone(identity),
            Self::Stapled(stapling) => stapling.identity(clock::unix_seconds()),
        }
    }

    fn key(&self) -> &dyn rustls::sign::SigningKey {
        match self {
            Self::Plain(identity) => &*identity.key,
            Self::Stapled(stapling) => &*stapling.bare.key,
        }
    }
}

/// Makes the configuration.
pub fn build(offer: &Offer, identities: Vec<Shown>) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(offer.choice.provider()))
        .with_protocol_versions(&offer.choice.versions())?;
    let builder = match &offer.asking {
        Some(asking) => builder.with_client_cert_verifier(Arc::clone(asking) as Arc<dyn ClientCertVerifier>),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Identities(identities)));
    config.ignore_client_order = offer.choice.prefers_own;
    // rustls counts a record's head, and takes no less than 32 bytes.
    config.max_fragment_size = Some(offer.record.clamp(512, 16_384) + 5);
    config.alpn_protocols.clone_from(&offer.protocols);
    let sessions = |zone: &Arc<Zone>| -> Arc<dyn StoresServerSessions> {
        Sessions::new(offer.context, offer.session_timeout, Arc::clone(zone))
    };
    config.session_storage = match &offer.zone {
        Some(zone) => sessions(zone),
        None if offer.early_data => sessions(&Zone::named("early data", EARLY_ZONE)),
        None => Arc::new(NoServerSessionStorage {}),
    };
    match &offer.tickets {
        // A ticket can be used again and again, and early data with it; a session that is kept here is used once.
        _ if offer.early_data => config.max_early_data_size = EARLY_DATA,
        Some(keys) => config.ticketer = Tickets::new(offer.context, offer.session_timeout, Arc::clone(keys)),
        None => {}
    }
    Ok(config)
}

/// A server's certificates; which is shown depends on the kinds of key that the client understands.
#[derive(Debug)]
struct Identities(Vec<Shown>);

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |shown: &&Shown| shown.key().choose_scheme(hello.signature_schemes()).is_some();
        let is_short = |shown: &&Shown| shown.key().algorithm() == rustls::SignatureAlgorithm::ECDSA;
        let fitting = || self.0.iter().filter(fits);
        // Where none fits, one is shown all the same: the client is told that the handshake failed, not that it is denied.
        fitting().find(is_short).or_else(|| fitting().next()).or_else(|| self.0.first()).map(Shown::identity)
    }
}
