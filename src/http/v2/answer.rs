//! Answering a request of HTTP/2.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use h2::Reason;

use super::exchange::Exchange;
use super::fields;
use super::settings::Chunks;
use super::takeover::{self, Pump};
use super::wire::Live;
use crate::config::value::Template;
use crate::http::rate::Pace;
use crate::http::request::Request;
use crate::http::response::{Body, Response};
use crate::http::sent;
use crate::http::serve::{self, Refused, Site};
use crate::http::settings::Sending;
use crate::http::trailers;
use crate::http::wire::method::Method;
use crate::server::log::Level;
use crate::server::sockets::reason;
use crate::server::{clock, counts};

/// A body of this length at most leaves without waiting for the client's leave: the engine keeps it.
const SMALL_BODY: usize = 4096;

/// Answers a request and logs it. What takes its stream over goes on afterwards.
pub(super) async fn answer(site: Rc<Site>, mut request: Box<Request>, refused: Option<Refused>, live: Live) {
    let writing = counts::WRITING.enter();
    let mut response = match refused {
        Some(refused) => refused.answer(&mut request).await,
        None => request.run().await,
    };
    let after = send(&site, &mut request, &mut response).await;
    request.finish().await;
    drop(writing);
    if let Some(pump) = after {
        drop(request);
        pump.run().await;
    }
    drop(live);
}

/// Sends an answer; a failure of the client's is logged here.
async fn send(site: &Site, request: &mut Request, response: &mut Response) -> Option<Pump> {
    let connection = Rc::clone(&request.connection);
    let exchange = connection.exchange()?;
    if response.silent {
        request.sent.status = response.status;
        request.sent.is_cut = true;
        exchange.reset(Reason::INTERNAL_ERROR);
        return None;
    }
    match try_send(site, request, response, exchange).await {
        Ok(pump) => pump,
        Err(error) => {
            request.sent.is_cut = true;
            if error.kind() == io::ErrorKind::TimedOut {
                request.log(Level::Info, "client timed out (110: Connection timed out) while sending to client");
            } else if error.get_ref().is_none_or(|inner| !inner.is::<crate::http::response::AlreadyTold>()) {
                let message = format!("client closed its stream ({}) while sending to client", reason(&error));
                request.log(Level::Info, &message);
            }
            None
        }
    }
}

async fn try_send(
    site: &Site,
    request: &mut Request,
    response: &mut Response,
    exchange: &Exchange,
) -> io::Result<Option<Pump>> {
    let length = if response.until_close { None } else { response.length() };
    let head = fields::head(site, request, response, length);
    sent::as_listed(request, || fields::listed(&head));
    // A websocket's answer says 200 here, and 101 in the log, as by HTTP/1.
    request.sent.status = response.status;
    let head_length = fields::length(&head);
    request.sent.bytes += head_length as u64 + FRAME;
    exchange.wire.count_payload(head_length);
    let pace = Pace::of(request);
    let has_no_body = request.head.method() == Method::Head || matches!(response.status, 204 | 304);
    let trailers = std::mem::take(&mut response.trailers);
    match if has_no_body { Body::Empty } else { std::mem::take(&mut response.body) } {
        Body::Empty if has_no_body || trailers.is_empty() => exchange.send_all(head)?,
        Body::Full(bytes) if bytes.len() <= SMALL_BODY && pace.is_none() && trailers.is_empty() => {
            exchange.send_head(head)?;
            count(request, bytes.len());
            end(request, exchange, bytes, &trailers)?;
        }
        body => {
            exchange.send_head(head)?;
            return Box::pin(send_long(request, exchange, pace, body, &trailers)).await;
        }
    }
    Ok(None)
}

/// The length of a frame's own head.
const FRAME: u64 = 9;

fn count(request: &mut Request, length: usize) {
    request.sent.body_bytes += length as u64;
    request.sent.bytes += length as u64 + FRAME;
}

/// Sends the end of a body, with what stands behind it.
fn end(request: &mut Request, exchange: &Exchange, last: Bytes, trailers: &[(Bytes, Template)]) -> io::Result<()> {
    let trailers = trailers::list(request, trailers);
    if trailers.is_empty() {
        return exchange.send(last, true);
    }
    if !last.is_empty() {
        exchange.send(last, false)?;
    }
    exchange.send_trailers(fields::trailers(&trailers))
}

/// Sends a body that comes in several pieces, or hands its stream on.
async fn send_long(
    request: &mut Request,
    exchange: &Exchange,
    pace: Option<Pace>,
    body: Body,
    trailers: &[(Bytes, Template)],
) -> io::Result<Option<Pump>> {
    match body {
        Body::Takeover(take) => takeover::begin(request, take).map(Some),
        Body::Tunnel(tunnel) => {
            serve::through_tunnel(request, *tunnel).await;
            exchange.send(Bytes::new(), true)?;
            Ok(None)
        }
        body => {
            let sent = Box::pin(send_pieces(request, exchange, pace, body, trailers)).await;
            if let Err(error) = &sent {
                let is_slow = error.kind() == io::ErrorKind::TimedOut;
                exchange.reset(if is_slow { Reason::PROTOCOL_ERROR } else { Reason::INTERNAL_ERROR });
            }
            sent.map(|()| None)
        }
    }
}

async fn send_pieces(
    request: &mut Request,
    exchange: &Exchange,
    mut pace: Option<Pace>,
    mut body: Body,
    trailers: &[(Bytes, Template)],
) -> io::Result<()> {
    let timeout = *request.settings::<Sending>().timeout;
    let most = usize::try_from(request.settings::<Chunks>().size.0).unwrap_or(usize::MAX);
    let mut left = body.length().filter(|_| trailers.is_empty());
    loop {
        let next = tokio::select! {
            biased;
            next = body.next() => next,
            () = poll_fn(|cx| exchange.poll_reset(cx)) => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        let Some(piece) = next else { break };
        let mut piece = piece?;
        left = left.map(|left| left.saturating_sub(piece.len() as u64));
        let is_last = left == Some(0);
        while !piece.is_empty() {
            let most = match &mut pace {
                Some(pace) => most.min(pace.leave(request).await?),
                None => most,
            };
            let sending = poll_fn(|cx| exchange.poll_send(cx, &mut piece, most, is_last));
            let sent = clock::timeout(timeout, sending).await;
            let length = sent.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
            count(request, length);
        }
        if is_last {
            return Ok(());
        }
    }
    end(request, exchange, Bytes::new(), trailers)
}
