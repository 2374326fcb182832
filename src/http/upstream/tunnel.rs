//! A connection that was upgraded: bytes go both ways until one side ends.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::Lease;
use super::pass::Passing;
use super::record::Shared;
use super::stream::Link;
use crate::http::connection::Connection;
use crate::server::clock::{self, Moment};

/// How much may wait for one side before nothing more is read from the other.
const ROOM: usize = 16 * 1024;

/// An upstream's end of it.
#[derive(Debug)]
pub struct Tunnel {
    link: Box<Link>,
    record: Shared,
    started: Moment,
    timeout: Duration,
    _lease: Lease,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// One side closed it.
    Closed,
    /// Nothing came for too long.
    TimedOut,
}

impl Tunnel {
    pub(super) fn new(passing: Passing<'_>, link: Box<Link>, lease: Lease) -> Self {
        let timeout = *passing.plan.exchange.read_timeout;
        Self { link, record: passing.record, started: passing.started, timeout, _lease: lease }
    }

    /// Passes bytes both ways until the end; `sent` is told of each that goes to the client.
    pub(in crate::http) async fn run(
        mut self,
        connection: &Connection,
        mut sent: impl FnMut(u64),
    ) -> io::Result<Ended> {
        let mut to_upstream = [Bytes::new()];
        let mut to_client = Bytes::new();
        let timeout = self.timeout;
        let ended = loop {
            let round = poll_fn(|cx| self.round(cx, connection, &mut to_upstream, &mut to_client, &mut sent));
            match clock::timeout(timeout, round).await {
                None => break Ended::TimedOut,
                Some(Ok(true)) => {}
                Some(Ok(false)) => break Ended::Closed,
                Some(Err(error)) => {
                    self.note();
                    return Err(error);
                }
            }
        };
        self.note();
        Ok(ended)
    }

    /// Moves what can be moved; ready when something was, `false` at the end.
    fn round(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        to_upstream: &mut [Bytes; 1],
        to_client: &mut Bytes,
        sent: &mut impl FnMut(u64),
    ) -> Poll<io::Result<bool>> {
        let mut has_moved = false;
        if to_client.is_empty() && !self.link.buffer.is_empty() {
            *to_client = self.link.buffer.split().freeze();
        }
        if to_client.is_empty() {
            self.link.buffer.reserve(ROOM);
            match self.link.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(_)) => {
                    has_moved = true;
                    *to_client = self.link.buffer.split().freeze();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        if !to_client.is_empty()
            && let Poll::Ready(written) = connection.poll_send(cx, to_client)
        {
            sent(written? as u64);
            has_moved = true;
        }
        if let Poll::Ready(Err(error)) = connection.poll_sent(cx) {
            return Poll::Ready(Err(error));
        }
        if to_upstream[0].is_empty() {
            match connection.poll_take(cx) {
                Poll::Ready(Ok(bytes)) if bytes.is_empty() => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(bytes)) => to_upstream[0] = bytes,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        if !to_upstream[0].is_empty()
            && let Poll::Ready(written) = self.link.poll_send(cx, to_upstream)
        {
            written?;
            has_moved = true;
        }
        if has_moved { Poll::Ready(Ok(true)) } else { Poll::Pending }
    }

    fn note(&self) {
        if let Some(last) = self.record.borrow_mut().last() {
            last.response = Some(clock::now().since(self.started));
            last.length = self.link.received.saturating_sub(last.received);
            (last.sent, last.received) = (self.link.sent, self.link.received);
        }
    }
}
