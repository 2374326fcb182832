//! Answers of the module: headers that all of them have, and explanations of refusals.

use std::borrow::Cow;

use bytes::Bytes;

use super::channels::Refusal;
use crate::config::value::Template;
use crate::http::wire::escape::unescape_uri;
use crate::http::{Request, Response};
use crate::settings;

settings! {
    /// Who may read the answers in a browser.
    pub(super) struct Origins {
        /// The origins whose pages may use the location: a list divided by commas, or `*`. Answers carry it as
        /// `Access-Control-Allow-Origin`; a websocket's handshake from another origin is refused with 403.
        ///
        /// Example: `push_stream_allowed_origins "https://example.com, https://www.example.com";`
        "push_stream_allowed_origins" HTTP_ALL = "" => pub(super) allowed: Option<Template>,
    }
}

const CORS_HEADERS: &str = "If-Modified-Since,If-None-Match,Etag,Event-Id,Event-Type,Last-Event-Id";

/// Says that an answer must not be kept by anybody.
pub(super) fn forbid_caching(response: &mut Response) {
    response.header("Expires", &b"Thu, 01 Jan 1970 00:00:01 GMT"[..]);
    response.header("Cache-Control", &b"no-cache, no-store, must-revalidate"[..]);
}

/// The value of a directive with variables, its escapes decoded as the module does: up to the first `?`, which ends it; a
/// text that has none before that is taken as it stands.
pub(super) fn value(request: &Request, template: &Template) -> Bytes {
    decode(request.eval(template))
}

/// Decodes a text as [`value`] does.
pub(super) fn decode(text: Bytes) -> Bytes {
    match unescape_uri(&text) {
        Cow::Owned(decoded) => decoded.into(),
        Cow::Borrowed(_) => text,
    }
}

/// Says which origins may read an answer, where that is configured.
pub(super) fn allow_origins(request: &Request, methods: &'static str, response: &mut Response) {
    let Some(template) = &request.settings::<Origins>().allowed else { return };
    let origins = value(request, template);
    if !origins.is_empty() {
        response.header("Access-Control-Allow-Origin", origins);
        response.header("Access-Control-Allow-Methods", methods.as_bytes());
        response.header("Access-Control-Allow-Headers", CORS_HEADERS.as_bytes());
    }
}

/// Whether a websocket may be opened by the page that asks. Only browsers say where a page is from, and only they run
/// foreign pages: who does not say is let in.
pub(super) fn is_origin_allowed(request: &Request) -> bool {
    let Some(template) = &request.settings::<Origins>().allowed else { return true };
    let Some(origin) = request.head.all(b"origin").next() else { return true };
    lists(&value(request, template), origin)
}

/// Whether a list of origins has one.
fn lists(allowed: &[u8], origin: &[u8]) -> bool {
    let words = allowed.split(|ch| matches!(ch, b',' | b' ')).filter(|word| !word.is_empty());
    words.into_iter().any(|word| word == b"*" || word.eq_ignore_ascii_case(origin))
}

/// An answer that says nothing but its status, and why; the log may say it too.
pub(super) fn refuse(request: &Request, response: &mut Response, refusal: Refusal) {
    refusal.log(request);
    response.status = refusal.status;
    explain(response, refusal.explain);
}

/// Adds an explanation.
pub(super) fn explain(response: &mut Response, text: &'static str) {
    response.header("X-Nginx-PushStream-Explain", text.as_bytes());
}

/// The value of a header that is there and not empty.
pub(super) fn header(request: &Request, name: &[u8]) -> Option<Bytes> {
    request.head.all(name).next().filter(|value| !value.is_empty()).map(Bytes::copy_from_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_listed() {
        let check = |allowed: &str, origin: &str, expected| {
            assert_eq!(lists(allowed.as_bytes(), origin.as_bytes()), expected, "{allowed:?} {origin:?}");
        };
        check("http://a.example, https://b.example", "https://b.example", true);
        check("http://a.example,https://b.example", "HTTPS://B.example", true);
        check("http://a.example", "http://a.example.evil", false);
        check("*", "http://any", true);
        check("", "http://any", false);
        check("", "null", false);
    }
}
