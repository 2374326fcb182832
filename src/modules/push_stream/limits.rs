//! What bounds the channels of the whole server, and the housekeeping that keeps to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::channels::Channels;
use super::check::{Findings, nearest};
use super::events_channel::{self, Event, EventsChannel};
use super::padding;
use super::subscriber::Notices;
use crate::compile::Compiled;
use crate::config::value::{Number, Sec, Text, parse_size};
use crate::config::{Args, Builder, Call, Contexts, Cx, Directive, Fault, Merge, ScopeId, Section, Severity, Slot};
use crate::hub::limits::Limits;
use crate::server::clock;
use crate::server::live::Live;
use crate::server::log::Level;
use crate::settings;

settings! {
    /// The bounds, as they are written.
    pub(super) struct Bounds {
        /// How many channels there may be that are not wildcard channels; more are refused with 403.
        "push_stream_max_number_of_channels" HTTP = "" => max_channels: Option<Number>,
        /// How many wildcard channels there may be; more are refused with 403.
        "push_stream_max_number_of_wildcard_channels" HTTP = "" => max_wildcard_channels: Option<Number>,
        /// What the ids of wildcard channels begin with.
        ///
        /// Example: `push_stream_wildcard_channel_prefix "all_";`
        "push_stream_wildcard_channel_prefix" HTTP = "" => wildcard_prefix: Text,
        /// How many subscribers a channel may have; more are refused with 403.
        "push_stream_max_subscribers_per_channel" HTTP = "" => max_subscribers: Option<Number>,
        /// How many messages a channel stores: the latest.
        "push_stream_max_messages_stored_per_channel" HTTP = "" => max_stored: Option<Number>,
        /// How long the id of a channel may be, in bytes; a longer one is refused with 400.
        "push_stream_max_channel_id_length" HTTP = "" => max_id_length: Option<Number>,
        /// How long a message is stored.
        "push_stream_message_ttl" HTTP = "30m" => message_ttl: Sec,
        /// How long a channel stays that has neither subscribers nor messages.
        "push_stream_channel_inactivity_time" HTTP = "30s" => inactivity_time: Sec,
        /// What the subscribers of a channel get when it is deleted, unless the publisher gives a text of its own; unset:
        /// "Channel deleted".
        "push_stream_channel_deleted_message_text" HTTP = "" => deleted_text: Option<Text>,
    }
}

/// The row that this file brings beside.
pub(super) const COMMANDS: &[Directive] = &[Directive {
    name: "push_stream_shared_memory_size",
    contexts: Contexts::HTTP,
    args: Args::between(1, 2),
    syntax: "size [name]",
    doc: "The memory that channels and stored messages may take, about. Past it the oldest stored messages go first; they \
          are counted, and the log tells of it once a minute. It must be set where the module is used, to 128k at \
          least; a configuration with the fork's requests for clients (`push_stream_client_subscribed_request` and its \
          like) may leave it out, as the recipe does, and gets 32m.\n\nExample: `push_stream_shared_memory_size 32m;`",
    file: file!(),
    apply: shared_memory_size,
    ..Directive::BASE
}];

/// `push_stream_shared_memory_size`
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    size: Option<usize>,
}

impl Section for Memory {
    type Raw = Option<usize>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self { size: raw.or(parent.and_then(|parent| parent.size)) }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn shared_memory_size(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    const LEAST: usize = 128 * 1024;
    if cx.edit::<Memory>().is_some() {
        let name = if call.len() > 1 { call.text(1).into_owned() } else { "push_stream_module".to_owned() };
        return Err(Fault::new(format!("duplicate zone \"{name}\"")).code("duplicate"));
    }
    let size = parse_size(call.bytes(0)).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    if size < LEAST {
        let fault = Fault::new("The push_stream_shared_memory_size value must be at least 128KiB");
        return Err(fault.severity(Severity::Warn).refuses(true).word(0));
    }
    *cx.edit::<Memory>() = Some(size);
    Ok(())
}

/// Checks the bounds.
pub(super) fn check(builder: &Builder, findings: &mut Findings) {
    let Some(http) = builder.model.http else { return };
    let Some(bounds) = builder.peek::<Bounds>(http) else { return };
    let zero = |number: &Option<Option<Number>>| number.flatten().is_some_and(|number| *number == 0);
    let never_zero = [
        ("push_stream_max_number_of_channels", zero(&bounds.max_channels)),
        ("push_stream_max_number_of_wildcard_channels", zero(&bounds.max_wildcard_channels)),
        ("push_stream_message_ttl", bounds.message_ttl.is_some_and(|time| *time == 0)),
        ("push_stream_max_subscribers_per_channel", zero(&bounds.max_subscribers)),
        ("push_stream_max_messages_stored_per_channel", zero(&bounds.max_stored)),
        ("push_stream_max_channel_id_length", zero(&bounds.max_id_length)),
    ];
    for (name, is_zero) in never_zero {
        if is_zero {
            findings.refuse(&format!("{name} cannot be zero."));
        }
    }
}

impl Bounds {
    /// The last words of a channel.
    pub(super) fn deleted_text(&self) -> Bytes {
        self.deleted_text.as_ref().map_or(Bytes::from_static(b"Channel deleted"), |text| text.0.clone())
    }
}

fn has_wildcard_prefix(builder: &Builder) -> bool {
    let bounds = builder.model.http.and_then(|http| builder.peek::<Bounds>(http));
    bounds.and_then(|bounds| bounds.wildcard_prefix.as_ref()).is_some_and(|prefix| !prefix.is_empty())
}

/// Whether the memory is bounded, as it must be where the module is used.
pub(super) fn has_memory(builder: &Builder) -> bool {
    builder.model.http.and_then(|http| builder.peek::<Memory>(http)).is_some_and(Option::is_some)
}

/// The bound of a configuration that names none: see `check`.
const UNSAID_MEMORY: usize = 32 * 1024 * 1024;

/// Checks how many wildcard channels one subscriber may have: all that there may be, if nothing else is said.
pub(super) fn check_max_wildcards(builder: &Builder, scope: ScopeId, findings: &mut Findings) {
    let bounds = builder.model.http.and_then(|http| builder.peek::<Bounds>(http));
    let all = bounds.and_then(|bounds| bounds.max_wildcard_channels.flatten());
    let Some(most) = nearest(builder, scope, Channels::raw_max_wildcards).or(all) else { return };
    if *most == 0 {
        findings.refuse("push_stream_wildcard_channel_max_qtd cannot be zero.");
    } else if !has_wildcard_prefix(builder) {
        findings.refuse(NO_PREFIX);
    } else if all.is_some_and(|all| *all < *most) {
        findings.refuse(
            "max number of wildcard channels cannot be smaller than value in push_stream_wildcard_channel_max_qtd.",
        );
    }
}

const NO_PREFIX: &str =
    "cannot set wildcard channel max qtd if push_stream_wildcard_channel_prefix is not set or blank.";

/// Gives the hub the limits of a configuration, and sees to it from then on that they are kept.
pub(super) fn apply(compiled: &Compiled, live: &'static Live) {
    let limits = limits(compiled);
    let events = limits.events_channel.clone();
    live.hub.set_limits(limits);
    // Where the limits allow no channel more, it is made when there is room for its first event.
    if let Some(id) = events {
        live.hub.create(&id, clock::unix_time().as_secs()).unwrap_or_default();
    }
    padding::apply(compiled);
    live.set_farewell_time(*compiled.http().get::<Notices>().farewell_time);
    static STARTED: AtomicBool = AtomicBool::new(false);
    if !STARTED.swap(true, Ordering::Relaxed) {
        tokio::spawn(keep_house(live));
    }
}

fn limits(compiled: &Compiled) -> Limits {
    let (bounds, memory) = (compiled.http().get::<Bounds>(), compiled.http().get::<Memory>());
    let count = |number: Option<Number>| number.map(|number| usize::try_from(*number).unwrap_or(usize::MAX));
    Limits {
        max_channels: count(bounds.max_channels),
        max_wildcard_channels: count(bounds.max_wildcard_channels),
        max_subscribers_per_channel: count(bounds.max_subscribers),
        max_stored_per_channel: count(bounds.max_stored),
        max_channel_id_length: count(bounds.max_id_length),
        message_ttl: Some(*bounds.message_ttl),
        channel_inactivity_time: Some(*bounds.inactivity_time),
        memory: Some(memory.size.unwrap_or(UNSAID_MEMORY)),
        wildcard_prefix: Some(bounds.wildcard_prefix.0.clone()).filter(|prefix| !prefix.is_empty()),
        events_channel: Some(compiled.http().get::<EventsChannel>().id.0.clone()).filter(|id| !id.is_empty()),
    }
}

/// Lets messages and channels go whose time is over, each second, and tells of evictions, each minute.
async fn keep_house(live: &'static Live) {
    const MINUTE: u32 = 60;
    let mut evicted = 0;
    for second in 1u32.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for channel in live.hub.expire(clock::unix_time().as_secs()) {
            events_channel::announce(live, Event::ChannelDestroyed, channel.as_bytes());
        }
        let count = live.hub.dropped().evicted.count();
        if count > evicted && second % MINUTE == 0 {
            let message = format!(
                "push stream module: push_stream_shared_memory_size is used up: {} stored messages were dropped",
                count - evicted
            );
            live.log(Level::Warn, &message);
            evicted = count;
        }
    }
}
