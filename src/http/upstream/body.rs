//! Where the body of an upstream's answer ends.

use bytes::{Bytes, BytesMut};

use crate::http::wire::body::{BodyStep, Chunked, Counted};

/// Cuts the body out of what an upstream sends.
#[derive(Clone, Copy, Debug)]
pub enum Decoder {
    /// There is none.
    Empty,
    /// `Content-Length`
    Counted(Counted),
    /// Chunks.
    Chunked(Chunked),
    /// It ends with the connection.
    UntilClose,
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
    /// The framing is wrong.
    Bad,
}

impl Decoder {
    /// The next piece in the input.
    pub(super) fn cut(&mut self, input: &mut BytesMut) -> Cut {
        let step = match self {
            Self::Empty => return Cut::End,
            Self::UntilClose => {
                return if input.is_empty() { Cut::More } else { Cut::Data(input.split().freeze()) };
            }
            Self::Counted(counted) => counted.step(input, 0),
            Self::Chunked(chunked) => match chunked.step(input, 0) {
                Ok(step) => step,
                Err(_) => return Cut::Bad,
            },
        };
        match step {
            BodyStep::Data(range) => {
                bytes::Buf::advance(input, range.start);
                Cut::Data(input.split_to(range.end - range.start).freeze())
            }
            BodyStep::More => {
                input.clear();
                Cut::More
            }
            BodyStep::End(end) => {
                bytes::Buf::advance(input, end);
                Cut::End
            }
        }
    }

    /// Whether the end of the connection is a good end here.
    pub(super) fn may_end(&self) -> bool {
        matches!(self, Self::UntilClose | Self::Empty)
    }

    /// Whether the connection can be used again when the body is whole.
    pub(super) fn leaves_connection(&self) -> bool {
        !matches!(self, Self::UntilClose)
    }
}
