//! A stream of HTTP/2 for somebody who wants a socket: delivery to subscribers.
//!
//! It gets one end of a pair of sockets, and writes there what it would write to a client; the other end is pumped into
//! the stream, and for a websocket the other way too. So delivery knows nothing of HTTP/2.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::net::UnixStream;
use tokio_util::io::poll_read_buf;

use crate::http::connection::Connection;
use crate::http::request::Request;
use crate::http::response::{Detached, Takeover};

/// How much is read from the socket at once.
const READ_SIZE: usize = 16 * 1024;

/// What goes on between the stream and the socket.
pub(super) struct Pump {
    connection: Rc<Connection>,
    socket: UnixStream,
    to_client: Bytes,
    to_socket: Bytes,
    buffer: BytesMut,
    is_websocket: bool,
    /// Whether the client has said all that it had to say.
    is_heard: bool,
}

/// Gives one end of a pair away.
pub(super) fn begin(request: &mut Request, take: Takeover) -> io::Result<Pump> {
    let (given, kept) = std::os::unix::net::UnixStream::pair()?;
    given.set_nonblocking(true)?;
    kept.set_nonblocking(true)?;
    let socket = UnixStream::from_std(kept)?;
    take(Detached { socket: OwnedFd::from(given), channel: None, leftover: Bytes::new(), head: Bytes::new() }, request);
    let connection = Rc::clone(&request.connection);
    let is_websocket = connection.exchange().is_some_and(|exchange| exchange.is_websocket);
    Ok(Pump {
        connection,
        socket,
        to_client: Bytes::new(),
        to_socket: Bytes::new(),
        buffer: BytesMut::new(),
        is_websocket,
        is_heard: false,
    })
}

impl Pump {
    /// Pumps until either side ends. How long the client may take for it, and how much may wait, is for the socket's new
    /// owner to say.
    pub(super) async fn run(mut self) {
        let ended = poll_fn(|cx| self.round(cx)).await;
        if let (Ok(()), Some(exchange)) = (ended, self.connection.exchange()) {
            // A client that has gone needs no end.
            drop(exchange.send(Bytes::new(), true));
        }
    }

    /// Moves all that can be moved; ready at the end. An error is the client's going.
    fn round(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gone = || Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        loop {
            let mut has_moved = false;
            if !self.to_client.is_empty() {
                match self.connection.poll_send(cx, &mut self.to_client) {
                    Poll::Ready(Ok(_)) => has_moved = true,
                    Poll::Ready(Err(_)) => return gone(),
                    Poll::Pending => {}
                }
            } else if self.socket.poll_read_ready(cx).is_ready() {
                self.buffer.reserve(READ_SIZE);
                match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.buffer) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(_)) => {
                        has_moved = true;
                        self.to_client = self.buffer.split().freeze();
                    }
                    Poll::Pending => {}
                }
                // A subscriber that waits for hours has no buffer.
                self.buffer = BytesMut::new();
            }
            if self.is_websocket {
                match self.poll_listen(cx) {
                    Poll::Ready(Ok(())) => has_moved = true,
                    Poll::Ready(Err(_)) => return gone(),
                    Poll::Pending => {}
                }
            }
            if !has_moved {
                let is_reset = self.connection.exchange().is_none_or(|exchange| exchange.poll_reset(cx).is_ready());
                return if is_reset { gone() } else { Poll::Pending };
            }
        }
    }

    /// Passes on what the client says.
    fn poll_listen(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_heard {
            return Poll::Pending;
        }
        if self.to_socket.is_empty() {
            self.to_socket = std::task::ready!(self.connection.poll_take(cx))?;
            if self.to_socket.is_empty() {
                self.is_heard = true;
                return Pin::new(&mut self.socket).poll_shutdown(cx);
            }
        }
        let written = std::task::ready!(Pin::new(&mut self.socket).poll_write(cx, &self.to_socket))?;
        self.to_socket.advance(written);
        Poll::Ready(Ok(()))
    }
}
