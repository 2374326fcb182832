//! The request on its way to an upstream.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::Plan;
use super::stream::Link;
use crate::http::incoming::{Broken, Incoming};
use crate::http::wire::body::ChunkStart;
use crate::http::{Received, Request};

/// The body of a request.
#[derive(Clone, Debug)]
pub enum Payload {
    /// One that is there.
    Whole(Received),
    /// One that is passed on while it comes.
    Coming(Rc<RefCell<Incoming>>),
}

impl Payload {
    /// Whether it is not whole yet.
    pub(super) fn is_coming(&self) -> bool {
        matches!(self, Self::Coming(incoming) if !incoming.borrow().is_done())
    }

    /// Whether it can't be sent to a second server.
    pub(super) fn goes_once(&self) -> bool {
        matches!(self, Self::Coming(_))
    }

    /// Notes on the request what of it was read.
    pub(super) fn settle(&self, request: &mut Request) {
        if let Self::Coming(incoming) = self {
            request.came_in(&incoming.borrow());
        }
    }
}

/// What is still to be sent of a request.
pub(super) struct Outgoing {
    /// The head, the beginning of a chunk, data, and the end of the chunk.
    pieces: [Bytes; 4],
    rest: Rest,
    waits_for_client: bool,
    is_done: bool,
}

/// What is not in the pieces yet.
enum Rest {
    Nothing,
    File(Rc<File>, Range<u64>),
    Coming(Rc<RefCell<Incoming>>),
}

/// Why a request can't be sent.
pub(super) enum Failure {
    /// A system call on the connection to the upstream.
    Upstream(&'static str, io::Error),
    /// The file of the body.
    File(io::Error),
    /// The client.
    Client(Broken),
}

/// How much of a file is sent at once.
const FILE_PIECE: u64 = 64 * 1024;

impl Outgoing {
    pub(super) fn new(plan: &Plan<'_>) -> Self {
        let (data, rest) = match &plan.body {
            Payload::Whole(Received::Memory(body)) => (body.clone(), Rest::Nothing),
            Payload::Whole(Received::File(file, length)) => (Bytes::new(), Rest::File(Rc::clone(file), 0..*length)),
            Payload::Coming(incoming) => (Bytes::new(), Rest::Coming(Rc::clone(incoming))),
        };
        let pieces = [plan.head.clone(), Bytes::new(), data, Bytes::new()];
        Self { pieces, rest, waits_for_client: false, is_done: false }
    }

    /// Whether all is out.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether there is nothing to be sent before the client sends more.
    pub(super) fn waits_for_client(&self) -> bool {
        self.waits_for_client
    }

    /// Sends what can be sent; ready when something was, or all is out.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, link: &mut Link) -> Poll<Result<(), Failure>> {
        let before = link.sent;
        loop {
            self.waits_for_client = self.pieces[1..].iter().all(Bytes::is_empty) && self.take(cx)?.is_pending();
            match link.poll_send(cx, &mut self.pieces) {
                Poll::Ready(Ok(())) if matches!(self.rest, Rest::Nothing) => {
                    self.is_done = true;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(())) if !self.waits_for_client => {}
                Poll::Ready(Ok(())) | Poll::Pending if link.sent > before => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Upstream("writev", error))),
            }
        }
    }

    /// Makes the next piece.
    fn take(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
        match &mut self.rest {
            Rest::Nothing => {}
            Rest::File(file, left) => {
                let step = usize::try_from((left.end - left.start).min(FILE_PIECE)).expect("at most FILE_PIECE");
                let mut piece = vec![0; step];
                file.read_exact_at(&mut piece, left.start).map_err(Failure::File)?;
                left.start += step as u64;
                self.pieces[2] = piece.into();
                if left.is_empty() {
                    self.rest = Rest::Nothing;
                }
            }
            Rest::Coming(incoming) => {
                let mut incoming = incoming.borrow_mut();
                let Poll::Ready(next) = incoming.poll_next(cx) else { return Ok(Poll::Pending) };
                let is_chunked = incoming.is_chunked();
                match next.map_err(Failure::Client)? {
                    Some(piece) => {
                        if is_chunked {
                            self.pieces[1] = Bytes::copy_from_slice(ChunkStart::new(piece.len() as u64).as_bytes());
                            self.pieces[3] = Bytes::from_static(b"\r\n");
                        }
                        self.pieces[2] = piece;
                    }
                    None => {
                        drop(incoming);
                        self.rest = Rest::Nothing;
                        if is_chunked {
                            self.pieces[3] = Bytes::from_static(b"0\r\n\r\n");
                        }
                    }
                }
            }
        }
        Ok(Poll::Ready(()))
    }
}
