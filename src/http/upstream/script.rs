//! The answers of scripts: a head as CGI has it, and what scripts write that uwsgi and SCGI servers run.

use bytes::{Bytes, BytesMut};

use super::body::Decoder;
use super::pass::{Parsed, Protocol};
use crate::http::Request;
use crate::http::wire::body::Counted;
use crate::http::wire::method::Method;
use crate::http::wire::upstream_head::{Field, HeadParser, Progress, UpstreamHead};
use crate::server::log::{Level, shown};

/// What nginx says that it does.
pub const READING: &str = "while reading response header from upstream";

/// Reads the head that a script writes, takes it out of `text` once it is there, and logs what is wrong with it.
pub fn parse_head(parser: &mut HeadParser, request: &Request, text: &mut BytesMut) -> Parsed {
    match parser.parse(text) {
        Progress::Incomplete => Parsed::More,
        Progress::Complete(length) => {
            let (mut head, warnings) = parser.take(text.split_to(length).freeze());
            for warning in warnings {
                request.log(Level::Warn, &format!("{} {READING}", shown(&warning)));
            }
            if !head.read_status() {
                let status = head.field(Field::Status).unwrap_or_default();
                request.log(Level::Error, &format!("upstream sent invalid status \"{}\" {READING}", shown(status)));
                return Parsed::Bad;
            }
            head.set_closes(true);
            Parsed::Head(head)
        }
        Progress::Bad(reason) => {
            request.log(Level::Error, &format!("{} {READING}", shown(&reason)));
            Parsed::Bad
        }
        Progress::Bare => {
            request.log(Level::Error, &format!("upstream sent no valid HTTP/1.0 header {READING}"));
            Parsed::Bad
        }
    }
}

/// A script's answer that is the whole connection: its head, perhaps with a status line before it, and its body.
#[derive(Debug)]
pub struct Script {
    parser: HeadParser,
    is_head: bool,
    hides_status: bool,
}

impl Script {
    /// For the answer to a request; that to HEAD has no body. `hides_status` says whether `Status` is kept from clients.
    pub fn new(request: &Request, hides_status: bool) -> Self {
        let is_head = request.method == Method::Head;
        Self { parser: HeadParser::of_script_or_server(), is_head, hides_status }
    }
}

impl Protocol for Script {
    fn reset(&mut self) {
        self.parser = HeadParser::of_script_or_server();
    }

    fn parse(&mut self, request: &Request, input: &mut BytesMut) -> Parsed {
        parse_head(&mut self.parser, request, input)
    }

    fn decoder(&self, head: &UpstreamHead) -> Decoder {
        match head.content_length() {
            _ if self.is_head || matches!(head.status(), 204 | 304) => Decoder::Empty,
            Some(length) => Decoder::Counted(Counted::new(length)),
            None => Decoder::UntilClose,
        }
    }

    fn hides(&self, _: &[u8], field: Option<Field>) -> bool {
        field.is_some_and(|field| field.is_accel() || (self.hides_status && field == Field::Status))
    }

    fn rewrite(&self, _: &Request, _: Field, _: &Bytes) -> Option<Bytes> {
        None
    }
}
