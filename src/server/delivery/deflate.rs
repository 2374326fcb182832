//! `permessage-deflate` (RFC 7692) without memory for any connection: each message is compressed for itself, once for all
//! who get it, and each one that a client sends is taken apart for itself.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a compressed message ends with, and what is left out when it is sent (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// How much room is made at a time.
const STEP: usize = 4096;

/// What nginx calls a level. Its first is made by zlib-rs's second: the first one there is faster than anything that zlib
/// has, and compresses short texts hardly at all.
pub fn level(nginx: u8) -> Compression {
    Compression::new(u32::from(nginx.max(2)))
}

/// Appends what comes of some bytes. A stream is not used again after its end.
pub fn run(deflater: &mut Compress, input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
    let begin = deflater.total_in();
    loop {
        // zlib wants room for its marks after a flush, or it begins them anew.
        out.reserve((input.len() / 2).max(256));
        let used = usize::try_from(deflater.total_in() - begin).unwrap_or(input.len());
        let status = deflater.compress_vec(&input[used..], out, flush);
        let is_used = deflater.total_in() - begin == input.len() as u64;
        match status {
            // An error is a call out of turn, which does not happen.
            Ok(Status::StreamEnd) | Err(_) => return,
            Ok(Status::Ok | Status::BufError) if is_used && out.len() < out.capacity() => return,
            Ok(Status::Ok | Status::BufError) => {}
        }
    }
}

/// Why something cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is no deflated data.
    Invalid,
    /// It is longer than allowed.
    TooLong,
}

thread_local! {
    // A worker's, for all its connections: both are put back to their beginning before each use.
    static DEFLATER: RefCell<Compress> = RefCell::new(Compress::new(level(1), false));
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// A message, compressed; `None` if that makes it no shorter.
pub fn deflate(message: &[u8]) -> Option<Bytes> {
    DEFLATER.with_borrow_mut(|deflater| {
        deflater.reset();
        let mut out = Vec::with_capacity(message.len() + 16);
        // With as much room as the message takes it is either done, or not worth it.
        deflater.compress_vec(message, &mut out, FlushCompress::Sync).ok()?;
        let is_whole = deflater.total_in() == message.len() as u64 && out.ends_with(&TAIL);
        out.truncate(out.len().saturating_sub(TAIL.len()));
        (is_whole && out.len() < message.len()).then(|| Bytes::from(out))
    })
}

/// A compressed message as it was, if it is no longer than `bound`.
pub fn inflate(compressed: &[u8], bound: usize) -> Result<Bytes, Broken> {
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        let mut out = Vec::new();
        for part in [compressed, &TAIL] {
            let end = inflater.total_in() + part.len() as u64;
            let begin = inflater.total_in();
            loop {
                out.reserve(STEP);
                let rest = &part[usize::try_from(inflater.total_in() - begin).unwrap_or(part.len())..];
                let status = inflater.decompress_vec(rest, &mut out, FlushDecompress::Sync);
                if out.len() > bound {
                    return Err(Broken::TooLong);
                }
                match status {
                    // A client may end its stream; what follows would be another one, which nobody sends.
                    Ok(Status::StreamEnd) => return Ok(out.into()),
                    Ok(Status::Ok | Status::BufError) if out.len() < out.capacity() => {
                        if inflater.total_in() < end {
                            return Err(Broken::Invalid);
                        }
                        break;
                    }
                    Ok(Status::Ok | Status::BufError) => {}
                    Err(_) => return Err(Broken::Invalid),
                }
            }
        }
        Ok(out.into())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 7692 §7.2.3.1, and §7.2.3.4: the same with a final block.
        assert_eq!(inflate(&[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00], 100).unwrap(), "Hello");
        assert_eq!(inflate(&[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00], 100).unwrap(), "Hello");
        // §7.2.3.3: two blocks, the first not compressed.
        let stored = [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00];
        assert_eq!(inflate(&stored, 100).unwrap(), "Hello");
        assert_eq!(inflate(&[0], 100).unwrap(), "");
    }

    #[test]
    fn bombs_and_noise_are_refused() {
        let bomb = deflate(&vec![b'x'; 1 << 20]).unwrap();
        assert!(bomb.len() < 10_000);
        assert_eq!(inflate(&bomb, 1 << 19), Err(Broken::TooLong));
        assert_eq!(inflate(&bomb, 1 << 20).unwrap().len(), 1 << 20);
        assert_eq!(inflate(&[0xFF; 8], 100), Err(Broken::Invalid));
        assert_eq!(deflate(b"short"), None);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(text in "[a-c]{0,3000}") {
            if let Some(compressed) = deflate(text.as_bytes()) {
                prop_assert!(compressed.len() < text.len());
                prop_assert_eq!(inflate(&compressed, text.len()).unwrap(), text.as_bytes());
            }
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let inflated = inflate(&noise, 1000);
            prop_assert!(inflated.is_err() || inflated.unwrap().len() <= 1000);
        }
    }
}
