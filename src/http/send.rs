//! Sending an answer: its head in nginx's order, its body as it comes.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};

use super::error_page::signature;
use super::request::Request;
use super::response::{Body, FileBody, Response};
use super::settings::{Keepalive, Pages, Sending};
use super::wire::body::ChunkStart;
use super::wire::date::DateCache;
use super::wire::response::{After, Framing, ResponseHead, encode, put_status};
use crate::server::clock;

/// How much of a file is read at once.
const FILE_CHUNK: u64 = 64 * 1024;

/// Sends an answer; says whether the connection can carry another request.
pub(super) async fn response(
    date: &RefCell<DateCache>,
    request: &mut Request,
    mut response: Response,
    keepalive: bool,
) -> io::Result<bool> {
    let settings = request.settings::<Sending>();
    let timeout = *settings.timeout;
    let length = if response.until_close { None } else { response.length() };
    let chunked = *settings.chunked && !response.until_close;
    let is_head = request.head.method() == super::wire::method::Method::Head;
    let framing = Framing::choose(request.head.version(), is_head, response.status, length, chunked);
    let keepalive = keepalive && framing.allows_keepalive() && !response.until_close;
    let after = match keepalive {
        true => After::KeepAlive { timeout: request.settings::<Keepalive>().timeout.header },
        false => After::Close,
    };
    let is_chunked = framing == Framing::Chunked
        || (framing == Framing::NoBody && length.is_none() && response.status >= 200 && request.head.version() >= 1001);
    let head = match framing {
        Framing::Bare => Bytes::new(),
        _ => encode_head(date, request, &response, after, length, is_chunked),
    };
    let body = match framing {
        Framing::NoBody => Body::Empty,
        _ => std::mem::take(&mut response.body),
    };
    request.sent.status = response.status;
    let mut writer = Writer { request, timeout, chunked: framing == Framing::Chunked };
    match body {
        Body::Empty => writer.write(&mut [head, writer_end(framing)]).await?,
        Body::Full(bytes) => writer.first(head, bytes).await?,
        Body::File(file) => writer.file(head, file).await?,
        Body::Stream(mut stream) => {
            writer.write(&mut [head]).await?;
            while let Some(chunk) = stream.next().await {
                writer.chunk(chunk?).await?;
            }
            writer.end().await?;
        }
        Body::Takeover(_) => return Err(io::ErrorKind::Unsupported.into()),
    }
    Ok(keepalive)
}

fn writer_end(framing: Framing) -> Bytes {
    match framing {
        Framing::Chunked => Bytes::from_static(b"0\r\n\r\n"),
        Framing::NoBody | Framing::Length(_) | Framing::Close | Framing::Bare => Bytes::new(),
    }
}

/// Sends the head alone, before the connection is given away.
pub(super) async fn head(date: &RefCell<DateCache>, request: &mut Request, response: Response) -> io::Result<()> {
    let timeout = *request.settings::<Sending>().timeout;
    let after = if response.status == 101 { After::Upgrade } else { After::Close };
    let head = encode_head(date, request, &response, after, None, false);
    request.sent.status = response.status;
    request.sent.bytes += head.len() as u64;
    request.connection.write(&mut [head], timeout).await
}

fn encode_head(
    date: &RefCell<DateCache>,
    request: &Request,
    response: &Response,
    after: After,
    length: Option<u64>,
    chunked: bool,
) -> Bytes {
    if response.bare_head {
        return bare_head(response);
    }
    let pages = request.settings::<Pages>();
    let location = response.location.as_ref().map(|location| absolute(request, pages, location));
    let mut date = date.borrow_mut();
    let is_bare_304 = response.status == 304 && !response.whole_304;
    let has_no_content = is_bare_304 || response.status == 204 || response.status < 200;
    let head = ResponseHead {
        status: response.status,
        status_line: None,
        server: Some(signature(pages).as_bytes()),
        date: Some(date.at(clock::unix_seconds())),
        content_type: response.content_type.as_deref().filter(|_| !has_no_content).unwrap_or_default(),
        charset: response.charset.as_deref().filter(|_| !has_no_content).unwrap_or_default(),
        content_length: length.filter(|_| !has_no_content),
        last_modified: response.last_modified,
        location: location.as_deref(),
        chunked: chunked && !has_no_content,
        connection: after,
        vary: false,
    };
    let etag = response.etag.as_deref().map(|etag| (&b"ETag"[..], etag));
    let ranges = (response.ranges && response.status == 200).then_some((&b"Accept-Ranges"[..], &b"bytes"[..]));
    let listed = response.headers.iter().map(|(name, value)| (&name[..], &value[..]));
    let mut bytes = Vec::new();
    encode(&mut bytes, &head, etag.into_iter().chain(ranges).chain(listed));
    bytes.into()
}

fn bare_head(response: &Response) -> Bytes {
    let mut head = BytesMut::from(&b"HTTP/1.1 "[..]);
    let mut status = Vec::new();
    put_status(&mut status, response.status);
    head.extend_from_slice(&status);
    for (name, value) in &response.headers {
        for part in [b"\r\n", &name[..], b": ", &value[..]] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n\r\n");
    head.freeze()
}

/// Completes a path of this server to a URL, as `absolute_redirect` and its like say.
fn absolute(request: &Request, pages: &Pages, location: &Bytes) -> Bytes {
    if location.first() != Some(&b'/') || !*pages.absolute_redirect {
        return location.clone();
    }
    let host = match request.head.host() {
        host if host.is_empty() || *pages.server_name_in_redirect => &request.server().name,
        host => host,
    };
    let local = request.connection.local;
    let host = match (host.is_empty(), local) {
        (true, Some(address)) => address.ip().to_string().into_bytes(),
        _ => host.to_vec(),
    };
    let mut url = BytesMut::from(&b"http://"[..]);
    url.extend_from_slice(&host);
    if let Some(port) = local.map(|address| address.port()).filter(|port| *port != 80 && *pages.port_in_redirect) {
        url.extend_from_slice(format!(":{port}").as_bytes());
    }
    url.extend_from_slice(location);
    url.freeze()
}

/// Writes the pieces of a body and counts them.
struct Writer<'r> {
    request: &'r mut Request,
    timeout: std::time::Duration,
    chunked: bool,
}

impl Writer<'_> {
    async fn write(&mut self, pieces: &mut [Bytes]) -> io::Result<()> {
        self.request.sent.bytes += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        self.request.connection.write(pieces, self.timeout).await
    }

    /// The head and a whole body, in one system call where the socket allows.
    async fn first(&mut self, head: Bytes, body: Bytes) -> io::Result<()> {
        self.request.sent.body_bytes += body.len() as u64;
        if !self.chunked {
            return self.write(&mut [head, body]).await;
        }
        let start = ChunkStart::new(body.len() as u64);
        let start = Bytes::copy_from_slice(start.as_bytes());
        self.write(&mut [head, start, body, Bytes::from_static(b"\r\n0\r\n\r\n")]).await
    }

    async fn chunk(&mut self, body: Bytes) -> io::Result<()> {
        if body.is_empty() {
            return Ok(());
        }
        self.request.sent.body_bytes += body.len() as u64;
        if !self.chunked {
            return self.write(&mut [body]).await;
        }
        let start = ChunkStart::new(body.len() as u64);
        let start = Bytes::copy_from_slice(start.as_bytes());
        self.write(&mut [start, body, Bytes::from_static(b"\r\n")]).await
    }

    async fn end(&mut self) -> io::Result<()> {
        if self.chunked { self.write(&mut [Bytes::from_static(b"0\r\n\r\n")]).await } else { Ok(()) }
    }

    /// A file, read piece by piece from the page cache; the first piece leaves with the head.
    async fn file(&mut self, head: Bytes, body: FileBody) -> io::Result<()> {
        let mut head = Some(head);
        let mut at = body.range.start;
        while at < body.range.end || head.is_some() {
            let length = usize::try_from((body.range.end - at).min(FILE_CHUNK)).expect("at most FILE_CHUNK");
            let mut piece = vec![0; length];
            body.file.read_exact_at(&mut piece, at)?;
            at += length as u64;
            match head.take() {
                Some(head) => {
                    self.request.sent.body_bytes += length as u64;
                    self.write(&mut [head, piece.into()]).await?;
                }
                None => self.chunk(piece.into()).await?,
            }
        }
        Ok(())
    }
}
