//! Reading a request's body, when a handler asks for it.

use std::io;

use bytes::{Bytes, BytesMut};

use super::request::Request;
use super::settings::Bodies;
use super::wire::body::{BodyStep, Chunked, InvalidChunk};
use super::wire::header::Known;
use crate::server::log::Level;

impl Request {
    /// The whole body. An error is the status to answer with.
    pub async fn read_body(&mut self) -> Result<Bytes, u16> {
        if let Some(body) = &self.body {
            return Ok(body.clone());
        }
        let body = self.read_unread_body().await?;
        self.body = Some(body.clone());
        Ok(body)
    }

    /// The body, if it was read.
    pub fn body(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }

    /// Whether a body of the client's is still to be read.
    pub fn has_unread_body(&self) -> bool {
        self.body.is_none() && (self.head.is_chunked() || self.head.content_length().is_some_and(|length| length > 0))
    }

    /// Whether what has come of an unread body can't be one.
    pub(super) fn has_bad_chunks(&self) -> bool {
        let buffered = self.connection.buffered();
        self.is_main()
            && !self.must_close
            && self.body.is_none()
            && self.head.is_chunked()
            && decode(&mut Chunked::default(), &buffered, |_| {}).is_err()
    }

    /// The bound that holds here; `None`: no bound.
    pub(super) fn max_body_size(&self) -> Option<u64> {
        Some(*self.settings::<Bodies>().max_size).filter(|size| *size > 0)
    }

    /// The status for a body that is announced longer than allowed.
    pub(super) fn refuse_long_body(&self) -> Option<u16> {
        let length = self.head.content_length()?;
        let max = self.max_body_size()?;
        if self.is_main() && length > max {
            self.log(Level::Error, &format!("client intended to send too large body: {length} bytes"));
            return Some(413);
        }
        None
    }

    async fn read_unread_body(&mut self) -> Result<Bytes, u16> {
        if !self.has_unread_body() {
            return Ok(Bytes::new());
        }
        let is_waiting =
            self.head.known(Known::Expect).is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
        if is_waiting && self.head.version() >= 1001 && self.connection.buffered().is_empty() {
            let timeout = *self.settings::<super::settings::Sending>().timeout;
            let mut pieces = [Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n")];
            self.connection.write(&mut pieces, timeout).await.map_err(|_| 400u16)?;
        }
        match self.head.content_length() {
            Some(length) if !self.head.is_chunked() => self.read_counted(length).await,
            _ => self.read_chunked().await,
        }
    }

    async fn read_counted(&mut self, length: u64) -> Result<Bytes, u16> {
        let length = usize::try_from(length).map_err(|_| 413u16)?;
        while self.connection.buffered().len() < length {
            self.fill_body().await?;
        }
        Ok(self.connection.take(length))
    }

    async fn read_chunked(&mut self) -> Result<Bytes, u16> {
        let max = self.max_body_size();
        let mut decoder = Chunked::default();
        let mut body = BytesMut::new();
        loop {
            let decoded = decode(&mut decoder, &self.connection.buffered(), |data| body.extend_from_slice(data));
            let (consumed, is_done) = decoded.map_err(|error| self.bad_chunk(&error))?;
            self.connection.consume(consumed);
            if max.is_some_and(|max| body.len() as u64 > max) {
                self.log(Level::Error, "client intended to send too large chunked body");
                return Err(413);
            }
            if is_done {
                return Ok(body.freeze());
            }
            self.fill_body().await?;
        }
    }

    fn bad_chunk(&self, error: &InvalidChunk) -> u16 {
        self.log(Level::Info, &error.to_string());
        400
    }

    /// Reads past a body that nobody wanted, however long it is: nothing of it is kept.
    pub(super) async fn discard_body(&self) -> Result<(), u16> {
        match self.head.content_length() {
            Some(length) if !self.head.is_chunked() => self.discard_counted(length).await,
            _ => self.discard_chunked().await,
        }
    }

    async fn discard_counted(&self, mut left: u64) -> Result<(), u16> {
        loop {
            let buffered = self.connection.buffered().len();
            let step = usize::try_from(left).map_or(buffered, |left| left.min(buffered));
            self.connection.consume(step);
            left -= step as u64;
            if left == 0 {
                return Ok(());
            }
            self.fill_body().await?;
        }
    }

    async fn discard_chunked(&self) -> Result<(), u16> {
        let mut decoder = Chunked::default();
        loop {
            let decoded = decode(&mut decoder, &self.connection.buffered(), |_| {});
            let (consumed, is_done) = decoded.map_err(|error| self.bad_chunk(&error))?;
            self.connection.consume(consumed);
            if is_done {
                return Ok(());
            }
            self.fill_body().await?;
        }
    }

    async fn fill_body(&self) -> Result<(), u16> {
        match self.connection.fill(*self.settings::<Bodies>().timeout).await {
            Ok(0) => {
                self.log(Level::Info, "client prematurely closed connection");
                Err(400)
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.log(Level::Info, "client timed out (110: Connection timed out) while reading client request body");
                Err(408)
            }
            Err(_) => Err(400),
        }
    }
}

/// Decodes what is there; says how much of it was used, and whether the body is whole.
fn decode(decoder: &mut Chunked, input: &[u8], mut keep: impl FnMut(&[u8])) -> Result<(usize, bool), InvalidChunk> {
    let mut at = 0;
    loop {
        match decoder.step(input, at)? {
            BodyStep::Data(range) => {
                at = range.end;
                keep(&input[range]);
            }
            BodyStep::More => return Ok((input.len(), false)),
            BodyStep::End(end) => return Ok((end, true)),
        }
    }
}
