//! What becomes of a request's path and arguments on their way to the upstream.

use bytes::{Bytes, BytesMut};

use crate::http::Request;
use crate::http::wire::escape::{Escape, escape};

/// What `proxy_pass` says of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replacement<'r> {
    /// The path in the URL; empty if there is none.
    pub(super) uri: &'r Bytes,
    /// The location's name, whose place it takes.
    pub(super) location: &'r [u8],
    /// Whether the URL had variables: a path is the whole path then.
    pub(super) is_variable: bool,
}

/// The URI that an upstream is asked for.
pub(super) fn make(request: &Request, replacement: Replacement<'_>) -> Bytes {
    let Replacement { uri, location, is_variable } = replacement;
    if is_variable && !uri.is_empty() {
        return uri.clone();
    }
    if uri.is_empty() && request.is_uri_as_sent {
        return request.head.request_uri_bytes();
    }
    let path = &request.uri;
    let takes_place = request.is_in_location && !uri.is_empty();
    let cut = if takes_place { location.len().min(path.len()) } else { 0 };
    let mut text = BytesMut::with_capacity(uri.len() + path.len() + request.args.len() + 1);
    if request.is_in_location {
        text.extend_from_slice(uri);
    }
    // What was decoded is escaped again; what came without escapes and was not changed goes as it is.
    let was_escaped = request.is_internal || memchr::memchr(b'%', request.head.request_uri()).is_some();
    match was_escaped {
        true => text.extend_from_slice(&escape(&path[cut..], Escape::Uri)),
        false => text.extend_from_slice(&path[cut..]),
    }
    if !request.args.is_empty() {
        text.extend_from_slice(b"?");
        text.extend_from_slice(&request.args);
    }
    text.freeze()
}
