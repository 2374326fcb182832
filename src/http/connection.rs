//! A client's connection: its addresses, its socket, and what was read ahead.

use std::cell::{Cell, OnceCell, RefCell};
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;

use super::stream::Stream;
use super::tls::Security;
use super::v2::Exchange;
use super::wire::proxy_protocol::Proxied;
use crate::server::clock::{self, Moment};
use crate::sys;
use crate::tls::channel::Channel;

/// How much is read at once.
const READ_SIZE: usize = 4096;

/// So much of answers is kept back to leave together.
const MAX_HELD: usize = 16 * 1024;

/// So much is read ahead while a handler works.
const MAX_READ_AHEAD: usize = 64 * 1024;

thread_local! {
    /// The buffer of the connection that began to wait last, for the next that has something to read.
    static SPARE: RefCell<BytesMut> = RefCell::default();
}

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
    /// Whether the client has gone in the middle of a request: nothing is answered.
    pub is_lost: Cell<bool>,
    /// Until when it waits for a request, while it does.
    pub(super) waits_until: Cell<Option<Moment>>,
    /// Whether it was told to end so that another one has room.
    pub(super) is_given_up: Cell<bool>,
    /// How it is secured, once that is known; empty where TLS is not spoken.
    pub(super) security: OnceCell<Security>,
    /// What a balancer said of it (`listen ... proxy_protocol`).
    pub(super) proxied: OnceCell<Rc<Proxied>>,
    /// Whom to wake in place of shutting the socket down, when waiting is to end: the task of an HTTP/2 connection.
    pub(super) waiter: RefCell<Option<Waker>>,
    stream: RefCell<Option<Rc<RefCell<Stream>>>>,
    /// The exchange of an HTTP/2 stream, which stands in the place of a socket.
    exchange: Option<Box<Exchange>>,
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

impl Connection {
    /// A connection that was just accepted.
    pub fn new(number: u64, stream: Stream, peer: Peer, local: Option<SocketAddr>, listener: usize) -> Self {
        let stream = RefCell::new(Some(Rc::new(RefCell::new(stream))));
        Self { stream, requests: Cell::new(0), ..Self::gone(number, peer, local, listener) }
    }

    /// One stream of an HTTP/2 connection, as the requests of it see it.
    pub(super) fn of_stream(parent: &Self, exchange: Exchange) -> Self {
        let gone = Self::gone(parent.number, parent.peer.clone(), parent.local, parent.listener);
        let security = parent.security.clone();
        let proxied = parent.proxied.clone();
        Self { accepted: parent.accepted, security, proxied, exchange: Some(Box::new(exchange)), ..gone }
    }

    /// The exchange, if it is a stream of an HTTP/2 connection.
    pub(super) fn exchange(&self) -> Option<&Exchange> {
        self.exchange.as_deref()
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
            is_lost: Cell::new(false),
            waits_until: Cell::new(None),
            is_given_up: Cell::new(false),
            security: OnceCell::new(),
            proxied: OnceCell::new(),
            waiter: RefCell::default(),
            exchange: None,
            stream: RefCell::default(),
            buffer: RefCell::default(),
            held: RefCell::default(),
        }
    }

    /// The socket; an error after it was taken over.
    pub(super) fn stream(&self) -> io::Result<Rc<RefCell<Stream>>> {
        self.stream.borrow().clone().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// What the kernel knows of it as a TCP connection; `None` where there is no socket of its own, or another kind.
    pub fn tcp_info(&self) -> Option<libc::tcp_info> {
        sys::tcp_info(&*self.stream().ok()?.borrow()).ok()
    }

    /// Reads the first bytes of a request; 0 is the end of the connection, or of the time that it waits.
    pub(super) async fn wait(&self, time: Duration) -> io::Result<usize> {
        let stream = self.stream()?;
        self.waits_until.set(Some(clock::now().after(time)));
        let read = poll_fn(|cx| self.poll_fill_from(&stream, cx)).await;
        if matches!(read, Ok(1..)) {
            self.waits_until.set(None);
        }
        read
    }

    /// Whether the wait that has come to nothing took all of its time.
    pub(super) fn has_waited_enough(&self) -> bool {
        self.waits_until.get().is_some_and(|until| until <= clock::now())
    }

    /// Has the socket be reset when it is closed: nothing of what waits in it is sent.
    pub(super) fn reset_at_end(&self) {
        if let Ok(stream) = self.stream() {
            // One that is gone already needs no reset.
            drop(socket2::SockRef::from(&*stream.borrow()).set_linger(Some(Duration::ZERO)));
        }
    }

    /// Ends the waiting before its time is over.
    pub(super) fn give_up(&self) {
        self.is_given_up.set(true);
        if self.waiter.borrow().is_some() {
            self.waits_until.set(Some(clock::now()));
        }
        self.end_waiting();
    }

    /// Ends the waiting: what reads finds the end.
    pub(super) fn end_waiting(&self) {
        if let Some(waiter) = &*self.waiter.borrow() {
            waiter.wake_by_ref();
        } else if let Ok(stream) = self.stream() {
            // One that is gone already needs no ending.
            drop(socket2::SockRef::from(&*stream.borrow()).shutdown(std::net::Shutdown::Read));
        }
    }

    /// Reads more into the buffer; 0 is the end of what the client sends.
    pub(super) async fn fill(&self, timeout: Duration) -> io::Result<usize> {
        let stream = self.stream.borrow().clone();
        let read = poll_fn(|cx| self.poll_fill(stream.as_deref(), cx));
        clock::timeout(timeout, read).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_fill(&self, stream: Option<&RefCell<Stream>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match (stream, &self.exchange) {
            (_, Some(exchange)) => exchange.poll_fill(cx, &mut self.buffer.borrow_mut()),
            (Some(stream), None) => self.poll_fill_from(stream, cx),
            (None, None) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Makes room only when there is something to read: an idle connection has no buffer.
    fn poll_fill_from(&self, stream: &RefCell<Stream>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.is_holding() {
            self.poll_held(cx)?;
        }
        let mut stream = stream.borrow_mut();
        if let Poll::Ready(Err(error)) = stream.poll_sent(cx) {
            return Poll::Ready(Err(error));
        }
        let mut buffer = self.buffer.borrow_mut();
        let mut read = stream.poll_readable(cx).map_ok(|()| 0);
        if matches!(read, Poll::Ready(Ok(_))) {
            if buffer.capacity() == 0 {
                *buffer = SPARE.take();
            }
            buffer.reserve(READ_SIZE);
            read = stream.poll_fill(cx, &mut buffer);
        }
        if read.is_pending() && buffer.is_empty() {
            let spare = std::mem::take(&mut *buffer);
            if (1..=2 * READ_SIZE).contains(&spare.capacity()) {
                SPARE.set(spare);
            }
        }
        read
    }

    /// Waits until the client has gone, while a handler works for it, and says how if that is known. What it sends
    /// meanwhile is read ahead, up to a bound; past it there is no telling.
    pub async fn closed(&self) -> Option<io::Error> {
        if let Some(exchange) = &self.exchange {
            poll_fn(|cx| exchange.poll_reset(cx)).await;
            return None;
        }
        let Ok(stream) = self.stream() else { return None };
        while self.buffer.borrow().len() < MAX_READ_AHEAD {
            match poll_fn(|cx| self.poll_fill_from(&stream, cx)).await {
                Ok(1..) => {}
                Ok(0) => return None,
                Err(error) => return Some(error),
            }
        }
        std::future::pending().await
    }

    /// Reads more into the buffer; 0 is the end of what the client sends.
    pub(super) fn poll_more(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = self.stream.borrow().clone();
        self.poll_fill(stream.as_deref(), cx)
    }

    /// Takes what was read, or reads more; empty is the end.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.buffer.borrow().is_empty() {
            ready!(self.poll_more(cx))?;
        }
        Poll::Ready(Ok(self.buffer.borrow_mut().split().freeze()))
    }

    /// Writes what the socket takes of some bytes, and says how much that was.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        if let Some(exchange) = &self.exchange {
            return exchange.poll_send(cx, bytes, usize::MAX, false);
        }
        let written = ready!(self.poll_send_bytes(cx, bytes))?;
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
        if let Poll::Ready(sent) = self.poll_sent(cx) {
            sent?;
        }
        Ok(())
    }

    /// Has the socket take what was written.
    pub(super) fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.exchange.is_some() {
            return Poll::Ready(Ok(()));
        }
        self.stream()?.borrow_mut().poll_sent(cx)
    }

    /// The same as [`Self::poll_send`] for bytes of somebody else's.
    pub(super) fn poll_send_bytes(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.borrow_mut().poll_send(cx, bytes)
    }

    /// Reads from the socket, past what was read ahead. What has no room in the buffer goes to the rest.
    pub(super) fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        rest: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        self.stream()?.borrow_mut().poll_into(cx, buffer, rest)
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

    /// Takes all of them.
    pub(super) fn take_buffered(&self) -> BytesMut {
        self.buffer.take()
    }

    /// Sends what the socket takes now, and says how much that was.
    pub(super) fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream()?.borrow_mut().try_send(bytes) {
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
        while !stream.borrow_mut().try_write_all(pieces)? {
            let writable = poll_fn(|cx| stream.borrow().poll_writable(cx));
            clock::timeout(timeout, writable).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        }
        Ok(())
    }

    /// Has the kernel keep what it takes of some bytes until a file follows; returns how much that was.
    pub(super) fn try_send_ahead(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_holding() {
            return Ok(0);
        }
        match self.stream()?.borrow().try_send_ahead(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        }
    }

    /// Whether the kernel can send files to the client.
    pub(super) fn takes_files(&self) -> bool {
        self.stream().is_ok_and(|stream| stream.borrow().takes_files())
    }

    /// Has the kernel send a part of a file, at most `turn` bytes before others have theirs.
    pub(super) async fn send_file(
        &self,
        file: &File,
        range: &mut Range<u64>,
        turn: usize,
        timeout: Duration,
    ) -> io::Result<()> {
        let stream = self.stream()?;
        let mut left = turn;
        while !range.is_empty() {
            if left == 0 {
                tokio::task::yield_now().await;
                left = turn;
            }
            let count = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(left);
            let sent = stream.borrow().try_send_file(file, range.start, count);
            match sent {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(sent) => {
                    range.start += sent as u64;
                    left -= sent.min(left);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = poll_fn(|cx| stream.borrow().poll_writable(cx));
                    clock::timeout(timeout, writable).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        self.stream()?.borrow_mut().shutdown_write()
    }

    /// Whether all that was sent is on its way.
    pub(super) fn is_flushed(&self) -> io::Result<bool> {
        self.stream()?.borrow_mut().try_flush()
    }

    /// Tells the client that this is the end, where TLS has a word for it.
    pub(super) fn say_goodbye(&self) {
        if let Ok(stream) = self.stream() {
            stream.borrow_mut().say_goodbye();
        }
    }

    /// Puts bytes in front of what will be read.
    pub(super) fn put_back(&self, bytes: &[u8]) {
        self.buffer.borrow_mut().extend_from_slice(bytes);
    }

    /// Gives the socket away, with what is spoken on it and what was read from it ahead.
    pub(super) fn detach(&self) -> io::Result<(OwnedFd, Option<Box<Channel>>, Bytes)> {
        let stream = self.stream.take().and_then(Rc::into_inner).ok_or(io::ErrorKind::NotConnected)?;
        let (socket, channel) = stream.into_inner().into_parts()?;
        Ok((socket, channel, self.buffer.take().freeze()))
    }
}
