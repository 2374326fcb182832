//! Websocket frames from server to client (RFC 6455 §5): never masked, never fragmented, made once and shared.

use bytes::{BufMut, Bytes, BytesMut};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further part of a message.
    Continuation = 0x0,
    /// UTF-8 text.
    Text = 0x1,
    /// Any bytes.
    Binary = 0x2,
    /// The end of the conversation.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode of a number, unless it is reserved.
    pub fn of(number: u8) -> Option<Self> {
        Some(match number {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping and pong: short, unfragmented, allowed between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The longest payload of a control frame.
pub const CONTROL_PAYLOAD: usize = 125;

/// One whole frame.
pub fn encode(opcode: Opcode, payload: &[u8]) -> Bytes {
    put(opcode as u8, payload)
}

/// One whole frame with a payload that `permessage-deflate` has compressed.
pub fn encode_compressed(opcode: Opcode, payload: &[u8]) -> Bytes {
    put(COMPRESSED | opcode as u8, payload)
}

/// The bit of a message's first frame that says that it is compressed (RFC 7692 §6).
pub(super) const COMPRESSED: u8 = 0x40;

fn put(first: u8, payload: &[u8]) -> Bytes {
    const FINAL: u8 = 0x80;
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    frame.put_u8(FINAL | first);
    match payload.len() {
        short @ ..126 => frame.put_u8(short as u8),
        medium @ ..0x1_0000 => {
            frame.put_u8(126);
            frame.put_u16(medium as u16);
        }
        long => {
            frame.put_u8(127);
            frame.put_u64(long as u64);
        }
    }
    frame.put_slice(payload);
    frame.freeze()
}

/// A text message.
pub fn text(payload: &[u8]) -> Bytes {
    encode(Opcode::Text, payload)
}

/// A binary message.
pub fn binary(payload: &[u8]) -> Bytes {
    encode(Opcode::Binary, payload)
}

/// A ping; what is over the 125 bytes of a control frame is cut.
pub fn ping(payload: &[u8]) -> Bytes {
    encode(Opcode::Ping, &payload[..payload.len().min(CONTROL_PAYLOAD)])
}

/// A pong, cut likewise.
pub fn pong(payload: &[u8]) -> Bytes {
    encode(Opcode::Pong, &payload[..payload.len().min(CONTROL_PAYLOAD)])
}

/// A close with a code and a reason, which is cut to fit at the end of a character.
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(CONTROL_PAYLOAD - 2)]);
    encode(Opcode::Close, &payload)
}

/// A close that says nothing, as the original's are.
pub fn close_empty() -> Bytes {
    Bytes::from_static(&[0x88, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(frame: &Bytes, head: &[u8], length: usize) {
        assert_eq!(&frame[..head.len()], head);
        assert_eq!(frame.len(), head.len() + length);
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        check(&text(b""), &[0x81, 0], 0);
        check(&text(&[b'x'; 125]), &[0x81, 125], 125);
        check(&text(&[b'x'; 126]), &[0x81, 126, 0, 126], 126);
        check(&binary(&[b'x'; 0xFFFF]), &[0x82, 126, 0xFF, 0xFF], 0xFFFF);
        check(&binary(&[b'x'; 0x1_0000]), &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 0x1_0000);
    }

    #[test]
    fn control_frames_are_cut_to_what_is_allowed() {
        check(&ping(&[b'x'; 200]), &[0x89, 125], 125);
        check(&pong(b"x"), &[0x8A, 1], 1);
        check(&close(1008, "no"), &[0x88, 4, 0x03, 0xF0], 2);
        check(&close(1008, &"ü".repeat(100)), &[0x88, 124, 0x03, 0xF0], 122);
        check(&close_empty(), &[0x88, 0], 0);
    }
}
