//! TLS to clients: what a server says of it, the handshake, and what a request can learn of it.

mod accept;
pub mod cache;
mod ocsp;
mod responder;
mod server;
pub mod settings;
mod stapling;

use std::cell::OnceCell;
use std::rc::Rc;

use bytes::Bytes;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};
use rustls_pki_types::CertificateDer;

pub(super) use accept::accept;
pub use server::{Loader, ServerSide};
use settings::{Tls, VerifyClient};

use super::connection::Connection;
use super::request::Request;
use crate::compile::{Compiled, Listener};
use crate::server::log::Level;
use crate::tls::trust::Refusal;

/// HTTP/2, as a handshake names it.
const HTTP2: &[u8] = b"h2";

/// How a connection is secured that came by an address where TLS is spoken.
#[derive(Clone, Debug)]
pub(super) enum Security {
    /// It is not: the client does not speak it.
    Missing,
    /// TLS.
    Tls(Rc<Facts>),
}

/// What is known of a client's TLS; kept as long as its connection.
#[derive(Debug)]
pub struct Facts {
    /// The server that the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// Whether there is a server of that name.
    pub(super) is_known: bool,
    /// The ciphers and groups that the client offered, if the configuration has a variable for them.
    pub offered: Option<Box<(Vec<CipherSuite>, Vec<NamedGroup>)>>,
    /// What was agreed upon, once it is.
    pub agreed: OnceCell<Agreed>,
}

/// What a handshake came to.
#[derive(Debug)]
pub struct Agreed {
    /// The version.
    pub protocol: Option<ProtocolVersion>,
    /// The cipher.
    pub cipher: Option<CipherSuite>,
    /// The group of the exchange of keys.
    pub group: Option<NamedGroup>,
    /// What is spoken inside.
    pub protocol_inside: Option<Box<[u8]>>,
    /// Whether a session was taken up again.
    pub is_resumed: bool,
    /// The client's certificate, and those that came with it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whether somebody who is trusted vouches for it.
    pub verdict: Result<(), Refusal>,
}

impl Agreed {
    /// What there is before anybody has looked at the client's certificate.
    fn of(state: &rustls::CommonState) -> Self {
        Self {
            protocol: state.protocol_version(),
            cipher: state.negotiated_cipher_suite().map(|suite| suite.suite()),
            group: state.negotiated_key_exchange_group().map(|group| group.name()),
            protocol_inside: state.alpn_protocol().map(Into::into),
            is_resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
            verdict: Ok(()),
            chain: state.peer_certificates().unwrap_or_default().to_vec(),
        }
    }
}

impl Connection {
    /// What is known of the client's TLS; `None`: it speaks none.
    pub fn tls(&self) -> Option<&Facts> {
        match self.security.get() {
            Some(Security::Tls(facts)) => Some(facts),
            _ => None,
        }
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls().is_some() { "https" } else { "http" }
    }

    /// What makes a request on this connection be refused: the status.
    pub(super) fn refusal(&self, request: &mut Request, listener: &Listener) -> Option<u16> {
        match self.security.get()? {
            Security::Missing => {
                request.log(
                    Level::Info,
                    "client sent plain HTTP request to HTTPS port while reading client request headers",
                );
                Some(497)
            }
            Security::Tls(facts) => facts.refusal(request, listener),
        }
    }
}

impl Facts {
    /// Whether HTTP/2 was agreed upon.
    pub(super) fn is_http2(&self) -> bool {
        self.agreed.get().is_some_and(|agreed| agreed.protocol_inside.as_deref() == Some(HTTP2))
    }

    fn refusal(&self, request: &mut Request, listener: &Listener) -> Option<u16> {
        let verify = verification(&request.compiled, request);
        if verify == VerifyClient::Off {
            return None;
        }
        let host = request.head.host();
        if self.is_known && !host.is_empty() && self.server_name.as_deref().is_none_or(|name| name.as_bytes() != host) {
            let message = "client attempted to request the server name different from the one that was negotiated while \
                           reading client request headers";
            // It stays with the server of the handshake.
            let negotiated = self.server_name.as_ref().map(|name| Bytes::copy_from_slice(name.as_bytes()));
            let found = negotiated.and_then(|name| listener.names.find(&name));
            request.server_id = found.map_or(listener.default_server, |(server, _)| server);
            request.location_id = request.compiled.server_location(request.server_id);
            request.log(Level::Info, message);
            return Some(421);
        }
        let agreed = self.agreed.get()?;
        match agreed.verdict {
            Err(refusal) if verify != VerifyClient::OptionalNoCa || !refusal.is_unknown_issuer() => {
                let message =
                    format!("client SSL certificate verify error: {refusal} while reading client request headers");
                request.log(Level::Info, &message);
                Some(495)
            }
            _ if verify == VerifyClient::On && agreed.chain.is_empty() => {
                request
                    .log(Level::Info, "client sent no required SSL certificate while reading client request headers");
                Some(496)
            }
            _ => None,
        }
    }
}

fn verification(compiled: &Compiled, request: &Request) -> VerifyClient {
    compiled.settings(compiled.server_location(request.server_id)).get::<Tls>().verify_client
}
