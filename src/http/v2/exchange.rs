//! What a stream of HTTP/2 has in place of a socket.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};

use super::wire::Wire;

/// The two directions of a stream.
pub(in crate::http) struct Exchange {
    receiving: RefCell<RecvStream>,
    sending: RefCell<SendResponse<Bytes>>,
    /// Whether it belongs to a websocket (RFC 8441).
    pub(super) is_websocket: bool,
    is_answered: Cell<bool>,
    /// The way that the answer's body takes.
    body: RefCell<Option<SendStream<Bytes>>>,
    /// The connection's.
    pub(super) wire: Rc<Wire>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exchange({:?})", self.sending.borrow().stream_id())
    }
}

impl Exchange {
    pub(super) fn new(receiving: RecvStream, sending: SendResponse<Bytes>, is_websocket: bool, wire: Rc<Wire>) -> Self {
        let (receiving, sending) = (RefCell::new(receiving), RefCell::new(sending));
        Self { receiving, sending, is_websocket, is_answered: Cell::new(false), body: RefCell::default(), wire }
    }

    /// Reads a piece of the body; 0 is its end.
    pub(in crate::http) fn poll_fill(&self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut receiving = self.receiving.borrow_mut();
        loop {
            let Some(data) = ready!(receiving.poll_data(cx)) else { return Poll::Ready(Ok(0)) };
            let data = data.map_err(into_io)?;
            receiving.flow_control().release_capacity(data.len()).map_err(into_io)?;
            if !data.is_empty() {
                self.wire.count_payload(data.len());
                buffer.extend_from_slice(&data);
                return Poll::Ready(Ok(data.len()));
            }
        }
    }

    /// Ready when the client has reset the stream, or gone.
    pub(in crate::http) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(body) = &mut *self.body.borrow_mut() {
            return body.poll_reset(cx).map(drop);
        }
        match self.is_answered.get() {
            true => Poll::Pending,
            false => self.sending.borrow_mut().poll_reset(cx).map(drop),
        }
    }

    /// Sends the head, and nothing else.
    pub(super) fn send_all(&self, head: http::Response<()>) -> io::Result<()> {
        self.is_answered.set(true);
        self.sending.borrow_mut().send_response(head, true).map(drop).map_err(into_io)
    }

    /// Sends the head, and opens the way for a body.
    pub(super) fn send_head(&self, head: http::Response<()>) -> io::Result<()> {
        self.is_answered.set(true);
        let body = self.sending.borrow_mut().send_response(head, false).map_err(into_io)?;
        self.body.replace(Some(body));
        Ok(())
    }

    /// Sends a piece of the body without waiting for the client's leave; the engine keeps it until then.
    pub(super) fn send(&self, bytes: Bytes, is_last: bool) -> io::Result<()> {
        let mut body = self.body.borrow_mut();
        let body = body.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        self.wire.count_payload(bytes.len());
        body.send_data(bytes, is_last).map_err(into_io)
    }

    /// Sends what stands behind the body.
    pub(super) fn send_trailers(&self, trailers: http::HeaderMap) -> io::Result<()> {
        let mut body = self.body.borrow_mut();
        let body = body.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        body.send_trailers(trailers).map_err(into_io)
    }

    /// Sends what the client gives leave for of some bytes, `most` of them at most, and says how much that was.
    pub(in crate::http) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
        most: usize,
        ends: bool,
    ) -> Poll<io::Result<usize>> {
        let mut body = self.body.borrow_mut();
        let body = body.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        body.reserve_capacity(bytes.len().min(most));
        while body.capacity() == 0 {
            match ready!(body.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let piece = bytes.split_to(body.capacity().min(most).min(bytes.len()));
        let length = piece.len();
        self.wire.count_payload(length);
        body.send_data(piece, ends && bytes.is_empty()).map_err(into_io)?;
        Poll::Ready(Ok(length))
    }

    /// Ends the stream without an answer.
    pub(super) fn reset(&self, reason: h2::Reason) {
        self.is_answered.set(true);
        self.sending.borrow_mut().send_reset(reason);
    }
}

/// An error of the protocol as one of reading and writing.
pub(super) fn into_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    match error.is_reset() {
        true => io::Error::new(io::ErrorKind::ConnectionReset, error),
        false => io::Error::other(error),
    }
}
