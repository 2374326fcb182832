//! What a message looks like on the wire: `push_stream_message_template`, the header and the footer around the messages,
//! and the framing of each kind of connection.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;

use super::check::{Findings, nearest};
use crate::config::value::Text;
use crate::config::{Args, Builder, Call, Contexts, Cx, Directive, Fault, Merge, ScopeId, Section, Severity, Slot};
use crate::http::wire::date::http_date;
use crate::hub::message::{Message, RenderingKey};
use crate::server::delivery::deflate;
use crate::server::delivery::frame::{self, Opcode};
use crate::server::delivery::gzip;
use crate::server::delivery::subscriber::Rendering;
use crate::settings;

settings! {
    /// What is sent for a message, and after the last one.
    pub(super) struct Templates {
        /// What is sent for a message. `~text~`, `~id~`, `~channel~`, `~size~`, `~tag~`, `~time~`, `~event-id~` and
        /// `~event-type~` stand for its properties, in any letter case.
        ///
        /// Example: `push_stream_message_template '{"id":~id~,"channel":"~channel~","text":"~text~"}';`
        "push_stream_message_template" HTTP_ALL = "~text~" => pub(super) message: Text,
        /// Sent after the last message, when the server ends the stream.
        "push_stream_footer_template" HTTP_ALL = "" => pub(super) footer: Text,
    }
}

/// The rows that this file brings beside.
pub(super) const COMMANDS: &[Directive] = &[
    Directive {
        name: "push_stream_header_template",
        contexts: Contexts::HTTP_ALL,
        syntax: "text",
        doc: "Sent to a subscriber before the first message, right after the head of the answer.\n\n\
              Example: `push_stream_header_template \"<html><body>\\r\\n\";`",
        file: file!(),
        apply: header_template,
        ..Directive::BASE
    },
    Directive {
        name: "push_stream_header_template_file",
        contexts: Contexts::HTTP_ALL,
        args: Args::ONE,
        syntax: "file",
        doc: "The same as `push_stream_header_template`, with the text in a file, read when the configuration is.",
        file: file!(),
        apply: header_template_file,
        ..Directive::BASE
    },
];

/// What is sent before the first message.
#[derive(Clone, Debug, Default)]
pub(super) struct Header {
    /// The text; empty: none.
    pub(super) text: Bytes,
}

impl Section for Header {
    type Raw = Option<Bytes>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        match (raw, parent) {
            (Some(text), _) => Self { text: text.clone() },
            (None, Some(parent)) => parent.clone(),
            (None, None) => Self::default(),
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn header_template(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let header = cx.edit::<Header>();
    if header.is_some() {
        return Err(call.duplicate());
    }
    *header = Some(Bytes::copy_from_slice(call.bytes(0)));
    Ok(())
}

fn header_template_file(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if cx.edit::<Header>().is_some() {
        let fault = call.fault("is duplicate or template set by 'push_stream_header_template'");
        return Err(fault.code("duplicate"));
    }
    let path = cx.options().conf_path(&call.text(0));
    let text = match std::fs::read(&path) {
        Ok(text) => Bytes::from(text),
        Err(_) if cx.options().offline => Bytes::new(),
        Err(error) => {
            let message = format!("push stream module: unable to open file \"{}\" for header template", call.text(0));
            let fault = Fault::new(message).severity(Severity::Error).word(0).code("unreadable-file");
            return Err(fault.help(format!("{}: {error}", path.display())));
        }
    };
    *cx.edit::<Header>() = Some(text);
    Ok(())
}

/// Checks what holds in a block.
pub(super) fn check(builder: &Builder, scope: ScopeId, findings: &mut Findings) {
    let is_blank = |builder: &Builder, scope| {
        let message = builder.peek::<Templates>(scope)?.message.as_ref()?;
        Some(message.is_empty())
    };
    if nearest(builder, scope, is_blank) == Some(true) {
        findings.refuse("push_stream_message_template cannot be blank.");
    }
}

/// A message template, cut into pieces.
#[derive(Clone, Debug)]
pub(super) struct MessageTemplate {
    written: Bytes,
    pieces: Arc<[Piece]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Bytes),
    Word(Word),
}

/// A placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Id,
    Text,
    Channel,
    Size,
    Tag,
    Time,
    EventId,
    EventType,
}

impl Word {
    const ALL: [(&'static str, Self); 8] = [
        ("~id~", Self::Id),
        ("~text~", Self::Text),
        ("~channel~", Self::Channel),
        ("~size~", Self::Size),
        ("~tag~", Self::Tag),
        ("~time~", Self::Time),
        ("~event-id~", Self::EventId),
        ("~event-type~", Self::EventType),
    ];

    /// The placeholder that a text begins with, and its length.
    fn at_start(text: &[u8]) -> Option<(Self, usize)> {
        Self::ALL.iter().find_map(|(word, kind)| {
            let start = text.get(..word.len())?;
            start.eq_ignore_ascii_case(word.as_bytes()).then_some((*kind, word.len()))
        })
    }
}

impl MessageTemplate {
    /// Cuts a template into pieces; a tilde that begins no placeholder stands for itself.
    pub(super) fn parse(written: &Bytes) -> Self {
        let mut pieces = Vec::new();
        let (mut literal, mut at) = (0, 0);
        while let Some(tilde) = memchr::memchr(b'~', &written[at..]) {
            let start = at + tilde;
            let Some((word, length)) = Word::at_start(&written[start..]) else {
                at = start + 1;
                continue;
            };
            if literal < start {
                pieces.push(Piece::Literal(written.slice(literal..start)));
            }
            pieces.push(Piece::Word(word));
            at = start + length;
            literal = at;
        }
        if literal < written.len() {
            pieces.push(Piece::Literal(written.slice(literal..)));
        }
        Self { written: written.clone(), pieces: pieces.into() }
    }

    /// Appends a message, with `text` in place of its own.
    fn render(&self, out: &mut Vec<u8>, message: &Message, text: &[u8]) {
        for piece in self.pieces.iter() {
            match piece {
                Piece::Literal(literal) => out.extend_from_slice(literal),
                Piece::Word(Word::Text) => out.extend_from_slice(text),
                Piece::Word(Word::Channel) => out.extend_from_slice(message.channel.as_bytes()),
                Piece::Word(Word::Id) => push_number(out, message.id),
                Piece::Word(Word::Size) => push_number(out, text.len()),
                Piece::Word(Word::Tag) => push_number(out, message.tag),
                Piece::Word(Word::Time) => {
                    // The server's own messages, of negative numbers, have no time, as in the original.
                    let time = if message.id < 0 { 0 } else { message.time };
                    out.extend_from_slice(&http_date(i64::try_from(time).unwrap_or(i64::MAX)));
                }
                Piece::Word(Word::EventId) => {
                    out.extend_from_slice(message.draft.event_id.as_deref().unwrap_or_default())
                }
                Piece::Word(Word::EventType) => {
                    out.extend_from_slice(message.draft.event_type.as_deref().unwrap_or_default());
                }
            }
        }
    }

    /// Whether a message is its text and nothing else.
    fn is_plain(&self) -> bool {
        *self.pieces == [Piece::Word(Word::Text)]
    }
}

/// Appends a number in digits.
fn push_number(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    // Writing to memory does not fail.
    write!(out, "{number}").unwrap_or_default();
}

/// How the bytes of a message are marked off on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Framing {
    /// A websocket frame.
    Websocket,
    /// The same, compressed where that pays.
    Deflated,
    /// A chunk of HTTP/1.1.
    Chunk,
    /// As they are.
    Bare,
    /// As a part of a gzip stream.
    Zipped {
        /// nginx's level.
        level: u8,
        /// In a chunk, or as it is.
        is_chunked: bool,
    },
    /// For a mailbox: with the message's time and tag in front.
    Stamped,
}

impl Framing {
    /// A websocket message: text, unless it came as a binary one, or is no UTF-8 and could not be text.
    fn message(self, bytes: &[u8], is_binary: bool) -> Bytes {
        /// Shorter ones are not worth the trouble.
        const WORTH_IT: usize = 64;
        let is_text = !is_binary && simdutf8::basic::from_utf8(bytes).is_ok();
        let opcode = if is_text { Opcode::Text } else { Opcode::Binary };
        let compressed = (self == Self::Deflated && bytes.len() >= WORTH_IT).then(|| deflate::deflate(bytes)).flatten();
        match compressed {
            Some(compressed) => frame::encode_compressed(opcode, &compressed),
            None => frame::encode(opcode, bytes),
        }
    }

    /// Some bytes, framed; nothing is nothing, save for a frame.
    pub(super) fn frame(self, bytes: impl Into<Bytes> + AsRef<[u8]>) -> Bytes {
        let length = bytes.as_ref().len();
        match self {
            Self::Websocket | Self::Deflated => self.message(bytes.as_ref(), false),
            Self::Bare | Self::Stamped => bytes.into(),
            Self::Chunk | Self::Zipped { .. } if length == 0 => Bytes::new(),
            Self::Zipped { level, is_chunked } => gzip::frame(bytes.as_ref(), level, is_chunked),
            Self::Chunk => {
                let mut chunk = Vec::with_capacity(length + 12);
                write!(chunk, "{length:x}\r\n").unwrap_or_default();
                chunk.extend_from_slice(bytes.as_ref());
                chunk.extend_from_slice(b"\r\n");
                chunk.into()
            }
        }
    }
}

/// How many bytes a header and a message are filled up to, for clients that show nothing before they have so much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Padding {
    /// The least length of the header.
    pub(super) header: usize,
    /// The least length of a message.
    pub(super) message: usize,
    /// The longest filling: the module makes fillings in steps of a hundred bytes up to this one.
    pub(super) longest: usize,
}

impl Padding {
    /// Fills what begins at a place up to a least length.
    fn fill(self, out: &mut Vec<u8>, start: usize, least: usize, is_event_source: bool) {
        let Some(missing) = least.checked_sub(out.len() - start).filter(|missing| *missing > 0) else { return };
        let length = ((missing / 100 + 1) * 100).min(self.longest.max(missing));
        if is_event_source {
            out.resize(out.len() + length - 1, b':');
            out.push(b'\n');
        } else {
            out.extend_from_slice(if length % 2 == 1 { b"\n" } else { b"" });
            (0..length / 2).for_each(|_| out.extend_from_slice(b"\r\n"));
        }
    }
}

/// All that the bytes of a message depend on, beside the message.
#[derive(Clone, Debug)]
pub(super) struct Format {
    template: MessageTemplate,
    framing: Framing,
    is_event_source: bool,
    padding: Padding,
    key: RenderingKey,
}

impl Format {
    /// A format; equal ones have equal keys, on all workers and after reloads.
    pub(super) fn new(template: MessageTemplate, framing: Framing, is_event_source: bool, padding: Padding) -> Self {
        type Known = HashMap<(Bytes, Framing, bool, Padding), RenderingKey>;
        static KEYS: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
        let identity = (template.written.clone(), framing, is_event_source, padding);
        let mut keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
        let key = *keys.entry(identity).or_insert_with(RenderingKey::fresh);
        Self { template, framing, is_event_source, padding, key }
    }

    /// The bytes of a message, without framing.
    pub(super) fn body(&self, message: &Message) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.text().len() + 64);
        let mut start = 0;
        if self.is_event_source {
            event_fields(&mut out, message);
            start = out.len();
            event(&mut out, &self.template, message);
        } else {
            self.template.render(&mut out, message, message.text());
        }
        self.padding.fill(&mut out, start, self.padding.message, self.is_event_source);
        out
    }

    /// What is sent before the first message, framed; empty: nothing.
    pub(super) fn header(&self, text: &Bytes) -> Bytes {
        let mut out = if self.is_event_source { comment(text) } else { text.to_vec() };
        if out.is_empty() {
            return Bytes::new();
        }
        self.padding.fill(&mut out, 0, self.padding.header, self.is_event_source);
        self.framing.frame(out)
    }

    /// What is sent after the last message, framed; empty: nothing.
    pub(super) fn footer(&self, text: &Bytes) -> Bytes {
        match (text.is_empty(), self.is_event_source) {
            (true, _) => Bytes::new(),
            (false, true) => self.framing.frame(comment(text)),
            (false, false) => self.framing.frame(text.clone()),
        }
    }
}

impl Rendering for Format {
    fn key(&self) -> RenderingKey {
        self.key
    }

    fn render(&self, message: &Message) -> Bytes {
        if self.framing == Framing::Stamped {
            return super::polling::stamped(message, &self.body(message));
        }
        let is_text = self.template.is_plain() && !self.is_event_source && self.padding.message == 0;
        let body = if is_text { message.text().clone() } else { self.body(message).into() };
        match self.framing {
            Framing::Websocket | Framing::Deflated => self.framing.message(&body, message.draft.is_binary),
            framing => framing.frame(body),
        }
    }

    fn is_zipped(&self) -> bool {
        matches!(self.framing, Framing::Zipped { .. })
    }
}

/// What a server-sent event says beside its text.
fn event_fields(out: &mut Vec<u8>, message: &Message) {
    for (name, value) in [("id: ", &message.draft.event_id), ("event: ", &message.draft.event_type)] {
        if let Some(value) = value {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value);
            out.push(b'\n');
        }
    }
}

/// The text of an event: the template for each line. One that begins with the field's name has its line's end itself.
fn event(out: &mut Vec<u8>, template: &MessageTemplate, message: &Message) {
    let is_whole = template.written.starts_with(b"data: ");
    let (before, after): (&[u8], &[u8]) = if is_whole { (b"", b"") } else { (b"data: ", b"\n") };
    for line in lines(message.text()) {
        out.extend_from_slice(before);
        template.render(out, message, line);
        out.extend_from_slice(after);
    }
    out.push(b'\n');
}

/// A text as comments of a stream of events; one that is a comment already stays as it is.
fn comment(text: &[u8]) -> Vec<u8> {
    if text.starts_with(b": ") {
        return text.to_vec();
    }
    if text.is_empty() {
        return b": \n".to_vec();
    }
    let mut out = Vec::with_capacity(text.len() + 4);
    for line in lines(text) {
        out.extend_from_slice(b": ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out
}

/// The lines of a text, however they end, without empty ones, as in the original.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|ch| matches!(ch, b'\r' | b'\n')).filter(|line| !line.is_empty())
}

/// For the fuzzer: a template and a text of any bytes. Without placeholders a template stands for itself.
pub fn fuzz(data: &[u8]) {
    let (template, text) = data.split_at(data.len() / 2);
    let draft = crate::hub::message::Draft::text(Bytes::copy_from_slice(text));
    let message = Message::new(crate::hub::channel::ChannelId::from(text), 1, 0, 1, draft);
    let parsed = MessageTemplate::parse(&Bytes::copy_from_slice(template));
    let mut plain = Vec::new();
    parsed.render(&mut plain, &message, text);
    assert!(parsed.pieces.iter().any(|piece| matches!(piece, Piece::Word(_))) || plain == template);
    let mut out = Vec::new();
    event(&mut out, &parsed, &message);
    assert!(out.ends_with(b"\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::channel::ChannelId;
    use crate::hub::message::Draft;

    fn message(text: &str) -> Message {
        let draft = Draft {
            is_binary: false,
            text: Bytes::copy_from_slice(text.as_bytes()),
            event_id: Some(Bytes::from_static(b"e")),
            event_type: None,
        };
        Message::new(ChannelId::from(&b"box"[..]), 7, 0, 3, draft)
    }

    /// A message by a template.
    fn check(template: &str, text: &str, expected: &str) {
        let template = MessageTemplate::parse(&Bytes::copy_from_slice(template.as_bytes()));
        let format = Format::new(template, Framing::Bare, false, Padding::default());
        assert_eq!(String::from_utf8_lossy(&format.render(&message(text))), expected);
    }

    #[test]
    fn words_stand_for_properties() {
        check("~text~", "hello", "hello");
        check("~id~:~channel~:~size~:~tag~", "héé", "7:box:5:3");
        check("~TEXT~/~Id~/~Event-ID~|~event-type~", "x", "x/7/e|");
        check("~time~", "", "Thu, 01 Jan 1970 00:00:00 GMT");
        check("~what~ ~ ~~text~~ ~id", "m", "~what~ ~ ~m~ ~id");
        check("~te xt~ ~textid~ ~id~~ ~~~", "q", "~te xt~ ~textid~ 7~ ~~~");
        check("~text~", "~id~", "~id~");
    }

    /// A message as an event.
    fn check_event(template: &'static str, text: &str, expected: &str) {
        let template = MessageTemplate::parse(&Bytes::from_static(template.as_bytes()));
        let format = Format::new(template, Framing::Bare, true, Padding::default());
        assert_eq!(String::from_utf8_lossy(&format.render(&message(text))), expected);
    }

    #[test]
    fn events_have_a_data_line_for_each_line() {
        check_event("~text~", "hello", "id: e\ndata: hello\n\n");
        check_event("~text~", "a\nb\r\nc\rd", "id: e\ndata: a\ndata: b\ndata: c\ndata: d\n\n");
        check_event("~text~", "x\n", "id: e\ndata: x\n\n");
        check_event("~text~", "a\n\r\n\nb\n", "id: e\ndata: a\ndata: b\n\n");
        check_event("~text~", "\n", "id: e\n\n");
        check_event("~size~ ~text~", "four\nx", "id: e\ndata: 4 four\ndata: 1 x\n\n");
        check_event("data: <~text~>\n", "x\ny", "id: e\ndata: <x>\ndata: <y>\n\n");
        check_event("{~text~}", "1\n2", "id: e\ndata: {1}\ndata: {2}\n\n");
    }

    #[test]
    fn headers_of_event_sources_are_comments() {
        let check = |text: &str, expected: &str| {
            assert_eq!(String::from_utf8_lossy(&comment(text.as_bytes())), expected, "{text:?}");
        };
        check("", ": \n");
        check("one\r\n\ntwo", ": one\n: two\n");
        check(": retry\nretry: 10\n", ": retry\nretry: 10\n");
        check("\n", "");
    }

    #[test]
    fn the_servers_own_messages_have_no_time() {
        let message = Message::new(ChannelId::from(&b"x"[..]), -2, 1_000_000, 0, Draft::text("bye"));
        let template = MessageTemplate::parse(&Bytes::from_static(b"~time~ ~tag~"));
        let format = Format::new(template, Framing::Bare, false, Padding::default());
        assert_eq!(format.render(&message), "Thu, 01 Jan 1970 00:00:00 GMT 0");
    }

    #[test]
    fn equal_formats_have_equal_keys() {
        let key = |template: &'static str, framing| {
            let template = MessageTemplate::parse(&Bytes::from_static(template.as_bytes()));
            Format::new(template, framing, false, Padding::default()).key()
        };
        assert_eq!(key("~text~", Framing::Chunk), key("~text~", Framing::Chunk));
        assert_ne!(key("~text~", Framing::Chunk), key("~text~", Framing::Bare));
        assert_ne!(key("~text~", Framing::Chunk), key("~id~", Framing::Chunk));
    }

    /// How long a text of a length becomes, for plain clients and for event sources.
    fn check_padding(longest: usize, least: usize, length: usize, expected: (usize, usize)) {
        let padding = Padding { header: 0, message: least, longest };
        let filled = |is_event_source| {
            let mut out = vec![b'x'; length];
            padding.fill(&mut out, 0, least, is_event_source);
            out.len()
        };
        assert_eq!((filled(false), filled(true)), expected, "{longest} {least} {length}");
    }

    #[test]
    fn padding_goes_in_steps() {
        check_padding(200, 200, 4, (204, 204));
        check_padding(200, 50, 5, (105, 105));
        check_padding(300, 300, 5, (305, 305));
        check_padding(120, 120, 7, (127, 127));
        check_padding(120, 60, 13, (113, 113));
        check_padding(120, 60, 60, (60, 60));
        check_padding(121, 121, 1, (122, 122));
        let (padding, mut out) = (Padding { header: 0, message: 20, longest: 20 }, b"id: e\ndata: x\n\n".to_vec());
        padding.fill(&mut out, 6, padding.message, true);
        assert_eq!(out.len(), 6 + 9 + 20, "the fields of an event do not count");
    }

    #[test]
    fn chunks_are_never_empty() {
        assert_eq!(Framing::Chunk.frame(Bytes::new()), "");
        assert_eq!(Framing::Chunk.frame(Bytes::from("hello, hello, hello")), "13\r\nhello, hello, hello\r\n");
        assert_eq!(Framing::Websocket.frame(Bytes::new()), &b"\x81\0"[..]);
    }
}
