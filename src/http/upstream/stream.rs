//! A connection to an upstream: a socket with what was read from it, and how one is opened.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_util::io::poll_read_buf;

use super::tls::Terms;
use crate::config::ListenAddress;
use crate::server::clock::Moment;

/// A socket, without TLS.
#[derive(Debug)]
pub enum Plain {
    /// Over IP.
    Tcp(TcpStream),
    /// In the file system.
    Unix(UnixStream),
}

/// A socket, with TLS or without.
#[derive(Debug)]
pub enum Stream {
    /// Without.
    Plain(Plain),
    /// With.
    Tls(Box<tokio_rustls::client::TlsStream<Plain>>),
}

/// A connection to an upstream.
#[derive(Debug)]
pub struct Link {
    /// The socket.
    pub stream: Stream,
    /// What was read and not yet used.
    pub buffer: BytesMut,
    /// The terms of TLS that it was made with.
    pub tls: Terms,
    /// How many requests it has carried.
    pub requests: u64,
    /// When it was opened.
    pub opened: Moment,
    /// How many bytes were written to it for the present request.
    pub sent: u64,
    /// How many bytes were read from it for the present request.
    pub received: u64,
}

/// How a connection is to be opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening {
    /// Where it comes from.
    pub bind: Option<SocketAddr>,
    /// Whether that may be an address of somebody else.
    pub transparent: bool,
    /// Whether TCP keep-alive is on.
    pub keepalive: bool,
}

impl Opening {
    /// Opens a connection.
    pub async fn connect(&self, address: &ListenAddress) -> io::Result<Plain> {
        match address {
            ListenAddress::Unix(path) => UnixStream::connect(path).await.map(Plain::Unix),
            ListenAddress::Ip(address) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                socket.set_keepalive(self.keepalive)?;
                if let Some(bind) = self.bind {
                    let raw = socket2::SockRef::from(&socket);
                    if self.transparent {
                        raw.set_ip_transparent_v4(true)?;
                    }
                    socket.bind(bind)?;
                }
                let stream = socket.connect(*address).await?;
                stream.set_nodelay(true)?;
                Ok(Plain::Tcp(stream))
            }
        }
    }
}

impl Link {
    /// A connection that was just opened.
    pub fn new(stream: Stream, opened: Moment) -> Box<Self> {
        Box::new(Self {
            stream,
            buffer: BytesMut::new(),
            tls: Terms::default(),
            requests: 0,
            opened,
            sent: 0,
            received: 0,
        })
    }

    /// Whether an idle connection has been closed by its other end, or has got what nobody asked for. It costs no system
    /// call: the runtime has noted it.
    pub fn is_stale(&mut self) -> bool {
        let plain = match &self.stream {
            Stream::Plain(plain) => plain,
            Stream::Tls(tls) => tls.get_ref().0,
        };
        let is_ready = match plain {
            Plain::Tcp(stream) => stream.try_io(Interest::READABLE, || Ok(())).is_ok(),
            Plain::Unix(stream) => stream.try_io(Interest::READABLE, || Ok(())).is_ok(),
        };
        if !is_ready {
            return !self.buffer.is_empty();
        }
        let mut cx = Context::from_waker(Waker::noop());
        // A TLS server sends session tickets unasked; and the last read may have ended just where the data did.
        self.buffer.reserve(512);
        !self.buffer.is_empty() || self.poll_fill(&mut cx).is_ready()
    }

    /// Reads once into the buffer; 0 is the end.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = match &mut self.stream {
            Stream::Plain(plain) => poll_read_buf(Pin::new(plain), cx, &mut self.buffer),
            // One that hangs up without TLS's own farewell has ended all the same.
            Stream::Tls(tls) => match poll_read_buf(Pin::new(&mut **tls), cx, &mut self.buffer) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
                read => read,
            },
        };
        if let Poll::Ready(Ok(length)) = &read {
            self.received += *length as u64;
        }
        read
    }

    /// Writes what the socket takes of the pieces, and drops it from them; ready when nothing is left of them.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, pieces: &mut [Bytes]) -> Poll<io::Result<()>> {
        loop {
            let mut slices = [IoSlice::new(&[]); 4];
            let mut count = 0;
            for piece in pieces.iter().filter(|piece| !piece.is_empty()).take(slices.len()) {
                slices[count] = IoSlice::new(piece);
                count += 1;
            }
            if count == 0 {
                return self.poll_flush(cx);
            }
            let slices = &slices[..count];
            let written = match &mut self.stream {
                // The kernel has less to do for one piece.
                Stream::Plain(plain) if count == 1 => Pin::new(plain).poll_write(cx, &slices[0]),
                Stream::Plain(plain) => Pin::new(plain).poll_write_vectored(cx, slices),
                Stream::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, slices),
            };
            let mut written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written as u64;
            for piece in pieces.iter_mut() {
                let step = written.min(piece.len());
                bytes::Buf::advance(piece, step);
                written -= step;
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }
}

impl AsyncRead for Plain {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
