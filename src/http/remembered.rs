//! A client's request, put by for background requests that come long after it was answered.
//!
//! A subscriber stays for hours and its hooks need what it asked: its arguments, headers, address. A [`Remembered`] keeps
//! the head as the bytes it came in, which is a third of what a parsed one takes, and parses it again when it is needed.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::connection::{Connection, Peer};
use super::request::Request;
use super::settings::Heads;
use super::wire::head::parser::{HeadOptions, HeadParser, Progress};
use crate::compile::{Compiled, ServerId};
use crate::server::clock;

/// What is left of a request.
#[derive(Clone, Debug)]
pub struct Remembered {
    compiled: Arc<Compiled>,
    head: Bytes,
    args: Bytes,
    peer: Peer,
    local: Option<SocketAddr>,
    connection: u64,
    listener: u32,
    server: ServerId,
}

impl Request {
    /// Keeps what background requests need of it.
    pub fn remember(&self) -> Remembered {
        Remembered {
            compiled: Arc::clone(&self.compiled),
            head: self.head.raw(),
            args: self.args.clone(),
            peer: self.connection.peer.clone(),
            local: self.connection.local,
            connection: self.connection.number,
            listener: u32::try_from(self.connection.listener).unwrap_or(u32::MAX),
            server: self.server_id,
        }
    }
}

impl Remembered {
    /// A request inside the server, for the same client. A URI without arguments gets those of the remembered request.
    pub fn request(&self, uri: &Bytes) -> Option<Request> {
        let settings = self.compiled.settings(self.compiled.server_location(self.server)).get::<Heads>();
        let options = HeadOptions::of(settings);
        let Progress::Complete { head, .. } = HeadParser::new().parse(&self.head, &options) else { return None };
        let connection = Connection::gone(self.connection, self.peer.clone(), self.local, self.listener as usize);
        let compiled = Arc::clone(&self.compiled);
        let origin = Request::new(Rc::new(connection), compiled, self.server, head, clock::now());
        Some(origin.background(uri, &self.args))
    }
}

impl Request {
    /// A request inside the server that outlives this one. A URI without arguments gets those given.
    pub fn background(&self, uri: &Bytes, args: &Bytes) -> Self {
        let (uri, own) = super::error_page::split_args(uri);
        self.detached(uri, if own.is_empty() { args.clone() } else { own })
    }
}
