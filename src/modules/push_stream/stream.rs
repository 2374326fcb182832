//! Subscribers over plain HTTP: what all of them have in common, and the ones whose answer does not end, streaming and
//! event sources. `polling` has those whose answer does.

use bytes::Bytes;

use super::channels::Requested;
use super::role::Mode;
use super::subscriber::{self, Audience, Way};
use super::templates::Framing;
use super::{answer, padding, polling};
use crate::http::wire::method::Method;
use crate::http::{Body, Next, Request, Response};
use crate::modules::http_core;
use crate::server::delivery::gzip;
use crate::server::live::Live;

/// The content type of event sources.
pub(super) const EVENT_STREAM: &[u8] = b"text/event-stream; charset=utf-8";

/// Answers a subscriber.
pub(super) fn handle(request: &mut Request, mode: Mode) -> Next<'_> {
    let mut response = Response::new(200);
    answer::allow_origins(request, "GET", &mut response);
    if request.method == Method::Options {
        return Next::answer(response);
    }
    answer::forbid_caching(&mut response);
    if request.method != Method::Get {
        response.status = 405;
        response.header("Allow", &b"GET"[..]);
        return Next::answer(response);
    }
    let Some(live) = Live::get() else { return Next::Status(503) };
    let wanted = match subscriber::wanted(request, live) {
        Ok(wanted) => wanted,
        Err(refusal) => {
            answer::refuse(request, &mut response, refusal);
            return Next::answer(response);
        }
    };
    response.disable_not_modified = true;
    match chosen(request, mode) {
        Mode::Polling => polling::handle(request, live, response, wanted),
        Mode::LongPolling => Next::later(polling::wait(request, live, response, wanted)),
        Mode::Streaming | Mode::EventSource | Mode::Websocket => {
            stream(request, live, response, &wanted, mode == Mode::EventSource)
        }
    }
}

/// The mode of the location, unless the client asks for another one: a long-polling location stays one.
fn chosen(request: &Request, mode: Mode) -> Mode {
    if mode == Mode::LongPolling {
        return mode;
    }
    match request.head.all(b"x-nginx-pushstream-mode").next() {
        Some(asked) if asked.eq_ignore_ascii_case(b"polling") => Mode::Polling,
        Some(asked) if asked.eq_ignore_ascii_case(b"long-polling") => Mode::LongPolling,
        _ => mode,
    }
}

/// Begins an answer without end. Its head waits for what follows it, as in nginx. Compressed, it is a gzip stream in which
/// each message can be read when it has come.
fn stream<'r>(
    request: &'r mut Request,
    live: &'static Live,
    mut response: Response,
    wanted: &[Requested],
    is_event_source: bool,
) -> Next<'r> {
    let is_chunked = request.streams_in_chunks();
    response.content_type = Some(match is_event_source {
        true => Bytes::from_static(EVENT_STREAM),
        false => http_core::content_type(request),
    });
    response.hides_length = true;
    let zip = request.gzip_level(&response);
    let framing = match (zip, is_chunked) {
        (Some(level), _) => Framing::Zipped { level: level.0, is_chunked },
        (None, true) => Framing::Chunk,
        (None, false) => Framing::Bare,
    };
    let audience = Audience::of(request, Way { framing, is_event_source, padding: padding::of(request) });
    match subscriber::join(request, live, &audience, wanted, audience.manner().header.clone()) {
        Err(refusal) => {
            (response.content_type, response.hides_length) = (None, false);
            answer::refuse(request, &mut response, refusal);
        }
        Ok(seat) => {
            response.gives_head = true;
            response.is_zipped = zip.is_some();
            response.body = Body::Takeover(Box::new(move |mut detached, request| {
                if zip.is_some() {
                    detached.head = [&detached.head[..], &gzip::begin(is_chunked)].concat().into();
                }
                seat.take(request, detached);
            }));
        }
    }
    Next::answer(response)
}
