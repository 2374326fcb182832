//! The handler: makes the request for the upstream and has it passed on.

use std::sync::Arc;

use bytes::Bytes;

use super::answer::Http;
use super::headers::{Headers, Length, length};
use super::{Buffering, Cache, Exchange, HttpVersion, Settings, Tls, pass, uri};
use crate::http::upstream::{Framing, Payload, Plan, pass as pass_on};
use crate::http::{Next, Received, Request};
use crate::server::log::Level;

/// Answers a location's requests.
pub(super) fn handle(request: &mut Request) -> Next<'_> {
    Next::later(run(request))
}

async fn run(request: &mut Request) -> Next<'static> {
    let compiled = Arc::clone(&request.compiled);
    let settings = compiled.settings(request.location_id);
    let (exchange, own) = (&settings.get::<Exchange>().0, settings.get::<Settings>());
    let (upstream, place) = match pass::find(request).await {
        Ok(found) => found,
        Err(status) => return Next::Status(status),
    };
    let place = own_words(request, place);
    let tls = match place.is_tls.then(|| settings.get::<Tls>().0.securing("proxy", request, &place.host)).transpose() {
        Ok(tls) => tls,
        Err(status) => return Next::Status(status),
    };
    let buffering = &settings.get::<Buffering>().0;
    let comes = !*buffering.request_buffering
        && own.body.is_none()
        && *exchange.pass_body
        && request.is_main()
        && request.has_unread_body()
        && !request.has_all_chunks()
        && (request.head.content_length().is_some() || own.http_version == HttpVersion::V11);
    let body = match comes {
        true => request.incoming_body().await.map(Payload::Coming),
        false => request.receive_body().await.map(Payload::Whole),
    };
    let body = match body {
        Ok(body) => body,
        Err(status) => return Next::Status(status),
    };
    {
        let mut record = request.upstream_record_mut().borrow_mut();
        (record.host, record.port) = (place.host.clone(), place.port.clone());
    }
    let is_variable = matches!(settings.get::<pass::Pass>().to, Some(pass::To::Variable(_)));
    let uri = uri::make(request, uri::Replacement { uri: &place.uri, location: &place.location, is_variable });
    if uri.is_empty() {
        request.log(Level::Error, "zero length URI to proxy");
        return Next::Status(500);
    }
    let nothing = || Payload::Whole(Received::Memory(Bytes::new()));
    let (body, length) = match (&own.body, body) {
        (Some(template), _) => {
            let body = request.eval(template);
            let length = Length::Known(body.len() as u64);
            (Payload::Whole(Received::Memory(body)), length)
        }
        (None, Payload::Whole(body)) => {
            let length = length(request, body.length());
            (if *exchange.pass_body { Payload::Whole(body) } else { nothing() }, length)
        }
        (None, body @ Payload::Coming(_)) => (
            body,
            request.head.content_length().filter(|_| !request.head.is_chunked()).map_or(Length::Chunked, Length::Known),
        ),
    };
    let method = match &own.method {
        Some(template) => request.eval(template),
        None => request.method_name.clone(),
    };
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(&method);
    head.push(b' ');
    head.extend_from_slice(&uri);
    head.extend_from_slice(match own.http_version {
        HttpVersion::V10 => b" HTTP/1.0\r\n",
        HttpVersion::V11 => b" HTTP/1.1\r\n",
    });
    settings.get::<Headers>().write(request, &place.host, length, *exchange.pass_headers, &mut head);
    let mut protocol = Http::new(request, method.eq_ignore_ascii_case(b"HEAD"));
    let plan = Plan {
        upstream,
        exchange,
        buffering,
        cache: &settings.get::<Cache>().0,
        schema: if place.is_tls { "https://" } else { "http://" },
        uri,
        head: head.into(),
        body,
        framing: (length == Length::Chunked).then_some(&Framing::CHUNKS),
        tls,
    };
    pass_on(request, plan, &mut protocol).await
}

/// The place as `set $proxy_host` and `set $proxy_port` call it.
fn own_words(request: &Request, place: Arc<pass::Place>) -> Arc<pass::Place> {
    let Some(record) = request.upstream_record() else { return place };
    let record = record.borrow();
    if record.said_host.is_none() && record.said_port.is_none() {
        return place;
    }
    let mut own = pass::Place::clone(&place);
    if let Some(host) = &record.said_host {
        own.host = host.clone();
    }
    if let Some(port) = &record.said_port {
        own.port = port.clone();
    }
    Arc::new(own)
}
