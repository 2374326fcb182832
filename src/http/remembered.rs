//! A client's request, put by for background requests that come long after it was answered.
//!
//! A subscriber stays for hours and its hooks need what it asked: its arguments, headers, address. A [`Remembered`] keeps
//! the head as the bytes it came in, which is a third of what a parsed one takes, and parses it again when it is needed.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::connection::{Connection, Peer};
use super::request::Request;
use super::settings::Heads;
use super::tls::Security;
use super::wire::head::parser::{HeadOptions, HeadParser, Progress};
use super::wire::proxy_protocol::Proxied;
use crate::compile::{Compiled, Listener};
use crate::config::ListenAddress;
use crate::server::clock;

/// What is left of a request.
#[derive(Clone, Debug)]
pub struct Remembered {
    head: Bytes,
    is_http2: bool,
    args: Bytes,
    peer: Peer,
    local: Option<SocketAddr>,
    connection: u64,
    listener: u32,
    security: OnceCell<Security>,
    proxied: OnceCell<Rc<Proxied>>,
}

impl Request {
    /// Keeps what background requests need of it.
    pub fn remember(&self) -> Remembered {
        Remembered {
            head: self.head.raw(),
            is_http2: self.head.is_http2(),
            args: self.args.clone(),
            peer: self.connection.peer.clone(),
            local: self.connection.local,
            connection: self.connection.number,
            listener: u32::try_from(self.connection.listener).unwrap_or(u32::MAX),
            security: self.connection.security.clone(),
            proxied: self.connection.proxied.clone(),
        }
    }
}

impl Remembered {
    /// A request inside the server, for the same client, by a configuration that may be a later one. A URI without
    /// arguments gets those of the remembered request.
    pub fn request(&self, compiled: &Arc<Compiled>, uri: &Bytes) -> Option<Request> {
        let listener = self.listener(compiled)?;
        let settings = compiled.settings(compiled.server_location(listener.default_server));
        let options = HeadOptions { is_http2: self.is_http2, ..HeadOptions::of(settings.get::<Heads>()) };
        let Progress::Complete { head, .. } = HeadParser::new().parse(&self.head, &options) else { return None };
        let mut connection = Connection::gone(self.connection, self.peer.clone(), self.local, self.listener as usize);
        connection.security = self.security.clone();
        connection.proxied = self.proxied.clone();
        let origin = super::serve::begin(&Rc::new(connection), compiled, listener, head, true, clock::now());
        Some(origin.background(uri, &self.args))
    }

    /// Where a client that connected as this one did would arrive.
    fn listener<'c>(&self, compiled: &'c Compiled) -> Option<&'c Listener> {
        let rank = |listener: &Listener| match (&listener.address, self.local) {
            (ListenAddress::Ip(address), Some(local)) if *address == local => 2,
            (ListenAddress::Ip(address), Some(local)) if address.port() == local.port() => 1,
            _ => 0,
        };
        let best = compiled.listeners.iter().max_by_key(|listener| rank(listener))?;
        let same = compiled.listeners.get(self.listener as usize).filter(|_| rank(best) == 0);
        Some(same.unwrap_or(best))
    }
}

impl Request {
    /// A request inside the server that outlives this one. A URI without arguments gets those given.
    pub fn background(&self, uri: &Bytes, args: &Bytes) -> Self {
        let (uri, own) = super::error_page::split_args(uri);
        self.detached(uri, if own.is_empty() { args.clone() } else { own })
    }
}
