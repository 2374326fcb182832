//! Where the body of an upstream's answer ends.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

use super::record::Shared;
use super::trailed::Trailed;
use crate::http::wire::body::{BodyStep, Chunked, Counted};
use crate::http::wire::records::{Records, Step};
use crate::server::log::{Level, shown};

/// Cuts the body out of what an upstream sends.
#[derive(Clone, Debug)]
pub enum Decoder {
    /// There is none.
    Empty,
    /// `Content-Length`
    Counted(Counted),
    /// `Content-Length`, and a text that ends the answer.
    Ended(Ended),
    /// Chunks.
    Chunked(Chunked),
    /// Chunks, and headers behind them.
    Trailed(Box<Trailed>),
    /// It ends with the connection.
    UntilClose,
    /// FastCGI's records.
    Records(Box<Output>),
}

/// A body of a known length with a text behind it.
#[derive(Clone, Debug)]
pub struct Ended {
    counted: Counted,
    /// What is still to come of the text.
    end: &'static [u8],
    is_good: bool,
}

/// What an application writes through FastCGI.
#[derive(Clone, Debug)]
pub struct Output {
    /// Where in its records it is.
    pub records: Records,
    /// What of the body came with the head.
    pub begun: Bytes,
    /// How much of the body is to come, if its head said so.
    pub left: Option<u64>,
    /// Whether nobody wants the body.
    pub skips: bool,
    /// Whether the connection is to be kept after it.
    pub keeps: bool,
    /// Whether more than the whole body has come.
    pub excess: Excess,
}

/// Whether more came than a body was to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Excess {
    /// No.
    #[default]
    None,
    /// It was found.
    Found,
    /// The log has it.
    Told,
}

/// What was cut out.
#[derive(Debug)]
pub(super) enum Cut {
    /// A piece of the body.
    Data(Bytes),
    /// All is used up and more is to come.
    More,
    /// The body is whole.
    End,
    /// Something for the log.
    Note(Level, String),
    /// The framing is wrong: nginx's words for the log.
    Bad(Cow<'static, str>),
}

impl Cut {
    /// The data at this place in the input, which is used up to there.
    pub(super) fn data(range: Range<usize>, input: &mut BytesMut) -> Self {
        input.advance(range.start);
        Self::Data(input.split_to(range.end - range.start).freeze())
    }
}

impl Decoder {
    /// The next piece in the input.
    pub(super) fn cut(&mut self, input: &mut BytesMut) -> Cut {
        let step = match self {
            Self::Empty => return Cut::End,
            Self::UntilClose => {
                return if input.is_empty() { Cut::More } else { Cut::Data(input.split().freeze()) };
            }
            Self::Records(output) => return output.cut(input),
            Self::Trailed(trailed) => return trailed.cut(input),
            Self::Ended(ended) => return ended.cut(input),
            Self::Counted(counted) => counted.step(input, 0),
            Self::Chunked(chunked) => match chunked.step(input, 0) {
                Ok(step) => step,
                Err(_) => return Cut::Bad("upstream sent invalid chunked response".into()),
            },
        };
        match step {
            BodyStep::Data(range) => Cut::data(range, input),
            BodyStep::More => {
                input.clear();
                Cut::More
            }
            BodyStep::End(end) => {
                input.advance(end);
                Cut::End
            }
        }
    }

    /// How much of the body came with the head, and is kept here.
    pub(super) fn begun(&self) -> usize {
        match self {
            Self::Records(output) => output.begun.len(),
            Self::Empty
            | Self::Counted(_)
            | Self::Ended(_)
            | Self::Chunked(_)
            | Self::Trailed(_)
            | Self::UntilClose => 0,
        }
    }

    /// Whether the end of the connection is a good end here.
    pub(super) fn may_end(&self) -> bool {
        match self {
            Self::UntilClose | Self::Empty => true,
            Self::Records(output) => !output.keeps && output.left.unwrap_or_default() == 0,
            Self::Counted(_) | Self::Ended(_) | Self::Chunked(_) | Self::Trailed(_) => false,
        }
    }

    /// Whether the connection can be used again when the body is whole.
    pub(super) fn leaves_connection(&self) -> bool {
        match self {
            Self::UntilClose => false,
            Self::Records(output) => output.keeps && output.excess == Excess::None,
            Self::Ended(ended) => ended.is_good,
            Self::Empty | Self::Counted(_) | Self::Chunked(_) | Self::Trailed(_) => true,
        }
    }

    /// Notes what stood behind a body that is whole.
    pub(super) fn settle(&mut self, record: &Shared) {
        if let Self::Trailed(trailed) = self {
            trailed.settle(&mut record.borrow_mut());
        }
    }

    /// What is said of more than the body was to have.
    pub(super) fn excess(&self) -> &'static str {
        match self {
            Self::Chunked(_) | Self::Trailed(_) => "upstream sent data after final chunk",
            _ => MORE_THAN_SAID,
        }
    }
}

const MORE_THAN_SAID: &str = "upstream sent more data than specified in \"Content-Length\" header";

impl Ended {
    /// A value of memcached's.
    pub fn by_memcached(length: u64) -> Self {
        Self { counted: Counted::new(length), end: b"\r\nEND\r\n", is_good: true }
    }

    fn cut(&mut self, input: &mut BytesMut) -> Cut {
        match self.counted.step(input, 0) {
            BodyStep::Data(range) => return Cut::data(range, input),
            BodyStep::More => return Cut::More,
            BodyStep::End(_) => {}
        }
        let rest = self.end.strip_prefix(&input[..]);
        input.clear();
        self.end = rest.unwrap_or_default();
        match rest {
            None => {
                self.is_good = false;
                Cut::Note(Level::Error, "memcached sent invalid trailer".to_owned())
            }
            Some([]) => Cut::End,
            Some(_) => Cut::More,
        }
    }
}

impl Output {
    fn cut(&mut self, input: &mut BytesMut) -> Cut {
        let begun = std::mem::take(&mut self.begun);
        if let Some(cut) = self.bound(begun) {
            return cut;
        }
        loop {
            if self.excess != Excess::None {
                input.clear();
                return match std::mem::replace(&mut self.excess, Excess::Told) {
                    Excess::Told => Cut::End,
                    Excess::None | Excess::Found => Cut::Note(Level::Warn, MORE_THAN_SAID.to_owned()),
                };
            }
            match self.records.step(input, 0) {
                Step::Output(range) => {
                    input.advance(range.start);
                    let piece = input.split_to(range.end - range.start).freeze();
                    if let Some(cut) = self.bound(piece) {
                        return cut;
                    }
                }
                Step::Complaint(range) => {
                    input.advance(range.start);
                    return complaint(&input.split_to(range.end - range.start));
                }
                Step::Closed(_) | Step::End(_) if self.left.is_some_and(|left| left > 0) => {
                    return Cut::Bad("upstream prematurely closed FastCGI stdout".into());
                }
                Step::Closed(end) if self.keeps => input.advance(end),
                Step::Closed(_) => {
                    // What follows says no more than that it is the end.
                    input.clear();
                    return Cut::End;
                }
                Step::End(end) => {
                    input.advance(end);
                    return Cut::End;
                }
                Step::More => {
                    input.clear();
                    return Cut::More;
                }
                Step::Bad(why) => return Cut::Bad(why.into()),
            }
        }
    }

    /// A piece, no longer than the body was to be; `None`: nothing of it is wanted.
    fn bound(&mut self, mut piece: Bytes) -> Option<Cut> {
        if piece.is_empty() || self.skips {
            return None;
        }
        if let Some(left) = &mut self.left {
            let length = usize::try_from(*left).map_or(piece.len(), |left| left.min(piece.len()));
            if length < piece.len() {
                self.excess = Excess::Found;
            }
            *left -= length as u64;
            piece.truncate(length);
            if piece.is_empty() {
                return None;
            }
        }
        Some(Cut::Data(piece))
    }
}

/// What an application complains of, for the log.
fn complaint(text: &[u8]) -> Cut {
    let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n' | b'.' | b' ')).map_or(0, |last| last + 1);
    Cut::Note(Level::Error, format!("FastCGI sent in stderr: \"{}\"", shown(&text[..end])))
}
