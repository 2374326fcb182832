//! The body of an upstream's answer, as it comes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::answer::excess;
use super::body::{Cut, Decoder};
use super::pass::{Passing, Patience, fill};
use super::record::Shared;
use super::stream::Link;
use super::{Lease, Upstream, pool};
use crate::http::BodyStream;
use crate::http::log_line::LaterLog;
use crate::server::clock::{self, Moment};
use crate::server::log::Level;
use crate::server::sockets::reason;

type Next<'n> = Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + 'n>>;

/// A body that is read when the client takes it.
pub(super) struct Reading {
    source: Option<Source>,
    begun: Bytes,
    record: Shared,
    started: Moment,
    log: LaterLog,
}

/// Where it comes from, until it is whole.
struct Source {
    link: Link,
    decoder: Decoder,
    closes: bool,
    lease: Lease,
    upstream: Arc<Upstream>,
    patience: Patience,
}

impl Reading {
    #[allow(clippy::too_many_arguments, reason = "all that an answer consists of goes over to its body")]
    pub(super) fn new(
        passing: Passing<'_>,
        begun: Bytes,
        decoder: Decoder,
        closes: bool,
        link: Link,
        lease: Lease,
        patience: Patience,
        log: LaterLog,
    ) -> Self {
        let upstream = Arc::clone(&passing.plan.upstream);
        let source = Some(Source { link, decoder, closes, lease, upstream, patience });
        let reading = Self { source, begun, record: passing.record, started: passing.started, log };
        reading.count(reading.begun.len() as u64);
        reading
    }

    /// Notes what has come.
    fn count(&self, length: u64) {
        if let Some(last) = self.record.borrow_mut().last() {
            last.length += length;
            last.response = Some(clock::now().since(self.started));
            if let Some(source) = &self.source {
                last.received = source.link.received;
            }
        }
    }

    async fn read(&mut self) -> Option<io::Result<Bytes>> {
        if !self.begun.is_empty() {
            return Some(Ok(std::mem::take(&mut self.begun)));
        }
        loop {
            let source = self.source.as_mut()?;
            match source.decoder.cut(&mut source.link.buffer) {
                Cut::Data(data) => {
                    self.count(data.len() as u64);
                    return Some(Ok(data));
                }
                Cut::End => {
                    self.end();
                    return None;
                }
                Cut::Bad => return Some(Err(self.fail("upstream sent invalid chunked response"))),
                Cut::More => {}
            }
            match fill(&mut source.link, &source.patience).await {
                Ok(0) if source.decoder.may_end() => {
                    self.count(0);
                    self.source = None;
                    return None;
                }
                Ok(0) => return Some(Err(self.fail("upstream prematurely closed connection"))),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Some(Err(self.fail("upstream timed out (110: Connection timed out)")));
                }
                Err(error) => return Some(Err(self.fail(&format!("recv() failed ({})", reason(&error))))),
            }
        }
    }

    /// The body is whole: the connection may serve the next request.
    fn end(&mut self) {
        self.count(0);
        let Some(source) = self.source.take() else { return };
        if !source.link.buffer.is_empty() {
            self.log.write(Level::Warn, &format!("{} while reading upstream", excess(&source.decoder)));
        } else if let (true, false, Some(keepalive)) =
            (source.decoder.leaves_connection(), source.closes, &source.upstream.keepalive)
        {
            pool::put(&source.upstream.name, keepalive, &source.lease.chosen.target.address, source.link);
        }
    }

    fn fail(&mut self, what: &str) -> io::Error {
        self.count(0);
        self.source = None;
        self.log.write(Level::Error, &format!("{what} while reading upstream"));
        io::Error::other(crate::http::response::AlreadyTold)
    }
}

impl BodyStream for Reading {
    fn next(&mut self) -> Next<'_> {
        Box::pin(self.read())
    }
}

/// A body that is broken from its beginning.
pub(super) struct Broken;

impl BodyStream for Broken {
    fn next(&mut self) -> Next<'_> {
        Box::pin(std::future::ready(Some(Err(io::Error::other(crate::http::response::AlreadyTold)))))
    }
}
