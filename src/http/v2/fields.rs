//! An answer's head as fields of HTTP/2.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::http::request::Request;
use crate::http::response::Response;
use crate::http::send::{self, Field};
use crate::http::serve::Site;
use crate::http::wire::date::http_date;
use crate::http::wire::response::{After, ResponseHead};

/// Headers that are about an HTTP/1 connection, which HTTP/2 forbids.
const OF_CONNECTIONS: [&[u8]; 6] =
    [b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection", b"sec-websocket-accept"];

/// Puts the head of an answer together.
pub(super) fn head(site: &Site, request: &Request, response: &Response, length: Option<u64>) -> http::Response<()> {
    let mut fields = HeaderMap::with_capacity(8 + response.headers.len());
    if response.bare_head {
        let listed = response.headers.iter().map(|(name, value)| (&name[..], &value[..]));
        put_listed(&mut fields, &mut { listed });
    } else {
        send::with_head(site, request, response, After::Close, length, false, |head, listed| {
            put_own(&mut fields, head);
            put_listed(&mut fields, listed);
        });
    }
    let mut head = http::Response::new(());
    // A websocket's stream is opened by 200 (RFC 8441).
    let status = if response.status == 101 { 200 } else { response.status };
    *head.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    *head.headers_mut() = fields;
    head
}

/// The server's own headers, in nginx's order.
fn put_own(fields: &mut HeaderMap, head: &ResponseHead<'_>) {
    let mut put = |name: HeaderName, text: &[u8]| {
        fields.append(name, value(text));
    };
    if let Some(server) = head.server {
        put(header::SERVER, server);
    }
    if let Some(date) = head.date {
        put(header::DATE, date);
    }
    match (head.content_type, head.charset) {
        (b"", _) => {}
        (content_type, b"") => put(header::CONTENT_TYPE, content_type),
        (content_type, charset) => put(header::CONTENT_TYPE, &[content_type, b"; charset=", charset].concat()),
    }
    if let Some(length) = head.content_length {
        fields.append(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut put = |name: HeaderName, text: &[u8]| {
        fields.append(name, value(text));
    };
    if let Some(seconds) = head.last_modified {
        put(header::LAST_MODIFIED, &http_date(seconds));
    }
    if let Some(location) = head.location {
        put(header::LOCATION, location);
    }
    if head.vary {
        put(header::VARY, b"Accept-Encoding");
    }
}

fn put_listed<'f>(fields: &mut HeaderMap, listed: &mut dyn Iterator<Item = Field<'f>>) {
    for (name, text) in listed {
        if OF_CONNECTIONS.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden)) {
            continue;
        }
        // A name that is none could not be said in HTTP/1 either.
        if let Ok(name) = HeaderName::from_bytes(name) {
            fields.append(name, value(text));
        }
    }
}

/// What stands behind a body.
pub(super) fn trailers(list: &[(Bytes, Bytes)]) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(list.len());
    put_listed(&mut fields, &mut list.iter().map(|(name, value)| (&name[..], &value[..])));
    fields
}

/// A value; what HTTP/2 does not allow in one becomes a blank.
fn value(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).unwrap_or_else(|_| {
        let is_good = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        let clean: Bytes = text.iter().map(|byte| if is_good(*byte) { *byte } else { b' ' }).collect();
        HeaderValue::from_maybe_shared(clean).unwrap_or_else(|_| HeaderValue::from_static(""))
    })
}

/// How long a head is: names and values, as it can't be told what compression leaves of it.
pub(super) fn length(head: &http::Response<()>) -> usize {
    head.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// The head's headers for `$sent_http_...`.
pub(super) fn listed(head: &http::Response<()>) -> Vec<(Bytes, Bytes)> {
    let shared = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    head.headers().iter().map(|(name, value)| (shared(name.as_str().as_bytes()), shared(value.as_bytes()))).collect()
}
