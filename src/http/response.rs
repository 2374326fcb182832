//! An answer on its way out.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::Pin;

use bytes::Bytes;
use smallvec::SmallVec;

use super::request::Request;

/// What a handler answers; filters change it before it is sent.
#[derive(Debug, Default)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// `Content-Type`, without charset.
    pub content_type: Option<Bytes>,
    /// The charset that is added to it.
    pub charset: Option<Bytes>,
    /// `Last-Modified`, in Unix seconds.
    pub last_modified: Option<i64>,
    /// `Location`; a path is completed to a URL when it is sent.
    pub location: Option<Bytes>,
    /// `ETag`, quotes included.
    pub etag: Option<Bytes>,
    /// Whether `Accept-Ranges: bytes` is sent and ranges are served.
    pub ranges: bool,
    /// The other headers, in order.
    pub headers: SmallVec<[(Bytes, Bytes); 4]>,
    /// The content.
    pub body: Body,
    /// `Content-Length` where the body does not say it: an answer to HEAD, or one known beforehand.
    pub content_length: Option<u64>,
    /// Whether the connection must end after it.
    pub close: bool,
    /// The head is the status and the listed headers, and nothing else, as nginx's module for websockets sends it.
    pub bare_head: bool,
    /// A 304 with `Content-Type` and `Content-Length`: one that a handler makes, and not the test of the conditions.
    pub whole_304: bool,
    /// `Transfer-Encoding` must not be used, nor `Content-Length` sent: the end of the connection is the end.
    pub until_close: bool,
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

    /// The length of the body, if it is known before it is sent.
    pub fn length(&self) -> Option<u64> {
        self.content_length.or_else(|| self.body.length())
    }
}

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
    /// Bytes that come with time.
    Stream(Box<dyn BodyStream>),
    /// After the head the connection belongs to somebody else.
    Takeover(Takeover),
}

/// A part of a file.
#[derive(Debug)]
pub struct FileBody {
    /// The file.
    pub file: std::fs::File,
    /// The bytes of it.
    pub range: Range<u64>,
}

/// A source of bytes that come with time.
pub trait BodyStream {
    /// The next bytes; `None` is the end, an error breaks the connection off.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<std::io::Result<Bytes>>> + '_>>;
}

/// Takes the connection over after the head was sent.
pub type Takeover = Box<dyn FnOnce(Detached, &mut Request)>;

/// A connection that HTTP is done with.
#[derive(Debug)]
pub struct Detached {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    /// What was read from it beyond the request.
    pub leftover: Bytes,
}

impl Body {
    /// Its length, if it is known before it is sent.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::File(file) => Some(file.range.end - file.range.start),
            Self::Stream(_) | Self::Takeover(_) => None,
        }
    }

    /// All of it in memory, up to a bound: what a subrequest's caller reads. `None`: too long, broken off, or not
    /// content at all.
    pub async fn collect(self, limit: usize) -> Option<Bytes> {
        match self {
            Self::Empty => Some(Bytes::new()),
            Self::Full(bytes) => Some(bytes),
            Self::File(body) => {
                let length = usize::try_from(body.range.end - body.range.start).ok().filter(|length| *length <= limit)?;
                let mut bytes = vec![0; length];
                std::os::unix::fs::FileExt::read_exact_at(&body.file, &mut bytes, body.range.start).ok()?;
                Some(bytes.into())
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
            Self::Takeover(_) => None,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::File(file) => write!(f, "{file:?}"),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Takeover(_) => f.write_str("Takeover"),
        }
    }
}
