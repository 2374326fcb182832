//! ngx_http_gunzip_filter_module: uncompresses answers for clients that don't take them compressed.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};

use crate::config::value::Flag;
use crate::config::{Declarations, Status as Support};
use crate::http::settings::Buffers;
use crate::http::{AlreadyTold, Body, BodyStream, LaterLog, Module, PIECE, Request, Response};
use crate::server::log::Level;
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_gunzip_filter", sections: &[Gunzip::ROW], commands: &[], variables: &[] },
    filter: Some(filter),
    acts: Some(|settings| *settings.get::<Gunzip>().on),
    ..Module::EMPTY
};

settings! {
    /// Uncompressing answers.
    pub struct Gunzip {
        /// Whether answers that are compressed with gzip, by an upstream or in a file, are uncompressed for clients that
        /// don't accept it.
        "gunzip" HTTP_ALL = "off" => on: Flag,
        /// How much uncompressed data is kept while the client does not take it.
        @Support::Ignored("the next piece is uncompressed when the last one was taken"); "gunzip_buffers" HTTP_ALL = "32 4k" => buffers: Buffers,
    }
}

fn filter(request: &mut Request, response: &mut Response) {
    if !*request.settings::<Gunzip>().on || matches!(response.body, Body::Tunnel(_) | Body::Takeover(_)) {
        return;
    }
    let named = |(name, _): &(Bytes, Bytes)| name.eq_ignore_ascii_case(b"Content-Encoding");
    let Some(place) = response.headers.iter().position(named) else { return };
    if !response.headers[place].1.eq_ignore_ascii_case(b"gzip") {
        return;
    }
    request.varies_by_encoding();
    if request.accepts_gzip(response) {
        return;
    }
    response.headers.remove(place);
    response.weaken_etag();
    response.drop_ranges();
    response.content_length = None;
    response.hides_length = true;
    let source = std::mem::take(&mut response.body);
    if !request.is_head() {
        let unzip = Decompress::new_gzip(15);
        let unzipping = Unzipping { source, piece: Bytes::new(), unzip, state: Member::Between, worked: 0 };
        let log = request.later_log();
        response.body = Body::Stream(Box::new(Logged { unzipping, log }));
    }
}

/// So much is made of one piece at a time.
const STEP: usize = PIECE / 2;

/// So much is made, and others have their turn.
const TURN: usize = 4 * PIECE;

/// How far the reading of a gzip file is, which may have several members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    /// Before one, or after the last.
    Between,
    /// In one.
    Inside,
    /// There is nothing more to come.
    Over,
}

/// What is wrong with what was to be uncompressed, in nginx's words.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(&'static str);

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        Self::other(broken)
    }
}

/// A body that is uncompressed while it is sent.
struct Unzipping {
    source: Body,
    /// What is left of the last piece of it.
    piece: Bytes,
    unzip: Decompress,
    state: Member,
    /// How much was made since others had their turn.
    worked: usize,
}

impl Unzipping {
    async fn make(&mut self) -> Option<io::Result<Bytes>> {
        let mut out = Vec::with_capacity(STEP);
        while self.state != Member::Over && out.len() < STEP {
            if self.piece.is_empty() {
                if !out.is_empty() && self.source.flushes() {
                    break;
                }
                match self.source.next().await {
                    Some(Ok(piece)) if piece.is_empty() => continue,
                    Some(Ok(piece)) => self.piece = piece,
                    Some(Err(error)) => return Some(Err(error)),
                    None if self.state == Member::Inside => {
                        return Some(Err(Broken("inflate() returned -5 on response end").into()));
                    }
                    None => {
                        self.state = Member::Over;
                        break;
                    }
                }
            }
            if let Err(error) = self.step(&mut out) {
                return Some(Err(error));
            }
        }
        self.worked += out.len();
        if self.worked >= TURN {
            self.worked = 0;
            tokio::task::yield_now().await;
        }
        (!out.is_empty()).then(|| Ok(out.into()))
    }

    /// Makes what there is room for of what there is.
    fn step(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let (taken, made) = (self.unzip.total_in(), out.len());
        let status = self.unzip.decompress_vec(&self.piece, out, FlushDecompress::None);
        let used = usize::try_from(self.unzip.total_in() - taken).unwrap_or(usize::MAX);
        drop(self.piece.split_to(used.min(self.piece.len())));
        self.state = Member::Inside;
        match status {
            Ok(Status::StreamEnd) => {
                self.unzip = Decompress::new_gzip(15);
                self.state = Member::Between;
                Ok(())
            }
            Ok(Status::Ok | Status::BufError) if used > 0 || out.len() > made => Ok(()),
            Ok(Status::Ok | Status::BufError) | Err(_) => Err(Broken("inflate() failed: 0, -3").into()),
        }
    }
}

/// The same, with the log for what is wrong with it.
struct Logged {
    unzipping: Unzipping,
    log: LaterLog,
}

impl BodyStream for Logged {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + '_>> {
        Box::pin(async {
            let made = self.unzipping.make().await;
            match made {
                Some(Err(error)) if error.get_ref().is_some_and(|inner| inner.is::<Broken>()) => {
                    self.log.write(Level::Error, &error.to_string());
                    Some(Err(io::Error::other(AlreadyTold)))
                }
                made => made,
            }
        })
    }

    fn flushes(&self) -> bool {
        self.unzipping.source.flushes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn zipped(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn unzip(zipped: Vec<u8>) -> io::Result<Vec<u8>> {
        let source = Body::Full(zipped.into());
        let unzip = Decompress::new_gzip(15);
        let mut unzipping = Unzipping { source, piece: Bytes::new(), unzip, state: Member::Between, worked: 0 };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut plain = Vec::new();
        while let Some(piece) = runtime.block_on(unzipping.make()) {
            let piece = piece?;
            assert!(piece.len() <= 2 * STEP, "the output is not bounded");
            plain.extend_from_slice(&piece);
        }
        Ok(plain)
    }

    #[test]
    fn several_members_are_one_after_the_other() {
        assert_eq!(unzip([zipped(b"one "), zipped(b""), zipped(b"two")].concat()).unwrap(), b"one two");
        assert_eq!(unzip(Vec::new()).unwrap(), b"");
    }

    #[test]
    fn what_is_broken_breaks_off() {
        let mut short = zipped(b"some text");
        short.truncate(short.len() - 1);
        assert_eq!(unzip(short).unwrap_err().to_string(), "inflate() returned -5 on response end");
        let mut wrong = zipped(b"some text");
        let crc = wrong.len() - 8;
        wrong[crc] ^= 1;
        assert!(unzip(wrong).is_err());
        assert!(unzip(b"no gzip at all".to_vec()).is_err());
        assert_eq!(unzip(zipped(&vec![b'x'; 1 << 20])).unwrap().len(), 1 << 20);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(plain in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(unzip(zipped(&plain)).unwrap(), plain);
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(unzip([zipped(b"x"), noise].concat()).map_or(true, |plain| plain.len() < 10_000));
        }
    }
}
