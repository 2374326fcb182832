//! Sending an answer: its head in nginx's order, its body as it comes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::{Buf, Bytes, BytesMut};

use super::error_page::signature;
use super::gzip::Acceptance;
use super::rate::Pace;
use super::request::Request;
use super::response::{AlreadyTold, Body, BodyStream, PIECE, Piece, Response};
use super::serve::Site;
use super::settings::{Keepalive, Pages, Sending};
use super::trailers;
use super::upstream::abandoned;
use super::wire::body::{CHUNK_END, ChunkStart};
use super::wire::response::{After, Framing, ResponseHead, encode, put_status};
use crate::config::value::Template;
use crate::server::clock;
use crate::server::log::Level;

/// Sends an answer; says whether the connection can carry another request.
pub(super) async fn response(
    site: &Site,
    request: &mut Request,
    response: &mut Response,
    keepalive: bool,
) -> io::Result<bool> {
    let settings = request.settings::<Sending>();
    let timeout = *settings.timeout;
    let mut length = if response.until_close { None } else { response.length() };
    let chunked = *settings.chunked && !response.until_close;
    let is_head = request.head.method() == super::wire::method::Method::Head;
    let version = if response.headless { 9 } else { request.head.version() };
    let mut framing = Framing::choose(version, is_head, response.status, length, chunked);
    if !response.trailers.is_empty() && matches!(framing, Framing::Length(_)) && chunked && version >= 1001 {
        (framing, length) = (Framing::Chunked, None);
    }
    if response.status < 200 && response.has_own_status_line() && !is_head {
        // What an upstream sent behind such a head goes on: it is the answer proper, or what it switched to.
        framing = length.map_or(Framing::Close, Framing::Length);
    }
    let keepalive = keepalive && framing.allows_keepalive() && !response.until_close;
    let after = match keepalive {
        _ if response.status == 101 => After::Upgrade,
        true => After::KeepAlive { timeout: request.settings::<Keepalive>().timeout.header },
        false => After::Close,
    };
    let is_chunked = framing == Framing::Chunked;
    // Head and small body are put together in the worker's own buffer, and leave by one call.
    let mut out = site.scratch.take();
    out.clear();
    if framing != Framing::Bare {
        encode_head(site, request, response, after, length, is_chunked, &mut out);
    }
    let head_length = out.len();
    super::sent::as_sent(request, &out);
    // nginx logs `009` for content without a head.
    request.sent.status = if response.headless { 9 } else { response.status };
    let body = match framing {
        Framing::NoBody => Body::Empty,
        _ => std::mem::take(&mut response.body),
    };
    let body = match body {
        Body::Full(bytes) if bytes.len() <= SMALL_BODY => {
            put_small(&mut out, &bytes, is_chunked);
            put_end(&mut out, request, response, is_chunked);
            None
        }
        Body::File(part) if !is_chunked && part.range.end - part.range.start <= SMALL_BODY as u64 => {
            let at = out.len();
            out.resize(at + usize::try_from(part.range.end - part.range.start).unwrap_or(0), 0);
            part.file.read_exact_at(&mut out[at..], part.range.start)?;
            put_end(&mut out, request, response, is_chunked);
            None
        }
        Body::Empty => {
            if framing != Framing::NoBody {
                put_end(&mut out, request, response, is_chunked);
            }
            None
        }
        body => Some(body),
    };
    // What frames a body counts as body, as nginx counts all that follows the head.
    request.sent.body_bytes += (out.len() - head_length) as u64;
    let pace = Pace::of(request);
    if body.is_none()
        && pace.is_none()
        && (request.connection.is_holding() || (keepalive && request.connection.may_hold()))
    {
        request.sent.bytes += out.len() as u64;
        request.connection.hold(&out);
        site.scratch.replace(out);
        if !keepalive || !request.connection.may_hold() {
            Box::pin(request.connection.write(&mut [], timeout)).await?;
        }
        return Ok(keepalive);
    }
    let sent = if body.is_none() && pace.is_none() { request.connection.try_send(&out)? } else { 0 };
    request.sent.bytes += sent as u64;
    if body.is_none() && sent == out.len() && request.connection.is_flushed()? {
        site.scratch.replace(out);
        return Ok(keepalive);
    }
    // The rest is boxed, so that the usual answer does not keep room for it.
    let rest = Bytes::from(out).slice(sent..);
    let trailers = std::mem::take(&mut response.trailers);
    let is_watched = response.ends_with_client;
    let mut writer = Writer { request, timeout, pace, chunked: is_chunked, is_watched, trailers };
    match body {
        None => Box::pin(async move { writer.write(&mut [rest]).await }).await?,
        Some(body) => Box::pin(async move { writer.long(rest, body).await }).await?,
    }
    Ok(keepalive)
}

/// A body that is copied behind its head rather than sent from where it lies.
const SMALL_BODY: usize = 4096;

/// How much of a file leaves at a time where a rate holds it back: one of nginx's `output_buffers`.
const PACED_PIECE: usize = 32 * 1024;

fn put_small(out: &mut Vec<u8>, body: &[u8], chunked: bool) {
    if !chunked {
        out.extend_from_slice(body);
    } else {
        out.extend_from_slice(ChunkStart::new(body.len() as u64).as_bytes());
        out.extend_from_slice(body);
        out.extend_from_slice(b"\r\n");
    }
}

/// The end of a body that is in `out`.
fn put_end(out: &mut Vec<u8>, request: &mut Request, response: &Response, chunked: bool) {
    if chunked || !response.trailers.is_empty() {
        let last = trailers::last_chunk(request, &response.trailers);
        out.extend_from_slice(if chunked { &last } else { b"" });
    }
}

/// Sends the head alone, before the connection is given away; or returns it, to be given away too.
pub(super) async fn head(
    site: &Site,
    request: &mut Request,
    response: &Response,
    keepalive: bool,
) -> io::Result<Bytes> {
    let timeout = *request.settings::<Sending>().timeout;
    let after = match (response.status, keepalive) {
        (101, _) => After::Upgrade,
        (_, true) => After::KeepAlive { timeout: request.settings::<Keepalive>().timeout.header },
        (_, false) => After::Close,
    };
    let chunked = response.status == 200 && request.streams_in_chunks();
    let mut head = Vec::new();
    encode_head(site, request, response, after, None, chunked, &mut head);
    let head = Bytes::from(head);
    request.sent.status = response.status;
    request.sent.bytes += head.len() as u64;
    if response.gives_head {
        return Ok(head);
    }
    request.connection.write(&mut [head], timeout).await?;
    Ok(Bytes::new())
}

impl Request {
    /// Whether an answer of unknown length goes in chunks; otherwise the end of the connection is its end.
    pub fn streams_in_chunks(&self) -> bool {
        let chunked = *self.settings::<Sending>().chunked && !self.head.is_http2();
        Framing::choose(self.head.version(), false, 200, None, chunked) == Framing::Chunked
    }
}

fn encode_head(
    site: &Site,
    request: &Request,
    response: &Response,
    after: After,
    length: Option<u64>,
    chunked: bool,
    out: &mut Vec<u8>,
) {
    if response.bare_head {
        return bare_head(response, out);
    }
    with_head(site, request, response, after, length, chunked, |head, listed| encode(out, head, listed));
}

/// A header's name and value.
pub(super) type Field<'f> = (&'f [u8], &'f [u8]);

/// Puts the values of a head together and hands them on, with the headers that follow them.
pub(super) fn with_head(
    site: &Site,
    request: &Request,
    response: &Response,
    after: After,
    length: Option<u64>,
    chunked: bool,
    put: impl for<'f> FnOnce(&ResponseHead<'_>, &mut dyn Iterator<Item = Field<'f>>),
) {
    let pages = request.settings::<Pages>();
    // nginx completes a path where it writes its own headers; any other location stands among the listed ones.
    let is_completed = |location: &&Bytes| location.first() == Some(&b'/') && *pages.absolute_redirect;
    let location = response.location.as_ref();
    let completed = location.filter(is_completed).map(|location| absolute(request, pages, location));
    let listed_location = location.filter(|location| !is_completed(location)).map(|url| (&b"Location"[..], &url[..]));
    let mut date = site.date.borrow_mut();
    // A 304 keeps what `return 304 text;` gave it; that of a conditional request was given nothing.
    let is_bare_304 = response.status == 304 && !response.disable_not_modified && response.length() == Some(0);
    // An upstream's own head keeps what it says.
    let has_no_content =
        is_bare_304 || ((response.status == 204 || response.status < 200) && !response.has_own_status_line());
    let (content_type, charset) = match (&response.whole_type, &response.charset) {
        // A filter may have given it another charset meanwhile.
        (Some(whole), Some(charset)) if whole.windows(charset.len()).any(|part| part == charset) => {
            (Some(&whole[..]), None)
        }
        _ => (response.content_type.as_deref(), response.charset.as_deref()),
    };
    let head = ResponseHead {
        status: response.status,
        status_line: response.status_line.as_deref().filter(|_| response.has_own_status_line()),
        server: Some(signature(pages).as_bytes()).filter(|_| !response.own_server),
        date: Some(date.at(clock::unix_seconds())).filter(|_| !response.own_date),
        content_type: content_type.filter(|_| !has_no_content).unwrap_or_default(),
        charset: charset.filter(|_| !has_no_content).unwrap_or_default(),
        content_length: length.filter(|_| !has_no_content),
        last_modified: response.last_modified.filter(|_| tells_time(response)),
        location: completed.as_deref(),
        chunked: chunked && !has_no_content,
        connection: after,
        vary: request.gzip.varies && *request.settings::<Acceptance>().vary,
    };
    let etag = response.etag.as_deref().map(|etag| (&b"ETag"[..], etag));
    let listed = response.headers.iter().map(|(name, value)| (&name[..], &value[..]));
    put(&head, &mut etag.into_iter().chain(listed_location).chain(listed));
}

/// Whether `Last-Modified` has its place in the head: not where it is listed, nor in an error's page.
fn tells_time(response: &Response) -> bool {
    matches!(response.status, 200 | 206 | 304)
        && !response.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"Last-Modified"))
}

fn bare_head(response: &Response, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    put_status(out, response.status);
    for (name, value) in &response.headers {
        for part in [b"\r\n", &name[..], b": ", &value[..]] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Completes a path of this server to a URL.
fn absolute(request: &Request, pages: &Pages, location: &Bytes) -> Bytes {
    let local = request.connection.local;
    let host = match (request.head.host(), local) {
        _ if *pages.server_name_in_redirect => request.server().name.clone(),
        (b"", Some(address)) => address.ip().to_string().into(),
        (host, _) => Bytes::copy_from_slice(host),
    };
    let scheme = request.connection.scheme();
    let mut url = BytesMut::from(scheme.as_bytes());
    url.extend_from_slice(b"://");
    url.extend_from_slice(&host);
    let usual = if scheme == "https" { 443 } else { 80 };
    if let Some(port) = local.map(|address| address.port()).filter(|port| *port != usual && *pages.port_in_redirect) {
        url.extend_from_slice(format!(":{port}").as_bytes());
    }
    url.extend_from_slice(location);
    url.freeze()
}

/// How long pieces are together.
pub(super) fn length(pieces: &[Bytes]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// Writes the pieces of a body and counts them.
struct Writer<'r> {
    request: &'r mut Request,
    timeout: std::time::Duration,
    pace: Option<Pace>,
    chunked: bool,
    /// Whether a client that goes ends a body that is still to come.
    is_watched: bool,
    trailers: Vec<(Bytes, Template)>,
}

impl Writer<'_> {
    /// The head, and a body that comes in several pieces.
    async fn long(&mut self, mut head: Bytes, body: Body) -> io::Result<()> {
        match body {
            Body::Empty => {}
            Body::Full(bytes) => self.piece(&mut head, bytes).await?,
            Body::File(body) => self.file(&mut head, &body.file, body.range).await?,
            Body::Pieces(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Bytes(bytes) => self.piece(&mut head, bytes).await?,
                        Piece::File(file, range) => self.file(&mut head, &file, range).await?,
                    }
                }
            }
            Body::Stream(mut stream) => {
                if !stream.waits_for_content() {
                    self.piece(&mut head, Bytes::new()).await?;
                }
                while let Some(chunk) = self.next(&mut *stream).await {
                    let has_gone = self.request.sent.status == 499;
                    if chunk.is_err() && !head.is_empty() && !has_gone {
                        self.piece(&mut head, Bytes::new()).await?;
                    }
                    self.piece(&mut head, chunk?).await?;
                }
            }
            Body::Tunnel(_) | Body::Takeover(_) => return Err(io::ErrorKind::Unsupported.into()),
        }
        self.end(head).await
    }

    /// The next piece of a body that comes with time.
    async fn next(&mut self, stream: &mut dyn BodyStream) -> Option<io::Result<Bytes>> {
        if !self.is_watched {
            return stream.next().await;
        }
        tokio::select! {
            biased;
            next = stream.next() => next,
            error = self.request.connection.closed() => {
                self.request.log(Level::Info, &abandoned(error, "reading upstream"));
                if self.request.sent.bytes == 0 {
                    self.request.sent.status = 499;
                }
                Some(Err(io::Error::other(AlreadyTold)))
            }
        }
    }

    async fn write(&mut self, pieces: &mut [Bytes]) -> io::Result<()> {
        if let Some(pace) = &mut self.pace {
            return Box::pin(pace.write(self.request, pieces, self.timeout)).await;
        }
        self.request.sent.bytes += length(pieces);
        let written = self.request.connection.write(pieces, self.timeout).await;
        if written.is_err() {
            let left = length(pieces);
            self.request.sent.take_back(left, left);
        }
        written
    }

    /// A piece of a body. What is left of the head leaves with it.
    async fn piece(&mut self, head: &mut Bytes, body: Bytes) -> io::Result<()> {
        let head = std::mem::take(head);
        if body.is_empty() {
            return self.write(&mut [head]).await;
        }
        self.request.sent.body_bytes += body.len() as u64;
        if !self.chunked {
            return self.write(&mut [head, body]).await;
        }
        let start = ChunkStart::new(body.len() as u64);
        let start = Bytes::copy_from_slice(start.as_bytes());
        self.request.sent.body_bytes += (start.len() + CHUNK_END.len()) as u64;
        self.write(&mut [head, start, body, Bytes::from_static(CHUNK_END)]).await
    }

    /// The end of a body, with what is left of the head.
    async fn end(&mut self, head: Bytes) -> io::Result<()> {
        if !self.chunked {
            return self.write(&mut [head]).await;
        }
        let end = trailers::last_chunk(self.request, &self.trailers);
        self.request.sent.body_bytes += end.len() as u64;
        self.write(&mut [head, end]).await
    }

    /// A part of a file: sent by the kernel where it may and can be, or else read piece by piece from the page cache.
    async fn file(&mut self, head: &mut Bytes, file: &File, mut range: Range<u64>) -> io::Result<()> {
        let settings = self.request.settings::<Sending>();
        let by_kernel = *settings.sendfile && !self.chunked && self.request.connection.takes_files();
        if by_kernel && self.pace.is_none() {
            let turn = match *settings.sendfile_max_chunk {
                0 => usize::MAX,
                most => usize::try_from(most).unwrap_or(usize::MAX),
            };
            let length = range.end - range.start;
            if length > 0 && !head.is_empty() {
                let sent = self.request.connection.try_send_ahead(head)?;
                self.request.sent.bytes += sent as u64;
                head.advance(sent);
            }
            if !head.is_empty() {
                self.piece(head, Bytes::new()).await?;
            }
            self.request.sent.body_bytes += length;
            self.request.sent.bytes += length;
            let sent = self.request.connection.send_file(file, &mut range, turn, self.timeout).await;
            let left = range.end - range.start;
            self.request.sent.take_back(left, left);
            return sent;
        }
        let most = if self.pace.is_some() { PACED_PIECE } else { PIECE };
        if let Some(pace) = &mut self.pace {
            pace.is_jerky = by_kernel;
        }
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from((range.end - at).min(most as u64)).expect("at most PIECE");
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, at)?;
            at += length as u64;
            self.piece(head, piece.into()).await?;
        }
        Ok(())
    }
}
