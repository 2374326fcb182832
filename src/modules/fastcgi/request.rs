//! The handler: makes the request for the FastCGI server and has it passed on.

use std::sync::Arc;

use bytes::Bytes;

use super::answer::FastCgi;
use super::params::Params;
use super::{Buffering, Cache, Exchange, Settings, pass};
use crate::http::upstream::{Framing, Payload, Plan, pass as pass_on};
use crate::http::wire::method::Method;
use crate::http::wire::records::{padding, put_begin, put_params, stdin_header};
use crate::http::{Next, Received, Request};
use crate::server::log::Level;

/// How a request's body is put into records, as large as nginx's.
const FRAMING: Framing = Framing {
    most: 32 * 1024,
    before: |length| Bytes::copy_from_slice(&stdin_header(length)),
    after: |length| Bytes::from_static(&[0; 8][..padding(length)]),
    last: &stdin_header(0),
};

/// Answers a location's requests.
pub(super) fn handle(request: &mut Request) -> Next<'_> {
    Next::later(run(request))
}

async fn run(request: &mut Request) -> Next<'static> {
    let compiled = Arc::clone(&request.compiled);
    let settings = compiled.settings(request.location_id);
    let (exchange, own) = (&settings.get::<Exchange>().0, settings.get::<Settings>());
    let buffering = &settings.get::<Buffering>().0;
    let upstream = match pass::find(request).await {
        Ok(upstream) => upstream,
        Err(status) => return Next::Status(status),
    };
    let comes = !*buffering.request_buffering
        && *exchange.pass_body
        && request.is_main()
        && request.has_unread_body()
        && !request.head.is_chunked();
    let body = match comes {
        true => request.incoming_body().await.map(Payload::Coming),
        false => request.receive_body().await.map(Payload::Whole),
    };
    let body = match body {
        Ok(body) if *exchange.pass_body => body,
        Ok(_) => Payload::Whole(Received::Memory(Bytes::new())),
        Err(status) => return Next::Status(status),
    };
    let params = settings.get::<Params>().list(request, *exchange.pass_headers);
    let mut head = Vec::with_capacity(params.len() + 64);
    put_begin(*own.keep_conn, &mut head);
    if !put_params(&params, &mut head) {
        request.log(Level::Alert, &format!("fastcgi request record is too big: {}", params.len()));
        return Next::Status(500);
    }
    let mut protocol = FastCgi::new(own, exchange, request.method == Method::Head);
    let plan = Plan {
        upstream,
        exchange,
        buffering,
        cache: &settings.get::<Cache>().0,
        schema: "fastcgi://",
        uri: Bytes::new(),
        head: head.into(),
        body,
        framing: Some(&FRAMING),
        tls: None,
    };
    pass_on(request, plan, &mut protocol).await
}
