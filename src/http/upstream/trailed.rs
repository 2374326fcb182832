//! A chunked body whose trailers are read: the headers behind its last chunk.

use bytes::{Bytes, BytesMut};

use super::body::Cut;
use super::family::{Exchange, Names};
use super::record::Record;
use crate::http::wire::body::{BodyStep, Chunked};
use crate::http::wire::header::{self, HeaderProgress};
use crate::http::wire::upstream_head::Field;
use crate::server::log::shown;

/// Where in such a body it is.
#[derive(Clone, Debug)]
pub struct Trailed {
    chunks: Chunked,
    /// How long all trailers may be together.
    room: usize,
    list: Vec<(Bytes, Bytes)>,
    hide: Names,
    pass: Names,
    hides: fn(&[u8], Option<Field>) -> bool,
}

impl Trailed {
    /// At the beginning of a body; `hides` says which headers are not passed on by default.
    pub fn new(exchange: &Exchange, hides: fn(&[u8], Option<Field>) -> bool) -> Self {
        Self {
            chunks: Chunked::before_trailers(),
            room: usize::try_from(*exchange.buffer_size).unwrap_or(usize::MAX),
            list: Vec::new(),
            hide: exchange.hide.clone(),
            pass: exchange.pass.clone(),
            hides,
        }
    }

    /// The next piece in the input.
    pub(super) fn cut(&mut self, input: &mut BytesMut) -> Cut {
        match self.chunks.step(input, 0) {
            Err(_) => Cut::Bad("upstream sent invalid chunked response".into()),
            Ok(BodyStep::Data(range)) => Cut::data(range, input),
            Ok(BodyStep::More) => {
                input.clear();
                Cut::More
            }
            Ok(BodyStep::End(end)) => {
                let _framing = input.split_to(end);
                self.trailers(input)
            }
        }
    }

    /// Reads what stands behind the last chunk.
    fn trailers(&mut self, input: &mut BytesMut) -> Cut {
        loop {
            match header::parse(input, true) {
                HeaderProgress::Incomplete if input.len() < self.room => return Cut::More,
                HeaderProgress::Bad(end) => {
                    let next = input.get(end).copied().unwrap_or_default();
                    let message =
                        format!("upstream sent invalid trailer: \"{}\\x{next:02x}...\"", shown(&input[..end]));
                    return Cut::Bad(message.into());
                }
                HeaderProgress::Complete(line, length) if length <= self.room => {
                    let line_bytes = input.split_to(length);
                    let [name, value] =
                        [line.name, line.value].map(|span| Bytes::copy_from_slice(span.of(&line_bytes)));
                    self.room = self.room.saturating_sub(length);
                    self.list.push((name, value));
                }
                HeaderProgress::Incomplete | HeaderProgress::Complete(..) => {
                    return Cut::Bad("upstream sent too big trailers".into());
                }
                HeaderProgress::End(length) => {
                    let _line_end = input.split_to(length);
                    return Cut::End;
                }
            }
        }
    }

    /// Notes what was read.
    pub(super) fn settle(&mut self, record: &mut Record) {
        record.trailers = std::mem::take(&mut self.list);
        let is_shown = |name: &[u8]| {
            self.pass.contain(name) || !(self.hide.contain(name) || (self.hides)(name, Field::from_name(name)))
        };
        record.passed_trailers = record.trailers.iter().filter(|(name, _)| is_shown(name)).cloned().collect();
    }
}
