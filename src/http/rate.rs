//! How fast an answer is sent: `limit_rate`, `limit_rate_after`, `$limit_rate` and `X-Accel-Limit-Rate`.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::request::Request;
use super::send::length;
use crate::config::value::{Template, Value, parse_size};
use crate::config::{Call, Cx, Fault};
use crate::server::clock;
use crate::server::log::{Level, shown};
use crate::settings;

settings! {
    /// How fast answers are sent.
    pub struct Rates {
        /// How many bytes of an answer are sent in a second; 0: as fast as the client takes them. A client with several
        /// connections gets as much on each. `$limit_rate` and an upstream's `X-Accel-Limit-Rate` go before it.
        ///
        /// Example: `limit_rate 100k;`
        "limit_rate" HTTP_ALL_IF = "0" => pub rate: Amount,
        /// After how many bytes that begins.
        "limit_rate_after" HTTP_ALL_IF = "0" => pub after: Amount,
    }
}

/// A size that may have variables.
#[derive(Clone, Debug)]
pub enum Amount {
    /// It has none.
    Known(u64),
    /// What it is made of.
    Template(Template),
}

impl Value for Amount {
    const SYNTAX: &'static str = "size";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let template = Template::word(call, 0, cx)?;
        match template.constant() {
            Some(text) => parse_size(text).map(Self::Known).ok_or_else(|| call.invalid_value()),
            None => Ok(Self::Template(template)),
        }
    }

    fn from_default(text: &'static str) -> Self {
        Self::Known(parse_size(text.as_bytes()).unwrap_or_default())
    }
}

impl Amount {
    /// The size for a request; what can't be read is none, and logged.
    pub(super) fn of(&self, request: &Request) -> u64 {
        let text = match self {
            Self::Known(size) => return *size,
            Self::Template(template) => request.eval(template),
        };
        parse_size(&text).unwrap_or_else(|| {
            request.log(Level::Error, &format!("invalid size \"{}\"", shown(&text)));
            0
        })
    }
}

/// `set $limit_rate`
pub fn set(request: &mut Request, value: Bytes) {
    match parse_size(&value) {
        Some(rate) => request.limit_rate = Some(rate),
        None => request.log(Level::Error, &format!("invalid $limit_rate \"{}\"", shown(&value))),
    }
}

/// How fast an answer leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    rate: u64,
    after: u64,
    /// How many bytes had left before the last piece did, if the next one is to wait for as long as that takes.
    owed: Option<u64>,
    /// Whether what a second allows leaves at its beginning instead.
    pub(super) is_jerky: bool,
}

impl Pace {
    /// That of a request's answer; `None`: as fast as the client takes it.
    pub(super) fn of(request: &mut Request) -> Option<Self> {
        let rates = request.settings::<Rates>();
        let rate = match request.limit_rate {
            Some(rate) => rate,
            None => rates.rate.of(request),
        };
        if rate == 0 {
            return None;
        }
        let after = rates.after.of(request);
        request.limit_rate = Some(rate);
        Some(Self { rate, after, owed: None, is_jerky: false })
    }

    /// How many bytes may leave now that so many have left in so much time, or the time until some may.
    fn allowance(self, passed: Duration, sent: u64) -> Result<u64, Duration> {
        let due = self.rate.saturating_mul(passed.as_secs().saturating_add(1)).saturating_add(self.after);
        match due.checked_sub(sent) {
            Some(left @ 1..) => Ok(left),
            _ => {
                let next_second = Duration::from_secs(passed.as_secs() + 1) - passed;
                Err(next_second.max(Duration::from_millis((sent - due).saturating_mul(1000) / self.rate + 1)))
            }
        }
    }

    /// How long it takes to send the bytes from the first number to the second.
    fn time(self, before: u64, after: u64) -> Duration {
        let slow = after.saturating_sub(self.after) - before.saturating_sub(self.after);
        Duration::from_millis(slow.saturating_mul(1000) / self.rate)
    }

    /// Waits until bytes of an answer may leave, and says how many. An error is that the client has gone meanwhile.
    pub(super) async fn leave(&mut self, request: &Request) -> io::Result<usize> {
        let sent = request.sent.bytes;
        let pause = self.owed.replace(sent).map_or(Duration::ZERO, |before| self.time(before, sent));
        if !pause.is_zero() && !self.is_jerky {
            rest(request, pause).await?;
        }
        loop {
            match self.allowance(clock::now().since(request.started), sent) {
                Ok(left) => return Ok(usize::try_from(left).unwrap_or(usize::MAX)),
                Err(pause) => rest(request, pause).await?,
            }
        }
    }

    /// Writes pieces no faster than that.
    pub(super) async fn write(
        &mut self,
        request: &mut Request,
        pieces: &mut [Bytes],
        timeout: Duration,
    ) -> io::Result<()> {
        while pieces.iter().any(|piece| !piece.is_empty()) {
            let mut left = self.leave(request).await?;
            let mut now = Vec::with_capacity(pieces.len());
            for piece in pieces.iter_mut() {
                let part = piece.split_to(piece.len().min(left));
                left -= part.len();
                request.sent.bytes += part.len() as u64;
                now.push(part);
            }
            let written = request.connection.write(&mut now, timeout).await;
            if written.is_err() {
                let left = length(&now);
                request.sent.take_back(left, left + length(pieces));
                return written;
            }
        }
        Ok(())
    }
}

async fn rest(request: &Request, pause: Duration) -> io::Result<()> {
    tokio::select! {
        biased;
        () = tokio::time::sleep(pause) => Ok(()),
        _ = request.connection.closed() => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn so_much_a_second() {
        let pace = Pace { rate: 1000, after: 500, owed: None, is_jerky: false };
        let allowance = |passed, sent| pace.allowance(Duration::from_millis(passed), sent);
        assert_eq!(allowance(0, 0), Ok(1500));
        assert_eq!(allowance(999, 1499), Ok(1));
        assert_eq!(allowance(300, 1500), Err(Duration::from_millis(700)));
        assert_eq!(allowance(300, 2750), Err(Duration::from_millis(1251)));
        assert_eq!(allowance(2000, 1750), Ok(1750));
        assert_eq!(pace.time(0, 1500), Duration::from_secs(1));
        assert_eq!(pace.time(1500, 1600), Duration::from_millis(100));
        assert_eq!(pace.time(0, 500), Duration::ZERO);
    }

    #[test]
    fn words() {
        assert_eq!(findings("limit_rate 10k; server { limit_rate $arg_rate; limit_rate_after 1m; }"), [""; 0]);
        assert_eq!(findings("limit_rate fast;"), ["\"limit_rate\" directive invalid value"]);
    }
}
