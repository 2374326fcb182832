//! `$sent_http_name`: the headers of the answer, while it is made and when it has been sent.

use bytes::Bytes;

use super::request::Request;
use super::response::Response;
use crate::config::Value;

/// The answer's headers, kept with a request in whose configuration somebody reads them.
#[derive(Debug, Default)]
struct SentHeaders(Vec<(Bytes, Bytes)>);

/// What filters can read of an answer that is not sent yet.
pub(super) fn before_filters(request: &mut Request, response: &Response) {
    if !request.compiled.reads_sent_headers {
        return;
    }
    let mut headers = Vec::new();
    let mut put = |name: &'static str, value: Option<Bytes>| {
        headers.extend(value.map(|value| (Bytes::from_static(name.as_bytes()), value)));
    };
    put("content-type", response.content_type.clone());
    put("content-length", response.length().map(|length| length.to_string().into()));
    put(
        "last-modified",
        response.last_modified.map(|time| Bytes::copy_from_slice(&super::wire::date::http_date(time))),
    );
    put("location", response.location.clone());
    put("etag", response.etag.clone());
    headers.extend(response.headers.iter().cloned());
    request.note_mut::<SentHeaders>().0 = headers;
}

/// What the access log can read: the head as it left.
pub(super) fn as_sent(request: &mut Request, head: &[u8]) {
    if !request.compiled.reads_sent_headers {
        return;
    }
    let head = Bytes::copy_from_slice(head);
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    let headers = lines.filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = memchr::memchr(b':', line)?;
        let value = line.get(colon + 2..).unwrap_or_default();
        Some((head.slice_ref(&line[..colon]), head.slice_ref(value)))
    });
    request.note_mut::<SentHeaders>().0 = headers.collect();
}

/// The same for a head that is no text.
pub(super) fn as_listed(request: &mut Request, list: impl FnOnce() -> Vec<(Bytes, Bytes)>) {
    if request.compiled.reads_sent_headers {
        request.note_mut::<SentHeaders>().0 = list();
    }
}

/// Reads one of them; several of a name are joined by commas.
pub fn sent_header(request: &Request, variable: &str) -> Value {
    let SentHeaders(headers) = request.note()?;
    let is_own = matches!(
        variable,
        "content_type" | "content_length" | "last_modified" | "connection" | "transfer_encoding" | "keep_alive"
    );
    let mut own = headers.iter().filter(|(name, _)| is_own && is_named(name, variable));
    match own.next() {
        // The server's own comes first, and is the one that is meant.
        Some((_, value)) => Some(value.clone()),
        None => named(headers, variable),
    }
}

fn is_named(name: &[u8], variable: &str) -> bool {
    name.len() == variable.len()
        && name.iter().zip(variable.bytes()).all(|(byte, wanted)| match byte {
            b'-' => wanted == b'_',
            _ => byte.to_ascii_lowercase() == wanted,
        })
}

/// The header in a list that a variable's name means.
pub(super) fn named(headers: &[(Bytes, Bytes)], variable: &str) -> Value {
    let mut values = headers.iter().filter(|(name, _)| is_named(name, variable)).map(|(_, value)| value);
    let first = values.next()?.clone();
    Some(values.fold(first, |all, value| [&all[..], b", ", value].concat().into()))
}
