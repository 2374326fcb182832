//! ngx_http_gzip_filter_module: compresses answers while they are sent.
//!
//! Which answers, and for whom, is told by [`crate::http::gzip`]. A short answer that is there is compressed at once;
//! others piece by piece as they are sent, so that no answer is held whole and no worker is held up for long.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use flate2::{Compress, FlushCompress};

use crate::config::value::{Flag, Size, Value};
use crate::config::{Call, Cx, Declarations, Fault, SectionRow, Status, Value as Text, VariableRow};
use crate::http::gzip::{self, Gzip, Types};
use crate::http::settings::Buffers;
use crate::http::{Body, BodyStream, Module, PIECE, Request, Response};
use crate::server::delivery::deflate;
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_gzip_filter",
        sections: &[Gzip::ROW, SectionRow::of::<Types>(&[]), Zlib::ROW],
        commands: gzip::COMMANDS,
        variables: VARIABLES,
    },
    filter: Some(filter),
    acts: Some(|settings| *settings.get::<Gzip>().on),
    ..Module::EMPTY
};

settings! {
    /// How zlib is used.
    pub struct Zlib {
        /// How far back a compressed answer may refer, in bytes: a power of two from 512 to 32k.
        "gzip_window" HTTP_ALL = "32k" => window: Window,
        /// How large zlib's table of places is.
        @Status::Ignored("zlib-rs has one size for it"); "gzip_hash" HTTP_ALL = "64k" => hash: Hash,
        /// How much compressed data is kept while the client does not take it.
        @Status::Ignored("the next piece is compressed when the last one was taken"); "gzip_buffers" HTTP_ALL = "32 4k" => buffers: Buffers,
        /// How much of an answer nginx gathers before it begins to compress.
        @Status::Ignored("an answer is compressed as it comes"); "postpone_gzipping" HTTP_ALL = "0" => postpone: Size,
        /// Whether compressed data is sent as soon as there is some, in place of 4k at a time.
        "gzip_no_buffer" HTTP_ALL = "off" => no_buffer: Flag,
    }
}

/// `gzip_window`, as a power of two.
#[derive(Clone, Copy, Debug)]
pub struct Window(u8);

impl Value for Window {
    const SYNTAX: &'static str = "size";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        power(call, cx, 9..=15, "must be 512, 1k, 2k, 4k, 8k, 16k, or 32k").map(Self)
    }

    fn from_default(_: &'static str) -> Self {
        Self(15)
    }
}

/// `gzip_hash`: read, and not kept.
#[derive(Clone, Copy, Debug)]
pub struct Hash;

impl Value for Hash {
    const SYNTAX: &'static str = "size";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        power(call, cx, 9..=17, "must be 512, 1k, 2k, 4k, 8k, 16k, 32k, 64k, or 128k").map(|_| Self)
    }

    fn from_default(_: &'static str) -> Self {
        Self
    }
}

/// A size that is a power of two.
fn power(call: &Call<'_>, cx: &mut Cx<'_>, mut bits: std::ops::RangeInclusive<u8>, text: &str) -> Result<u8, Fault> {
    let size = *Size::parse(call, cx)?;
    bits.find(|bits| 1 << bits == size).ok_or_else(|| call.fault(text).word(0))
}

const VARIABLES: &[VariableRow] =
    &[VariableRow::new("gzip_ratio", ratio, "How many times shorter compressing made the answer.").volatile()];

/// The bytes that went in and came out, once all of them have: of the answer, kept with the request.
#[derive(Debug, Default)]
struct Totals(Rc<Cell<(u64, u64)>>);

fn ratio(request: &Request, _: &str) -> Text {
    let (taken, made) = request.note::<Totals>()?.0.get();
    quotient(taken, made)
}

/// A quotient to the hundredth, rounded.
fn quotient(taken: u64, made: u64) -> Text {
    let hundredths = taken.checked_mul(100)?.checked_div(made)?;
    let is_rounded_up = (taken.checked_mul(1000)? / made) % 10 > 4;
    let hundredths = hundredths + u64::from(is_rounded_up);
    Some(format!("{}.{:02}", hundredths / 100, hundredths % 100).into())
}

fn filter(request: &mut Request, response: &mut Response) {
    // An answer that is its head has nothing to compress, and the connection's next owner has done it where it is done.
    let is_nothing = matches!(response.body, Body::Empty) && response.length() == Some(0);
    let is_taken_over = matches!(response.body, Body::Tunnel(_) | Body::Takeover(_));
    if is_nothing {
        return;
    }
    let Some(level) = request.gzip_level(response).filter(|_| !is_taken_over || response.is_zipped) else { return };
    response.header("Content-Encoding", &b"gzip"[..]);
    response.weaken_etag();
    response.drop_ranges();
    if is_taken_over {
        return;
    }
    let length = response.length();
    response.content_length = None;
    response.hides_length = true;
    let settings = request.settings::<Zlib>();
    let at_once = *settings.no_buffer;
    let zip = Zip::new(level.0, narrowed(settings.window.0, length));
    let body = std::mem::take(&mut response.body);
    if request.is_head() {
        return;
    }
    let totals = Rc::clone(&request.note_mut::<Totals>().0);
    let mut zipping = Zipping { source: body, piece: Bytes::new(), zip, totals, at_once, worked: 0, ended: false };
    response.body = match &zipping.source {
        Body::Full(bytes) if bytes.len() <= PIECE => {
            let mut out = Vec::with_capacity(bytes.len() / 2);
            zipping.zip.write(bytes, FlushCompress::Finish, &mut out);
            zipping.totals.set(zipping.zip.totals());
            Body::Full(out.into())
        }
        _ => Body::Stream(Box::new(zipping)),
    };
}

/// A window no wider than the answer is long: it needs less memory. (What zlib keeps of it for itself is 262 bytes.)
fn narrowed(mut bits: u8, length: Option<u64>) -> u8 {
    if let Some(length) = length.filter(|length| *length > 0) {
        while bits > 9 && length < (1 << (bits - 1)) - 262 {
            bits -= 1;
        }
    }
    bits
}

/// A gzip stream in the making.
struct Zip(Compress);

impl Zip {
    fn new(level: u8, window: u8) -> Self {
        Self(Compress::new_gzip(deflate::level(level), window))
    }

    /// Appends what comes of some bytes.
    fn write(&mut self, input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
        deflate::run(&mut self.0, input, flush, out);
    }

    fn totals(&self) -> (u64, u64) {
        (self.0.total_in(), self.0.total_out())
    }
}

/// So much compressed is sent, and not less before the end.
const ENOUGH: usize = 4096;

/// So much is compressed, and others have their turn.
const TURN: usize = 4 * CUT;

/// How much is compressed at a time.
const CUT: usize = PIECE / 4;

/// A body that is compressed while it is sent.
struct Zipping {
    source: Body,
    /// What is left of the last piece of it.
    piece: Bytes,
    zip: Zip,
    totals: Rc<Cell<(u64, u64)>>,
    /// Nothing is gathered.
    at_once: bool,
    /// How much was compressed since others had their turn.
    worked: usize,
    ended: bool,
}

impl Zipping {
    async fn make(&mut self) -> Option<io::Result<Bytes>> {
        let mut out = Vec::new();
        while !self.ended {
            if self.piece.is_empty() {
                match self.source.next().await {
                    Some(Ok(piece)) => self.piece = piece,
                    Some(Err(error)) => return Some(Err(error)),
                    None => {
                        self.ended = true;
                        self.zip.write(&[], FlushCompress::Finish, &mut out);
                        self.totals.set(self.zip.totals());
                        break;
                    }
                }
            }
            let cut = self.piece.split_to(self.piece.len().min(CUT));
            let flushes = self.piece.is_empty() && self.source.flushes();
            let flush = if flushes { FlushCompress::Sync } else { FlushCompress::None };
            self.zip.write(&cut, flush, &mut out);
            self.worked += cut.len();
            if self.worked >= TURN {
                self.worked = 0;
                tokio::task::yield_now().await;
            }
            if !out.is_empty() && (flushes || self.at_once || out.len() >= ENOUGH) {
                break;
            }
        }
        (!out.is_empty()).then(|| Ok(out.into()))
    }
}

impl BodyStream for Zipping {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + '_>> {
        Box::pin(self.make())
    }

    fn flushes(&self) -> bool {
        self.source.flushes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;
    use crate::config::testing::findings;

    fn unzipped(zipped: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        GzDecoder::new(zipped).read_to_end(&mut plain).unwrap();
        plain
    }

    /// A source that gives pieces, and wants them sent at once or not.
    struct Source(Vec<Bytes>, bool);

    impl BodyStream for Source {
        fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + '_>> {
            let next = (!self.0.is_empty()).then(|| Ok(self.0.remove(0)));
            Box::pin(std::future::ready(next))
        }

        fn flushes(&self) -> bool {
            self.1
        }
    }

    /// What is sent for pieces, one after the other.
    fn zip(pieces: &[Bytes], flushes: bool, window: u8) -> Vec<Bytes> {
        let source = Body::Stream(Box::new(Source(pieces.to_vec(), flushes)));
        let (zip, totals) = (Zip::new(1, window), Rc::default());
        let mut zipping = Zipping { source, piece: Bytes::new(), zip, totals, at_once: false, worked: 0, ended: false };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut sent = Vec::new();
        while let Some(piece) = runtime.block_on(zipping.make()) {
            sent.push(piece.unwrap());
        }
        sent
    }

    #[test]
    fn what_has_come_is_sent_at_once_where_it_must_be() {
        let pieces = ["one ", "two ", "three"].map(Bytes::from);
        let sent = zip(&pieces, true, 15);
        assert_eq!(sent.len(), 4, "each piece, and the end");
        // What was sent first can be read before the rest is there.
        let mut first = [0; 8];
        GzDecoder::new(&sent[..2].concat()[..]).read_exact(&mut first).unwrap();
        assert_eq!(&first, b"one two ");
        assert_eq!(unzipped(&sent.concat()), b"one two three");
        assert_eq!(zip(&pieces, false, 15).len(), 1);
        assert_eq!(unzipped(&zip(&[], false, 15).concat()), b"");
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            pieces in proptest::collection::vec("[a-c]{0,300}|[a-z]{16384}|[a-z]{0,5000}", 0..4),
            flushes: bool,
            window in 9u8..16,
        ) {
            let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
            let sent = zip(&pieces, flushes, window);
            prop_assert_eq!(unzipped(&sent.concat()), pieces.concat());
        }
    }

    #[test]
    fn quotients() {
        let check = |taken, made, expected: Option<&str>| {
            assert_eq!(quotient(taken, made).as_deref(), expected.map(str::as_bytes), "{taken} {made}");
        };
        check(480, 42, Some("11.43"));
        check(2125, 1000, Some("2.13"));
        check(1999, 1000, Some("2.00"));
        check(10, 30, Some("0.33"));
        check(0, 0, None);
    }

    #[test]
    fn entity_tags() {
        let weak = |etag: &'static str| {
            let mut response = Response { etag: Some(etag.into()), ..Response::default() };
            response.weaken_etag();
            response.etag
        };
        assert_eq!(weak("\"a\"").unwrap(), "W/\"a\"");
        assert_eq!(weak("W/\"a\"").unwrap(), "W/\"a\"");
        assert_eq!(weak("a"), None);
    }

    #[test]
    fn windows() {
        assert_eq!(narrowed(15, None), 15);
        assert_eq!(narrowed(15, Some(100_000)), 15);
        assert_eq!(narrowed(15, Some(5000)), 13);
        assert_eq!(narrowed(15, Some(1)), 9);
        assert_eq!(narrowed(12, Some(100_000)), 12);
    }

    #[test]
    fn words() {
        let check = |directives: &str, expected: &[&str]| assert_eq!(findings(directives), expected, "{directives}");
        check("gzip on; gzip_window 512; gzip_hash 128k; gzip_buffers 4 8k; gzip_min_length 0;", &[]);
        check("gzip_window 64k;", &["\"gzip_window\" directive must be 512, 1k, 2k, 4k, 8k, 16k, or 32k"]);
        check("gzip_window x;", &["\"gzip_window\" directive invalid value"]);
        let sizes = "\"gzip_hash\" directive must be 512, 1k, 2k, 4k, 8k, 16k, 32k, 64k, or 128k";
        check("gzip_hash 256;", &[sizes]);
        check("gzip_types text/css text/html;", &["duplicate MIME type \"text/html\""]);
    }
}
