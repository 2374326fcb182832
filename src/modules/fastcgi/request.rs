//! The handler: makes the request for the FastCGI server and has it passed on.

use std::sync::Arc;

use bytes::Bytes;

use super::answer::FastCgi;
use super::{Buffering, Cache, Exchange, Scripts, Settings};
use crate::http::upstream::{Framing, Payload, Plan, pass as pass_on};
use crate::http::wire::method::Method;
use crate::http::wire::records::{padding, put_begin, put_param, put_params, stdin_header};
use crate::http::{Next, Request};
use crate::modules::upstream::Pass;
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
    let destination = match Pass::find(request).await {
        Ok(destination) => destination,
        Err(status) => return Next::Status(status),
    };
    let (body, _) = match Payload::receive(request, exchange, buffering).await {
        Ok(received) => received,
        Err(status) => return Next::Status(status),
    };
    let mut params = Vec::with_capacity(1024);
    let put = |name: &[u8], value: &[u8]| put_param(name, value, &mut params);
    settings.get::<Scripts>().0.params.list(request, *exchange.pass_headers, put);
    let mut head = Vec::with_capacity(params.len() + 64);
    put_begin(*own.keep_conn, &mut head);
    if !put_params(&params, &mut head) {
        request.log(Level::Alert, &format!("fastcgi request record is too big: {}", params.len()));
        return Next::Status(500);
    }
    let mut protocol = FastCgi::new(own, exchange, request.method == Method::Head);
    let plan = Plan {
        upstream: destination.upstream,
        exchange,
        buffering,
        cache: &settings.get::<Cache>().0,
        schema: destination.schema,
        uri: Bytes::new(),
        head: head.into(),
        body,
        framing: Some(&FRAMING),
        tls: None,
    };
    pass_on(request, plan, &mut protocol).await
}
