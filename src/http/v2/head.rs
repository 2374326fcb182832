//! A request of HTTP/2 as a head like any other.
//!
//! It is written down as HTTP/1 would have it, and parsed by the same parser: paths, hosts and names of headers mean the
//! same by either way, and what is refused here is refused there.

use std::rc::Rc;

use http::request::Parts;
use http::{Method, header};

use crate::http::wire::head::RequestHead;
use crate::http::wire::head::parser::{HeadOptions, HeadParser, Progress};

/// What is refused with the whole connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// A name or value.
    Field,
    /// All of them together.
    Head,
}

impl TooLarge {
    /// nginx's words.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Field => "client exceeded http2_max_field_size limit",
            Self::Head => "client exceeded http2_max_header_size limit",
        }
    }
}

/// What came of a request's head.
pub(super) enum Head {
    /// A request.
    Good(Rc<RequestHead>),
    /// One that is answered with this status, and why.
    Bad(u16, String, Rc<RequestHead>),
}

/// The longest head that the settings allow.
pub(super) fn limit(options: &HeadOptions) -> usize {
    options.large_buffers.saturating_mul(options.large_buffer_size)
}

/// Makes the head of a request. `text` is room to write it in.
pub(super) fn parse(
    parts: &Parts,
    has_body: bool,
    options: &HeadOptions,
    text: &mut Vec<u8>,
) -> Result<Head, TooLarge> {
    measure(parts, options)?;
    write(parts, text);
    // Lines are bounded by now.
    let options = HeadOptions { is_http2: true, client_header_buffer_size: usize::MAX, ..*options };
    let progress = HeadParser::new().parse(text, &options);
    Ok(match progress {
        Progress::Complete { mut head, .. } => {
            if has_body && head.content_length().is_none() {
                Rc::make_mut(&mut head).set_open_ended();
            }
            Head::Good(head)
        }
        Progress::Bad(refusal) => {
            let reason = format!("{} while {}", String::from_utf8_lossy(&refusal.reason), refusal.action);
            Head::Bad(refusal.status, reason, refusal.head)
        }
        Progress::Incomplete | Progress::Host(_) => {
            Head::Bad(400, "client sent invalid request".to_owned(), Rc::default())
        }
    })
}

fn measure(parts: &Parts, options: &HeadOptions) -> Result<(), TooLarge> {
    let mut total = 0;
    let uri = &parts.uri;
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let pseudo = [parts.method.as_str().len(), path, uri.authority().map_or(0, |authority| authority.as_str().len())];
    let fields = parts.headers.iter().map(|(name, value)| (name.as_str().len(), value.len()));
    for (name, value) in pseudo.into_iter().map(|length| (0, length)).chain(fields) {
        if name.max(value) > options.large_buffer_size {
            return Err(TooLarge::Field);
        }
        total += name + value;
    }
    if total > limit(options) { Err(TooLarge::Head) } else { Ok(()) }
}

fn write(parts: &Parts, text: &mut Vec<u8>) {
    text.clear();
    let mut put = |pieces: &[&[u8]]| pieces.iter().for_each(|piece| text.extend_from_slice(piece));
    let is_websocket = is_websocket(parts);
    let method = if is_websocket { "GET" } else { parts.method.as_str() };
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    put(&[method.as_bytes(), b" ", path.as_bytes(), b" HTTP/2.0\r\n"]);
    if let Some(authority) = parts.uri.authority() {
        put(&[b"host: ", authority.as_str().as_bytes(), b"\r\n"]);
    }
    let is_line = |name: &header::HeaderName| *name != header::COOKIE;
    for (name, value) in parts.headers.iter().filter(|(name, _)| is_line(name)) {
        put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    // The crumbs of a cookie are one header again.
    let mut crumbs = parts.headers.get_all(header::COOKIE).iter();
    if let Some(first) = crumbs.next() {
        put(&[b"cookie: ", first.as_bytes()]);
        crumbs.for_each(|crumb| put(&[b"; ", crumb.as_bytes()]));
        put(&[b"\r\n"]);
    }
    if is_websocket {
        put(&[WEBSOCKET]);
    }
    put(&[b"\r\n"]);
}

/// Whether it is a websocket's request (RFC 8441). It becomes the one that HTTP/1 has for it.
pub(super) fn is_websocket(parts: &Parts) -> bool {
    parts.method == Method::CONNECT
        && parts.extensions.get::<h2::ext::Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// What a websocket's request has in HTTP/1 beside its own headers. The key is answered to nobody: HTTP/2 has none.
const WEBSOCKET: &[u8] =
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: cHVzaGdhdGUgb3ZlciBoMg==\r\n";
