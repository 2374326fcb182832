//! Bodies on the wire: how long a request's is, chunks in, chunks out.

use std::ops::Range;

use super::ascii::hex_value;

/// The most that chunk extensions and trailers of one body may take.
///
/// Differs from nginx: it skips them without end.
pub const OVERHEAD_LIMIT: u64 = 64 * 1024;

/// nginx's words for a body that [`Chunked`] refuses; answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client sent invalid chunked body")]
pub struct InvalidChunk;

/// What a piece of input held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyStep {
    /// Data at this place in the input; go on after it.
    Data(Range<usize>),
    /// The whole input is used up and the body goes on.
    More,
    /// The body ended before this place in the input.
    End(usize),
}

/// Decodes a chunked body that comes in pieces cut anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chunked {
    state: State,
    /// What remains of the current chunk, or its size so far.
    size: u64,
    overhead: u64,
    /// Whether it ends before the trailers, which somebody else reads.
    leaves_trailers: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Start,
    Size,
    Extension,
    SizeEnd,
    Data,
    DataEnd,
    DataAlmostEnd,
    LastExtension,
    LastSizeEnd,
    Trailer,
    TrailerLine,
    TrailerLineEnd,
    AlmostDone,
    Done,
}

impl Chunked {
    /// One that says the end where the trailers begin, and reads nothing from there on.
    pub fn before_trailers() -> Self {
        Self { leaves_trailers: true, ..Self::default() }
    }

    /// How much of the present chunk's data is still to come.
    pub fn left(&self) -> u64 {
        self.size
    }

    /// How many bytes are still to come at least, if lines end with LF alone.
    pub fn least(&self) -> u64 {
        match self.state {
            State::Start => 3,
            State::Size if self.size == 0 => 2,
            State::Size | State::Extension | State::SizeEnd => self.size + 5,
            State::Data => self.size + 4,
            State::DataEnd | State::DataAlmostEnd => 4,
            State::LastExtension | State::LastSizeEnd | State::TrailerLine | State::TrailerLineEnd => 2,
            State::Trailer | State::AlmostDone => 1,
            State::Done => 0,
        }
    }

    /// Whether the last byte of the body has been seen.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// What comes in `input` from `at` on: call again with the end of the data until it says `More` or `End`.
    pub fn step(&mut self, input: &[u8], mut at: usize) -> Result<BodyStep, InvalidChunk> {
        while self.state != State::Done && !(self.leaves_trailers && self.state == State::Trailer) {
            let Some(&ch) = input.get(at) else {
                return Ok(BodyStep::More);
            };
            if self.state == State::Data {
                let available = input.len() - at;
                let take = usize::try_from(self.size).unwrap_or(usize::MAX).min(available);
                self.size -= take as u64;
                if self.size == 0 {
                    self.state = State::DataEnd;
                }
                return Ok(BodyStep::Data(at..at + take));
            }
            self.state = self.framing(ch)?;
            at += 1;
        }
        Ok(BodyStep::End(at))
    }

    /// The state after one byte that is not data.
    fn framing(&mut self, ch: u8) -> Result<State, InvalidChunk> {
        let next = match (self.state, ch) {
            (State::Size, _) if self.size > i64::MAX as u64 / 16 => return Err(InvalidChunk),
            (State::Start, _) => {
                self.size = hex_value(ch).ok_or(InvalidChunk)?.into();
                State::Size
            }
            (State::Size, b'\r') if self.size == 0 => State::LastSizeEnd,
            (State::Size, b'\n') if self.size == 0 => State::Trailer,
            (State::Size, b';' | b' ' | b'\t') if self.size == 0 => State::LastExtension,
            (State::Size | State::Extension, b'\r') => State::SizeEnd,
            (State::Size | State::Extension | State::SizeEnd, b'\n') => State::Data,
            (State::Size, b';' | b' ' | b'\t') => State::Extension,
            (State::Size, _) => {
                let digit = hex_value(ch).ok_or(InvalidChunk)?;
                self.size = self.size * 16 + u64::from(digit);
                State::Size
            }
            (State::Extension, _) => self.skip(State::Extension)?,
            (State::DataEnd, b'\r') => State::DataAlmostEnd,
            (State::DataEnd | State::DataAlmostEnd, b'\n') => State::Start,
            (State::LastExtension, b'\r') => State::LastSizeEnd,
            (State::LastExtension | State::LastSizeEnd, b'\n') => State::Trailer,
            (State::LastExtension, _) => self.skip(State::LastExtension)?,
            (State::Trailer, b'\r') => State::AlmostDone,
            (State::Trailer | State::AlmostDone, b'\n') => State::Done,
            (State::TrailerLine, b'\r') => State::TrailerLineEnd,
            (State::TrailerLine | State::TrailerLineEnd, b'\n') => State::Trailer,
            (State::Trailer | State::TrailerLine, _) => self.skip(State::TrailerLine)?,
            _ => return Err(InvalidChunk),
        };
        Ok(next)
    }

    fn skip(&mut self, next: State) -> Result<State, InvalidChunk> {
        self.overhead += 1;
        if self.overhead > OVERHEAD_LIMIT {
            return Err(InvalidChunk);
        }
        Ok(next)
    }
}

/// Counts down a body of known length.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    left: u64,
}

impl Counted {
    /// A body of this length.
    pub fn new(length: u64) -> Self {
        Self { left: length }
    }

    /// How much is still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// What comes in `input` from `at` on, as [`Chunked::step`] says it.
    pub fn step(&mut self, input: &[u8], at: usize) -> BodyStep {
        if self.left == 0 {
            return BodyStep::End(at);
        }
        let available = input.len().saturating_sub(at);
        if available == 0 {
            return BodyStep::More;
        }
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(available);
        self.left -= take as u64;
        BodyStep::Data(at..at + take)
    }
}

/// The end of a chunked response.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What stands after the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The line before a chunk's data.
#[derive(Clone, Copy, Debug)]
pub struct ChunkStart {
    text: [u8; 18],
    from: u8,
}

impl ChunkStart {
    /// For a chunk of `size` bytes, which is not 0: that would end the body.
    pub fn new(mut size: u64) -> Self {
        let mut text = *b"0000000000000000\r\n";
        let mut from = 16;
        while size > 0 || from == 16 {
            from -= 1;
            text[from] = b"0123456789abcdef"[(size & 15) as usize];
            size >>= 4;
        }
        Self { text, from: from as u8 }
    }

    /// The line, with its end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[usize::from(self.from)..]
    }
}

/// Holds what must be true of any input; for the fuzzer.
pub fn fuzz_chunked(data: &[u8]) {
    let whole = decode(&[data]);
    let cut = data.first().map_or(0, |&ch| usize::from(ch) % (data.len() + 1));
    let (left, right) = data.split_at(cut);
    assert_eq!(whole, decode(&[left, right]), "the same however it is cut");
}

/// The data of a body that comes in these pieces, and whether it ended; `None` if it is refused.
fn decode(pieces: &[&[u8]]) -> Option<(Vec<u8>, bool)> {
    let mut chunked = Chunked::default();
    let mut body = Vec::new();
    for piece in pieces {
        let mut at = 0;
        loop {
            match chunked.step(piece, at).ok()? {
                BodyStep::Data(range) => {
                    at = range.end;
                    body.extend_from_slice(&piece[range]);
                }
                BodyStep::More => break,
                BodyStep::End(_) => return Some((body, true)),
            }
        }
    }
    Some((body, false))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn show(input: &str) -> String {
        match decode(&[input.as_bytes()]) {
            None => "bad".into(),
            Some((body, done)) => {
                format!("{}{}", String::from_utf8_lossy(&body), if done { "." } else { "..." })
            }
        }
    }

    #[test]
    fn chunked_bodies() {
        for (input, expected) in [
            ("0\r\n\r\n", "."),
            ("3\r\nabc\r\n0\r\n\r\n", "abc."),
            ("3\nabc\n0\n\n", "abc."),
            ("a;x=y\r\n0123456789\r\n0;z\r\n\r\n", "0123456789."),
            ("3 \r\nabc\r\n0\r\nTrailer: x\r\nY\r\n\r\n", "abc."),
            ("003\r\nabc\r\n00\r\n\r\n", "abc."),
            ("3\r\nab", "ab..."),
            ("", "..."),
            ("zz\r\n", "bad"),
            ("\r\n", "bad"),
            ("-1\r\n", "bad"),
            ("3\r\nabcd", "bad"),
            ("3\rabc", "bad"),
            ("fffffffffffffffff\r\n", "bad"),
            ("7ffffffffffffff\r\nx", "x..."),
            ("1000000000000000\r\nx", "bad"),
            ("0\r\n\rx", "bad"),
        ] {
            assert_eq!(show(input), expected, "{input:?}");
        }
    }

    #[test]
    fn the_least_that_is_to_come() {
        for (input, expected) in [
            ("", 3),
            ("5", 10),
            ("5\r\n", 9),
            ("5\r\nabc", 6),
            ("1\r\na\r\n", 3),
            ("0", 2),
            ("0\r\n\r", 1),
            ("0\n\n", 0),
        ] {
            let (mut decoder, mut at) = (Chunked::default(), 0);
            while let Ok(BodyStep::Data(range)) = decoder.step(input.as_bytes(), at) {
                at = range.end;
            }
            assert_eq!(decoder.least(), expected, "{input:?}");
        }
    }

    #[test]
    fn endless_trailers_are_refused() {
        let mut input = b"0\r\n".to_vec();
        input.resize(OVERHEAD_LIMIT as usize + 10, b'x');
        assert_eq!(decode(&[&input]), None);
    }

    #[test]
    fn counted_bodies_end_where_they_should() {
        let mut body = Counted::new(3);
        assert_eq!(body.step(b"ab", 0), BodyStep::Data(0..2));
        assert_eq!(body.step(b"ab", 2), BodyStep::More);
        assert_eq!(body.step(b"cGET", 0), BodyStep::Data(0..1));
        assert_eq!(body.step(b"cGET", 1), BodyStep::End(1));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..5)) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(ChunkStart::new(chunk.len() as u64).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(CHUNK_END);
            }
            wire.extend_from_slice(LAST_CHUNK);
            prop_assert_eq!(decode(&[&wire]), Some((chunks.concat(), true)));
            fuzz_chunked(&wire);
        }

        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..60)) {
            fuzz_chunked(&data);
        }

        #[test]
        fn any_framing(text in "([0-9a-f]{1,2}|\r\n|\n|;|x| ){0,12}") {
            fuzz_chunked(text.as_bytes());
        }
    }
}
