//! A client's connection: its addresses, its socket, and what was read ahead.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::poll_read_buf;

use crate::server::clock::{self, Moment};

/// How much is read at once.
const READ_SIZE: usize = 4096;

/// How many pieces leave in one system call.
const MAX_SLICES: usize = 8;

/// So much of answers is kept back to leave together.
const MAX_HELD: usize = 16 * 1024;

/// So much is read ahead while a handler works.
const MAX_READ_AHEAD: usize = 64 * 1024;

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    /// nginx's `$connection`: counts all connections of the process.
    pub number: u64,
    /// The client's address.
    pub peer: Peer,
    /// The address that the client connected to; `None` for a socket in the file system.
    pub local: Option<SocketAddr>,
    /// Which listener it came by, in the configuration that accepted it.
    pub listener: usize,
    /// When it was accepted.
    pub accepted: Moment,
    /// How many requests it has carried, the present one included.
    pub requests: Cell<u64>,
    /// Until when it waits for a request, while it does.
    pub(super) waits_until: Cell<Option<Moment>>,
    stream: RefCell<Option<Rc<RefCell<Stream>>>>,
    buffer: RefCell<BytesMut>,
    /// Answers that leave together with the next: the client has sent that request already.
    held: RefCell<Vec<u8>>,
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address and port.
    Ip(SocketAddr),
    /// A client of a socket in the file system.
    Unix(PathBuf),
}

impl Peer {
    /// The address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix(_) => None,
        }
    }

    /// The address as `$remote_addr` shows it.
    pub fn text(&self) -> String {
        match self {
            Self::Ip(address) => address.ip().to_string(),
            Self::Unix(_) => "unix:".to_owned(),
        }
    }
}

/// A socket.
#[derive(Debug)]
pub enum Stream {
    /// Over IP.
    Tcp(TcpStream),
    /// In the file system.
    Unix(UnixStream),
}

impl Stream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Reads once. A read that does not fill the buffer tells tokio that there is no more: `try_read` would need a second
    /// call to learn it.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => poll_read_buf(Pin::new(stream), cx, buffer),
            Self::Unix(stream) => poll_read_buf(Pin::new(stream), cx, buffer),
        }
    }

    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(slices),
            Self::Unix(stream) => stream.try_write_vectored(slices),
        }
    }

    /// Writes what the socket takes now; `false`: not all.
    fn try_write_all(&self, pieces: &mut [Bytes]) -> io::Result<bool> {
        let mut at = 0;
        loop {
            while pieces.get(at).is_some_and(Bytes::is_empty) {
                at += 1;
            }
            let rest = &mut pieces[at..];
            if rest.is_empty() {
                return Ok(true);
            }
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            for (slice, piece) in slices.iter_mut().zip(rest.iter()) {
                *slice = IoSlice::new(piece);
            }
            let mut written = match self.try_write(&slices[..rest.len().min(MAX_SLICES)]) {
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

    fn into_fd(self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(OwnedFd::from),
            Self::Unix(stream) => stream.into_std().map(OwnedFd::from),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(number: u64, stream: Stream, peer: Peer, local: Option<SocketAddr>, listener: usize) -> Self {
        let stream = RefCell::new(Some(Rc::new(RefCell::new(stream))));
        Self { stream, requests: Cell::new(0), ..Self::gone(number, peer, local, listener) }
    }

    /// One that belongs to somebody else by now, or has ended: only its particulars are left.
    pub(super) fn gone(number: u64, peer: Peer, local: Option<SocketAddr>, listener: usize) -> Self {
        Self {
            number,
            peer,
            local,
            listener,
            accepted: clock::now(),
            requests: Cell::new(1),
            waits_until: Cell::new(None),
            stream: RefCell::default(),
            buffer: RefCell::default(),
            held: RefCell::default(),
        }
    }

    /// The socket; an error after it was taken over.
    pub(super) fn stream(&self) -> io::Result<Rc<RefCell<Stream>>> {
        self.stream.borrow().clone().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Reads the first bytes of a request; 0 is the end of the connection, or of the time that it waits.
    pub(super) async fn wait(&self, time: Duration) -> io::Result<usize> {
        let stream = self.stream()?;
        self.waits_until.set(Some(clock::now().after(time)));
        let read = poll_fn(|cx| self.poll_fill(&stream, cx)).await;
        self.waits_until.set(None);
        read
    }

    /// Ends the waiting: what reads finds the end.
    pub(super) fn end_waiting(&self) {
        if let Ok(stream) = self.stream() {
            // One that is gone already needs no ending.
            drop(socket2::SockRef::from(&*stream.borrow()).shutdown(std::net::Shutdown::Read));
        }
    }

    /// Reads more into the buffer; 0 is the end of what the client sends.
    pub(super) async fn fill(&self, timeout: Duration) -> io::Result<usize> {
        let stream = self.stream()?;
        let read = poll_fn(|cx| self.poll_fill(&stream, cx));
        clock::timeout(timeout, read).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Makes room only when there is something to read: an idle connection has no buffer.
    fn poll_fill(&self, stream: &RefCell<Stream>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_held(cx)?;
        let mut stream = stream.borrow_mut();
        ready!(stream.poll_readable(cx))?;
        let mut buffer = self.buffer.borrow_mut();
        buffer.reserve(READ_SIZE);
        let read = stream.poll_read(cx, &mut buffer);
        if read.is_pending() && buffer.is_empty() {
            *buffer = BytesMut::new();
        }
        read
    }

    /// Waits until the client has gone, while a handler works for it. What it sends meanwhile is read ahead, up to a
    /// bound; past it there is no telling.
    pub async fn closed(&self) {
        let Ok(stream) = self.stream() else { return };
        while self.buffer.borrow().len() < MAX_READ_AHEAD {
            match poll_fn(|cx| self.poll_fill(&stream, cx)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
        std::future::pending().await
    }

    /// Takes what was read, or reads more; empty is the end.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.buffer.borrow().is_empty() {
            let stream = self.stream()?;
            ready!(self.poll_fill(&stream, cx))?;
        }
        Poll::Ready(Ok(self.buffer.borrow_mut().split().freeze()))
    }

    /// Writes what the socket takes of some bytes, and says how much that was.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        let stream = self.stream()?;
        let mut stream = stream.borrow_mut();
        let written = match &mut *stream {
            Stream::Tcp(stream) => ready!(tokio::io::AsyncWrite::poll_write(Pin::new(stream), cx, bytes))?,
            Stream::Unix(stream) => ready!(tokio::io::AsyncWrite::poll_write(Pin::new(stream), cx, bytes))?,
        };
        bytes.advance(written);
        Poll::Ready(Ok(written))
    }

    /// Keeps an answer back, to leave with the next one.
    pub(super) fn hold(&self, answer: &[u8]) {
        self.held.borrow_mut().extend_from_slice(answer);
    }

    /// Whether answers are kept back.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.borrow().is_empty()
    }

    /// Whether an answer may wait for the next one: that one's request is there already.
    pub(super) fn may_hold(&self) -> bool {
        !self.buffer.borrow().is_empty() && self.held.borrow().len() < MAX_HELD
    }

    /// The answers that were kept back.
    pub(super) fn take_held(&self) -> Vec<u8> {
        self.held.take()
    }

    /// Sends what was kept back, as far as the socket takes it; the task is woken for the rest.
    pub(super) fn poll_held(&self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.held.borrow().is_empty() {
            let mut rest = Bytes::from(self.take_held());
            let sent = self.poll_send(cx, &mut rest);
            self.held.replace(rest.into());
            match sent {
                Poll::Ready(sent) => drop(sent?),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// What was read and not yet used.
    pub(super) fn buffered(&self) -> std::cell::Ref<'_, BytesMut> {
        self.buffer.borrow()
    }

    /// Uses up bytes of the buffer.
    pub(super) fn consume(&self, length: usize) {
        self.buffer.borrow_mut().advance(length);
    }

    /// Takes bytes out of the buffer.
    pub(super) fn take(&self, length: usize) -> Bytes {
        self.buffer.borrow_mut().split_to(length).freeze()
    }

    /// Sends what the socket takes now, and says how much that was.
    pub(super) fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream()?.borrow().try_send(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        }
    }

    /// Writes all of the pieces, in as few system calls as the socket allows.
    pub(super) async fn write(&self, pieces: &mut [Bytes], timeout: Duration) -> io::Result<()> {
        let held = self.take_held();
        if !held.is_empty() {
            self.write_all(&mut [held.into()], timeout).await?;
        }
        self.write_all(pieces, timeout).await
    }

    async fn write_all(&self, pieces: &mut [Bytes], timeout: Duration) -> io::Result<()> {
        let stream = self.stream()?;
        while !stream.borrow().try_write_all(pieces)? {
            let writable = poll_fn(|cx| stream.borrow().poll_writable(cx));
            clock::timeout(timeout, writable).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        let stream = self.stream()?;
        socket2::SockRef::from(&*stream.borrow()).shutdown(std::net::Shutdown::Write)
    }

    /// Gives the socket away, with what was read from it ahead.
    pub(super) fn detach(&self) -> io::Result<(OwnedFd, Bytes)> {
        let stream = self.stream.take().and_then(Rc::into_inner).ok_or(io::ErrorKind::NotConnected)?;
        Ok((stream.into_inner().into_fd()?, self.buffer.take().freeze()))
    }
}
