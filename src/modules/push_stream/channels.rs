//! Which channels a request is about: `push_stream_channels_path`, and what is allowed there.

use bytes::Bytes;

use super::answer;
use crate::config::value::{Flag, Number, Template};
use crate::config::{Builder, ScopeId};
use crate::http::Request;
use crate::hub::Hub;
use crate::hub::limits::Refused;
use crate::server::log::Level;
use crate::settings;

settings! {
    /// Which channels a request is about.
    pub(super) struct Channels {
        /// The ids of the channels, divided by slashes, each of which ends an id (`a//` has an empty second one); a subscriber may add `.b` and a number to each, for so many of its
        /// stored messages.
        ///
        /// Example: `push_stream_channels_path $arg_id;`
        "push_stream_channels_path" HTTP_ALL_IF = "" => pub(super) path: Option<Template>,
        /// Whether only channels with stored messages may be subscribed to.
        "push_stream_authorized_channels_only" HTTP_ALL = "off" => pub(super) authorized_only: Flag,
        /// How many wildcard channels one subscriber may have, which are never all that it has.
        "push_stream_wildcard_channel_max_qtd" HTTP_ALL = "" => pub(super) max_wildcards: Option<Number>,
        /// Whether the events channel may be subscribed to here.
        "push_stream_allow_connections_to_events_channel" HTTP_ALL_IF = "off" => pub(super) events_allowed: Flag,
    }
}

impl Channels {
    /// How many wildcard channels a block allows, if it says so.
    pub(super) fn raw_max_wildcards(builder: &Builder, scope: ScopeId) -> Option<Number> {
        builder.peek::<Self>(scope)?.max_wildcards.flatten()
    }

    /// Whether a block has a path.
    pub(super) fn raw_has_path(builder: &Builder, scope: ScopeId) -> Option<()> {
        builder.peek::<Self>(scope)?.path.as_ref().map(|_| ())
    }
}

/// Stands for all channels in statistics.
pub(super) const ALL: &[u8] = b"ALL";

/// A channel that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Requested {
    /// Its id.
    pub(super) id: Bytes,
    /// So many stored messages first.
    pub(super) backtrack: usize,
}

/// Why a request about channels is refused: the status and the explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The status.
    pub(super) status: u16,
    /// In `X-Nginx-PushStream-Explain`, or in the close frame.
    pub(super) explain: &'static str,
    /// What the log says of it, if anything, in the original's words.
    pub(super) logged: Option<(Level, &'static str)>,
}

const fn refusal(status: u16, explain: &'static str) -> Refusal {
    Refusal { status, explain, logged: None }
}

impl Refusal {
    /// The same, with a line for the log.
    pub(super) const fn logged(self, level: Level, text: &'static str) -> Self {
        Self { logged: Some((level, text)), ..self }
    }

    /// Writes the line.
    pub(super) fn log(&self, request: &Request) {
        if let Some((level, text)) = self.logged {
            request.log(level, &format!("push stream module: {text}"));
        }
    }
}

/// No channel is named.
pub(super) const NO_ID: Refusal = refusal(400, "No channel id provided.")
    .logged(Level::Warn, "the push_stream_channels_path is required but is not set");
const NOT_AUTHORIZED: Refusal = refusal(403, "Channel id not authorized for this method.");
const EVENTS_CHANGED: Refusal = refusal(403, "Only internal routines can change events channel.")
    .logged(Level::Error, "only internal routines can change events channel");
const EVENTS_CLOSED: Refusal = refusal(403, "Subscription to events channel is not allowed.")
    .logged(Level::Error, "subscription to events channel is not allowed");
const NOT_CREATED: Refusal = refusal(403, "Subscriber could not create channels.");
const TOO_MANY_WILDCARDS: Refusal = refusal(403, "Subscribed too much wildcard channels.")
    .logged(Level::Error, "max subscribed wildcard channels exceeded");

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::IdTooLong => {
                refusal(400, "Channel id is too large.").logged(Level::Warn, "channel id is larger than allowed")
            }
            Refused::TooManyChannels => refusal(403, "Number of channels were exceeded.")
                .logged(Level::Error, "number of channels were exceeded"),
            Refused::TooManySubscribers => refusal(403, "Subscribers limit per channel has been exceeded."),
            Refused::NoMemory => refusal(500, "No memory left for channels.")
                .logged(Level::Error, "unable to allocate memory for new channel"),
            Refused::NoSuchChannel => NOT_CREATED,
        }
    }
}

/// The channels that a request names, in their order.
pub(super) fn requested(request: &Request) -> Vec<Requested> {
    let Some(path) = &request.settings::<Channels>().path else { return Vec::new() };
    parse(answer::value(request, path))
}

/// Takes a path apart. A slash ends an id, even an empty one, as in the original.
fn parse(path: Bytes) -> Vec<Requested> {
    if path.is_empty() {
        return Vec::new();
    }
    let path = path.strip_suffix(b"/").unwrap_or(&path);
    path.split(|ch| *ch == b'/').map(Requested::parse).collect()
}

impl Requested {
    fn parse(part: &[u8]) -> Self {
        let digits = part.iter().rev().take_while(|ch| ch.is_ascii_digit()).count();
        let (rest, count) = part.split_at(part.len() - digits);
        match rest.strip_suffix(b".b") {
            Some(id) if digits > 0 => {
                let count = std::str::from_utf8(count).unwrap_or_default();
                // More than can be counted is all there are.
                Self { id: Bytes::copy_from_slice(id), backtrack: count.parse().unwrap_or(usize::MAX) }
            }
            _ => Self { id: Bytes::copy_from_slice(part), backtrack: 0 },
        }
    }

    fn is_plain(&self) -> bool {
        self.id != ALL && !self.id.contains(&b'*')
    }
}

/// Checks a channel of a publisher; `changes` is off where it only asks.
pub(super) fn check_publisher(hub: &Hub, channel: &Requested, changes: bool) -> Result<(), Refusal> {
    if !channel.is_plain() {
        return Err(NOT_AUTHORIZED);
    }
    let limits = hub.limits();
    limits.check_id(&channel.id).inspect_err(|refused| hub.dropped().refuse(*refused))?;
    if changes && limits.is_events(&channel.id) { Err(EVENTS_CHANGED) } else { Ok(()) }
}

/// Checks the channels of a subscriber.
pub(super) fn check_subscriber(
    hub: &Hub,
    settings: &Channels,
    channels: &[Requested],
    now: u64,
) -> Result<(), Refusal> {
    if channels.is_empty() {
        return Err(NO_ID);
    }
    let limits = hub.limits();
    let mut wildcards = 0;
    for channel in channels {
        if !channel.is_plain() {
            return Err(NOT_AUTHORIZED);
        }
        let id = &channel.id;
        limits.check_id(id).inspect_err(|refused| hub.dropped().refuse(*refused))?;
        let is_wildcard = limits.is_wildcard(id);
        wildcards += usize::from(is_wildcard);
        let statistics = hub.statistics(id, now);
        let is_stored = statistics.as_ref().is_some_and(|channel| channel.stored > 0);
        if *settings.authorized_only && !is_wildcard && !is_stored {
            return Err(NOT_CREATED);
        }
        let subscribers = statistics.map_or(0, |channel| channel.subscribers);
        if limits.max_subscribers_per_channel.is_some_and(|most| subscribers >= most) {
            hub.dropped().refuse(Refused::TooManySubscribers);
            return Err(Refused::TooManySubscribers.into());
        }
        if limits.is_events(id) && !*settings.events_allowed {
            return Err(EVENTS_CLOSED);
        }
    }
    let count = |number: Number| usize::try_from(*number).unwrap_or(usize::MAX);
    match settings.max_wildcards.map(count).or(limits.max_wildcard_channels) {
        Some(most) if wildcards > 0 && (wildcards > most || wildcards == channels.len()) => {
            hub.dropped().refused.add(1);
            Err(TOO_MANY_WILDCARDS)
        }
        _ => Ok(()),
    }
}

/// For the fuzzer: a path of any bytes names channels, and what they are called has no slash.
pub fn fuzz(path: &[u8]) {
    let path = answer::decode(Bytes::copy_from_slice(path));
    let channels = parse(path.clone());
    assert_eq!(channels.is_empty(), path.is_empty());
    assert!(channels.iter().all(|channel| !channel.id.contains(&b'/')));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::limits::Limits;

    /// The channels of a path, as `id` or `id+backtrack`.
    fn check(path: &str, expected: &[&str]) {
        let show = |channel: Requested| {
            let id = String::from_utf8_lossy(&channel.id).into_owned();
            if channel.backtrack == 0 { id } else { format!("{id}+{}", channel.backtrack) }
        };
        let path = Bytes::copy_from_slice(path.as_bytes());
        let found: Vec<_> = parse(answer::decode(path.clone())).into_iter().map(show).collect();
        assert_eq!(found, expected, "{path:?}");
    }

    #[test]
    fn paths_name_channels() {
        check("a", &["a"]);
        check("", &[]);
        check("/", &[""]);
        check("a/b.b5/c", &["a", "b+5", "c"]);
        check("a//b/", &["a", "", "b"]);
        check("a/", &["a"]);
        check("/a", &["", "a"]);
        check("a%20b", &["a b"]);
        check("a%3Fb/c", &["a?"]);
        check("a?b%20c", &["a?b%20c"]);
        check("%61?b%20c", &["a?"]);
        check("a+b", &["a+b"]);
        check("x%2Fy.b1", &["x", "y+1"]);
    }

    #[test]
    fn backtracks_are_suffixes() {
        check("h.b0", &["h"]);
        check("h.b01", &["h+1"]);
        check("h.b", &["h.b"]);
        check("h.bx", &["h.bx"]);
        check("h.B1", &["h.B1"]);
        check("h.b1.b2", &["h.b1+2"]);
        check(".b2", &["+2"]);
        check("h.b99999999999999999999", &[&format!("h+{}", usize::MAX)]);
    }

    #[test]
    fn publishers_may_not_use_some_ids() {
        let events_channel = Some(Bytes::from_static(b"ctl"));
        let hub = Hub::new(Limits { max_channel_id_length: Some(4), events_channel, ..Limits::default() });
        let check = |id: &'static str, changes, expected| {
            let channel = Requested { id: Bytes::from_static(id.as_bytes()), backtrack: 0 };
            let result = check_publisher(&hub, &channel, changes);
            assert_eq!(result.err().map(|refusal| (refusal.status, refusal.explain)), expected, "{id}");
        };
        check("a", true, None);
        check("ALL", false, Some((403, "Channel id not authorized for this method.")));
        check("ALLx", true, None);
        check("b*", false, Some((403, "Channel id not authorized for this method.")));
        check("12345", true, Some((400, "Channel id is too large.")));
        check("ctl", true, Some((403, "Only internal routines can change events channel.")));
        check("ctl", false, None);
    }
}
