//! `push_stream_channels_statistics`: what monitoring asks.

use super::channels::{self, ALL, Requested};
use super::role::{self, Role};
use super::{answer, info};
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault};
use crate::http::wire::method::Method;
use crate::http::{Next, Request, Response};
use crate::server::clock;
use crate::server::live::Live;

/// The row that this file brings.
pub(super) const COMMANDS: &[Directive] = &[Directive {
    name: "push_stream_channels_statistics",
    contexts: Contexts::LOCATION,
    args: Args::NONE,
    doc: "Answers with the numbers of the channels that `push_stream_channels_path` names: one, several, all that begin \
          with a text (`news*`), or `ALL`; without any, with the sums. The format is JSON, XML, YAML or plain text, as \
          `Accept` says. `push_stream_channels_path` must be set.",
    file: file!(),
    apply: channels_statistics,
    ..Directive::BASE
}];

fn channels_statistics(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    // As in the original, whatever the location was before.
    role::set(cx, call, Role::Statistics, handle);
    Ok(())
}

fn handle(request: &mut Request) -> Next<'_> {
    let mut response = Response::new(200);
    answer::forbid_caching(&mut response);
    if request.method != Method::Get {
        response.status = 405;
        response.header("Allow", &b"GET"[..]);
        return Next::answer(response);
    }
    let Some(live) = Live::get() else { return Next::Status(503) };
    response.header("X-Nginx-PushStream-Tag", env!("CARGO_PKG_VERSION").as_bytes());
    response.header("X-Nginx-PushStream-Commit", &b"pushgate"[..]);
    let format = info::Format::wanted(request);
    let requested = channels::requested(request);
    let limits = live.hub.limits();
    for channel in &requested {
        if let Err(refused) = limits.check_id(&channel.id) {
            answer::refuse(request, &mut response, refused.into());
            return Next::answer(response);
        }
        // The first that stands for many is all that is told of.
        if let Some(prefix) = prefix(&channel.id) {
            let now = clock::unix_time().as_secs();
            format.list(&mut response, live, &live.hub.statistics_of_prefix(prefix, now));
            return Next::answer(response);
        }
    }
    match requested.as_slice() {
        [] => format.summary(&mut response, live),
        several => tell(&mut response, format, live, several),
    }
    Next::answer(response)
}

/// What channels' ids begin with for which one stands: what is before a star; nothing for `ALL`.
fn prefix(id: &[u8]) -> Option<&[u8]> {
    memchr::memchr(b'*', id).map(|star| &id[..star]).or_else(|| (id == ALL).then_some(b""))
}

/// Tells of the channels among those named that exist: 404 if none does.
pub(super) fn tell(response: &mut Response, format: info::Format, live: &Live, requested: &[Requested]) {
    let now = clock::unix_time().as_secs();
    let found: Vec<_> = requested.iter().filter_map(|channel| live.hub.statistics(&channel.id, now)).collect();
    match found.as_slice() {
        [] => response.status = 404,
        [one] => format.one(response, one),
        several => format.list(response, live, several),
    }
}
