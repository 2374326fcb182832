//! The websocket subscriber: the handshake of RFC 6455, as the module answers it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::answer;
use super::channels::{NO_ID, Refusal};
use super::subscriber::{self, Audience, Way};
use super::templates::{Framing, Padding};
use crate::config::value::Flag;
use crate::config::{Builder, ScopeId};
use crate::http::wire::header::Known;
use crate::http::wire::method::Method;
use crate::http::{Body, Next, Request, Response};
use crate::server::delivery::subscriber::Farewell;
use crate::server::live::Live;
use crate::server::log::Level;
use crate::settings;

settings! {
    /// What websocket clients may do.
    pub(super) struct Websockets {
        /// Whether what a client sends is published to its channels.
        "push_stream_websocket_allow_publish" HTTP_ALL = "off" => pub(super) allow_publish: Flag,
        /// Whether messages are compressed for clients that can take it apart (`permessage-deflate`): each once for all of
        /// them. Not of the original.
        "push_stream_websocket_deflate" HTTP_ALL = "on" => deflate: Flag,
    }
}

/// Whether a block lets clients publish, if it says so.
pub(super) fn raw_allows_publish(builder: &Builder, scope: ScopeId) -> Option<bool> {
    builder.peek::<Websockets>(scope)?.allow_publish.map(|flag| *flag)
}

/// The code of a close frame for a client that is refused.
const POLICY_VIOLATION: u16 = 1008;

/// Answers a handshake.
pub(super) fn handle(request: &mut Request) -> Next<'_> {
    let mut response = Response::new(101);
    response.close = true;
    if request.method != Method::Get {
        response.status = 405;
        response.header("Allow", &b"GET"[..]);
        return Next::answer(response);
    }
    answer::forbid_caching(&mut response);
    let Some(key) = key(request) else {
        answer::refuse(request, &mut response, MISSING_HEADERS);
        return Next::answer(response);
    };
    if !is_known_version(request) {
        response.header("Sec-WebSocket-Version", &b"8, 13"[..]);
        answer::refuse(request, &mut response, UNKNOWN_VERSION);
        return Next::answer(response);
    }
    if !answer::is_origin_allowed(request) {
        answer::refuse(request, &mut response, FOREIGN_ORIGIN);
        return Next::answer(response);
    }
    let Some(live) = Live::get() else { return Next::Status(503) };
    response.header("Upgrade", &b"WebSocket"[..]);
    response.header("Connection", &b"Upgrade"[..]);
    response.header("Sec-WebSocket-Accept", accept(key));
    let framing = if is_deflate_offered(request) {
        response.header("Sec-WebSocket-Extensions", DEFLATE.as_bytes());
        Framing::Deflated
    } else {
        Framing::Websocket
    };
    response.bare_head = true;
    subscribe(request, live, framing, response)
}

/// Subscribes, and says what is done with the connection once the handshake is answered.
fn subscribe<'r>(request: &Request, live: &'static Live, framing: Framing, mut response: Response) -> Next<'r> {
    let way = Way { framing, is_event_source: false, padding: Padding::default() };
    let audience = Audience::of(request, way);
    let header = audience.manner().header.clone();
    let wanted = subscriber::wanted(request, live);
    let joined = wanted.and_then(|wanted| subscriber::join(request, live, &audience, &wanted, header));
    let refusal = match joined {
        Ok(seat) => return seat.answer(response),
        Err(refusal) => refusal,
    };
    refusal.log(request);
    let nowhere = subscriber::nowhere(&audience).filter(|_| refusal != NO_ID);
    response.body = Body::Takeover(Box::new(move |detached, request| {
        let Refusal { status, explain, .. } = refusal;
        match nowhere {
            Some(seat) => {
                let reason = format!("{{\"http_status\": {status}, \"explain\":\"{explain}\"}}");
                seat.dismiss(request, detached, Farewell::Code(POLICY_VIOLATION, &reason));
            }
            // As recorded: the connection ends without a word.
            None => drop(detached),
        }
    }));
    Next::answer(response)
}

/// What is agreed on compression: nobody keeps anything from one message to the next.
const DEFLATE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Whether a client offers compression in a form that can be had.
fn is_deflate_offered(request: &Request) -> bool {
    let offers = request.head.all(b"sec-websocket-extensions").flat_map(|value| value.split(|ch| *ch == b','));
    *request.settings::<Websockets>().deflate && offers.into_iter().any(is_offer)
}

/// Whether an offer can be accepted (RFC 7692 §7.1). The window is always the largest: an offer that wants the server's
/// smaller is declined.
fn is_offer(offer: &[u8]) -> bool {
    let mut parts = offer.split(|ch| *ch == b';').map(<[u8]>::trim_ascii);
    let is_deflate = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"permessage-deflate"));
    let mut seen = Vec::new();
    is_deflate
        && parts.all(|parameter| {
            let (name, value) = match memchr::memchr(b'=', parameter) {
                Some(at) => (parameter[..at].trim_ascii(), Some(parameter[at + 1..].trim_ascii())),
                None => (parameter, None),
            };
            let is_first = !seen.contains(&name);
            seen.push(name);
            let value =
                value.map(|value| value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value));
            let is_window = |value: &[u8]| matches!(value, b"8" | b"9" | b"10" | b"11" | b"12" | b"13" | b"14" | b"15");
            is_first
                && match name {
                    b"server_no_context_takeover" | b"client_no_context_takeover" => value.is_none(),
                    b"client_max_window_bits" => value.is_none_or(is_window),
                    b"server_max_window_bits" => value == Some(b"15"),
                    _ => false,
                }
        })
}

const MISSING_HEADERS: Refusal = Refusal { status: 400, explain: NO_HEADERS, logged: Some((Level::Error, NO_HEADERS)) };
const NO_HEADERS: &str = "Don't have at least one of the mandatory headers: Connection, Upgrade, Sec-WebSocket-Key and Sec-WebSocket-Version";
const UNKNOWN_VERSION: Refusal = Refusal { status: 400, explain: NO_VERSION, logged: Some((Level::Error, NO_VERSION)) };
const NO_VERSION: &str = "Version not supported. Supported versions: 8, 13";
const FOREIGN_ORIGIN: Refusal =
    Refusal { status: 403, explain: "Origin is not allowed.", logged: Some((Level::Warn, "origin is not allowed")) };

/// The key of a handshake that has all it needs.
fn key(request: &Request) -> Option<&[u8]> {
    request.head.known(Known::Connection)?;
    request.head.known(Known::Upgrade)?;
    request.head.all(b"sec-websocket-version").next()?;
    request.head.all(b"sec-websocket-key").next()
}

fn is_known_version(request: &Request) -> bool {
    request.head.all(b"sec-websocket-version").next().is_some_and(|version| matches!(version, b"8" | b"13"))
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2).
fn accept(key: &[u8]) -> Bytes {
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    STANDARD.encode(digest).into()
}

/// For the fuzzer: any key is accepted, and any offer of compression is understood or not.
pub fn fuzz(data: &[u8]) {
    is_offer(data);
    assert_eq!(accept(data).len(), 28);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_of_compression() {
        let check = |offer: &str, expected| assert_eq!(is_offer(offer.as_bytes()), expected, "{offer}");
        check("permessage-deflate", true);
        check(" permessage-deflate; client_max_window_bits", true);
        check("permessage-deflate; client_max_window_bits=10; server_no_context_takeover", true);
        check("permessage-deflate; server_max_window_bits=\"15\"", true);
        check("permessage-deflate; server_max_window_bits=10", false);
        check("permessage-deflate; client_max_window_bits=7", false);
        check("permessage-deflate; client_max_window_bits; client_max_window_bits", false);
        check("permessage-deflate; unknown", false);
        check("x-webkit-deflate-frame", false);
    }

    #[test]
    fn keys_are_accepted() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accept(b"x"), "JVxkmtKFjDcI/Pm/AGPEKSN6wT8=");
    }
}
