//! How the answers of FastCGI servers are read.

use bytes::{Buf, Bytes, BytesMut};

use super::Settings;
use crate::http::Request;
use crate::http::upstream::family::Exchange;
use crate::http::upstream::script::{READING, parse_head};
use crate::http::upstream::{Decoder, Excess, Output, Parsed, Protocol};
use crate::http::wire::records::{Records, Step};
use crate::http::wire::upstream_head::{Field, HeadParser, UpstreamHead};
use crate::server::log::{Level, shown};

/// FastCGI as applications speak it.
pub(super) struct FastCgi<'s> {
    settings: &'s Settings,
    /// The longest head.
    room: usize,
    is_head: bool,
    records: Records,
    /// What came of the output so far.
    text: BytesMut,
    parser: HeadParser,
}

impl<'s> FastCgi<'s> {
    /// For the answer to a request; that to HEAD has no body.
    pub(super) fn new(settings: &'s Settings, exchange: &Exchange, is_head: bool) -> Self {
        let room = usize::try_from(*exchange.buffer_size).unwrap_or(usize::MAX);
        let (records, text, parser) = (Records::default(), BytesMut::new(), HeadParser::of_script());
        Self { settings, room, is_head, records, text, parser }
    }

    fn head(&mut self, request: &Request) -> Parsed {
        match parse_head(&mut self.parser, request, &mut self.text) {
            Parsed::More if self.text.len() >= self.room => {
                request.log(Level::Error, &format!("upstream sent too big header {READING}"));
                Parsed::Bad
            }
            Parsed::Head(mut head) => {
                head.set_closes(!*self.settings.keep_conn);
                Parsed::Head(head)
            }
            parsed => parsed,
        }
    }

    /// Logs what the application complains of; `true`: its answer is to be taken for a bad one.
    fn complain(&self, request: &Request, text: &[u8]) -> bool {
        let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n' | b'.' | b' ')).map_or(0, |at| at + 1);
        request.log(Level::Error, &format!("FastCGI sent in stderr: \"{}\" {READING}", shown(&text[..end])));
        self.settings.catch_stderr.0.iter().any(|caught| memchr::memmem::find(text, caught).is_some())
    }
}

impl Protocol for FastCgi<'_> {
    fn reset(&mut self) {
        (self.records, self.parser) = (Records::default(), HeadParser::of_script());
        self.text.clear();
    }

    fn parse(&mut self, request: &Request, input: &mut BytesMut) -> Parsed {
        loop {
            match self.records.step(input, 0) {
                Step::Output(range) => {
                    self.text.extend_from_slice(&input[range.clone()]);
                    input.advance(range.end);
                    match self.head(request) {
                        Parsed::More => {}
                        parsed => return parsed,
                    }
                }
                Step::Complaint(range) => {
                    let is_caught = self.complain(request, &input[range.clone()]);
                    input.advance(range.end);
                    if is_caught {
                        return Parsed::Bad;
                    }
                }
                Step::More => {
                    input.clear();
                    return Parsed::More;
                }
                Step::Closed(_) | Step::End(_) => {
                    request.log(Level::Error, &format!("upstream prematurely closed FastCGI stdout {READING}"));
                    return Parsed::Bad;
                }
                Step::Bad(why) => {
                    request.log(Level::Error, &format!("{why} {READING}"));
                    return Parsed::Bad;
                }
            }
        }
    }

    fn decoder(&self, head: &UpstreamHead) -> Decoder {
        Decoder::Records(Box::new(Output {
            records: self.records.clone(),
            begun: Bytes::copy_from_slice(&self.text),
            left: head.content_length(),
            skips: self.is_head || matches!(head.status(), 204 | 304),
            keeps: *self.settings.keep_conn,
            excess: Excess::None,
        }))
    }

    fn hides(&self, _: &[u8], field: Option<Field>) -> bool {
        field.is_some_and(|field| field == Field::Status || field.is_accel())
    }

    fn rewrite(&self, _: &Request, _: Field, _: &Bytes) -> Option<Bytes> {
        None
    }
}
