//! `push_stream_channels_statistics`: what monitoring asks.

use super::channels::{self, ALL, Requested};
use super::role::{self, Role};
use super::{answer, info};
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault};
use crate::http::wire::method::Method;
use crate::http::{Next, Request, Response};
use crate::hub::statistics::Channel;
use crate::server::clock;
use crate::server::live::Live;

/// The row that this file brings.
pub(super) const COMMANDS: &[Directive] = &[Directive {
    name: "push_stream_channels_statistics",
    contexts: Contexts::LOCATION,
    args: Args::NONE,
    doc: "Answers with the numbers of the channels that `push_stream_channels_path` names: one, several, all that begin \
          with a text (`news*`), or `ALL`; without any, with the sums. The format is JSON, XML, YAML or plain text, as \
          `Accept` says.",
    file: file!(),
    apply: channels_statistics,
    ..Directive::BASE
}];

fn channels_statistics(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    role::take(cx, call, Role::Statistics, handle)
}

fn handle(request: &mut Request) -> Next<'_> {
    let mut response = Response::new(200);
    answer::forbid_caching(&mut response);
    if request.method != Method::Get {
        response.status = 405;
        response.header("Allow", &b"GET"[..]);
        return Next::Answer(response);
    }
    let Some(live) = Live::get() else { return Next::Status(503) };
    answer::allow_origins(request, "GET", &mut response);
    response.header("X-Nginx-PushStream-Tag", env!("CARGO_PKG_VERSION").as_bytes());
    response.header("X-Nginx-PushStream-Commit", &b"pushgate"[..]);
    let format = info::Format::wanted(request);
    match channels::requested(request).as_slice() {
        [] => format.summary(&mut response, live),
        [one] if one.id == ALL => format.list(&mut response, live, &of_prefix(live, b"")),
        [one] if one.id.ends_with(b"*") => {
            format.list(&mut response, live, &of_prefix(live, &one.id[..one.id.len() - 1]));
        }
        several => tell(&mut response, format, live, several),
    }
    Next::Answer(response)
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

fn of_prefix(live: &Live, prefix: &[u8]) -> Vec<Channel> {
    live.hub.statistics_of_prefix(prefix, clock::unix_time().as_secs())
}
