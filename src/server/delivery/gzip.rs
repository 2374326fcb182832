//! gzip streams without memory for any connection: each message is compressed for itself, once for all who get it, into
//! blocks that stand by themselves. A subscriber keeps eight bytes, the checksum and the length of all that it got, which a
//! gzip stream ends with.
//!
//! A message's frame carries behind it what it adds to those ([`Addition`]), which is taken off before it is sent.

use std::cell::RefCell;
use std::io::Write;

use bytes::{Buf, BufMut, Bytes};
use flate2::{Compress, Crc, FlushCompress};

use super::deflate;

/// What a stream begins with (RFC 1952 §2.3): deflate, no name, no time, a Unix.
const HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3];

/// An empty block that is the last one.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// The polynomial of the checksum, its lowest power in the highest bit.
const POLYNOMIAL: u32 = 0xEDB8_8320;

/// 1, and the eighth power of x, in the same form.
const ONE: u32 = 1 << 31;
const X_8: u32 = 1 << 23;

/// The checksum and length of what a subscriber got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    crc: u32,
    length: u32,
}

impl Sum {
    pub(super) fn add(&mut self, next: &Addition) {
        self.crc = times(next.shift, self.crc) ^ next.sum.crc;
        self.length = self.length.wrapping_add(next.sum.length);
    }
}

/// What some text adds to a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addition {
    sum: Sum,
    /// What a checksum is multiplied by when the text follows.
    shift: u32,
}

/// The bytes that an addition takes behind a frame.
const STAMP: usize = 12;

impl Addition {
    pub(super) const NOTHING: Self = Self { sum: Sum { crc: 0, length: 0 }, shift: ONE };

    fn of(text: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(text);
        let (mut shift, mut power, mut left) = (ONE, X_8, text.len());
        while left > 0 {
            if left & 1 == 1 {
                shift = times(shift, power);
            }
            power = times(power, power);
            left >>= 1;
        }
        // The stream's end has the length modulo 2^32.
        Self { sum: Sum { crc: crc.sum(), length: text.len() as u32 }, shift }
    }

    /// This one, and then another.
    pub(super) fn then(mut self, next: &Self) -> Self {
        self.sum.add(next);
        Self { shift: times(self.shift, next.shift), ..self }
    }
}

/// The product of two polynomials over the one of the checksum.
fn times(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for bit in (0..32).rev() {
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        b = (b >> 1) ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    product
}

thread_local! {
    /// A worker's, by level; each is put back to its beginning before each use.
    static DEFLATERS: RefCell<[Option<Compress>; 10]> = const { RefCell::new([const { None }; 10]) };
}

/// Some text as a part of a stream, as a chunk of HTTP/1.1 or bare, with what it adds behind it. The level is nginx's.
pub fn frame(text: &[u8], level: u8, is_chunked: bool) -> Bytes {
    let mut blocks = Vec::with_capacity(text.len() / 2 + 64);
    DEFLATERS.with_borrow_mut(|deflaters| {
        let deflater =
            deflaters[usize::from(level.min(9))].get_or_insert_with(|| Compress::new(deflate::level(level), false));
        deflater.reset();
        deflate::run(deflater, text, FlushCompress::Sync, &mut blocks);
    });
    let mut out = chunk(&blocks, is_chunked, STAMP);
    let Addition { sum, shift } = Addition::of(text);
    [sum.crc, sum.length, shift].into_iter().for_each(|number| out.put_u32(number));
    out.into()
}

/// A frame, and what it adds. An empty one has nothing behind it.
pub(super) fn open(mut frame: Bytes) -> (Bytes, Addition) {
    if frame.len() < STAMP {
        return (frame, Addition::NOTHING);
    }
    let mut stamp = frame.split_off(frame.len() - STAMP);
    let sum = Sum { crc: stamp.get_u32(), length: stamp.get_u32() };
    (frame, Addition { sum, shift: stamp.get_u32() })
}

/// The beginning of a stream.
pub fn begin(is_chunked: bool) -> Bytes {
    chunk(&HEADER, is_chunked, 0).into()
}

/// The end of a stream, and of the answer.
pub(super) fn end(sum: Sum, ending: &[u8]) -> Bytes {
    let mut last = LAST_BLOCK.to_vec();
    last.put_u32_le(sum.crc);
    last.put_u32_le(sum.length);
    let mut out = chunk(&last, !ending.is_empty(), ending.len());
    out.extend_from_slice(ending);
    out.into()
}

fn chunk(bytes: &[u8], is_chunked: bool, more: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 12 + more);
    if is_chunked {
        // Writing to memory does not fail.
        write!(out, "{:x}\r\n", bytes.len()).unwrap_or_default();
    }
    out.extend_from_slice(bytes);
    if is_chunked {
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_are_a_stream(
            texts in proptest::collection::vec("[a-c]{0,300}|[a-z]{0,3000}", 0..6),
            together in 0usize..6,
            level in 1u8..10,
        ) {
            let opened = texts.iter().map(|text| open(frame(text.as_bytes(), level, false)));
            let (frames, additions): (Vec<_>, Vec<_>) = opened.unzip();
            let mut sum = Sum::default();
            let (first, last) = additions.split_at(together.min(additions.len()));
            sum.add(&first.iter().fold(Addition::NOTHING, |all, next| all.then(next)));
            last.iter().for_each(|addition| sum.add(addition));
            let stream = [&begin(false)[..], &frames.concat(), &end(sum, b"")].concat();
            let mut plain = String::new();
            GzDecoder::new(&stream[..]).read_to_string(&mut plain).unwrap();
            prop_assert_eq!(plain, texts.concat());
        }
    }

    #[test]
    fn chunks() {
        assert_eq!(begin(true)[..3], *b"a\r\n");
        assert_eq!(end(Sum::default(), b"0\r\n\r\n"), &b"a\r\n\x03\0\0\0\0\0\0\0\0\0\r\n0\r\n\r\n"[..]);
        assert_eq!(open(Bytes::new()), (Bytes::new(), Addition::NOTHING));
    }
}
