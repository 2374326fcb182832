//! Websocket frames from client to server (RFC 6455 §5): an incremental decoder that asks for no more than it is given.
//!
//! [`Decoder::decode`] takes what has arrived, in pieces of any size, and gives back one message at a time. At rest, which is
//! between two messages, it holds nothing ([`Decoder::is_at_rest`]) and can be thrown away and made anew.

use bytes::Bytes;

use crate::server::delivery::deflate::{self, Broken};
use crate::server::delivery::frame::{COMPRESSED, CONTROL_PAYLOAD, Opcode};

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A whole message, text or binary; text is valid UTF-8.
    Message(Opcode, Bytes),
    /// A ping, to be answered with its payload.
    Ping(Bytes),
    /// A pong, to be ignored.
    Pong,
    /// The client closes, with a code unless it gave none.
    Close(Option<u16>),
}

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The largest message, bytes.
    pub bound: usize,
    /// Whether messages may be compressed.
    pub deflate: bool,
}

/// A client that does not keep to the protocol: the code and the reason of the close frame that tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// 1002, 1007 or 1009.
    pub code: u16,
    /// In words.
    pub reason: &'static str,
}

const fn protocol(reason: &'static str) -> Violation {
    Violation { code: 1002, reason }
}

const NOT_UTF8: Violation = Violation { code: 1007, reason: "text is not UTF-8" };
const TOO_BIG: Violation = Violation { code: 1009, reason: "message is too big" };

const NOT_DEFLATED: Violation = Violation { code: 1007, reason: "compressed data is broken" };

/// The longest head of a client's frame: two bytes, eight of length, four of mask.
const HEAD: usize = 14;

/// Decodes the frames of one client.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has come of a frame's head.
    head: [u8; HEAD],
    head_length: u8,
    /// The frame whose payload is coming.
    frame: Option<Frame>,
    /// The fragmented message that is coming, whether it is compressed, and what has come of it.
    message: Option<Opcode>,
    compressed: bool,
    payload: Vec<u8>,
    /// So much of a text's payload is known to be UTF-8.
    valid: usize,
    /// What has come of a control frame's payload: it may stand between fragments.
    control: Vec<u8>,
}

/// A frame's head.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    last: bool,
    compressed: bool,
    mask: [u8; 4],
    /// How much of the payload has come, and how much is to come: the mask turns with the first.
    come: usize,
    missing: usize,
}

impl Decoder {
    /// Nothing has come of a next message.
    pub fn is_at_rest(&self) -> bool {
        self.head_length == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Takes from `input` up to the end of one message; returns how much it took and what it found. It is to be called again
    /// with what is left. `input` is overwritten. `bound` is the largest message allowed.
    pub fn decode(&mut self, input: &mut [u8], bound: usize) -> Result<(usize, Option<Received>), Violation> {
        self.decode_by(input, Rules { bound, deflate: false })
    }

    /// The same by more rules than a bound.
    pub fn decode_by(&mut self, input: &mut [u8], rules: Rules) -> Result<(usize, Option<Received>), Violation> {
        let mut taken = 0;
        loop {
            let Some(frame) = self.frame else {
                let Some(used) = self.take_head(&input[taken..], rules)? else {
                    return Ok((input.len(), None));
                };
                taken += used;
                continue;
            };
            let here = frame.missing.min(input.len() - taken);
            let part = &mut input[taken..taken + here];
            unmask(part, frame.mask, frame.come);
            taken += here;
            if here == frame.missing {
                self.frame = None;
                if let Some(received) = self.end_frame(frame, part, rules.bound)? {
                    return Ok((taken, Some(received)));
                }
            } else {
                self.frame = Some(Frame { come: frame.come + here, missing: frame.missing - here, ..frame });
                self.keep(frame.opcode, part)?;
                return Ok((taken, None));
            }
        }
    }

    /// Takes a head; `None` if it is not complete yet. Returns how much it took.
    fn take_head(&mut self, input: &[u8], rules: Rules) -> Result<Option<usize>, Violation> {
        let before = usize::from(self.head_length);
        let copied = input.len().min(HEAD - before);
        self.head[before..before + copied].copy_from_slice(&input[..copied]);
        let have = before + copied;
        let parsed = parse_head(&self.head[..have], rules.deflate)?;
        if parsed.is_none() {
            self.head_length = have as u8;
        }
        let Some((frame, length)) = parsed else {
            return Ok(None);
        };
        self.head_length = 0;
        match (frame.opcode, self.message) {
            (Opcode::Continuation, None) => return Err(protocol("continuation of nothing")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(protocol("message within a fragmented message"));
            }
            _ => {}
        }
        if !frame.opcode.is_control() && frame.missing > rules.bound.saturating_sub(self.payload.len()) {
            return Err(TOO_BIG);
        }
        if matches!(frame.opcode, Opcode::Text | Opcode::Binary) {
            self.message = Some(frame.opcode);
            self.compressed = frame.compressed;
        }
        self.frame = Some(frame);
        // A head that was incomplete before is complete with at least one byte of this input.
        Ok(Some(length.saturating_sub(before)))
    }

    /// Keeps a part of a payload until the rest comes. Room is made for what has come, not for what was announced.
    fn keep(&mut self, opcode: Opcode, part: &[u8]) -> Result<(), Violation> {
        if opcode.is_control() {
            self.control.extend_from_slice(part);
            return Ok(());
        }
        self.payload.extend_from_slice(part);
        if self.message == Some(Opcode::Text) && !self.compressed {
            self.valid += complete_characters(&self.payload[self.valid..])?;
        }
        Ok(())
    }

    /// Ends a frame with the last part of its payload.
    fn end_frame(&mut self, frame: Frame, part: &[u8], bound: usize) -> Result<Option<Received>, Violation> {
        if frame.opcode.is_control() {
            self.control.extend_from_slice(part);
            let payload = std::mem::take(&mut self.control);
            return control(frame.opcode, payload).map(Some);
        }
        let Some(opcode) = self.message else {
            return Err(protocol("continuation of nothing"));
        };
        if !frame.last {
            self.keep(frame.opcode, part)?;
            return Ok(None);
        }
        self.message = None;
        let payload = if self.payload.is_empty() {
            Bytes::copy_from_slice(part)
        } else {
            self.payload.extend_from_slice(part);
            Bytes::from(std::mem::take(&mut self.payload))
        };
        let valid = std::mem::take(&mut self.valid);
        let payload = if std::mem::take(&mut self.compressed) { inflated(&payload, bound)? } else { payload };
        if opcode == Opcode::Text && simdutf8::basic::from_utf8(&payload[valid..]).is_err() {
            return Err(NOT_UTF8);
        }
        Ok(Some(Received::Message(opcode, payload)))
    }
}

/// Parses a head and tells its length; `None` if it is not complete. What is wrong is said as soon as it can be seen.
fn parse_head(head: &[u8], deflate: bool) -> Result<Option<(Frame, usize)>, Violation> {
    let Some(&first) = head.first() else {
        return Ok(None);
    };
    let compressed = deflate && first & COMPRESSED != 0;
    if first & 0x70 != if compressed { COMPRESSED } else { 0 } {
        return Err(protocol("reserved bits are set"));
    }
    let last = first & 0x80 != 0;
    let Some(opcode) = Opcode::of(first & 0x0F) else {
        return Err(protocol("reserved opcode"));
    };
    if opcode.is_control() && !last {
        return Err(protocol("fragmented control frame"));
    }
    if compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(protocol("compression begins within a message"));
    }
    let Some(&second) = head.get(1) else {
        return Ok(None);
    };
    if second & 0x80 == 0 {
        return Err(protocol("frame is not masked"));
    }
    let short = second & 0x7F;
    if opcode.is_control() && usize::from(short) > CONTROL_PAYLOAD {
        return Err(protocol("control frame is too long"));
    }
    let (length, rest) = match short {
        126 => match head[2..].split_first_chunk() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match head[2..].split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        short => (u64::from(short), &head[2..]),
    };
    if length >> 63 != 0 {
        return Err(protocol("length is out of range"));
    }
    let Some((mask, rest)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let missing = usize::try_from(length).map_err(|_| TOO_BIG)?;
    Ok(Some((Frame { opcode, last, compressed, mask: *mask, come: 0, missing }, head.len() - rest.len())))
}

/// A whole control frame.
fn control(opcode: Opcode, payload: Vec<u8>) -> Result<Received, Violation> {
    match opcode {
        Opcode::Ping => Ok(Received::Ping(Bytes::from(payload))),
        Opcode::Close => close(&payload).map(Received::Close),
        Opcode::Pong | Opcode::Continuation | Opcode::Text | Opcode::Binary => Ok(Received::Pong),
    }
}

/// The code of a close frame's payload (RFC 6455 §7.4).
fn close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(protocol("close code of one byte")) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(protocol("close code may not be sent"));
    }
    match simdutf8::basic::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(NOT_UTF8),
    }
}

/// How long the valid beginning of a text is, of which only the last character may be incomplete.
fn complete_characters(text: &[u8]) -> Result<usize, Violation> {
    match simdutf8::compat::from_utf8(text) {
        Ok(_) => Ok(text.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(NOT_UTF8),
    }
}

/// A compressed message, as the client meant it.
fn inflated(payload: &[u8], bound: usize) -> Result<Bytes, Violation> {
    match deflate::inflate(payload, bound) {
        Ok(payload) => Ok(payload),
        Err(Broken::TooLong) => Err(TOO_BIG),
        Err(Broken::Invalid) => Err(NOT_DEFLATED),
    }
}

/// Takes the mask off a part of a payload that begins `come` bytes into it. Eight bytes at a time, which the compiler turns
/// into vectors.
fn unmask(part: &mut [u8], mut mask: [u8; 4], come: usize) {
    mask.rotate_left(come % 4);
    let twice = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (words, rest) = part.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ twice).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// For the fuzzer: any bytes, cut in any way, must be judged as they are in one piece. The first byte says how they are cut.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let judge = |stream: &[u8], size: usize| {
        let (mut decoder, mut all) = (Decoder::default(), Vec::new());
        let mut stream = stream.to_vec();
        for mut piece in stream.chunks_mut(size) {
            while !piece.is_empty() {
                match decoder.decode(piece, 1000) {
                    Ok((taken, received)) => {
                        all.extend(received);
                        piece = &mut piece[taken..];
                    }
                    Err(violation) => return (all, Some(violation)),
                }
            }
        }
        (all, None)
    };
    if let Some((size, stream)) = data.split_first() {
        let size = usize::from(*size).max(1);
        assert_eq!(judge(stream, size), judge(stream, stream.len().max(1)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUND: usize = 1000;

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x12, 0x34, 0x56, 0x78];
        let mut frame = vec![first];
        match payload.len() {
            short @ ..126 => frame.push(0x80 | short as u8),
            medium @ ..0x1_0000 => {
                frame.push(0x80 | 126);
                frame.extend((medium as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// Feeds the pieces; tells what was received and what ended it.
    fn decode(pieces: &[&[u8]]) -> (Vec<Received>, Result<bool, u16>) {
        let (mut decoder, mut all) = (Decoder::default(), Vec::new());
        for piece in pieces {
            let mut piece = piece.to_vec();
            let mut rest = piece.as_mut_slice();
            while !rest.is_empty() {
                match decoder.decode(rest, BOUND) {
                    Ok((taken, received)) => {
                        all.extend(received);
                        rest = &mut rest[taken..];
                    }
                    Err(violation) => return (all, Err(violation.code)),
                }
            }
        }
        (all, Ok(decoder.is_at_rest()))
    }

    /// What a stream means is the same however it is cut: whole, into single bytes, and at each position into two.
    fn check(stream: &[u8], received: &[Received], end: Result<bool, u16>) {
        let expected = (received.to_vec(), end);
        assert_eq!(decode(&[stream]), expected, "whole");
        assert_eq!(decode(&stream.chunks(1).collect::<Vec<_>>()), expected, "byte by byte");
        for at in 0..stream.len() {
            assert_eq!(decode(&[&stream[..at], &stream[at..]]), expected, "cut at {at}");
        }
    }

    fn text(text: &str) -> Received {
        Received::Message(Opcode::Text, Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn whole_messages() {
        check(&frame(0x81, b""), &[text("")], Ok(true));
        check(&frame(0x81, "häé€😀".as_bytes()), &[text("häé€😀")], Ok(true));
        let long = "x".repeat(500);
        check(&frame(0x81, long.as_bytes()), &[text(&long)], Ok(true));
        check(
            &frame(0x82, b"\xFF\x00"),
            &[Received::Message(Opcode::Binary, Bytes::from_static(b"\xFF\x00"))],
            Ok(true),
        );
        check(&[frame(0x81, b"a"), frame(0x81, b"b")].concat(), &[text("a"), text("b")], Ok(true));
    }

    #[test]
    fn fragments_with_control_frames_between() {
        let euro = "€".as_bytes();
        let stream = [
            frame(0x01, &euro[..1]),
            frame(0x89, b"!"),
            frame(0x00, &euro[1..2]),
            frame(0x8A, b""),
            frame(0x80, &euro[2..]),
        ]
        .concat();
        check(&stream, &[Received::Ping(Bytes::from("!")), Received::Pong, text("€")], Ok(true));
        check(&frame(0x01, b"begun"), &[], Ok(false));
        check(&[frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")].concat(), &[text("")], Ok(true));
    }

    #[test]
    fn violations_are_protocol_errors() {
        check(&[0x81, 0x01, b'x'], &[], Err(1002));
        for first in [0xC1, 0xA1, 0x91, 0x83, 0x87, 0x8B, 0x8F, 0x08, 0x09, 0x0A] {
            check(&frame(first, b""), &[], Err(1002));
        }
        check(&frame(0x80, b"x"), &[], Err(1002));
        check(&[frame(0x01, b"a"), frame(0x81, b"b")].concat(), &[], Err(1002));
        check(&[0x89, 0x80 | 126, 0, 126, 0, 0, 0, 0], &[], Err(1002));
        check(&[0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], Err(1002));
        check(&[frame(0x81, b"before"), frame(0x83, b"")].concat(), &[text("before")], Err(1002));
    }

    #[test]
    fn text_must_be_utf8() {
        check(&frame(0x81, b"\xC3\x28"), &[], Err(1007));
        check(&frame(0x81, b"\xE2\x82"), &[], Err(1007));
        check(&frame(0x81, b"\xED\xA0\x80"), &[], Err(1007));
        check(&frame(0x01, b"ab\xFF"), &[], Err(1007));
        check(&[frame(0x01, b"\xE2"), frame(0x80, b"\x28")].concat(), &[], Err(1007));
    }

    #[test]
    fn size_is_bounded_before_anything_is_kept() {
        check(&[0x82, 0x80 | 127, 0, 0, 0, 0, 0x7F, 0, 0, 0, 1, 2, 3, 4], &[], Err(1009));
        check(&frame(0x82, &[0; BOUND + 1]), &[], Err(1009));
        check(&[frame(0x02, &[0; BOUND]), frame(0x80, b"x")].concat(), &[], Err(1009));
    }

    #[test]
    fn closing() {
        check(&frame(0x88, b""), &[Received::Close(None)], Ok(true));
        check(&frame(0x88, b"\x03\xE8bye"), &[Received::Close(Some(1000))], Ok(true));
        check(&frame(0x88, b"\x0B\xB8"), &[Received::Close(Some(3000))], Ok(true));
        check(&frame(0x88, b"\x03"), &[], Err(1002));
        for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
            check(&frame(0x88, &code.to_be_bytes()), &[], Err(1002));
        }
        check(&frame(0x88, b"\x03\xE8\xFF"), &[], Err(1007));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_alike_however_they_are_cut(
            stream in proptest::collection::vec(any::<u8>(), 0..64),
            cuts in proptest::collection::vec(0usize..64, 0..6),
        ) {
            prop_assert_eq!(decode(&[&stream]), decode(&cut(&stream, cuts)));
        }

        #[test]
        fn what_looks_like_frames_is_judged_alike_too(
            stream in proptest::collection::vec(
                prop_oneof![
                    proptest::sample::select(&[0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0xFE, 0xFF, 0xE2][..]),
                    0x80u8..0x88,
                    Just(0),
                    any::<u8>(),
                ],
                0..80,
            ),
        ) {
            fuzz(&stream);
        }

        #[test]
        fn messages_come_out_as_they_went_in(
            messages in proptest::collection::vec(("\\PC{0,300}", 1usize..5), 1..6),
            cuts in proptest::collection::vec(0usize..4000, 0..9),
        ) {
            let mut stream = Vec::new();
            for (message, fragments) in &messages {
                let size = message.len().div_ceil(*fragments).max(1);
                let parts: Vec<_> = if message.is_empty() { vec![&b""[..]] } else { message.as_bytes().chunks(size).collect() };
                for (at, part) in parts.iter().enumerate() {
                    let last = if at + 1 == parts.len() { 0x80 } else { 0 };
                    stream.extend(frame(last | u8::from(at == 0), part));
                }
            }
            let sent: Vec<_> = messages.iter().map(|(message, _)| text(message)).collect();
            if messages.iter().all(|(message, _)| message.len() <= BOUND) {
                prop_assert_eq!(decode(&cut(&stream, cuts)), (sent, Ok(true)));
            }
        }
    }

    fn cut(stream: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
        cuts.iter_mut().for_each(|at| *at = (*at).min(stream.len()));
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
    }
}
