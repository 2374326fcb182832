//! Whole messages over a [`Stream`], in both directions. Every method may be dropped half-way and called again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::{Header, Message};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::journal::{From, trace};
use super::stream::Stream;
use crate::server::log::LogSettings;

/// Room for one read.
const READ_SIZE: usize = 16 * 1024;

/// PostgreSQL makes no message longer than this; whoever announces one is no PostgreSQL.
const MAX_MESSAGE: i32 = 0x4000_0000;

/// A connection's two buffers and its socket.
pub(crate) struct Wire {
    stream: Stream,
    incoming: BytesMut,
    /// What is to be sent at the next [`flush`](Wire::flush).
    pub(crate) outgoing: BytesMut,
    /// Where whole messages are written, too.
    trace: Option<Arc<LogSettings>>,
    /// How much of what is to be sent was written there already.
    traced: usize,
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, incoming: BytesMut::new(), outgoing: BytesMut::new(), trace: None, traced: 0 }
    }

    /// Writes all further messages to a trace.
    pub(crate) fn trace(&mut self, to: Option<Arc<LogSettings>>) {
        self.trace = to;
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }

    pub(crate) fn has_news(&self) -> bool {
        self.stream.has_news()
    }

    /// Sends all that is waiting.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.trace_outgoing();
        while self.outgoing.has_remaining() {
            let written = self.stream.write_buf(&mut self.outgoing).await?;
            self.traced = self.traced.saturating_sub(written);
        }
        self.stream.flush().await
    }

    /// The next message, as soon as it is whole.
    pub(crate) async fn message(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = self.parse()? {
                return Ok(message);
            }
            self.incoming.reserve(READ_SIZE);
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "server closed the connection"));
            }
        }
    }

    /// A message that is there already, without waiting.
    pub(crate) fn message_now(&mut self) -> io::Result<Option<Message>> {
        let mut next = std::pin::pin!(self.message());
        match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(message) => message.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    /// Sends what the socket takes at once; for a farewell.
    pub(crate) fn flush_now(&mut self) {
        self.trace_outgoing();
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(_)) = Pin::new(&mut self.stream).poll_write(&mut context, &self.outgoing) {
            drop(Pin::new(&mut self.stream).poll_flush(&mut context));
        }
    }

    fn trace_outgoing(&mut self) {
        if let Some(to) = &self.trace {
            trace(to, From::Us, self.outgoing.get(self.traced..).unwrap_or_default());
            self.traced = self.outgoing.len();
        }
    }

    fn parse(&mut self) -> io::Result<Option<Message>> {
        match Header::parse(&self.incoming)? {
            Some(header) if header.len() > MAX_MESSAGE => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "message is too long"))
            }
            Some(header) => {
                let length = usize::try_from(header.len()).unwrap_or_default() + 1;
                if let Some(to) = &self.trace
                    && let Some(message) = self.incoming.get(..length)
                {
                    trace(to, From::Server, message);
                }
                Message::parse(&mut self.incoming)
            }
            None => Ok(None),
        }
    }
}

/// For the fuzzer: no bytes of a server make the reader of messages panic.
#[doc(hidden)]
pub fn fuzz_messages(bytes: &[u8]) {
    let mut incoming = BytesMut::from(bytes);
    while let Ok(Some(header)) = Header::parse(&incoming) {
        if header.len() > MAX_MESSAGE || !matches!(Message::parse(&mut incoming), Ok(Some(_))) {
            break;
        }
    }
}
