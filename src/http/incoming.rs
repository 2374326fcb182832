//! A client's body that is passed on while it comes.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::connection::Connection;
use super::request::Request;
use super::wire::body::{BodyStep, Chunked, Counted, InvalidChunk};

/// A body of which a part has come.
#[derive(Debug)]
pub struct Incoming {
    connection: Rc<Connection>,
    framing: Framing,
    max: Option<u64>,
    /// How much of it was taken.
    taken: u64,
    /// The same with what frames its chunks.
    read: u64,
    is_done: bool,
}

#[derive(Debug)]
enum Framing {
    Counted(Counted),
    Chunked(Chunked),
    /// What its HTTP/2 stream brings.
    OpenEnded,
}

/// Why a body does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(in crate::http) enum Broken {
    #[error("client prematurely closed connection")]
    Closed,
    #[error("recv() failed ({})", crate::server::sockets::reason(.0))]
    Lost(io::Error),
    #[error(transparent)]
    Chunks(#[from] InvalidChunk),
    #[error("client intended to send too large chunked body: {0}+{1} bytes")]
    TooLong(u64, u64),
}

impl Broken {
    /// What the client is answered.
    pub(in crate::http) fn status(&self) -> u16 {
        match self {
            Self::TooLong(..) => 413,
            Self::Closed | Self::Lost(_) | Self::Chunks(_) => 400,
        }
    }
}

impl Incoming {
    /// The next piece; `None` is the end.
    pub(in crate::http) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        while !self.is_done {
            let step = {
                let input = self.connection.buffered();
                match &mut self.framing {
                    Framing::Counted(counted) => counted.step(&input, 0),
                    Framing::Chunked(chunked) => chunked.step(&input, 0)?,
                    Framing::OpenEnded if input.is_empty() => BodyStep::More,
                    Framing::OpenEnded => BodyStep::Data(0..input.len()),
                }
            };
            match step {
                BodyStep::Data(range) => {
                    self.connection.consume(range.start);
                    let piece = self.connection.take(range.end - range.start);
                    let left = match &self.framing {
                        Framing::Chunked(chunked) => chunked.left(),
                        Framing::Counted(_) | Framing::OpenEnded => 0,
                    };
                    let coming = left.saturating_add(piece.len() as u64);
                    if self.max.is_some_and(|max| max.saturating_sub(self.taken) < coming) {
                        return Poll::Ready(Err(Broken::TooLong(self.taken, coming)));
                    }
                    self.taken += piece.len() as u64;
                    self.read += range.end as u64;
                    return Poll::Ready(Ok(Some(piece)));
                }
                BodyStep::More => {
                    let used = self.connection.buffered().len();
                    self.connection.consume(used);
                    self.read += used as u64;
                    match ready!(self.connection.poll_more(cx)) {
                        Ok(0) if matches!(self.framing, Framing::OpenEnded) => self.is_done = true,
                        Ok(1..) => {}
                        ended => {
                            self.connection.is_lost.set(true);
                            return Poll::Ready(Err(ended.map_or_else(Broken::Lost, |_| Broken::Closed)));
                        }
                    }
                }
                BodyStep::End(end) => {
                    self.connection.consume(end);
                    self.read += end as u64;
                    self.is_done = true;
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Whether all of it has come.
    pub(in crate::http) fn is_done(&self) -> bool {
        self.is_done
    }
}

impl Request {
    /// The body, to be read as it comes. An error is the status to answer with.
    pub async fn incoming_body(&mut self) -> Result<Rc<RefCell<Incoming>>, u16> {
        self.send_continue().await?;
        let framing = match self.head.content_length() {
            Some(length) if !self.head.is_chunked() => Framing::Counted(Counted::new(length)),
            None if self.head.is_open_ended() => Framing::OpenEnded,
            _ => Framing::Chunked(Chunked::default()),
        };
        let (connection, max) = (Rc::clone(&self.connection), self.max_body_size());
        Ok(Rc::new(RefCell::new(Incoming { connection, framing, max, taken: 0, read: 0, is_done: false })))
    }

    /// Notes how much of the body was read. Where that is not all, nothing can follow it on its connection.
    pub(in crate::http) fn came_in(&mut self, incoming: &Incoming) {
        self.body_read = incoming.read;
        match incoming.is_done {
            true => self.body = Some(Bytes::new()),
            false => {
                self.must_close = true;
                self.body_taken = incoming.taken;
            }
        }
    }
}
