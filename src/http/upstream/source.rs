//! Where the body of an upstream's answer comes from, until it is whole.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::body::{Cut, Decoder};
use super::pass::{Passing, READ_SIZE, fill};
use super::record::Shared;
use super::stream::Link;
use super::{Lease, Upstream, pool};
use crate::http::log_line::LaterLog;
use crate::server::clock::{self, Moment};
use crate::server::log::Level;
use crate::server::sockets::reason;

/// How a body is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Whether it is read ahead of the client.
    pub(super) is_buffered: bool,
    /// How long the upstream may pause.
    pub(super) patience: Duration,
    /// A body that does not come in chunks is given on in pieces of at least so much, but for its end.
    pub(super) piece: usize,
    /// How many bytes are read each second; 0: no bound.
    pub(super) rate: u64,
}

/// The rest of a body.
pub(super) struct Source {
    connected: Option<Connected>,
    manner: Manner,
    record: Shared,
    started: Moment,
    begun: Moment,
    length: u64,
    /// How many bytes had come before the body.
    before: u64,
    pub(super) log: LaterLog,
}

/// A connection with a body in it that is to be read.
pub(super) struct Unread {
    pub(super) link: Box<Link>,
    pub(super) decoder: Decoder,
    /// Whether it is of no use for another request.
    pub(super) closes: bool,
    pub(super) lease: Lease,
    /// How many bytes had come before the body.
    pub(super) before: u64,
}

/// What is let go when the body is whole.
struct Connected {
    unread: Unread,
    has_ended: bool,
    upstream: Arc<Upstream>,
    /// What was cut out behind the last piece and did not go with it.
    next: Option<Cut>,
}

impl Source {
    /// What comes after `begun` bytes that came with the head.
    pub(super) fn new(passing: Passing<'_>, begun: usize, unread: Unread, manner: Manner, log: LaterLog) -> Self {
        let upstream = Arc::clone(&passing.plan.upstream);
        let before = unread.before;
        let connected = Some(Connected { unread, has_ended: false, upstream, next: None });
        let (record, started) = (passing.record, passing.started);
        let mut source = Self { connected, manner, record, started, begun: clock::now(), length: 0, before, log };
        source.count(begun);
        source
    }

    /// Notes what has come.
    fn count(&mut self, length: usize) {
        self.length += length as u64;
        if let Some(last) = self.record.borrow_mut().last() {
            last.response = Some(clock::now().since(self.started));
            if let Some(connected) = &self.connected {
                last.received = connected.unread.link.received;
                last.length = last.received.saturating_sub(self.before);
            }
        }
    }

    /// The next piece; `None` is the end.
    pub(super) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let connected = self.connected.as_mut()?;
            if connected.has_ended || connected.next.is_some() || connected.unread.has_enough(self.manner.piece) {
                match connected.cut() {
                    Cut::Data(data) => {
                        let data = connected.gather(data);
                        self.count(data.len());
                        return Some(Ok(data));
                    }
                    Cut::End => {
                        self.end();
                        return None;
                    }
                    Cut::Note(level, message) => {
                        self.log.write(level, &format!("{message} while reading upstream"));
                        continue;
                    }
                    Cut::Bad(why) => return Some(Err(self.fail(&why))),
                    Cut::More if connected.has_ended && connected.unread.decoder.may_end() => {
                        self.count(0);
                        self.connected = None;
                        return None;
                    }
                    Cut::More if connected.has_ended => {
                        return Some(Err(self.fail("upstream prematurely closed connection")));
                    }
                    Cut::More => {}
                }
            }
            if let Some(pause) = pause(self.manner.rate, self.length, clock::now().since(self.begun)) {
                tokio::time::sleep(pause).await;
            }
            let connected = self.connected.as_mut()?;
            match fill(&mut connected.unread.link, self.manner.patience).await {
                Ok(0) => connected.has_ended = true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Some(Err(self.fail("upstream timed out (110: Connection timed out)")));
                }
                Err(error) => {
                    let call = if self.manner.is_buffered { "readv" } else { "recv" };
                    return Some(Err(self.fail(&format!("{call}() failed ({})", reason(&error)))));
                }
            }
        }
    }

    /// The body is whole: the connection may serve the next request.
    fn end(&mut self) {
        self.count(0);
        let Some(mut connected) = self.connected.take() else { return };
        connected.unread.decoder.settle(&self.record);
        if !connected.unread.link.buffer.is_empty() {
            self.log.write(Level::Warn, &format!("{} while reading upstream", connected.unread.decoder.excess()));
        } else if let (true, false, Some(keepalive)) =
            (connected.unread.decoder.leaves_connection(), connected.unread.closes, &connected.upstream.keepalive)
        {
            let address = &connected.unread.lease.chosen.target.address;
            pool::put(&connected.upstream.name, keepalive, address, connected.unread.link);
        }
    }

    fn fail(&mut self, what: &str) -> io::Error {
        self.count(0);
        self.connected = None;
        self.log.write(Level::Error, &format!("{what} while reading upstream"));
        io::Error::other(crate::http::response::AlreadyTold)
    }
}

impl Connected {
    /// The next part of what has come.
    fn cut(&mut self) -> Cut {
        let unread = &mut self.unread;
        self.next.take().unwrap_or_else(|| unread.decoder.cut(&mut unread.link.buffer))
    }

    /// A piece with the short ones that have come behind it: chunks of a byte each are not to go one by one.
    fn gather(&mut self, first: Bytes) -> Bytes {
        let mut all: Option<BytesMut> = None;
        while !self.unread.link.buffer.is_empty() {
            let length = all.as_ref().map_or(first.len(), BytesMut::len);
            match self.cut() {
                Cut::Data(data) if length + data.len() <= READ_SIZE => {
                    all.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&data);
                }
                Cut::More => break,
                other => {
                    self.next = Some(other);
                    break;
                }
            }
        }
        all.map_or(first, BytesMut::freeze)
    }
}

impl Unread {
    /// Whether what has come may be given on, in pieces of at least so much.
    pub(super) fn has_enough(&self, piece: usize) -> bool {
        let length = self.link.buffer.len();
        match &self.decoder {
            Decoder::Empty | Decoder::Ended(_) | Decoder::Chunked(_) | Decoder::Trailed(_) | Decoder::Records(_) => {
                true
            }
            Decoder::Counted(counted) => length >= piece || length as u64 >= counted.left(),
            Decoder::UntilClose => length >= piece,
        }
    }
}

/// How long to wait so that no more than `rate` bytes come in a second; the first second's come at once.
fn pause(rate: u64, length: u64, passed: Duration) -> Option<Duration> {
    if rate == 0 {
        return None;
    }
    let allowed = u128::from(rate) * (u128::from(passed.as_secs()) + 1);
    let excess = u128::from(length).checked_sub(allowed)?;
    let millis = excess * 1000 / u128::from(rate) + 1;
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        let check = |rate, length, passed, expected: Option<u64>| {
            assert_eq!(pause(rate, length, Duration::from_millis(passed)), expected.map(Duration::from_millis));
        };
        check(0, u64::MAX, 0, None);
        check(1000, 999, 0, None);
        check(1000, 1000, 999, Some(1));
        check(1000, 3000, 999, Some(2001));
        check(1000, 3000, 2100, Some(1));
        check(1000, 3000, 3000, None);
        check(1, u64::MAX, 0, Some(u64::MAX));
    }
}
