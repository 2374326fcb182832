//! What a subscriber's socket did not take: shared parts, each the whole or the rest of one frame.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Result};

use bytes::{Buf, Bytes};

use crate::server::delivery::socket::Socket;
use crate::server::delivery::timers::Tick;

/// As many parts as one system call takes.
const PARTS: usize = 64;

/// Frames waiting for a socket.
#[derive(Debug)]
pub(super) struct Queue {
    parts: VecDeque<Bytes>,
    bytes: usize,
    /// So much was there at once, which is no sign of a slow client, however much it is.
    granted: usize,
    /// Part of the first frame is already on its way, so that the rest has to follow.
    begun: bool,
    /// When the socket last took something.
    pub(super) since: Tick,
}

impl Queue {
    pub(super) fn new(since: Tick) -> Self {
        Self { parts: VecDeque::new(), bytes: 0, granted: 0, begun: false, since }
    }

    /// The rest of `frames` after the first `written` bytes.
    pub(super) fn rest(frames: &[Bytes], written: usize, since: Tick) -> Self {
        let mut queue = Self::new(since);
        frames.iter().for_each(|frame| queue.push(frame.clone()));
        queue.advance(written);
        queue.granted = queue.bytes;
        queue
    }

    /// There is room for so many bytes more under the bound.
    pub(super) fn has_room(&self, more: usize, bound: usize) -> bool {
        self.bytes + more <= self.granted.saturating_add(bound)
    }

    pub(super) fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.bytes += frame.len();
            self.parts.push_back(frame);
        }
    }

    /// Puts something in front of all; nothing of the rest may be on its way yet.
    pub(super) fn push_front(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.bytes += frame.len();
            self.granted += frame.len();
            self.parts.push_front(frame);
        }
    }

    /// All that waits.
    pub(super) fn into_parts(self) -> Vec<Bytes> {
        self.parts.into()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Drops all but the rest of a frame that is half sent; returns how many frames went.
    pub(super) fn cut(&mut self) -> usize {
        let keep = usize::from(self.begun).min(self.parts.len());
        let dropped = self.parts.len() - keep;
        self.parts.truncate(keep);
        self.bytes = self.parts.iter().map(Bytes::len).sum();
        dropped
    }

    /// How many frames wait.
    pub(super) fn frames(&self) -> usize {
        self.parts.len()
    }

    /// Writes what the socket takes: true once it took all.
    pub(super) fn flush(&mut self, socket: &mut Socket, now: Tick) -> Result<bool> {
        while !self.parts.is_empty() {
            let mut slices = [IoSlice::new(&[]); PARTS];
            let count = self.parts.len().min(PARTS);
            slices.iter_mut().zip(&self.parts).for_each(|(slice, part)| *slice = IoSlice::new(part));
            let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            let written = match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.since = now;
            self.advance(written);
            if written < offered {
                return Ok(false);
            }
        }
        // What is encrypted and waits belongs to what was taken, and keeps the queue although it may be empty.
        match socket.flush() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written.min(self.bytes);
        while let Some(first) = self.parts.front_mut() {
            if written < first.len() {
                first.advance(written);
                self.begun |= written > 0;
                return;
            }
            written -= first.len();
            self.begun = false;
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of three frames after so many bytes, and after cutting.
    fn check(written: usize, left: &str, cut: &str) {
        let frames = ["abc", "de", "f"].map(Bytes::from);
        let mut queue = Queue::rest(&frames, written, 0);
        let text = |queue: &Queue| {
            String::from_utf8_lossy(&queue.parts.iter().flatten().copied().collect::<Vec<_>>()).into_owned()
        };
        assert_eq!((text(&queue).as_str(), queue.bytes), (left, left.len()));
        queue.cut();
        assert_eq!((text(&queue).as_str(), queue.bytes), (cut, cut.len()));
    }

    #[test]
    fn cutting_keeps_frames_whole() {
        check(0, "abcdef", "");
        check(1, "bcdef", "bc");
        check(3, "def", "");
        check(4, "ef", "e");
        check(6, "", "");
    }
}
