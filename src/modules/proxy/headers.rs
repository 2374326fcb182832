//! `proxy_set_header`: the head of the requests.

use bytes::Bytes;

use crate::config::value::Template;
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot};
use crate::http::Request;
use crate::http::wire::header::Known;

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "proxy_set_header",
    contexts: Contexts::HTTP_ALL,
    args: Args::exactly(2),
    syntax: "field value",
    doc: "Sets a header of the requests to upstreams; an empty value leaves it out. A block that has one has none of those \
          around it. Where nothing is said, `Host` is `$proxy_host` and `Connection` is `close`.\n\n\
          Example: `proxy_set_header Host $host;`",
    file: file!(),
    apply: set_header,
    ..Directive::BASE
}];

/// The headers that are set in a block, with those that always are.
#[derive(Clone, Debug)]
pub(super) struct Headers {
    lines: Vec<(Bytes, Line)>,
}

/// The value of a header.
#[derive(Clone, Debug)]
enum Line {
    Template(Template),
    /// `$proxy_host`
    Host,
    /// The length of the body, if it is known.
    Length,
    /// `chunked`, if the body is sent as it comes.
    Chunked,
}

/// What is always set, unless a `proxy_set_header` is about it.
const DEFAULTS: [(&[u8], Option<Line>); 8] = [
    (b"Host", Some(Line::Host)),
    (b"Connection", None),
    (b"Content-Length", Some(Line::Length)),
    (b"Transfer-Encoding", Some(Line::Chunked)),
    (b"TE", None),
    (b"Keep-Alive", None),
    (b"Expect", None),
    (b"Upgrade", None),
];

impl Section for Headers {
    type Raw = Vec<(Bytes, Template)>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        if let Some(parent) = parent.filter(|_| raw.is_empty()) {
            return parent.clone();
        }
        let mut lines: Vec<_> = raw.iter().map(|(name, value)| (name.clone(), Line::Template(value.clone()))).collect();
        for (name, line) in DEFAULTS {
            if raw.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                continue;
            }
            let text: &'static [u8] = if name == b"Connection" { b"close" } else { b"" };
            let line = line.unwrap_or_else(|| Line::Template(Template::literal(Bytes::from_static(text))));
            lines.push((Bytes::from_static(name), line));
        }
        Self { lines }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn set_header(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let value = Template::word_for_servers(call, 1, cx)?;
    cx.edit::<Headers>().push((Bytes::copy_from_slice(call.bytes(0)), value));
    Ok(())
}

/// How the request's body is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// There is none.
    None,
    /// It has so many bytes.
    Known(u64),
    /// It goes in chunks.
    Chunked,
}

impl Headers {
    /// Writes the headers of a request, and the empty line after them.
    pub(super) fn write(&self, request: &Request, host: &[u8], length: Length, pass_on: bool, out: &mut Vec<u8>) {
        for (name, line) in &self.lines {
            match line {
                Line::Template(template) => match template.constant() {
                    Some(text) => put(out, name, text),
                    None => put(out, name, &request.eval(template)),
                },
                Line::Host => put(out, name, host),
                Line::Length => {
                    if let Length::Known(length) = length {
                        put(out, name, length.to_string().as_bytes());
                    }
                }
                Line::Chunked => {
                    if length == Length::Chunked {
                        put(out, name, b"chunked");
                    }
                }
            }
        }
        if pass_on {
            for (name, value) in request.head.headers() {
                if !self.lines.iter().any(|(set, _)| set.eq_ignore_ascii_case(name)) {
                    put_line(out, name, value);
                }
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn put(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if !value.is_empty() {
        put_line(out, name, value);
    }
}

fn put_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// How the body of a client's request is announced to the upstream.
pub(super) fn length(request: &Request, body: u64) -> Length {
    let head = &request.head;
    let was_announced = head.is_chunked() || head.is_open_ended() || head.known(Known::ContentLength).is_some();
    if body == 0 && !(request.is_main() && was_announced) {
        return Length::None;
    }
    Length::Known(body)
}
