//! The particulars that nginx adds to a message about a request.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::connection::Peer;
use super::request::Request;
use super::upstream::record::Shared;
use super::wire::head::RequestHead;
use super::wire::header::Known;
use crate::compile::{Compiled, LocationId, ServerId};
use crate::server::log::{Level, LogSettings, shown};

/// What is told of a request.
struct Particulars<'p> {
    peer: &'p Peer,
    server: &'p [u8],
    head: &'p RequestHead,
    subrequest: Option<&'p [u8]>,
    upstream: Option<&'p Shared>,
}

/// `MESSAGE, client: …, server: …, request: "…", host: "…"`
pub(super) fn with_particulars(request: &Request, message: &str) -> String {
    let particulars = Particulars {
        peer: &request.peer,
        server: &request.server().name,
        head: &request.head,
        subrequest: (!request.is_main()).then_some(&request.uri),
        upstream: request.upstream_record(),
    };
    particulars.add_to(message)
}

impl Particulars<'_> {
    fn add_to(&self, message: &str) -> String {
        let mut line =
            format!("{message}, client: {}, server: {}", self.peer.text(), { String::from_utf8_lossy(self.server) });
        let head = self.head;
        if !head.request_line().is_empty() {
            line.push_str(&format!(", request: \"{}\"", shown(head.request_line())));
        }
        if let Some(uri) = self.subrequest {
            line.push_str(&format!(", subrequest: \"{}\"", shown(uri)));
        }
        if let Some(record) = self.upstream
            && let Some(place) = &record.borrow().place
        {
            let colon = if place.server.starts_with(b"unix:") { ":" } else { "" };
            let (server, uri) = (shown(&place.server), shown(&place.uri));
            line.push_str(&format!(", upstream: \"{}{server}{colon}{uri}\"", place.schema));
        }
        if let Some(host) = head.known(Known::Host) {
            line.push_str(&format!(", host: \"{}\"", shown(host)));
        }
        if let Some(referer) = head.known(Known::Referer) {
            line.push_str(&format!(", referrer: \"{}\"", shown(referer)));
        }
        line
    }
}

/// The log of a request, for what happens to it while its handlers are done: its body is on its way.
#[derive(Debug)]
pub struct LaterLog {
    compiled: Arc<Compiled>,
    location: LocationId,
    server: ServerId,
    connection: u64,
    peer: Peer,
    head: Rc<RequestHead>,
    subrequest: Option<Bytes>,
    upstream: Option<Shared>,
}

impl Request {
    /// Its log, for later.
    pub fn later_log(&self) -> LaterLog {
        LaterLog {
            compiled: Arc::clone(&self.compiled),
            location: self.location_id,
            server: self.server_id,
            connection: self.connection.number,
            peer: self.peer.clone(),
            head: Rc::clone(&self.head),
            subrequest: (!self.is_main()).then(|| self.uri.clone()),
            upstream: self.upstream_record().cloned(),
        }
    }
}

impl LaterLog {
    /// Writes a message.
    pub fn write(&self, level: Level, message: &str) {
        let settings = self.compiled.settings(self.location).get::<LogSettings>();
        if settings.wants(level) {
            let particulars = Particulars {
                peer: &self.peer,
                server: &self.compiled.server(self.server).name,
                head: &self.head,
                subrequest: self.subrequest.as_deref(),
                upstream: self.upstream.as_ref(),
            };
            settings.write(level, self.connection, &particulars.add_to(message));
        }
    }
}
