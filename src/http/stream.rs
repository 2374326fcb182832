//! A client's socket, with TLS over it or not.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::poll_read_buf;

use crate::sys::send_file;
use crate::tls::channel::{self, Channel};

/// How many pieces leave in one system call.
const MAX_SLICES: usize = 8;

/// So much is put together before it is encrypted.
const GATHERED: usize = 16 * 1024;

/// A client's socket. It reads and writes in the clear whatever is spoken on the wire.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    channel: Option<Box<Channel>>,
}

/// A socket.
#[derive(Debug)]
pub(super) enum Socket {
    /// Over IP.
    Tcp(TcpStream),
    /// In the file system.
    Unix(UnixStream),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self { socket: Socket::Tcp(stream), channel: None }
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self { socket: Socket::Unix(stream), channel: None }
    }
}

impl Stream {
    /// Speaks TLS from now on.
    pub(super) fn secure(&mut self, channel: Channel) -> &mut Channel {
        self.channel.insert(Box::new(channel))
    }

    /// What was agreed upon, if TLS is spoken.
    pub(super) fn channel(&self) -> Option<&Channel> {
        self.channel.as_deref()
    }

    /// Goes on with the handshake; what follows it goes to the buffer. Call it once [`Self::secure`] was.
    pub(super) fn poll_shake(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<()>> {
        let Self { socket, channel } = self;
        let Some(channel) = channel else { return Poll::Ready(Ok(())) };
        match channel.shake(&mut Raw { socket, cx }, &mut |bytes| buffer.extend_from_slice(bytes)) {
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A goodbye may have come with the end of the handshake: the socket has nothing more to tell.
        if self.channel.as_ref().is_some_and(|channel| channel.has_ended()) {
            return Poll::Ready(Ok(()));
        }
        match &self.socket {
            Socket::Tcp(stream) => stream.poll_read_ready(cx),
            Socket::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.socket {
            Socket::Tcp(stream) => stream.poll_write_ready(cx),
            Socket::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Reads once. A read that does not fill the buffer tells tokio that there is no more: `try_read` would need a second
    /// call to learn it.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        let Self { socket, channel } = self;
        let Some(channel) = channel else { return socket.poll_fill(cx, buffer) };
        match channel.read(&mut Raw { socket, cx }, &mut |bytes| buffer.extend_from_slice(bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            read => Poll::Ready(read),
        }
    }

    /// The same into a buffer of somebody else's; what has no room there goes to the rest.
    pub(super) fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        rest: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        let Self { socket, channel } = self;
        let Some(channel) = channel else { return socket.poll_into(cx, buffer) };
        let read = channel.read(&mut Raw { socket, cx }, &mut |bytes| {
            let (now, later) = bytes.split_at(bytes.len().min(buffer.remaining()));
            buffer.put_slice(now);
            rest.extend_from_slice(later);
        });
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            read => Poll::Ready(read.map(drop)),
        }
    }

    /// Writes what the socket takes now, and says how much that was.
    pub(super) fn try_send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.channel {
            Some(channel) => channel.write(&mut self.socket, bytes),
            None => channel::Socket::write(&mut self.socket, bytes),
        }
    }

    /// Writes once; woken when there is room.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { socket, channel } = self;
        let Some(channel) = channel else { return socket.poll_out(cx, bytes) };
        match channel.write(&mut Raw { socket, cx }, bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            written => Poll::Ready(written),
        }
    }

    /// Has the socket take what was written; woken when there is room.
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, channel } = self;
        let Some(channel) = channel else { return Poll::Ready(Ok(())) };
        match channel.flush(&mut Raw { socket, cx }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            flushed => Poll::Ready(flushed),
        }
    }

    /// Whether the kernel can send files on it: nothing is to be encrypted.
    pub(super) fn takes_files(&self) -> bool {
        self.channel.is_none()
    }

    /// Writes what the socket takes now of bytes that stand before a file, so that both leave in the same packet.
    pub(super) fn try_send_ahead(&self, bytes: &[u8]) -> io::Result<usize> {
        let send = || socket2::SockRef::from(&self.socket).send_with_flags(bytes, libc::MSG_MORE);
        match &self.socket {
            Socket::Tcp(stream) => stream.try_io(Interest::WRITABLE, send),
            Socket::Unix(stream) => stream.try_io(Interest::WRITABLE, send),
        }
    }

    /// Sends what the socket takes of a file now, and says how much that was.
    pub(super) fn try_send_file(&self, file: &File, offset: u64, count: usize) -> io::Result<usize> {
        match &self.socket {
            Socket::Tcp(stream) => stream.try_io(Interest::WRITABLE, || send_file(stream, file, offset, count)),
            Socket::Unix(stream) => stream.try_io(Interest::WRITABLE, || send_file(stream, file, offset, count)),
        }
    }

    fn try_write(&mut self, pieces: &[Bytes]) -> io::Result<usize> {
        if self.channel.is_some() {
            return match pieces {
                [piece, ..] if piece.len() >= GATHERED => self.try_send(piece),
                [piece] => self.try_send(piece),
                pieces => self.try_send(&gathered(pieces)),
            };
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
        }
        let slices = &slices[..pieces.len().min(MAX_SLICES)];
        match &self.socket {
            Socket::Tcp(stream) => stream.try_write_vectored(slices),
            Socket::Unix(stream) => stream.try_write_vectored(slices),
        }
    }

    /// Writes what the socket takes now; `false`: not all.
    pub(super) fn try_write_all(&mut self, pieces: &mut [Bytes]) -> io::Result<bool> {
        let mut at = 0;
        loop {
            while pieces.get(at).is_some_and(Bytes::is_empty) {
                at += 1;
            }
            let rest = &mut pieces[at..];
            if rest.is_empty() {
                return self.try_flush();
            }
            let mut written = match self.try_write(rest) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                written => written?,
            };
            for piece in rest {
                let step = written.min(piece.len());
                piece.advance(step);
                written -= step;
            }
        }
    }

    /// Whether all that was written is on its way.
    pub(super) fn try_flush(&mut self) -> io::Result<bool> {
        let Some(channel) = &mut self.channel else { return Ok(true) };
        match channel.flush(&mut self.socket) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says that nothing more will be sent.
    pub(super) fn shutdown_write(&mut self) -> io::Result<()> {
        if let Some(channel) = &mut self.channel {
            channel.end(&mut self.socket)?;
        }
        socket2::SockRef::from(&self.socket).shutdown(std::net::Shutdown::Write)
    }

    /// The socket alone, and what is spoken on it.
    pub(super) fn into_parts(mut self) -> io::Result<(OwnedFd, Option<Box<Channel>>)> {
        let channel = self.channel.take();
        let Self { socket, .. } = self;
        let socket = match socket {
            Socket::Tcp(stream) => stream.into_std().map(OwnedFd::from),
            Socket::Unix(stream) => stream.into_std().map(OwnedFd::from),
        };
        Ok((socket?, channel))
    }

    /// Tells a client of TLS that this is the end, as far as the socket takes it: what is cut off without a word might be
    /// an attacker's doing.
    pub(super) fn say_goodbye(&mut self) {
        if let Some(channel) = &mut self.channel {
            // One that is gone needs no goodbye.
            drop(channel.end(&mut self.socket));
        }
    }
}

/// Some pieces in one.
fn gathered(pieces: &[Bytes]) -> Vec<u8> {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let mut all = Vec::with_capacity(length.min(GATHERED));
    for piece in pieces {
        let left = GATHERED - all.len();
        all.extend_from_slice(&piece[..piece.len().min(left)]);
    }
    all
}

impl Socket {
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => poll_read_buf(Pin::new(stream), cx, buffer),
            Self::Unix(stream) => poll_read_buf(Pin::new(stream), cx, buffer),
        }
    }

    fn poll_into(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

/// Nobody is woken when it is ready.
impl channel::Socket for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }
}

/// A socket whose task is woken when it is ready.
struct Raw<'a, 'c> {
    socket: &'a mut Socket,
    cx: &'a mut Context<'c>,
}

impl channel::Socket for Raw<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        match self.socket.poll_into(self.cx, &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.socket.poll_out(self.cx, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
