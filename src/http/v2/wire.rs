//! The socket under an HTTP/2 connection: what all streams have to say leaves together.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::Connection;

/// So much is gathered before it is written amid a round.
const GATHERED: usize = 64 * 1024;

/// What the connection's task and its streams share.
#[derive(Debug, Default)]
pub(in crate::http) struct Wire {
    out: RefCell<BytesMut>,
    live: Cell<u64>,
    received: Cell<u64>,
    payload: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Wire {
    /// How many streams are being answered.
    pub(super) fn live(&self) -> u64 {
        self.live.get()
    }

    /// Counts what was of use: heads and bodies.
    pub(super) fn count_payload(&self, length: usize) {
        self.payload.set(self.payload.get() + length as u64);
    }

    /// Whether a client sends next to nothing but frames without content, by nginx's measure.
    pub(super) fn is_flooded(&self) -> bool {
        self.received.get() / 8 > self.payload.get() + 1024 * 1024
    }

    /// Whom to wake when a stream has ended.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Writes what was gathered.
    pub(super) fn poll_write_out(&self, connection: &Connection, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.out.borrow_mut();
        while !out.is_empty() {
            let written = ready!(connection.poll_send_bytes(cx, &out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(written);
        }
        ready!(connection.poll_sent(cx))?;
        // An idle connection keeps no buffer.
        if out.capacity() > 0 && self.live.get() == 0 {
            *out = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Counts a stream that is being answered.
#[derive(Debug)]
pub(super) struct Live(Rc<Wire>);

impl Live {
    pub(super) fn new(wire: &Rc<Wire>) -> Self {
        wire.live.set(wire.live.get() + 1);
        Self(Rc::clone(wire))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.set(self.0.live.get() - 1);
        if let Some(waker) = &*self.0.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// The socket as the protocol's engine sees it.
pub(super) struct Io {
    pub(super) connection: Rc<Connection>,
    pub(super) wire: Rc<Wire>,
    /// What was read before HTTP/2 began.
    pub(super) ahead: BytesMut,
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.ahead.is_empty() {
            let Self { connection, ahead, .. } = &mut *self;
            ready!(connection.poll_read_into(cx, buffer, ahead))?;
        } else {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead.split_to(length));
        }
        let read = buffer.filled().len() - before;
        self.wire.received.set(self.wire.received.get() + read as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.wire.out.borrow().len() >= GATHERED {
            ready!(self.wire.poll_write_out(&self.connection, cx))?;
        }
        self.wire.out.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// The engine asks for it after each frame; the connection's task does it after each round.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.wire.poll_write_out(&self.connection, cx))?;
        Poll::Ready(Ok(()))
    }
}
