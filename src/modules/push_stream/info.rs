//! What the module tells of channels, in the four formats that it knows.

use std::fmt::Write;

use bytes::Bytes;

use crate::http::wire::date::time_iso8601;
use crate::http::wire::escape::{JsonDigits, escape_html, push_json};
use crate::http::{Request, Response};
use crate::hub::statistics::{Channel, Summary};
use crate::server::clock;
use crate::server::live::Live;

/// A format, with the content type by which it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    kind: Kind,
    content_type: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Json,
    Yaml,
    Xml,
}

/// What follows the slash in `Accept`.
const SUBTYPES: [(&str, Format); 6] = [
    ("plain", Format { kind: Kind::Plain, content_type: "text/plain" }),
    ("json", JSON),
    ("yaml", Format { kind: Kind::Yaml, content_type: "application/yaml" }),
    ("xml", Format { kind: Kind::Xml, content_type: "application/xml" }),
    ("x-json", Format { kind: Kind::Json, content_type: "text/x-json" }),
    ("x-yaml", Format { kind: Kind::Yaml, content_type: "text/x-yaml" }),
];
const JSON: Format = Format { kind: Kind::Json, content_type: "application/json" };

const XML_HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\r\n";

/// When and where the numbers were read.
struct Stamp {
    host: String,
    time: String,
    uptime: u64,
}

impl Stamp {
    fn now(live: &Live) -> Self {
        let text = time_iso8601(clock::unix_seconds(), 0);
        // The module's time is that of Greenwich, and does not say so.
        let time = String::from_utf8_lossy(&text[..19]).into_owned();
        Self { host: crate::sys::host_name(), time, uptime: clock::now().since(live.started).as_secs() }
    }
}

impl Format {
    /// The one that a client asks for; JSON if it asks for none.
    pub(super) fn wanted(request: &Request) -> Self {
        request.head.all(b"accept").next().map_or(JSON, Self::accepted)
    }

    fn accepted(accept: &[u8]) -> Self {
        let after_slashes = memchr::memchr_iter(b'/', accept).map(|slash| &accept[slash + 1..]);
        let known = |rest: &[u8]| {
            let subtype = SUBTYPES.iter().find(|(name, _)| rest.starts_with(name.as_bytes()));
            subtype.map(|(_, format)| *format)
        };
        after_slashes.into_iter().find_map(known).unwrap_or(JSON)
    }

    fn answer(self, response: &mut Response, text: Vec<u8>) {
        response.content_type = Some(Bytes::from_static(self.content_type.as_bytes()));
        response.body = crate::http::Body::Full(text.into());
    }

    /// Tells of one channel.
    pub(super) fn one(self, response: &mut Response, channel: &Channel) {
        let mut out = Vec::new();
        match self.kind {
            Kind::Xml => {
                out.extend_from_slice(XML_HEAD.as_bytes());
                self.channel(&mut out, channel);
                out.extend_from_slice(b"\r\n");
            }
            Kind::Plain | Kind::Json | Kind::Yaml => {
                self.channel(&mut out, channel);
                out.extend_from_slice(if self.kind == Kind::Yaml { b"" } else { b"\r\n" });
            }
        }
        self.answer(response, out);
    }

    /// Tells of several channels.
    pub(super) fn list(self, response: &mut Response, live: &Live, channels: &[Channel]) {
        let (stamp, summary) = (Stamp::now(live), live.hub.summary());
        let mut out = self.list_head(&stamp, &summary).into_bytes();
        for (number, channel) in channels.iter().enumerate() {
            match (self.kind, number) {
                (Kind::Yaml, _) => out.extend_from_slice(b" -\r\n"),
                (Kind::Json | Kind::Plain, 1..) => out.extend_from_slice(b",\r\n"),
                (Kind::Json | Kind::Plain, 0) | (Kind::Xml, _) => {}
            }
            self.channel(&mut out, channel);
        }
        out.extend_from_slice(match self.kind {
            Kind::Json if channels.is_empty() => b"]}\r\n",
            Kind::Json => b"\r\n]}\r\n",
            Kind::Plain => b"\r\n",
            Kind::Yaml if channels.is_empty() => b"\r\n",
            Kind::Yaml => b"",
            Kind::Xml => b"  </infos>\r\n</root>\r\n",
        });
        self.answer(response, out);
    }

    fn list_head(self, stamp: &Stamp, summary: &Summary) -> String {
        let Stamp { host, time, uptime } = stamp;
        let Summary { channels, wildcard_channels, .. } = summary;
        match self.kind {
            Kind::Json => format!(
                "{{\"hostname\": \"{host}\", \"time\": \"{time}\", \"channels\": {channels}, \
                 \"wildcard_channels\": {wildcard_channels}, \"uptime\": {uptime}, \"infos\": [\r\n"
            ),
            Kind::Plain => format!(
                "hostname: {host}, time: {time}, channels: {channels}, wildcard_channels: {wildcard_channels}, \
                 uptime: {uptime}, infos: \r\n"
            ),
            Kind::Yaml => format!(
                "hostname: {host}\r\ntime: {time}\r\nchannels: {channels}\r\nwildcard_channels: {wildcard_channels}\r\n\
                 uptime: {uptime}\r\ninfos: \r\n"
            ),
            Kind::Xml => format!(
                "{XML_HEAD}<root>\r\n  <hostname>{host}</hostname>\r\n  <time>{time}</time>\r\n  \
                 <channels>{channels}</channels>\r\n  <wildcard_channels>{wildcard_channels}</wildcard_channels>\r\n  \
                 <uptime>{uptime}</uptime>\r\n  <infos>\r\n"
            ),
        }
    }

    /// One channel, as it stands alone and in lists. JSON and plain texts go on in the same line.
    fn channel(self, out: &mut Vec<u8>, channel: &Channel) {
        let (id, Channel { published, stored, subscribers, .. }) = (channel.id.as_bytes(), channel);
        let (before, after) = match self.kind {
            Kind::Json => (
                "{\"channel\": \"",
                format!(
                    "\", \"published_messages\": {published}, \"stored_messages\": {stored}, \
                     \"subscribers\": {subscribers}}}"
                ),
            ),
            Kind::Plain => (
                "channel: ",
                format!(
                    "\r\npublished_messages: {published}\r\nstored_messages: {stored}\r\n\
                     active_subscribers: {subscribers}"
                ),
            ),
            Kind::Yaml => (
                "  channel: ",
                format!(
                    "\r\n  published_messages: {published}\r\n  stored_messages: {stored}\r\n  \
                     subscribers: {subscribers}\r\n"
                ),
            ),
            Kind::Xml => (
                "<channel>\r\n  <name>",
                format!(
                    "</name>\r\n  <published_messages>{published}</published_messages>\r\n  \
                     <stored_messages>{stored}</stored_messages>\r\n  <subscribers>{subscribers}</subscribers>\r\n\
                     </channel>\r\n"
                ),
            ),
        };
        out.extend_from_slice(before.as_bytes());
        self.id(out, id);
        out.extend_from_slice(after.as_bytes());
    }

    /// Differs from the original: an id cannot break out of the format.
    fn id(self, out: &mut Vec<u8>, id: &[u8]) {
        match self.kind {
            Kind::Json => push_json(out, id, JsonDigits::Upper),
            Kind::Xml => out.extend_from_slice(&escape_html(id)),
            Kind::Yaml if !is_plain_yaml(id) => {
                out.push(b'"');
                push_json(out, id, JsonDigits::Upper);
                out.push(b'"');
            }
            Kind::Yaml | Kind::Plain => out.extend_from_slice(id),
        }
    }

    /// Tells the sums.
    pub(super) fn summary(self, response: &mut Response, live: &Live) {
        let text = self.sums(&Stamp::now(live), &live.hub.summary());
        self.answer(response, text.into_bytes());
    }

    fn sums(self, stamp: &Stamp, summary: &Summary) -> String {
        let Stamp { host, time, uptime } = stamp;
        let fields = [
            ("channels", summary.channels as u64),
            ("wildcard_channels", summary.wildcard_channels as u64),
            ("published_messages", summary.published),
            ("stored_messages", summary.stored as u64),
            // What is gone is freed at once here.
            ("messages_in_trash", 0),
            ("channels_in_delete", 0),
            ("channels_in_trash", 0),
            ("subscribers", summary.subscribers as u64),
            ("uptime", *uptime),
        ];
        let pid = std::process::id();
        let mut out = match self.kind {
            Kind::Json => format!("{{\"hostname\": \"{host}\", \"time\": \"{time}\""),
            Kind::Plain => format!("hostname: {host}\r\ntime: {time}\r\n"),
            Kind::Yaml => format!("  hostname: {host}\r\n  time: {time}\r\n"),
            Kind::Xml => format!("{XML_HEAD}<infos>\r\n  <hostname>{host}</hostname>\r\n  <time>{time}</time>\r\n"),
        };
        for (name, value) in fields {
            // Writing to a string does not fail.
            match self.kind {
                Kind::Json => write!(out, ", \"{name}\": {value}"),
                Kind::Plain => write!(out, "{name}: {value}\r\n"),
                Kind::Yaml => write!(out, "  {name}: {value}\r\n"),
                Kind::Xml => write!(out, "  <{name}>{value}</{name}>\r\n"),
            }
            .unwrap_or_default();
        }
        out.push_str(match self.kind {
            Kind::Json => ", \"by_worker\": [\r\n",
            Kind::Plain => "by_worker:\r\n",
            Kind::Yaml => "  by_worker:\r\n",
            Kind::Xml => "  <by_worker>",
        });
        for (number, (_, subscribers)) in summary.by_worker.iter().enumerate() {
            match self.kind {
                Kind::Json => {
                    let comma = if number > 0 { ",\r\n" } else { "" };
                    write!(out, "{comma}{{\"pid\": \"{pid}\", \"subscribers\": {subscribers}, \"uptime\": {uptime}}}")
                }
                Kind::Plain => {
                    let comma = if number + 1 < summary.by_worker.len() { "," } else { "" };
                    write!(out, "  pid: {pid}\r\n  subscribers: {subscribers}\r\n  uptime: {uptime}{comma}\r\n")
                }
                Kind::Yaml => {
                    write!(out, "   -\r\n    pid: {pid}\r\n    subscribers: {subscribers}\r\n    uptime: {uptime}\r\n")
                }
                Kind::Xml => write!(
                    out,
                    "<worker>\r\n  <pid>{pid}</pid>\r\n  <subscribers>{subscribers}</subscribers>\r\n  \
                     <uptime>{uptime}</uptime>\r\n</worker>\r\n"
                ),
            }
            .unwrap_or_default();
        }
        out.push_str(match self.kind {
            Kind::Json => "\r\n]}\r\n",
            Kind::Plain | Kind::Yaml => "",
            Kind::Xml => "</by_worker>\r\n</infos>\r\n",
        });
        out
    }
}

/// Whether a text may stand in YAML without quotes.
fn is_plain_yaml(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80 || b" _-+./()@!".contains(byte);
    text.iter().all(is_plain)
        && text.first().is_some_and(|first| !b" -!@".contains(first))
        && text.last() != Some(&b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::channel::ChannelId;

    #[test]
    fn accept_names_a_format() {
        let check = |accept: &str, content_type| {
            assert_eq!(Format::accepted(accept.as_bytes()).content_type, content_type, "{accept}");
        };
        check("text/html, application/xml;q=0.9", "application/xml");
        check("text/plain", "text/plain");
        check("text/x-yaml", "text/x-yaml");
        check("*/*", "application/json");
        check("xml", "application/json");
        check("application/", "application/json");
        check("TEXT/PLAIN", "application/json");
    }

    #[test]
    fn ids_do_not_break_out() {
        let check = |kind, id: &[u8], expected: &[u8]| {
            let channel = Channel { id: ChannelId::from(id), published: 1, stored: 2, subscribers: 3 };
            let mut out = Vec::new();
            Format { kind, content_type: "" }.channel(&mut out, &channel);
            let found = out.windows(expected.len()).any(|part| part == expected);
            assert!(found, "{}", out.escape_ascii());
        };
        check(Kind::Json, b"a\"b\\", b"\"channel\": \"a\\\"b\\\\\",");
        check(Kind::Json, b"x\xFFy\n", b"\"x\xFFy\\n\"");
        check(Kind::Xml, b"a<b>&", b"<name>a&lt;b&gt;&amp;</name>");
        check(Kind::Yaml, b"a: b", b"channel: \"a: b\"\r\n");
        check(Kind::Yaml, b"st_1", b"channel: st_1\r\n");
        check(Kind::Plain, b"a\"b", b"channel: a\"b\r\n");
    }
}
