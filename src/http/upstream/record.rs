//! What is known of a request's way through upstreams: for `$upstream_...`, the error log, and what an answer leaves
//! behind when it sends the request elsewhere inside the server.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::http::wire::upstream_head::UpstreamHead;
use crate::http::{Request, Response};

/// A record, shared by the request and the body that is still being read.
pub type Shared = Rc<RefCell<Record>>;

/// All that is known.
#[derive(Debug, Default)]
pub struct Record {
    /// One for each server that was tried; one without a server stands between two handlers' tries.
    pub tries: SmallVec<[Try; 1]>,
    /// The head of the last answer.
    pub head: Option<Box<UpstreamHead>>,
    /// Where the request goes, for the error log.
    pub place: Option<Place>,
    /// What handlers say of where requests go: `$proxy_host` and its like.
    pub host: Bytes,
    /// The port of that.
    pub port: Bytes,
    /// What `set` has put in the place of either.
    pub said_host: Option<Bytes>,
    /// The same for the port.
    pub said_port: Option<Bytes>,
    /// The headers behind the body of the last answer, where they are read.
    pub trailers: Vec<(Bytes, Bytes)>,
    /// Those of them that the client gets.
    pub passed_trailers: Vec<(Bytes, Bytes)>,
    /// Headers that go with whatever is answered after a redirect inside the server.
    carried: Vec<(Bytes, Bytes)>,
    carried_type: Option<Bytes>,
}

/// Where a request goes: `http://127.0.0.1:8080/path`.
#[derive(Clone, Debug)]
pub struct Place {
    /// `http://` and its like.
    pub schema: &'static str,
    /// The server.
    pub server: Bytes,
    /// The URI that it is asked for.
    pub uri: Bytes,
}

/// One server that was tried.
#[derive(Clone, Debug, Default)]
pub struct Try {
    /// The server's name.
    pub server: Option<Bytes>,
    /// The status of the answer, or the one that stands for what went wrong; 0: none yet.
    pub status: u16,
    /// How long connecting took.
    pub connect: Option<Duration>,
    /// When the head was there.
    pub header: Option<Duration>,
    /// When the answer was there.
    pub response: Option<Duration>,
    /// How much came behind the head, as it came.
    pub length: u64,
    /// How many bytes came.
    pub received: u64,
    /// How many bytes went.
    pub sent: u64,
}

impl Record {
    /// The last try, to change.
    pub fn last(&mut self) -> Option<&mut Try> {
        self.tries.last_mut()
    }

    /// Keeps what goes with the answer that the request gets elsewhere.
    pub(super) fn carry(&mut self, content_type: Option<Bytes>, headers: Vec<(Bytes, Bytes)>) {
        self.carried_type = content_type;
        self.carried.extend(headers);
    }
}

impl Request {
    /// What is known of the upstreams that it went to.
    pub fn upstream_record(&self) -> Option<&Shared> {
        self.upstream.as_ref()
    }

    /// The same, made if there is none yet.
    pub fn upstream_record_mut(&mut self) -> &Shared {
        self.upstream.get_or_insert_default()
    }

    /// Adds to an answer what an upstream's answer that led to it has left behind. A page of the server's own keeps its
    /// type.
    pub(in crate::http) fn carry_over(&self, response: &mut Response, is_page: bool) {
        let Some(record) = &self.upstream else { return };
        let mut record = record.borrow_mut();
        if record.carried.is_empty() && record.carried_type.is_none() {
            return;
        }
        let mut headers = std::mem::take(&mut record.carried);
        if is_page {
            headers.retain(|(name, _)| !name.eq_ignore_ascii_case(b"Accept-Ranges"));
        }
        headers.append(&mut response.headers);
        response.headers = headers;
        // A redirect's short text is a page, too.
        let is_page = is_page || matches!(response.status, 301 | 302 | 303 | 307 | 308);
        if let Some(content_type) = record.carried_type.take().filter(|_| !is_page) {
            response.content_type = Some(content_type);
        }
    }

    /// Forgets the type that an upstream's answer has left behind: an error has come after it.
    pub(in crate::http) fn drop_carried_type(&self) {
        if let Some(record) = &self.upstream {
            record.borrow_mut().carried_type = None;
        }
    }
}
