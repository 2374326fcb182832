//! `ssl_ocsp`: responders are asked whether clients' certificates are revoked.

use std::sync::Arc;

use super::responder::Responder;
use super::settings::Ocsp;
use crate::compile::{Compiled, ServerId};
use crate::http::resolver::Resolving;
use crate::server::clock;
use crate::server::live::log;
use crate::server::log::Level;
use crate::tls::ocsp::{Answer, Status};
use crate::tls::sessions::Zone;
use crate::tls::trust::{Link, Refusal};

/// Who is asked, and where answers are kept.
#[derive(Clone, Debug)]
pub(super) struct Revocation {
    /// About which certificates.
    pub(super) about: Ocsp,
    /// The responder, where it is not the certificates' own.
    pub(super) responder: Option<Responder>,
    /// Where answers are kept until they are old.
    pub(super) zone: Option<Arc<Zone>>,
}

impl Revocation {
    /// Asks about the certificates from a client's own to a trusted one. No answer is no good one.
    pub(super) async fn judge(&self, links: &[Link], compiled: &Compiled, server: ServerId) -> Result<(), Refusal> {
        let resolving = compiled.settings(compiled.server_location(server)).get::<Resolving>();
        let count = if self.about == Ocsp::Leaf { 1 } else { links.len() };
        for link in links.iter().take(count) {
            match self.status(link, resolving).await {
                Some(Status::Good) => {}
                Some(Status::Revoked) => return Err(Refusal::new(0, "certificate revoked")),
                Some(Status::Unknown) => return Err(Refusal::new(0, "certificate status unknown")),
                None => return Err(Refusal::new(0, "certificate status request failed")),
            }
        }
        Ok(())
    }

    async fn status(&self, link: &Link, resolving: &Resolving) -> Option<Status> {
        let id = link.question.id();
        match self.zone.as_ref().and_then(|zone| zone.find(&id)).as_deref() {
            Some([0]) => return Some(Status::Good),
            Some([1]) => return Some(Status::Revoked),
            Some(_) => return Some(Status::Unknown),
            None => {}
        }
        let own;
        let responder = match (&self.responder, &link.responder) {
            (Some(responder), _) => responder,
            (None, Some(url)) => match Responder::new(url, false) {
                Ok(responder) => {
                    own = responder;
                    &own
                }
                Err(why) => {
                    log(Level::Error, &format!("{why} in OCSP responder \"{url}\" in certificate"));
                    return None;
                }
            },
            (None, None) => {
                log(Level::Error, "no OCSP responder URL in certificate");
                return None;
            }
        };
        let answer = responder.ask(&link.question, resolving, "").await?;
        match link.question.read(&answer, clock::unix_seconds(), true) {
            Ok(Answer { status, until }) => {
                if let (Some(zone), Some(until)) = (&self.zone, until) {
                    zone.keep(id, u64::try_from(until).unwrap_or_default(), vec![status as u8]);
                }
                Some(status)
            }
            Err(why) => {
                responder.complain(Level::Error, &why, "");
                None
            }
        }
    }
}
