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

/// Reads the frames of one connection.
#[derive(Debug)]
pub(crate) struct Verifier {
    /// The number after the highest seen.
    next: u64,
    /// Skipped so far; empty, and without memory, in a run without faults.
    missing: BTreeSet<u64>,
    /// The start of a frame whose rest is still to come.
    partial: Vec<u8>,
    faults: Faults,
    closed: bool,
}

impl Verifier {
    /// Expects `next` to be the first message.
    pub(crate) fn starting_at(next: u64) -> Self {
        Self { next, missing: BTreeSet::new(), partial: Vec::new(), faults: Faults::default(), closed: false }
    }

    /// Takes what the socket gave; returns how many messages that completed, duplicates apart.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> u64 {
        if self.partial.is_empty() {
            let (used, fresh) = self.frames(bytes);
            if used < bytes.len() {
                self.partial.extend_from_slice(&bytes[used..]);
            }
            return fresh;
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(bytes);
        let (used, fresh) = self.frames(&joined);
        joined.drain(..used);
        self.partial = joined;
        fresh
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

    /// Takes all whole frames off the start: how many bytes, how many fresh messages.
    fn frames(&mut self, bytes: &[u8]) -> (usize, u64) {
        let mut used = 0;
        let mut fresh = 0;
        while let Some(frame) = Frame::parse(&bytes[used..]) {
            used += frame.len;
            fresh += u64::from(self.frame(&frame));
        }
        (used, fresh)
    }

    fn frame(&mut self, frame: &Frame<'_>) -> bool {
        match frame.first_byte {
            0x81 => match number(frame.payload) {
                Some(number) => self.message(number),
                None => {
                    self.faults.malformed += 1;
                    false
                }
            },
            0x88 => {
                self.closed = true;
                false
            }
            // Pings and pongs are not messages.
            0x89 | 0x8a => false,
            _ => {
                self.faults.malformed += 1;
                false
            }
        }
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

/// A whole, unmasked websocket frame.
struct Frame<'a> {
    /// FIN, the reserved bits, the opcode.
    first_byte: u8,
    payload: &'a [u8],
    /// With its header.
    len: usize,
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`, if all of it is there.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&first_byte, &second_byte) = (bytes.first()?, bytes.get(1)?);
        // A server's frames are not masked: a masked one would get an impossible length here, and end as a loss.
        let (header, size): (usize, usize) = match second_byte {
            126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
            size => (2, usize::from(size)),
        };
        let len = header.checked_add(size)?;
        Some(Self { first_byte, payload: bytes.get(header..len)?, len })
    }
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
        let mut verifier = Verifier::starting_at(0);
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
            let mut verifier = Verifier::starting_at(7);
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
            let mut verifier = Verifier::starting_at(0);
            let fresh = verifier.read(&bytes[..cut]) + verifier.read(&bytes[cut..]);
            assert_eq!((fresh, verifier.finish(2)), (2, Faults::default()), "cut at {cut}");
        }
    }

    #[test]
    fn an_altered_message_is_malformed_and_lost() {
        for at in 0..40 {
            let mut bytes = frame(3, 38);
            if at == 1 {
                continue; // The length: not to be told from a frame that has not come whole.
            }
            bytes[at] ^= 0x40;
            let mut verifier = Verifier::starting_at(3);
            assert_eq!(verifier.read(&bytes), 0, "byte {at}");
            let faults = verifier.finish(4);
            assert_eq!((faults.lost, faults.malformed), (1, 1), "byte {at}");
        }
    }

    #[test]
    fn control_frames_are_not_messages() {
        let mut verifier = Verifier::starting_at(0);
        assert_eq!(verifier.read(&[0x89, 0, 0x8a, 2, b'h', b'i']), 0);
        assert!(!verifier.is_closed());
        assert_eq!(verifier.read(&[0x88, 2, 3, 0xe8]), 0);
        assert!(verifier.is_closed());
        assert_eq!(verifier.finish(0), Faults::default());
    }

    #[test]
    fn a_cut_frame_at_the_end_is_a_loss() {
        let mut verifier = Verifier::starting_at(0);
        let bytes = frame(0, 100);
        assert_eq!(verifier.read(&bytes[..50]), 0);
        assert_eq!(verifier.finish(1).lost, 1);
    }
}
