//! Variables that tell what was dropped, by reason, since the start: for a page of one's own, or for a log. The formats of
//! statistics have no place for it, as they are the original's.

use bytes::Bytes;

use crate::config::VariableRow;
use crate::hub::limits::{Counter, Dropped};
use crate::server::live::Live;

/// The variables. Not of the original.
pub(super) const VARIABLES: &[VariableRow] = &[
    VariableRow::new(
        "push_stream_dropped_overflow",
        |_, _| count(|dropped| &dropped.overflow),
        "Stored messages that went because their channel had `push_stream_max_messages_stored_per_channel`.",
    )
    .volatile(),
    VariableRow::new(
        "push_stream_dropped_expired",
        |_, _| count(|dropped| &dropped.expired),
        "Stored messages that went after `push_stream_message_ttl`.",
    )
    .volatile(),
    VariableRow::new(
        "push_stream_dropped_evicted",
        |_, _| count(|dropped| &dropped.evicted),
        "Stored messages that went because `push_stream_shared_memory_size` was used up.",
    )
    .volatile(),
    VariableRow::new(
        "push_stream_dropped_refused",
        |_, _| count(|dropped| &dropped.refused),
        "Publications and subscriptions that a limit refused.",
    )
    .volatile(),
    VariableRow::new(
        "push_stream_dropped_slow_clients",
        |_, _| count(|dropped| &dropped.slow_clients),
        "Subscribers that were closed because they did not read: `push_stream_subscriber_buffer_size`, `send_timeout`.",
    )
    .volatile(),
    VariableRow::new(
        "push_stream_dropped_unsent",
        |_, _| count(|dropped| &dropped.unsent),
        "Messages that waited for subscribers that went.",
    )
    .volatile(),
];

fn count(of: impl Fn(&Dropped) -> &Counter) -> Option<Bytes> {
    Some(of(Live::get()?.hub.dropped()).count().to_string().into())
}
