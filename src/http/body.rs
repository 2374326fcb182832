//! Reading a request's body, when a handler asks for it.

use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::request::Request;
use super::settings::{Bodies, Heads, InFile, Sending};
use super::temp_file::{Failed, Stay, TempFile};
use super::wire::body::{BodyStep, Chunked, InvalidChunk};
use super::wire::header::Known;
use crate::server::clock;
use crate::server::log::Level;
use crate::server::sockets::reason;

/// A body that was read.
#[derive(Clone, Debug)]
pub enum Received {
    /// In memory.
    Memory(Bytes),
    /// In a file, with its length.
    File(Rc<TempFile>, u64),
}

impl Received {
    /// How long it is.
    pub fn length(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
        }
    }
}

/// A body that could not be read, or kept.
struct Lost {
    /// What the client is answered.
    status: u16,
    /// Whether all of it came.
    is_whole: bool,
}

impl From<u16> for Lost {
    fn from(status: u16) -> Self {
        Self { status, is_whole: false }
    }
}

impl InFile {
    /// For how long the file of a body stays.
    fn stay(self) -> Stay {
        match self {
            Self::Off => Stay::No,
            Self::Clean => Stay::WhileHeld,
            Self::On => Stay::Always,
        }
    }
}

impl Request {
    /// The whole body. An error is the status to answer with.
    pub async fn read_body(&mut self) -> Result<Bytes, u16> {
        if let Some(body) = &self.body {
            return Ok(body.clone());
        }
        if self.settings::<Bodies>().in_file != InFile::Off {
            Box::pin(self.fill_file()).await?;
        }
        match &self.body_file {
            Some((file, length)) => {
                let mut bytes = vec![0; usize::try_from(*length).map_err(|_| 413u16)?];
                file.read(&mut bytes, 0).map_err(|error| self.file_failed(&error))?;
                Ok(bytes.into())
            }
            None => {
                let body = self.read_unread_body().await?;
                self.body = Some(body.clone());
                Ok(body)
            }
        }
    }

    /// The whole body, in a temporary file if it is longer than `client_body_buffer_size` or `client_body_in_file_only`
    /// says so. An error is the status to answer with.
    pub async fn receive_body(&mut self) -> Result<Received, u16> {
        self.fill_file().await?;
        match &self.body_file {
            Some((file, length)) if self.body.is_none() => Ok(Received::File(Rc::clone(file), *length)),
            _ => self.read_body().await.map(Received::Memory),
        }
    }

    /// Reads a body that belongs into a file.
    async fn fill_file(&mut self) -> Result<(), u16> {
        if self.body.is_some() || self.body_file.is_some() {
            return Ok(());
        }
        let settings = self.settings::<Bodies>();
        let (room, stay) = (*settings.buffer_size, settings.in_file.stay());
        let length = self.head.content_length().filter(|_| !self.head.is_chunked());
        if stay != Stay::No && length == Some(0) {
            // As in nginx, a file of no length stands for a body of which that was said.
            self.body_file = Some((Rc::new(self.begin_file(stay, &[])?), 0));
        } else if self.has_unread_body() && (stay != Stay::No || length.is_none_or(|length| length > room)) {
            self.send_continue().await?;
            if let Err(Lost { status, is_whole }) = self.store_body(length, room, stay).await {
                if is_whole {
                    // What comes next on the connection is not it.
                    self.body = Some(Bytes::new());
                }
                self.body_taken = self.body_read;
                return Err(status);
            }
        }
        Ok(())
    }

    /// Reads the body, and moves it into a file as soon as it is longer than memory has room for.
    async fn store_body(&mut self, length: Option<u64>, room: u64, stay: Stay) -> Result<(), Lost> {
        let max = self.max_body_size();
        let mut decoder = Chunked::default();
        let mut in_memory = BytesMut::new();
        let mut file: Option<TempFile> = None;
        let mut got = 0;
        let is_open_ended = self.head.is_open_ended();
        loop {
            let mut piece = BytesMut::new();
            let is_done = match length {
                Some(length) => {
                    let buffered = self.connection.buffered().len();
                    let step = usize::try_from(length - got).map_or(buffered, |left| left.min(buffered));
                    piece.extend_from_slice(&self.connection.take(step));
                    self.body_read += step as u64;
                    got + step as u64 == length
                }
                None if is_open_ended => {
                    let buffered = self.connection.buffered().len();
                    piece.extend_from_slice(&self.connection.take(buffered));
                    self.body_read += buffered as u64;
                    false
                }
                None => self.take_chunks(&mut decoder, &mut piece, got)?,
            };
            if is_open_ended && max.is_some_and(|max| got + piece.len() as u64 > max) {
                return Err(self.too_long(got, piece.len() as u64).into());
            }
            let lost = |status| Lost { status, is_whole: is_done };
            if file.is_none() && got + piece.len() as u64 > room {
                file = Some(self.begin_file(stay, &in_memory).map_err(lost)?);
                in_memory = BytesMut::new();
            }
            match &file {
                Some(file) => file.write(&piece, got).map_err(|error| lost(self.file_failed(&error)))?,
                None => in_memory.extend_from_slice(&piece),
            }
            got += piece.len() as u64;
            if is_done || (is_open_ended && self.fill().await? == 0) {
                break;
            }
            if !is_open_ended {
                self.fill_body().await?;
            }
        }
        match file {
            Some(file) => self.body_file = Some((Rc::new(file), got)),
            None if stay != Stay::No => {
                let made = self.begin_file(stay, &in_memory);
                let file = made.map_err(|status| Lost { status, is_whole: true })?;
                self.body_file = Some((Rc::new(file), got));
            }
            None => self.body = Some(in_memory.freeze()),
        }
        Ok(())
    }

    /// Makes the file of a body, which begins with these bytes.
    fn begin_file(&self, stay: Stay, begun: &[u8]) -> Result<TempFile, u16> {
        let made = TempFile::create(self.settings::<Bodies>().temp_path.as_ref(), stay);
        let file = made.map_err(|error| self.file_failed(&error))?;
        // Where that is what the configuration wants, it is no reason to warn.
        let level = if stay == Stay::No { Level::Warn } else { Level::Notice };
        self.log(level, &format!("a client request body is buffered to a temporary file {}", file.path().display()));
        file.write(begun, 0).map_err(|error| self.file_failed(&error))?;
        Ok(file)
    }

    fn file_failed(&self, error: &Failed) -> u16 {
        self.log(Level::Crit, &error.to_string());
        500
    }

    /// Where the body's file is, or was made.
    pub fn body_file(&self) -> Option<&Path> {
        self.body_file.as_ref().map(|(file, _)| file.path())
    }

    /// The body, if it was read.
    pub fn body(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }

    /// Passes a body in chunks over that nobody has read: an answer is made now.
    pub fn pass_body(&mut self) {
        if self.passed_body.is_some() || self.upstream.is_some() {
            return;
        }
        self.passed_body = match self.chunks_so_far() {
            Some(Ok((_, 0))) => Some(0),
            // nginx reads on in pieces of this size.
            Some(Ok((_, least))) => Some(least.max(self.settings::<Heads>().large_buffers.size as u64)),
            Some(Err(_)) | None => None,
        };
    }

    /// How long a body in chunks is, once it was read; as nginx has it, what is still to come of one that was passed over.
    pub fn body_length(&self) -> Option<u64> {
        if self.passed_body.is_some() {
            return self.passed_body;
        }
        let length = self.body_file.as_ref().map(|(_, length)| *length);
        length.or_else(|| self.body.as_ref().map(|body| body.len() as u64)).filter(|_| self.head.is_chunked())
    }

    /// How many bytes were read for it, head and body.
    pub fn length(&self) -> u64 {
        self.head.request_length() as u64 + self.body_read
    }

    /// Whether a body of the client's is still to be read.
    pub fn has_unread_body(&self) -> bool {
        let has_body = match self.head.content_length() {
            Some(length) => length > 0,
            None => self.head.is_chunked() || self.head.is_open_ended(),
        };
        self.body.is_none() && self.body_file.is_none() && has_body
    }

    /// Whether what has come of an unread body can't be one.
    pub(super) fn has_bad_chunks(&self) -> bool {
        !self.must_close && self.chunks_so_far().is_some_and(|chunks| chunks.is_err())
    }

    /// Whether all of an unread body in chunks has come.
    pub fn has_all_chunks(&self) -> bool {
        matches!(self.chunks_so_far(), Some(Ok((_, 0))))
    }

    /// Where an unread body in chunks ends in what has come, and how much is to come at least.
    fn chunks_so_far(&self) -> Option<Result<(usize, u64), InvalidChunk>> {
        let is_unread = self.is_main() && self.body.is_none() && self.body_file.is_none() && self.head.is_chunked();
        is_unread.then(|| {
            let mut decoder = Chunked::default();
            let (end, _) = decode(&mut decoder, &self.connection.buffered(), |_, _| {})?;
            Ok((end, decoder.least()))
        })
    }

    /// Whether an unread body in chunks goes on after what has come of it.
    pub(super) fn has_chunks_to_come(&self) -> bool {
        matches!(self.chunks_so_far(), Some(Ok((_, 1..))))
    }

    /// The bound that holds here; `None`: no bound.
    pub(super) fn max_body_size(&self) -> Option<u64> {
        Some(*self.settings::<Bodies>().max_size).filter(|size| *size > 0)
    }

    /// The status for a body that is announced longer than allowed.
    pub(super) fn refuse_long_body(&self) -> Option<u16> {
        let length = self.head.content_length()?;
        let max = self.max_body_size()?;
        // What led to an error's page has put an end to the body.
        if self.is_main() && self.error_status.is_none() && length > max {
            self.log(Level::Error, &format!("client intended to send too large body: {length} bytes"));
            return Some(413);
        }
        None
    }

    async fn read_unread_body(&mut self) -> Result<Bytes, u16> {
        self.send_continue().await?;
        if !self.has_unread_body() {
            return Ok(Bytes::new());
        }
        match self.head.content_length() {
            Some(length) if !self.head.is_chunked() => self.read_counted(length).await,
            None if self.head.is_open_ended() => self.read_to_end().await,
            _ => self.read_chunked().await,
        }
    }

    /// Whether the client may send its body only if it is told to go on, and was not: what comes next may be either.
    pub(super) fn waits_for_continue(&self) -> bool {
        let buffered = self.connection.buffered().len() as u64;
        self.head.known(Known::Expect).is_some()
            && self.sent.body_bytes == 0
            && self.head.content_length().is_none_or(|length| buffered < length)
    }

    /// Lets a client go on that waits to be told so.
    pub(super) async fn send_continue(&mut self) -> Result<(), u16> {
        const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        let Some(expected) = self.head.known(Known::Expect) else { return Ok(()) };
        let is_waiting = expected.eq_ignore_ascii_case(b"100-continue") && self.head.version() >= 1001;
        if is_waiting && !self.is_told_to_continue && self.is_main() && !self.head.is_http2() {
            self.is_told_to_continue = true;
            self.sent.body_bytes += CONTINUE.len() as u64;
            self.sent.bytes += CONTINUE.len() as u64;
            let timeout = *self.settings::<Sending>().timeout;
            self.connection.write(&mut [Bytes::from_static(CONTINUE)], timeout).await.map_err(|_| 400u16)?;
        }
        Ok(())
    }

    /// Takes what has come of a body in chunks, of which so much came before; says whether that was all.
    fn take_chunks(&mut self, decoder: &mut Chunked, body: &mut BytesMut, before: u64) -> Result<bool, u16> {
        let max = self.max_body_size().unwrap_or(u64::MAX);
        let mut excess = None;
        let decoded = decode(decoder, &self.connection.buffered(), |data, left| {
            let got = before + body.len() as u64;
            let coming = left.saturating_add(data.len() as u64);
            if max.saturating_sub(got) < coming {
                excess.get_or_insert((got, coming));
            } else {
                body.extend_from_slice(data);
            }
        });
        if let Some((got, coming)) = excess {
            return Err(self.too_long(got, coming));
        }
        let (consumed, is_done) = decoded.map_err(|error| self.bad_chunk(&error))?;
        self.connection.consume(consumed);
        self.body_read += consumed as u64;
        Ok(is_done)
    }

    /// Refuses a body of which so much has come, and so much more is announced.
    fn too_long(&self, got: u64, coming: u64) -> u16 {
        self.log(Level::Error, &format!("client intended to send too large chunked body: {got}+{coming} bytes"));
        413
    }

    async fn read_counted(&mut self, length: u64) -> Result<Bytes, u16> {
        let length = usize::try_from(length).map_err(|_| 413u16)?;
        while self.connection.buffered().len() < length {
            if let Err(status) = self.fill_body().await {
                self.body_read += self.connection.buffered().len() as u64;
                return Err(status);
            }
        }
        self.body_read += length as u64;
        Ok(self.connection.take(length))
    }

    /// A body that ends with its HTTP/2 stream.
    async fn read_to_end(&mut self) -> Result<Bytes, u16> {
        let max = self.max_body_size();
        loop {
            let length = self.connection.buffered().len();
            if max.is_some_and(|max| length as u64 > max) {
                return Err(self.too_long(0, length as u64));
            }
            if self.fill().await? == 0 {
                self.body_read += length as u64;
                return Ok(self.connection.take(length));
            }
        }
    }

    async fn read_chunked(&mut self) -> Result<Bytes, u16> {
        let mut decoder = Chunked::default();
        let mut body = BytesMut::new();
        loop {
            let mut piece = BytesMut::new();
            let is_done = self.take_chunks(&mut decoder, &mut piece, body.len() as u64)?;
            body.unsplit(piece);
            if is_done {
                return Ok(body.freeze());
            }
            self.fill_body().await?;
        }
    }

    fn bad_chunk(&self, error: &InvalidChunk) -> u16 {
        self.log(Level::Error, &error.to_string());
        400
    }

    /// Reads past a body that nobody wanted, however long it is: nothing of it is kept. `false`: it does not come to its
    /// end, as the client has gone, is too slow, or sends rubbish.
    pub(super) async fn discard_body(&self) -> bool {
        let settings = self.settings::<Sending>();
        let until = clock::now().after(*settings.lingering_time);
        let mut left = self.head.content_length().filter(|_| !self.head.is_chunked());
        let mut decoder = Chunked::default();
        loop {
            let buffered = self.connection.buffered().len();
            let (step, is_done) = match &mut left {
                Some(left) => {
                    let step = usize::try_from(*left).map_or(buffered, |left| left.min(buffered));
                    *left -= step as u64;
                    (step, *left == 0)
                }
                None => match decode(&mut decoder, &self.connection.buffered(), |_, _| {}) {
                    Ok(decoded) => decoded,
                    Err(error) => {
                        self.bad_chunk(&error);
                        return false;
                    }
                },
            };
            self.connection.consume(step);
            if is_done {
                return true;
            }
            let time = until.since(clock::now()).min(*settings.lingering_timeout);
            if time.is_zero() {
                return false;
            }
            match self.connection.fill(time).await {
                Ok(1..) => {}
                Err(error) if error.kind() != io::ErrorKind::TimedOut => {
                    self.not_read(&error);
                    return false;
                }
                Ok(0) | Err(_) => return false,
            }
        }
    }

    async fn fill_body(&self) -> Result<(), u16> {
        if self.fill().await? > 0 {
            return Ok(());
        }
        self.log(Level::Info, "client prematurely closed connection");
        self.connection.is_lost.set(true);
        Err(400)
    }

    /// Reads more; 0 is the end of what the client sends.
    async fn fill(&self) -> Result<usize, u16> {
        match self.connection.fill(*self.settings::<Bodies>().timeout).await {
            Ok(length) => Ok(length),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                // Of HTTP/1 nginx tells only the access log.
                if self.head.is_http2() {
                    let message = "client timed out (110: Connection timed out) while reading client request body";
                    self.log(Level::Info, message);
                }
                Err(408)
            }
            Err(error) => {
                self.not_read(&error);
                self.connection.is_lost.set(true);
                Err(400)
            }
        }
    }

    fn not_read(&self, error: &io::Error) {
        self.log(Level::Info, &format!("recv() failed ({})", reason(error)));
    }
}

/// Decodes what is there; says how much of it was used, and whether the body is whole.
/// The data is kept, with how much more its chunk is to have.
fn decode(
    decoder: &mut Chunked,
    input: &[u8],
    mut keep: impl FnMut(&[u8], u64),
) -> Result<(usize, bool), InvalidChunk> {
    let mut at = 0;
    loop {
        match decoder.step(input, at)? {
            BodyStep::Data(range) => {
                at = range.end;
                keep(&input[range], decoder.left());
            }
            BodyStep::More => return Ok((input.len(), false)),
            BodyStep::End(end) => return Ok((end, true)),
        }
    }
}
