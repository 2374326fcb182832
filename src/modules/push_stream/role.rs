//! What a location is for: publisher, subscriber or statistics.

use crate::config::{Builder, Call, Contexts, Cx, Fault, Merge, Position, ScopeId, Section, Slot};
use crate::http::Handler;
use crate::http::content::Content;

/// What a location is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `push_stream_publisher`
    Publisher {
        /// Whether channels may be deleted.
        is_admin: bool,
    },
    /// `push_stream_subscriber`
    Subscriber(Mode),
    /// `push_stream_channels_statistics`
    Statistics,
}

/// How a subscriber gets its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// As they come, in one endless answer.
    Streaming,
    /// What is stored, at once.
    Polling,
    /// What is stored, or else the next one.
    LongPolling,
    /// As server-sent events.
    EventSource,
    /// As websocket frames.
    Websocket,
}

/// The role of a location; it is not inherited, save by an `if` block.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// The role; `None`: another module's, or none.
    pub(super) role: Option<Role>,
}

/// What a block says of it.
#[derive(Debug, Default)]
pub(super) struct RawPlace {
    pub(super) role: Option<(Role, Position)>,
}

impl Place {
    /// The role that a block gives, if it does.
    pub(super) fn raw_role(builder: &Builder, scope: ScopeId) -> Option<Role> {
        builder.peek::<Self>(scope)?.role.map(|(role, _)| role)
    }
}

impl Section for Place {
    type Raw = RawPlace;
    const ALWAYS: bool = true;

    fn merge(raw: &RawPlace, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        let inherits = Contexts::IF_LOCATION | Contexts::LIMIT_EXCEPT;
        let inherited = parent.filter(|_| inherits.contains(cx.context)).and_then(|parent| parent.role);
        Self { role: raw.role.map(|(role, _)| role).or(inherited) }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// Gives a location its role, which it may have but one.
pub(super) fn take(cx: &mut Cx<'_>, call: &Call<'_>, role: Role, handler: Handler) -> Result<(), Fault> {
    if cx.edit::<Place>().role.is_some() {
        return Err(call.duplicate());
    }
    set(cx, call, role, handler);
    Ok(())
}

/// Gives a location its role, in place of the one that it may have.
pub(super) fn set(cx: &mut Cx<'_>, call: &Call<'_>, role: Role, handler: Handler) {
    cx.edit::<Place>().role = Some((role, call.at()));
    cx.edit::<Content>().handler = Some(handler);
}
