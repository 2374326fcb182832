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
use crate::server::log::Level;
use crate::server::sockets::reason;

/// How much may wait for one side before nothing more is read from the other.
const ROOM: usize = 16 * 1024;

/// An upstream's end of it.
#[derive(Debug)]
pub struct Tunnel {
    link: Box<Link>,
    record: Shared,
    started: Moment,
    read_timeout: Duration,
    send_timeout: Duration,
    to_upstream: [Bytes; 1],
    to_client: Bytes,
    /// Whether the client has not taken all that was sent to it.
    is_client_slow: bool,
    _lease: Lease,
}

/// Why it ended, if no side closed it.
#[derive(Debug)]
pub enum Fault {
    /// The upstream sent or took nothing for too long.
    UpstreamTimedOut,
    /// The client took nothing for too long.
    ClientTimedOut,
    /// A system call on the connection to the upstream failed.
    Upstream(&'static str, io::Error),
    /// A system call on the connection to the client failed.
    Client(&'static str, io::Error),
}

impl Fault {
    /// What the log has of it.
    pub(in crate::http) fn complaint(&self) -> (Level, String) {
        let (level, what) = match self {
            Self::UpstreamTimedOut => (Level::Info, "upstream timed out (110: Connection timed out)".to_owned()),
            Self::ClientTimedOut => (Level::Info, "client timed out (110: Connection timed out)".to_owned()),
            Self::Upstream(call, error) => (Level::Error, format!("{call}() failed ({})", reason(error))),
            Self::Client(call, error) => (Level::Info, format!("{call}() failed ({})", reason(error))),
        };
        (level, format!("{what} while proxying upgraded connection"))
    }
}

impl Tunnel {
    pub(super) fn new(passing: Passing<'_>, link: Box<Link>, lease: Lease) -> Self {
        let exchange = passing.plan.exchange;
        let (read_timeout, send_timeout) = (*exchange.read_timeout, *exchange.send_timeout);
        Self {
            link,
            record: passing.record,
            started: passing.started,
            read_timeout,
            send_timeout,
            to_upstream: [Bytes::new()],
            to_client: Bytes::new(),
            is_client_slow: false,
            _lease: lease,
        }
    }

    /// Passes bytes both ways until one side ends, or something goes wrong; `sent` is told of each byte that goes to
    /// the client, which may take nothing for `patience`.
    pub(in crate::http) async fn run(
        mut self,
        connection: &Connection,
        patience: Duration,
        mut sent: impl FnMut(u64),
    ) -> Result<(), Fault> {
        let ended = loop {
            // What is waited for is known once nothing more can be moved at once.
            let moved = match poll_fn(|cx| Poll::Ready(self.round(cx, connection, &mut sent))).await {
                Poll::Ready(moved) => moved,
                Poll::Pending => {
                    let (time, fault) = self.limit(patience);
                    let round = poll_fn(|cx| self.round(cx, connection, &mut sent));
                    clock::timeout(time, round).await.unwrap_or(Err(fault))
                }
            };
            match moved {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(fault) => break Err(fault),
            }
        };
        self.note();
        ended
    }

    /// How long may pass until something is moved, and what it is if nothing was.
    fn limit(&self, patience: Duration) -> (Duration, Fault) {
        let mut time = if self.to_client.is_empty() { self.read_timeout } else { Duration::MAX };
        if !self.to_upstream[0].is_empty() {
            time = time.min(self.send_timeout);
        }
        match self.is_client_slow && patience <= time {
            true => (patience, Fault::ClientTimedOut),
            false => (time, Fault::UpstreamTimedOut),
        }
    }

    /// Moves what can be moved; ready when something was, `false` at the end.
    fn round(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        sent: &mut impl FnMut(u64),
    ) -> Poll<Result<bool, Fault>> {
        let mut has_moved = false;
        if self.to_client.is_empty() && !self.link.buffer.is_empty() {
            self.to_client = self.link.buffer.split().freeze();
        }
        if self.to_client.is_empty() {
            self.link.buffer.reserve(ROOM);
            match self.link.poll_fill(cx).map_err(|error| Fault::Upstream("recv", error))? {
                Poll::Ready(0) => return Poll::Ready(Ok(false)),
                Poll::Ready(_) => {
                    has_moved = true;
                    self.to_client = self.link.buffer.split().freeze();
                }
                Poll::Pending => {}
            }
        }
        let failed = |error| Fault::Client("send", error);
        if !self.to_client.is_empty()
            && let Poll::Ready(written) = connection.poll_send(cx, &mut self.to_client).map_err(failed)?
        {
            sent(written as u64);
            has_moved = true;
        }
        self.is_client_slow = connection.poll_sent(cx).map_err(failed)?.is_pending() || !self.to_client.is_empty();
        if self.to_upstream[0].is_empty() {
            match connection.poll_take(cx).map_err(|error| Fault::Client("recv", error))? {
                Poll::Ready(bytes) if bytes.is_empty() => return Poll::Ready(Ok(false)),
                Poll::Ready(bytes) => self.to_upstream[0] = bytes,
                Poll::Pending => {}
            }
        }
        if !self.to_upstream[0].is_empty() {
            let before = self.to_upstream[0].len();
            let _all =
                self.link.poll_send(cx, &mut self.to_upstream).map_err(|error| Fault::Upstream("send", error))?;
            has_moved |= self.to_upstream[0].len() < before;
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
