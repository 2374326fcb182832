//! The request on its way to an upstream.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::Plan;
use super::family::{Buffering, Exchange};
use super::stream::Link;
use crate::http::incoming::{Broken, Incoming};
use crate::http::temp_file::{Failed, TempFile};
use crate::http::wire::body::{ChunkStart, LAST_CHUNK};
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
    /// The body of a request that is passed on with its length said before it, and that length: whole, or while it comes
    /// where that is wished. An error is the status to answer with.
    pub async fn receive(
        request: &mut Request,
        exchange: &Exchange,
        buffering: &Buffering,
    ) -> Result<(Self, u64), u16> {
        let comes = !*buffering.request_buffering
            && *exchange.pass_body
            && request.is_main()
            && request.has_unread_body()
            && !request.head.is_chunked();
        if comes {
            let length = request.head.content_length().unwrap_or_default();
            return Ok((Self::Coming(request.incoming_body().await?), length));
        }
        let body = request.receive_body().await?;
        let length = body.length();
        let body = if *exchange.pass_body { body } else { Received::Memory(Bytes::new()) };
        Ok((Self::Whole(body), length))
    }

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

/// What stands around the pieces of a body.
#[derive(Debug)]
pub struct Framing {
    /// The longest piece.
    pub most: usize,
    /// What stands before a piece of this length.
    pub before: fn(usize) -> Bytes,
    /// What stands behind it.
    pub after: fn(usize) -> Bytes,
    /// What ends the body.
    pub last: &'static [u8],
}

impl Framing {
    /// HTTP's chunks.
    pub const CHUNKS: Self = Self {
        most: usize::MAX,
        before: |length| Bytes::copy_from_slice(ChunkStart::new(length as u64).as_bytes()),
        after: |_| Bytes::from_static(b"\r\n"),
        last: LAST_CHUNK,
    };
}

/// What is still to be sent of a request.
pub(super) struct Outgoing {
    /// The head, what stands before data, data, and what stands behind it.
    pieces: [Bytes; 4],
    framing: Option<&'static Framing>,
    /// What was taken from the rest and is too long for one piece.
    data: Bytes,
    rest: Rest,
    waits_for_client: bool,
    /// Whether the last piece is among the pieces.
    is_ended: bool,
    is_done: bool,
}

/// What is not in the pieces yet.
enum Rest {
    Nothing,
    File(Rc<TempFile>, Range<u64>),
    Coming(Rc<RefCell<Incoming>>),
}

/// Why a request can't be sent.
pub(super) enum Failure {
    /// A system call on the connection to the upstream.
    Upstream(&'static str, io::Error),
    /// The file of the body.
    File(Failed),
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
        let (waits_for_client, is_done, framing) = (false, false, plan.framing);
        let mut outgoing =
            Self { pieces: Default::default(), framing, data, rest, waits_for_client, is_done, is_ended: false };
        outgoing.pieces[0] = plan.head.clone();
        outgoing
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
            let is_out = !self.is_ended && self.pieces[1..].iter().all(Bytes::is_empty);
            self.waits_for_client = is_out && self.take(cx)?.is_pending();
            match link.poll_send(cx, &mut self.pieces) {
                Poll::Ready(Ok(())) if self.is_ended => {
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
        if self.data.is_empty() && self.fetch(cx)?.is_pending() {
            return Ok(Poll::Pending);
        }
        let most = self.framing.map_or(usize::MAX, |framing| framing.most);
        let piece = self.data.split_to(self.data.len().min(most));
        // A body without frames ends with its last piece.
        self.is_ended = match self.framing {
            None => matches!(self.rest, Rest::Nothing),
            Some(_) => piece.is_empty(),
        };
        match self.framing {
            Some(framing) if piece.is_empty() => self.pieces[1] = Bytes::from_static(framing.last),
            Some(framing) => {
                self.pieces[1] = (framing.before)(piece.len());
                self.pieces[3] = (framing.after)(piece.len());
            }
            None => {}
        }
        self.pieces[2] = piece;
        Ok(Poll::Ready(()))
    }

    /// Gets more of the body; nothing at its end.
    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
        match &mut self.rest {
            Rest::Nothing => {}
            Rest::File(file, left) => {
                let step = usize::try_from((left.end - left.start).min(FILE_PIECE)).expect("at most FILE_PIECE");
                let mut piece = vec![0; step];
                file.read(&mut piece, left.start).map_err(Failure::File)?;
                left.start += step as u64;
                self.data = piece.into();
                if left.is_empty() {
                    self.rest = Rest::Nothing;
                }
            }
            Rest::Coming(incoming) => {
                let Poll::Ready(next) = incoming.borrow_mut().poll_next(cx) else { return Ok(Poll::Pending) };
                match next.map_err(Failure::Client)? {
                    Some(piece) => self.data = piece,
                    None => self.rest = Rest::Nothing,
                }
            }
        }
        Ok(Poll::Ready(()))
    }
}
