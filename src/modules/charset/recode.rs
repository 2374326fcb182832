//! Writing a body in another charset.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;

use super::map::Map;
use crate::http::{Body, BodyStream, Response};

/// Makes an answer's body one in another charset.
pub(super) fn body(response: &mut Response, map: &Map) {
    let mut recoder = Recoder { map: map.clone(), begun: Vec::new() };
    let keeps_length = matches!(map, Map::Bytes(_));
    let length = response.length();
    response.body = match std::mem::take(&mut response.body) {
        Body::Full(bytes) => {
            let mut out = Vec::with_capacity(bytes.len());
            recoder.write(&bytes, &mut out);
            recoder.end(&mut out);
            Body::Full(out.into())
        }
        body @ (Body::Empty | Body::Tunnel(_) | Body::Takeover(_)) => body,
        source => {
            // What is made while it is sent comes once.
            response.one_range = true;
            response.content_length = length.filter(|_| keeps_length);
            Body::Stream(Box::new(Recoding { source, recoder, ended: false }))
        }
    };
    if !keeps_length {
        // nginx sends no length here either: it recodes after the head.
        response.hides_length = true;
        response.ranges = false;
    }
}

/// A map at work on one body.
struct Recoder {
    map: Map,
    /// The first bytes of a character of which more is to come.
    begun: Vec<u8>,
}

impl Recoder {
    fn write(&mut self, input: &[u8], out: &mut Vec<u8>) {
        match &self.map {
            Map::Bytes(table) => out.extend(input.iter().map(|byte| table[usize::from(*byte)])),
            Map::ToUtf8(table) => {
                for byte in input {
                    out.extend_from_slice(&table[usize::from(*byte)]);
                }
            }
            Map::FromUtf8(_) => {
                self.begun.extend_from_slice(input);
                let text = std::mem::take(&mut self.begun);
                let mut chunks = text.utf8_chunks().peekable();
                while let Some(chunk) = chunks.next() {
                    self.characters(chunk.valid(), out);
                    match chunk.invalid() {
                        [] => {}
                        begun if chunks.peek().is_none() && is_begun(begun) => self.begun = begun.to_vec(),
                        _ => out.push(b'?'),
                    }
                }
            }
        }
    }

    /// What is left at the end is no character.
    fn end(&mut self, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.begun).is_empty() {
            out.push(b'?');
        }
    }

    fn characters(&self, text: &str, out: &mut Vec<u8>) {
        let Map::FromUtf8(table) = &self.map else { return };
        for character in text.chars() {
            match table.get(&character) {
                _ if character.is_ascii() => out.push(character as u8),
                Some(byte) => out.push(*byte),
                None => out.extend_from_slice(format!("&#{};", u32::from(character)).as_bytes()),
            }
        }
    }
}

/// Whether bytes may be the beginning of a character.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// A body that is recoded while it is sent.
struct Recoding {
    source: Body,
    recoder: Recoder,
    ended: bool,
}

impl BodyStream for Recoding {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + '_>> {
        Box::pin(async {
            loop {
                if self.ended {
                    return None;
                }
                let mut out = Vec::new();
                match self.source.next().await {
                    Some(Err(error)) => return Some(Err(error)),
                    Some(Ok(input)) => self.recoder.write(&input, &mut out),
                    None => {
                        self.ended = true;
                        self.recoder.end(&mut out);
                    }
                }
                if !out.is_empty() {
                    return Some(Ok(out.into()));
                }
            }
        })
    }

    fn flushes(&self) -> bool {
        self.source.flushes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn check(map: Map, input: &[&[u8]], expected: &[u8]) {
        let mut recoder = Recoder { map, begun: Vec::new() };
        let mut out = Vec::new();
        for piece in input {
            recoder.write(piece, &mut out);
        }
        recoder.end(&mut out);
        assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    fn from_utf8() -> Map {
        Map::FromUtf8(Arc::new([('ю', 0xc0)].into()))
    }

    #[test]
    fn from_characters() {
        check(from_utf8(), &["aюb".as_bytes()], b"a\xc0b");
        check(from_utf8(), &[b"\xd1", b"\x8e"], b"\xc0");
        check(from_utf8(), &["я".as_bytes()], "&#1103;".as_bytes());
        check(from_utf8(), &[b"a\xffb\xd1"], b"a?b?");
        check(from_utf8(), &[b"\xd1a"], b"?a");
    }

    #[test]
    fn to_characters() {
        let mut table: Vec<_> = (0..=255).map(|_| smallvec::smallvec![b'?']).collect();
        table[0xc0] = smallvec::SmallVec::from_slice("ю".as_bytes());
        table[usize::from(b'a')] = smallvec::smallvec![b'a'];
        check(Map::ToUtf8(table.into()), &[b"a\xc0\xc1"], "aю?".as_bytes());
    }

    #[test]
    fn byte_for_byte() {
        let mut table = [b'?'; 256];
        table[1] = 2;
        check(Map::Bytes(Arc::new(table)), &[b"\x01\x03"], b"\x02?");
    }
}
