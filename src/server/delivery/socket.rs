//! A subscriber's connection. All reading and writing of delivery goes through here, and a TLS connection's state will live
//! behind the same few functions.

use std::io::{IoSlice, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

/// A connected stream socket that never blocks. TCP or not, a [`TcpStream`] does what it needs in four bytes.
#[derive(Debug)]
pub(super) struct Socket(TcpStream);

impl Socket {
    /// Takes a socket over, and has it watched. The watch is edge-triggered and for both directions, once and for all: no
    /// system call is needed when there is something to write later. It ends when the socket is dropped.
    pub(super) fn watch(socket: OwnedFd, registry: &Registry, token: Token) -> Result<Self> {
        let socket = TcpStream::from(socket);
        socket.set_nonblocking(true)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, both)?;
        Ok(Self(socket))
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        (&self.0).read(buffer)
    }

    pub(super) fn write(&self, bytes: &[u8]) -> Result<usize> {
        (&self.0).write(bytes)
    }

    pub(super) fn write_vectored(&self, parts: &[IoSlice<'_>]) -> Result<usize> {
        (&self.0).write_vectored(parts)
    }

    /// Tells the client that nothing more comes.
    pub(super) fn end(&self) -> Result<()> {
        self.0.shutdown(Shutdown::Write)
    }
}
