//! `push_stream_publisher`: POST and PUT publish, GET tells of the channels, DELETE removes them.

use bytes::Bytes;

use super::channels::{self, Refusal, Requested};
use super::events_channel::{self, Event};
use super::hooks::{Hook, Hooks};
use super::limits::Bounds;
use super::role::{self, Place, Role};
use super::{answer, info, statistics};
use crate::config::value::Flag;
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Severity};
use crate::http::wire::method::Method;
use crate::http::{Next, Request, Response};
use crate::hub::PublishOptions;
use crate::hub::limits::Refused;
use crate::hub::message::Draft;
use crate::server::clock;
use crate::server::live::Live;
use crate::server::log::Level;
use crate::settings;

settings! {
    /// What publishing does.
    pub(super) struct Publishing {
        /// Whether messages are stored for later subscribers.
        "push_stream_store_messages" HTTP_ALL_IF = "off" => pub(super) store: Flag,
        /// Whether the answer to a publication tells of the channel.
        "push_stream_channel_info_on_publish" HTTP_ALL = "on" => info: Flag,
    }
}

/// The row that this file brings beside.
pub(super) const COMMANDS: &[Directive] = &[Directive {
    name: "push_stream_publisher",
    contexts: Contexts::LOCATION,
    args: Args::between(0, 1),
    syntax: "[normal | admin]",
    doc: "Makes the location a publisher: POST and PUT publish the body to the channels of \
          `push_stream_channels_path`, GET tells of them; with `admin`, DELETE removes them. Whoever may ask it may send \
          to all clients: close it by `allow` and `deny`.",
    file: file!(),
    apply: publisher,
    ..Directive::BASE
}];

fn publisher(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let word = call.text(0);
    let is_admin = match word.to_ascii_lowercase().as_str() {
        "" | "normal" => false,
        "admin" => true,
        _ => {
            let message = format!(
                "push stream module: invalid push_stream_publisher mode value: {word}, accepted values (normal, admin)"
            );
            return Err(Fault::new(message).severity(Severity::Error).word(0));
        }
    };
    role::take(cx, call, Role::Publisher { is_admin }, handle)
}

const METHODS: &str = "GET, POST, PUT";
const ADMIN_METHODS: &str = "GET, POST, PUT, DELETE";

fn handle(request: &mut Request) -> Next<'_> {
    let is_admin = request.settings::<Place>().role == Some(Role::Publisher { is_admin: true });
    let methods = if is_admin { ADMIN_METHODS } else { METHODS };
    let mut response = Response::new(200);
    answer::forbid_caching(&mut response);
    answer::allow_origins(request, methods, &mut response);
    let Some(live) = Live::get() else { return Next::Status(503) };
    let changes = match request.method {
        Method::Options => return Next::answer(response),
        Method::Get => false,
        Method::Post | Method::Put => true,
        Method::Delete if is_admin => true,
        _ => {
            response.status = 405;
            response.header("Allow", methods.as_bytes());
            return Next::answer(response);
        }
    };
    let channels = channels::requested(request);
    if let Err(refusal) = prepare(request, live, &channels, changes) {
        answer::refuse(request, &mut response, refusal);
        return Next::answer(response);
    }
    match request.method {
        Method::Get => {
            statistics::tell(&mut response, info::Format::wanted(request), live, &channels);
            Next::answer(response)
        }
        Method::Delete => Next::later(delete(request, live, response, channels)),
        _ => Next::later(publish(request, live, response, channels)),
    }
}

/// Checks the channels of a request, and makes those that are to be published to. One that is refused does not unmake those
/// before it.
fn prepare(request: &Request, live: &Live, channels: &[Requested], changes: bool) -> Result<(), Refusal> {
    if channels.is_empty() {
        return Err(channels::NO_ID);
    }
    for channel in channels {
        channels::check_publisher(&live.hub, channel, changes)?;
        if changes && request.method != Method::Delete && create(live, &channel.id)? {
            announce_created(request, live, &channel.id);
        }
    }
    Ok(())
}

const EMPTY: Refusal = Refusal {
    status: 400,
    explain: "Empty post requests are not allowed.",
    logged: Some((Level::Error, "Post request was sent with no message")),
};

async fn publish(
    request: &mut Request,
    live: &'static Live,
    mut response: Response,
    channels: Vec<Requested>,
) -> Next<'static> {
    let text = match request.read_body().await {
        Ok(text) => text,
        Err(status) => return Next::Status(status),
    };
    if text.is_empty() {
        answer::refuse(request, &mut response, EMPTY);
        return Next::answer(response);
    }
    let settings = request.settings::<Publishing>();
    let draft = Draft {
        is_binary: false,
        text,
        event_id: answer::header(request, b"event-id"),
        event_type: answer::header(request, b"event-type"),
    };
    let options = PublishOptions { store: *settings.store, create: true };
    let mut published = Vec::with_capacity(channels.len());
    for channel in &channels {
        match live.hub.publish(&channel.id, draft.clone(), clock::unix_time().as_secs(), options) {
            Ok(done) => published.push(done.channel),
            Err(refused) => {
                answer::refuse(request, &mut response, refused.into());
                return Next::answer(response);
            }
        }
    }
    if *settings.info {
        let format = info::Format::wanted(request);
        match published.as_slice() {
            [one] => format.one(&mut response, one),
            // Each as it is now, also one that is named twice.
            _ => statistics::tell(&mut response, format, live, &channels),
        }
    }
    Next::answer(response)
}

async fn delete(
    request: &mut Request,
    live: &'static Live,
    mut response: Response,
    channels: Vec<Requested>,
) -> Next<'static> {
    let text = match request.read_body().await {
        Ok(text) if text.is_empty() => request.compiled.http().get::<Bounds>().deleted_text(),
        Ok(text) => text,
        Err(status) => return Next::Status(status),
    };
    let mut is_any = false;
    for Requested { id, .. } in &channels {
        if live.hub.delete(id, Draft::text(text.clone()), clock::unix_time().as_secs()) {
            is_any = true;
            ask_destroyed(request, id);
        }
    }
    if is_any {
        answer::explain(&mut response, "Channel deleted.");
    } else {
        response.status = 404;
    }
    Next::answer(response)
}

/// Makes a channel unless it exists.
pub(super) fn create(live: &Live, id: &[u8]) -> Result<bool, Refused> {
    live.hub.create(id, clock::unix_time().as_secs())
}

/// Tells of a channel that a request made.
pub(super) fn announce_created(request: &Request, live: &Live, id: &Bytes) {
    events_channel::announce(live, Event::ChannelCreated, id);
    let template = request.settings::<Hooks>().channel_created.as_ref();
    let hook = Hook::of("push_stream_channel_created_request", template, request, String::from_utf8_lossy(id));
    if let Some(hook) = hook {
        hook.spawn();
    }
}

/// The event itself follows, once the channel's subscribers are told: see `limits`.
fn ask_destroyed(request: &Request, id: &Bytes) {
    let template = request.settings::<Hooks>().channel_destroyed.as_ref();
    let hook = Hook::of("push_stream_channel_destroyed_request", template, request, String::from_utf8_lossy(id));
    if let Some(hook) = hook {
        hook.spawn();
    }
}
