//! Numbered messages, and the proof that a subscriber got each of them once, in order and whole.
//!
//! A payload says its own number and size, so that a [`Verifier`] needs nothing but the bytes of its connection, however the
//! kernel cut them.

use std::collections::BTreeSet;
use std::ops::AddAssign;

/// The shortest payload: `0000000000 00000 `, number and size.
pub(crate) const HEAD: usize = 17;

const FILLER: &[u8] = &[b'x'; 65_536];

/// The payload of message `number`, `size` bytes long (at least [`HEAD`]).
pub(crate) fn payload(number: u64, size: usize) -> Vec<u8> {
    let mut payload = format!("{number:010} {size:05} ").into_bytes();
    payload.resize(size.max(HEAD), b'x');
    payload
}

/// What went wrong on the way, counted over messages (and over connections, for the last).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Published and never received.
    pub(crate) lost: u64,
    /// Received again.
    pub(crate) duplicated: u64,
    /// Received after a message with a higher number.
    pub(crate) disordered: u64,
    /// Frames that are none of our messages: cut, altered, or not a whole text frame.
    pub(crate) malformed: u64,
    /// Connections that the server closed.
    pub(crate) disconnected: u64,
}

impl Faults {
    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.lost + self.duplicated + self.disordered + self.malformed + self.disconnected
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.disordered += other.disordered;
        self.malformed += other.malformed;
        self.disconnected += other.disconnected;
    }
}

/// How a subscriber gets its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As text frames.
    Websocket,
    /// As events of an answer without end, in chunks or not.
    EventSource,
    /// As the lines of an answer without end, in chunks.
    Streaming,
}

/// Reads what comes on one connection.
#[derive(Debug)]
pub(crate) struct Verifier {
    kind: Kind,
    /// The number after the highest seen.
    next: u64,
    /// Skipped so far; empty, and without memory, in a run without faults.
    missing: BTreeSet<u64>,
    /// The start of a frame or line whose rest is still to come.
    partial: Vec<u8>,
    faults: Faults,
    closed: bool,
}

impl Verifier {
    /// Expects `next` to be the first message.
    pub(crate) fn starting_at(kind: Kind, next: u64) -> Self {
        Self { kind, next, missing: BTreeSet::new(), partial: Vec::new(), faults: Faults::default(), closed: false }
    }

    /// Takes what the socket gave; returns how many messages that completed, duplicates apart.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> u64 {
        if self.partial.is_empty() {
            let (used, fresh) = self.pieces(bytes);
            if used < bytes.len() {
                self.partial.extend_from_slice(&bytes[used..]);
            }
            return fresh;
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(bytes);
        let (used, fresh) = self.pieces(&joined);
        joined.drain(..used);
        self.partial = joined;
        fresh
    }

    /// What it reads.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the server sent a close frame.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The server ended the connection, without being asked to.
    pub(crate) fn disconnected(&mut self) {
        self.faults.disconnected += 1;
    }

    /// The faults, given that messages up to (and without) `end` were published.
    pub(crate) fn finish(self, end: u64) -> Faults {
        let unseen = end.saturating_sub(self.next) + self.missing.len() as u64;
        let mut faults = self.faults;
        faults.lost += unseen;
        faults
    }

    /// The number after the highest seen.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes all whole pieces off the start: how many bytes, how many fresh messages.
    fn pieces(&mut self, bytes: &[u8]) -> (usize, u64) {
        let mut used = 0;
        let mut fresh = 0;
        while let Some((piece, len)) = Piece::parse(self.kind, &bytes[used..]) {
            used += len;
            fresh += u64::from(self.piece(piece));
        }
        (used, fresh)
    }

    fn piece(&mut self, piece: Piece<'_>) -> bool {
        match piece {
            Piece::Payload(payload) => {
                if let Some(number) = number(payload) {
                    return self.message(number);
                }
                self.faults.malformed += 1;
            }
            Piece::Close => self.closed = true,
            Piece::Other => {}
        }
        false
    }

    fn message(&mut self, number: u64) -> bool {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            return true;
        }
        if self.missing.remove(&number) {
            self.faults.disordered += 1;
            return true;
        }
        self.faults.duplicated += 1;
        false
    }
}

/// A whole frame or line.
enum Piece<'a> {
    /// What is to be one of our messages.
    Payload(&'a [u8]),
    /// The server says good-bye.
    Close,
    /// What else the protocol has: pings, the sizes of chunks, comments, ids.
    Other,
}

impl<'a> Piece<'a> {
    /// The piece at the start of `bytes` and its length, if all of it is there.
    fn parse(kind: Kind, bytes: &'a [u8]) -> Option<(Self, usize)> {
        match kind {
            Kind::Websocket => Self::frame(bytes),
            Kind::EventSource | Kind::Streaming => Self::line(bytes),
        }
    }

    /// A websocket frame.
    fn frame(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let (&first_byte, &second_byte) = (bytes.first()?, bytes.get(1)?);
        // A server's frames are not masked: a masked one would get an impossible length here, and end as a loss.
        let (header, size): (usize, usize) = match second_byte {
            126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
            size => (2, usize::from(size)),
        };
        let len = header.checked_add(size)?;
        let payload = bytes.get(header..len)?;
        let piece = match first_byte {
            0x81 => Self::Payload(payload),
            0x88 => Self::Close,
            0x89 | 0x8a => Self::Other,
            // No payload of ours begins with that, so that it counts as malformed.
            _ => Self::Payload(&[]),
        };
        Some((piece, len))
    }

    /// A line. Our messages have no line breaks in them, so that the sizes of chunks are lines of their own too.
    fn line(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let end = memchr::memchr(b'\n', bytes)?;
        let line = bytes[..end].trim_ascii_end();
        let is_other = line.starts_with(b":") || line.starts_with(b"id: ") || is_chunk_size(line);
        let piece = match line.strip_prefix(b"data: ") {
            Some(payload) => Self::Payload(payload),
            None if is_other => Self::Other,
            None => Self::Payload(line),
        };
        Some((piece, end + 1))
    }
}

/// Whether a line is the size of a chunk, or empty.
fn is_chunk_size(line: &[u8]) -> bool {
    line.len() <= 8 && line.iter().all(u8::is_ascii_hexdigit)
}

/// The number of a payload that is whole.
fn number(payload: &[u8]) -> Option<u64> {
    let (head, filler) = payload.split_at_checked(HEAD)?;
    if decimal(&head[11..16])? != payload.len() as u64 || head[10] != b' ' || head[16] != b' ' {
        return None;
    }
    if filler != FILLER.get(..filler.len())? {
        return None;
    }
    decimal(&head[..10])
}

fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u64, size: usize) -> Vec<u8> {
        let payload = payload(number, size);
        let mut frame = vec![0x81];
        match u16::try_from(payload.len()) {
            Ok(short @ 0..126) => frame.push(short as u8),
            Ok(long) => {
                frame.push(126);
                frame.extend(long.to_be_bytes());
            }
            Err(_) => {
                frame.push(127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    /// Reads the messages `numbers` of five that were published: how many were fresh, and
    /// `lost duplicated disordered malformed`.
    fn check(numbers: &[u64], expected: &str) {
        let mut verifier = Verifier::starting_at(Kind::Websocket, 0);
        let bytes: Vec<u8> = numbers.iter().flat_map(|&number| frame(number, 20)).collect();
        let fresh = verifier.read(&bytes);
        let Faults { lost, duplicated, disordered, malformed, disconnected: _ } = verifier.finish(5);
        assert_eq!(format!("{fresh}: {lost} {duplicated} {disordered} {malformed}"), expected, "{numbers:?}");
    }

    #[test]
    fn losses_duplicates_and_disorder_are_told_apart() {
        check(&[0, 1, 2, 3, 4], "5: 0 0 0 0");
        check(&[], "0: 5 0 0 0");
        check(&[0, 1, 2, 3], "4: 1 0 0 0");
        check(&[1, 2, 3, 4], "4: 1 0 0 0");
        check(&[0, 1, 1, 2, 3, 4], "5: 0 1 0 0");
        check(&[0, 2, 1, 3, 4], "5: 0 0 1 0");
        check(&[4, 3, 2, 1, 0], "5: 0 0 4 0");
        check(&[0, 2, 2, 1, 1, 4], "4: 1 2 1 0");
    }

    #[test]
    fn any_cut_of_the_stream_reads_the_same() {
        let bytes: Vec<u8> = [(7, 17), (8, 100), (9, 125), (10, 126), (11, 1024), (12, 65_536)]
            .into_iter()
            .flat_map(|(number, size)| frame(number, size))
            .collect();
        for piece in [1, 2, 3, 7, 64, 1000, 65_537, bytes.len()] {
            let mut verifier = Verifier::starting_at(Kind::Websocket, 7);
            let fresh: u64 = bytes.chunks(piece).map(|piece| verifier.read(piece)).sum();
            assert!(verifier.partial.is_empty(), "in pieces of {piece}");
            // A size of five digits has room for 65,536.
            assert_eq!((fresh, verifier.finish(13)), (6, Faults::default()), "in pieces of {piece}");
        }
    }

    #[test]
    fn every_cut_of_two_frames_reads_the_same() {
        let bytes = [frame(0, 130), frame(1, 20)].concat();
        for cut in 0..=bytes.len() {
            let mut verifier = Verifier::starting_at(Kind::Websocket, 0);
            let fresh = verifier.read(&bytes[..cut]) + verifier.read(&bytes[cut..]);
            assert_eq!((fresh, verifier.finish(2)), (2, Faults::default()), "cut at {cut}");
        }
    }

    /// Reads an answer of messages 0 and 1 in pieces of any size: the lost, and the malformed.
    fn check_lines(kind: Kind, lines: &str, expected: (u64, u64)) {
        for piece in 1..=lines.len() {
            let mut verifier = Verifier::starting_at(kind, 0);
            let fresh: u64 = lines.as_bytes().chunks(piece).map(|piece| verifier.read(piece)).sum();
            let faults = verifier.finish(2);
            let seen = (faults.lost, faults.malformed);
            assert_eq!((fresh, seen), (2 - expected.0, expected), "{lines:?} in pieces of {piece}");
        }
    }

    #[test]
    fn events_and_chunks_are_read() {
        let [zero, one] = [0, 1].map(|number| String::from_utf8(payload(number, 20)).unwrap_or_default());
        check_lines(Kind::EventSource, &format!(": hi\n\nid: 1:0\ndata: {zero}\n\nid: 1:1\ndata: {one}\n\n"), (0, 0));
        check_lines(Kind::EventSource, &format!("1c\r\ndata: {zero}\r\n\r\n\r\n1c\r\ndata: {one}\r\n"), (0, 0));
        check_lines(Kind::Streaming, &format!("14\r\n{zero}\r\n14\r\n{one}\r\n"), (0, 0));
        check_lines(Kind::Streaming, &format!("14\r\n{zero}\r\n13\r\n{}\r\n", &one[1..]), (1, 1));
        check_lines(Kind::Streaming, &format!("14\r\n{zero}\r\nunknown\r\n"), (1, 1));
    }

    #[test]
    fn an_altered_message_is_malformed_and_lost() {
        for at in 0..40 {
            let mut bytes = frame(3, 38);
            if at == 1 {
                continue; // The length: not to be told from a frame that has not come whole.
            }
            bytes[at] ^= 0x40;
            let mut verifier = Verifier::starting_at(Kind::Websocket, 3);
            assert_eq!(verifier.read(&bytes), 0, "byte {at}");
            let faults = verifier.finish(4);
            assert_eq!((faults.lost, faults.malformed), (1, 1), "byte {at}");
        }
    }

    #[test]
    fn control_frames_are_not_messages() {
        let mut verifier = Verifier::starting_at(Kind::Websocket, 0);
        assert_eq!(verifier.read(&[0x89, 0, 0x8a, 2, b'h', b'i']), 0);
        assert!(!verifier.is_closed());
        assert_eq!(verifier.read(&[0x88, 2, 3, 0xe8]), 0);
        assert!(verifier.is_closed());
        assert_eq!(verifier.finish(0), Faults::default());
    }

    #[test]
    fn a_cut_frame_at_the_end_is_a_loss() {
        let mut verifier = Verifier::starting_at(Kind::Websocket, 0);
        let bytes = frame(0, 100);
        assert_eq!(verifier.read(&bytes[..50]), 0);
        assert_eq!(verifier.finish(1).lost, 1);
    }
}
