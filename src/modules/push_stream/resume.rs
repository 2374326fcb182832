//! Where in the history a subscriber begins: what a client says of what it knows already.

use bytes::Bytes;

use super::answer;
use super::channels::Requested;
use crate::config::value::Template;
use crate::http::Request;
use crate::http::wire::date::parse_http_date;
use crate::http::wire::header::Known;
use crate::hub::channel::Start;
use crate::settings;

settings! {
    /// Where a client says what it knows already.
    pub(super) struct Resume {
        /// The time of the last message that the client got, as an HTTP date; unset: `If-Modified-Since`.
        ///
        /// Example: `push_stream_last_received_message_time $arg_time;`
        "push_stream_last_received_message_time" HTTP_ALL_IF = "" => time: Option<Template>,
        /// The tag of that message among those of its second; unset: `If-None-Match`.
        "push_stream_last_received_message_tag" HTTP_ALL_IF = "" => tag: Option<Template>,
        /// The event id of the last message that the client got; unset: `Last-Event-Id`.
        "push_stream_last_event_id" HTTP_ALL_IF = "" => event_id: Option<Template>,
    }
}

/// What a client knows already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// The time of the last message it got.
    pub(super) time: Option<u64>,
    /// Its tag.
    pub(super) tag: Option<u32>,
    /// Its event id.
    pub(super) event_id: Option<Bytes>,
}

impl Position {
    /// What the client says.
    pub(super) fn of(request: &Request) -> Self {
        let settings = request.settings::<Resume>();
        let value = |template: &Option<Template>, header: Option<&[u8]>| match template {
            Some(template) => answer::value(request, template),
            None => header.map(Bytes::copy_from_slice).unwrap_or_default(),
        };
        let time = value(&settings.time, request.head.known(Known::IfModifiedSince));
        let tag = value(&settings.tag, request.head.known(Known::IfNoneMatch));
        let event_id = value(&settings.event_id, request.head.all(b"last-event-id").next());
        Self::parse(&time, &tag, event_id)
    }

    fn parse(time: &[u8], tag: &[u8], event_id: Bytes) -> Self {
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        let tag = std::str::from_utf8(tag).ok().filter(|tag| !tag.starts_with('+'));
        Self {
            time: parse_http_date(time).and_then(|time| u64::try_from(time).ok()),
            tag: tag.and_then(|tag| tag.parse().ok()),
            event_id: (!event_id.is_empty()).then_some(event_id),
        }
    }

    /// Where a channel's messages begin for the client.
    pub(super) fn start(&self, channel: &Requested) -> Start {
        if channel.backtrack > 0 {
            return Start::Backtrack(channel.backtrack);
        }
        match (self.time, self.event_id.clone()) {
            (None, None) => Start::New,
            (Some(time), None) => Start::After { time, tag: self.tag },
            (None, Some(event)) => Start::AfterEvent(event),
            (Some(time), Some(event)) => Start::Either { time, tag: self.tag, event },
        }
    }
}

/// For the fuzzer: anything may be said of what is known.
pub fn fuzz(data: &[u8]) {
    let (time, tag) = data.split_at(data.len() / 2);
    let position = Position::parse(time, tag, Bytes::copy_from_slice(data));
    drop(position.start(&Requested { id: Bytes::from_static(b"x"), backtrack: 0 }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_say_what_they_know() {
        let check = |time: &str, tag: &str, expected| {
            let position = Position::parse(time.as_bytes(), tag.as_bytes(), Bytes::new());
            assert_eq!((position.time, position.tag), expected, "{time} {tag}");
        };
        check("Thu, 01 Jan 1970 00:00:00 GMT", "0", (Some(0), Some(0)));
        check("Thu, 01 Jan 1970 00:01:00 GMT", "W/3", (Some(60), Some(3)));
        check("Thu, 01 Jan 1970 00:01:00 GMT", "-1", (Some(60), None));
        check("Thu, 01 Jan 1970 00:01:00 GMT", "+1", (Some(60), None));
        check("not a date", "1", (None, Some(1)));
        check("", "", (None, None));
    }
}
