//! An answer on its way out.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;

use super::request::Request;
use super::upstream::tunnel::Tunnel;
use crate::config::value::Template;
use crate::tls::channel::Channel;

/// What a handler answers; filters change it before it is sent.
#[derive(Debug, Default)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// An upstream's own status line (`200 Fine`), which counts while the status stays that.
    pub status_line: Option<Bytes>,
    /// `Content-Type`, without charset.
    pub content_type: Option<Bytes>,
    /// The charset that is added to it.
    pub charset: Option<Bytes>,
    /// The charset that an upstream says the content has (`X-Accel-Charset`), whatever its type says.
    pub override_charset: Option<Bytes>,
    /// Type and charset as an upstream wrote them, where they would not be put together that way.
    pub whole_type: Option<Bytes>,
    /// `Last-Modified`, in Unix seconds.
    pub last_modified: Option<i64>,
    /// `Location`; a path is completed to a URL when it is sent.
    pub location: Option<Bytes>,
    /// `ETag`, quotes included.
    pub etag: Option<Bytes>,
    /// Whether ranges of it may be served.
    pub ranges: bool,
    /// Whether no more than one of them is served at once: the content comes once.
    pub one_range: bool,
    /// The other headers, in order.
    pub headers: Vec<(Bytes, Bytes)>,
    /// The content.
    pub body: Body,
    /// `Content-Length` where the body does not say it: an answer to HEAD, or one known beforehand.
    pub content_length: Option<u64>,
    /// The length is not told, though it is known: nginx makes such a body after its head.
    pub hides_length: bool,
    /// To be told whether the charset is UTF-8, once the filters have seen to it: content that depends on it.
    pub is_utf8: Option<Rc<Cell<bool>>>,
    /// Whether the connection must end after it.
    pub close: bool,
    /// Nothing is sent at all: the connection is closed.
    pub silent: bool,
    /// A filter will not have it: the status that `error_page` and the server's own pages are asked for in its place. The
    /// listed headers stay.
    pub refused: Option<u16>,
    /// The head is the status and the listed headers, and nothing else, as nginx's module for websockets sends it.
    pub bare_head: bool,
    /// The handler has seen to the request's conditions itself: a 200 stays one, and a 304 keeps its `Content-Type` and
    /// `Content-Length`.
    pub disable_not_modified: bool,
    /// The head is not sent, but given away with the connection ([`Detached::head`]).
    pub gives_head: bool,
    /// Who takes the connection over sends everything compressed with gzip, as [`Request::gzip_level`] told it to.
    pub is_zipped: bool,
    /// `Transfer-Encoding` must not be used, nor `Content-Length` sent: the end of the connection is the end.
    pub until_close: bool,
    /// `Server` is among the other headers.
    pub own_server: bool,
    /// `Date` is among the other headers.
    pub own_date: bool,
    /// The content goes out without a head, as an upstream sent it.
    pub headless: bool,
    /// Whether its body ends when the client goes, though there may be nothing to send to it for long.
    pub ends_with_client: bool,
    /// What is added behind the body; the values are made when it is out.
    pub trailers: Vec<(Bytes, Template)>,
}

impl Response {
    /// An answer without content.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// An answer with content in memory.
    pub fn with(status: u16, content_type: impl Into<Bytes>, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let body = if body.is_empty() { Body::Empty } else { Body::Full(body) };
        Self { status, content_type: Some(content_type.into()), body, ..Self::default() }
    }

    /// Adds a header.
    pub fn header(&mut self, name: &'static str, value: impl Into<Bytes>) {
        self.headers.push((Bytes::from_static(name.as_bytes()), value.into()));
    }

    /// Makes the entity tag that of what is the same in other bytes; none if it was no tag. An upstream's stands among the
    /// listed headers.
    pub fn weaken_etag(&mut self) {
        self.etag = self.etag.take().and_then(weak);
        self.headers.retain_mut(|(name, value)| {
            !name.eq_ignore_ascii_case(b"ETag") || weak(std::mem::take(value)).map(|etag| *value = etag).is_some()
        });
    }

    /// Takes away what tells whether the content has changed.
    pub fn drop_validators(&mut self) {
        (self.last_modified, self.etag) = (None, None);
        self.drop_listed(&[b"Last-Modified", b"ETag"]);
    }

    /// Has no ranges served, nor offered by what an upstream said.
    pub fn drop_ranges(&mut self) {
        self.ranges = false;
        self.drop_listed(&[b"Accept-Ranges"]);
    }

    fn drop_listed(&mut self, names: &[&[u8]]) {
        self.headers.retain(|(name, _)| !names.iter().any(|known| name.eq_ignore_ascii_case(known)));
    }

    /// Takes line breaks out of header values, with which a client's text would begin headers of its own.
    // Differs from nginx: there a value goes out as it is.
    pub(super) fn clean_headers(&mut self) {
        for value in self.headers.iter_mut().map(|(_, value)| value).chain(&mut self.location) {
            *value = clean(std::mem::take(value));
        }
    }

    /// Whether an upstream's status line stands in its head.
    pub(super) fn has_own_status_line(&self) -> bool {
        let digits = |line: &Bytes| {
            line.iter().take(3).fold(0, |status, digit| status * 10 + u16::from(digit.wrapping_sub(b'0')))
        };
        self.status_line.as_ref().is_some_and(|line| digits(line) == self.status)
    }

    /// The length of the body, if it is known before it is sent.
    pub fn length(&self) -> Option<u64> {
        if self.hides_length { None } else { self.content_length.or_else(|| self.body.length()) }
    }
}

fn weak(etag: Bytes) -> Option<Bytes> {
    match &etag[..] {
        [b'W', b'/', _, ..] => Some(etag),
        [b'"', ..] => Some([b"W/", &etag[..]].concat().into()),
        _ => None,
    }
}

/// A header's value without line breaks.
pub(super) fn clean(value: Bytes) -> Bytes {
    match memchr::memchr3(b'\r', b'\n', 0, &value) {
        None => value,
        Some(_) => value.iter().map(|byte| if matches!(byte, b'\r' | b'\n' | 0) { b' ' } else { *byte }).collect(),
    }
}

/// The reason for which a body breaks off, where the log has it already.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the upstream broke off")]
pub struct AlreadyTold;

/// The content of an answer.
#[derive(Default)]
pub enum Body {
    /// None.
    #[default]
    Empty,
    /// Bytes in memory.
    Full(Bytes),
    /// A part of a file.
    File(FileBody),
    /// Several pieces, one after the other.
    Pieces(Vec<Piece>),
    /// Bytes that come with time.
    Stream(Box<dyn BodyStream>),
    /// After the head bytes go both ways, to and from an upstream.
    Tunnel(Box<Tunnel>),
    /// After the head the connection belongs to somebody else.
    Takeover(Takeover),
}

/// A part of a file.
#[derive(Debug)]
pub struct FileBody {
    /// The file; others may read it too.
    pub file: Rc<File>,
    /// The bytes of it.
    pub range: Range<u64>,
}

/// One of several pieces of a body.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A part of a file.
    File(Rc<File>, Range<u64>),
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, range) => range.end - range.start,
        }
    }
}

/// A source of bytes that come with time.
pub trait BodyStream {
    /// The next bytes; `None` is the end, an error breaks the connection off.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + '_>>;

    /// Whether what has come is to leave at once: a filter in between keeps nothing of it back.
    fn flushes(&self) -> bool {
        false
    }

    /// Whether the answer's head waits for the first bytes, to leave with them.
    fn waits_for_content(&self) -> bool {
        false
    }
}

/// Takes the connection over after the head was sent.
pub type Takeover = Box<dyn FnOnce(Detached, &mut Request)>;

/// A connection that HTTP is done with.
#[derive(Debug)]
pub struct Detached {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    /// What is spoken on it, if it is TLS.
    pub channel: Option<Box<Channel>>,
    /// What was read from it beyond the request.
    pub leftover: Bytes,
    /// The answer's head, if it is still to be sent.
    pub head: Bytes,
}

impl Body {
    /// Its length, if it is known before it is sent.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::File(file) => Some(file.range.end - file.range.start),
            Self::Pieces(pieces) => Some(pieces.iter().map(Piece::length).sum()),
            Self::Stream(_) | Self::Tunnel(_) | Self::Takeover(_) => None,
        }
    }

    /// All of it in memory, up to a bound: what a subrequest's caller reads. `None`: too long, broken off, or not
    /// content at all.
    pub async fn collect(self, limit: usize) -> Option<Bytes> {
        match self {
            Self::Empty => Some(Bytes::new()),
            Self::Full(bytes) => Some(bytes),
            Self::File(body) => read(&body.file, body.range, limit).map(Bytes::from),
            Self::Pieces(pieces) => {
                let mut all = Vec::new();
                for piece in pieces {
                    match piece {
                        Piece::Bytes(bytes) => all.extend_from_slice(&bytes),
                        Piece::File(file, range) => all.extend_from_slice(&read(&file, range, limit)?),
                    }
                    if all.len() > limit {
                        return None;
                    }
                }
                Some(all.into())
            }
            Self::Stream(mut stream) => {
                let mut all = Vec::new();
                while let Some(chunk) = stream.next().await {
                    all.extend_from_slice(&chunk.ok()?);
                    if all.len() > limit {
                        return None;
                    }
                }
                Some(all.into())
            }
            Self::Tunnel(_) | Self::Takeover(_) => None,
        }
    }
}

/// Reading it piece by piece, as a filter does that makes another body of it.
impl Body {
    /// The next bytes, [`PIECE`] of them at most where they are there already; `None` is the end.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        match self {
            Self::Empty | Self::Tunnel(_) | Self::Takeover(_) => None,
            Self::Full(bytes) => cut(bytes),
            Self::File(file) => read_piece(&file.file, &mut file.range),
            Self::Pieces(pieces) => {
                while let Some(piece) = pieces.first_mut() {
                    let next = match piece {
                        Piece::Bytes(bytes) => cut(bytes),
                        Piece::File(file, range) => read_piece(file, range),
                    };
                    if next.is_some() {
                        return next;
                    }
                    pieces.remove(0);
                }
                None
            }
            Self::Stream(stream) => stream.next().await,
        }
    }

    /// Whether what has come is to leave at once.
    pub fn flushes(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.flushes())
    }
}

/// How much of a file is read at once, and how much a filter works on at a time: less than a millisecond's work.
pub const PIECE: usize = 64 * 1024;

fn cut(bytes: &mut Bytes) -> Option<io::Result<Bytes>> {
    let piece = bytes.split_to(bytes.len().min(PIECE));
    (!piece.is_empty()).then_some(Ok(piece))
}

fn read_piece(file: &File, range: &mut Range<u64>) -> Option<io::Result<Bytes>> {
    let length = usize::try_from(range.end.saturating_sub(range.start)).map_or(PIECE, |left| left.min(PIECE));
    if length == 0 {
        return None;
    }
    let mut bytes = vec![0; length];
    let result = file.read_exact_at(&mut bytes, range.start);
    range.start += length as u64;
    Some(result.map(|()| bytes.into()))
}

/// A part of a file in memory; `None`: it is longer than the bound, or can't be read.
fn read(file: &File, range: Range<u64>, limit: usize) -> Option<Vec<u8>> {
    let length = usize::try_from(range.end - range.start).ok().filter(|length| *length <= limit)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start).ok()?;
    Some(bytes)
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::File(file) => write!(f, "{file:?}"),
            Self::Pieces(pieces) => write!(f, "{pieces:?}"),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Tunnel(_) => f.write_str("Tunnel"),
            Self::Takeover(_) => f.write_str("Takeover"),
        }
    }
}
