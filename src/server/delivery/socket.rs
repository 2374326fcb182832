//! A subscriber's connection. All reading and writing of delivery goes through here, and knows nothing of whether it is
//! encrypted.

use std::io::{ErrorKind, IoSlice, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::server::counts::Subscribed;
use crate::tls::channel::{self, Channel};

/// A connected stream socket that never blocks. TCP or not, a [`TcpStream`] does what it needs in four bytes.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    channel: Option<Box<Channel>>,
    /// Counts it as long as it is there.
    _counted: Subscribed,
}

/// What delivery is given of a connection.
#[derive(Debug)]
pub struct Connected {
    /// The socket.
    pub socket: OwnedFd,
    /// What is spoken on it, if it is TLS.
    pub channel: Option<Box<Channel>>,
}

impl From<OwnedFd> for Connected {
    fn from(socket: OwnedFd) -> Self {
        Self { socket, channel: None }
    }
}

/// What is shorter is put together before it is encrypted.
const GATHERED: usize = 64 * 1024;

impl Socket {
    /// Takes a socket over, and has it watched. The watch is edge-triggered and for both directions, once and for all: no
    /// system call is needed when there is something to write later. It ends when the socket is dropped.
    pub(super) fn watch(connected: Connected, registry: &Registry, token: Token) -> Result<Self> {
        let stream = TcpStream::from(connected.socket);
        stream.set_nonblocking(true)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&stream.as_raw_fd()), token, both)?;
        Ok(Self { stream, channel: connected.channel, _counted: Subscribed::enter() })
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Some(channel) = &mut self.channel else { return (&self.stream).read(buffer) };
        if buffer.len() < 2 * channel::READ {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut end = 0;
        channel.read(&mut &self.stream, &mut |bytes| {
            buffer[end..end + bytes.len()].copy_from_slice(bytes);
            end += bytes.len();
        })
    }

    /// Whether a read of so many bytes into a buffer says that there are no more for now.
    pub(super) fn is_drained_by(&self, count: usize, buffer: usize) -> bool {
        self.channel.is_none() && count < buffer
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match &mut self.channel {
            Some(channel) => channel.write(&mut &self.stream, bytes),
            None => (&self.stream).write(bytes),
        }
    }

    pub(super) fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<usize> {
        if self.channel.is_none() {
            return (&self.stream).write_vectored(parts);
        }
        let mut taken = 0;
        let mut gathered: Vec<u8> = Vec::new();
        for part in parts {
            if !gathered.is_empty() && gathered.len() + part.len() > GATHERED {
                if !self.write_on(&gathered, &mut taken)? {
                    return Ok(taken);
                }
                gathered.clear();
            }
            match part.len() {
                0..GATHERED => gathered.extend_from_slice(part),
                _ if self.write_on(part, &mut taken)? => {}
                _ => return Ok(taken),
            }
        }
        self.write_on(&gathered, &mut taken)?;
        Ok(taken)
    }

    /// Writes and counts; `false`: there is no room for more.
    fn write_on(&mut self, bytes: &[u8], taken: &mut usize) -> Result<bool> {
        match self.write(bytes) {
            Ok(count) => {
                *taken += count;
                Ok(count == bytes.len() && self.is_flushed())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && *taken > 0 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel take what is encrypted already; `WouldBlock` says that some of it waits.
    pub(super) fn flush(&mut self) -> Result<()> {
        match &mut self.channel {
            Some(channel) => channel.flush(&mut &self.stream),
            None => Ok(()),
        }
    }

    /// Whether all that was written is with the kernel.
    pub(super) fn is_flushed(&self) -> bool {
        self.channel.as_ref().is_none_or(|channel| !channel.has_pending())
    }

    /// Tells the client that nothing more comes.
    pub(super) fn end(&mut self) -> Result<()> {
        if let Some(channel) = &mut self.channel {
            channel.end(&mut &self.stream)?;
        }
        self.stream.shutdown(Shutdown::Write)
    }
}

impl channel::Socket for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        Read::read(self, buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        Write::write(self, bytes)
    }
}
