//! A connection's TLS without its socket: rustls's state, and only those bytes that are of no use yet. While nothing is
//! under way it holds no buffer.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};

/// The most that one read takes from a socket, beside what was there of a record. What is decrypted is no longer.
pub const READ: usize = 32 * 1024;

/// The most that is encrypted before the socket has taken it.
const WRITE: usize = 64 * 1024;

/// More than this is no record, nor the longest message of a handshake.
const MAX_INCOMING: usize = 96 * 1024;

/// What encryption adds to a record, and rather more.
const OVERHEAD: usize = 64;

/// A socket, as far as this goes. Neither call waits: `WouldBlock` says that it would have to.
pub trait Socket {
    /// Reads once.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes once.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

/// One connection.
pub struct Channel {
    connection: UnbufferedServerConnection,
    /// What has come of a record.
    incoming: Vec<u8>,
    /// Encrypted, and not yet taken by the socket.
    outgoing: Vec<u8>,
    /// The client has said that it sends no more.
    ended: bool,
    /// We have said that we send no more, or that there was a fault.
    finished: bool,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

thread_local! {
    /// A thread's space for what is read and written, lent to one connection at a time.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Works with the thread's space.
fn with_spare<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut space = SPARE.take();
    let result = work(&mut space);
    if space.capacity() <= 2 * WRITE {
        SPARE.set(space);
    }
    result
}

impl Channel {
    /// A connection whose client has begun with these bytes.
    pub fn new(config: Arc<ServerConfig>, begun: Vec<u8>) -> Result<Self, rustls::Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self { connection, incoming: begun, outgoing: Vec::new(), ended: false, finished: false })
    }

    /// What was agreed upon.
    pub fn agreed(&self) -> &rustls::CommonState {
        &self.connection
    }

    /// Goes on with the handshake as far as it can now: `Ok(true)` once it is done. What the client sent behind it goes to
    /// `plain`. An error's alert has been sent.
    pub fn shake(&mut self, socket: &mut impl Socket, plain: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        loop {
            let mut incoming = std::mem::take(&mut self.incoming);
            let driven = self.drive(&mut incoming, plain);
            self.incoming = incoming;
            match self.flush(socket) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return driven.and(Err(error)),
                _ => driven?,
            }
            if !self.connection.is_handshaking() {
                return Ok(true);
            }
            if self.fill(socket)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads what has come, once, behind what was there.
    fn fill(&mut self, socket: &mut impl Socket) -> io::Result<usize> {
        let length = self.incoming.len();
        if length > MAX_INCOMING {
            return Err(ErrorKind::InvalidData.into());
        }
        self.incoming.resize(length + 4096, 0);
        let read = socket.read(&mut self.incoming[length..]);
        self.incoming.truncate(length + read.as_ref().unwrap_or(&0));
        read
    }

    /// Reads and decrypts: how many bytes went to `plain`, 0 at the end.
    pub fn read(&mut self, socket: &mut impl Socket, plain: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        with_spare(|space| {
            while !self.ended {
                let kept = self.incoming.len();
                if kept > MAX_INCOMING {
                    return Err(ErrorKind::InvalidData.into());
                }
                if space.len() < kept + READ {
                    space.resize(kept + READ, 0);
                }
                space[..kept].copy_from_slice(&self.incoming);
                let read = match socket.read(&mut space[kept..kept + READ]) {
                    Ok(0) => return Ok(0),
                    read => read?,
                };
                let mut count = 0;
                let (done, driven) = self.step(&mut space[..kept + read], &mut |bytes| {
                    count += bytes.len();
                    plain(bytes);
                });
                self.incoming = space[done..kept + read].to_vec();
                if !self.outgoing.is_empty() {
                    self.flush(socket).or_else(would_block)?;
                }
                driven?;
                if count > 0 {
                    return Ok(count);
                }
            }
            Ok(0)
        })
    }

    /// Encrypts and writes: how many bytes were taken. If they are not all, or [`Self::has_pending`], the socket is full; what
    /// it has not taken of them stays here, and no more are taken before that is gone.
    pub fn write(&mut self, socket: &mut impl Socket, bytes: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        let mut taken = 0;
        with_spare(|space| {
            for piece in bytes.chunks(WRITE) {
                self.write_piece(socket, piece, space)?;
                taken += piece.len();
                if self.has_pending() {
                    break;
                }
            }
            Ok(taken)
        })
    }

    fn write_piece(&mut self, socket: &mut impl Socket, bytes: &[u8], space: &mut Vec<u8>) -> io::Result<()> {
        let written = self.with_writer(|writer| encrypt(writer, bytes, space))??;
        // A change of keys goes before.
        if self.has_pending() {
            self.outgoing.extend_from_slice(&space[..written]);
            return self.flush(socket).or_else(would_block);
        }
        let mut sent = 0;
        while sent < written {
            match socket.write(&space[sent..written]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.outgoing.extend_from_slice(&space[sent..written]);
        Ok(())
    }

    /// Has the socket take what is encrypted already.
    pub fn flush(&mut self, socket: &mut impl Socket) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match socket.write(&self.outgoing) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing = Vec::new();
        Ok(())
    }

    /// Whether the client has said that it sends no more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether something encrypted waits for the socket.
    pub fn has_pending(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Tells the client that nothing more comes, as far as the socket takes it now.
    pub fn end(&mut self, socket: &mut impl Socket) -> io::Result<()> {
        if self.finished || self.connection.is_handshaking() {
            return self.flush(socket);
        }
        let mut alert = [0; 128];
        let length = self.with_writer(|writer| writer.queue_close_notify(&mut alert))?.map_err(other)?;
        self.finished = true;
        self.outgoing.extend_from_slice(&alert[..length]);
        self.flush(socket)
    }

    fn with_writer<T>(
        &mut self,
        work: impl FnOnce(&mut WriteTraffic<'_, rustls::server::ServerConnectionData>) -> T,
    ) -> io::Result<T> {
        if self.finished {
            return Err(ErrorKind::BrokenPipe.into());
        }
        loop {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
            match state.map_err(other)? {
                ConnectionState::WriteTraffic(mut writer) => return Ok(work(&mut writer)),
                ConnectionState::EncodeTlsData(mut data) => encode(&mut self.outgoing, |space| data.encode(space))?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.ended = true,
                _ => return Err(ErrorKind::NotConnected.into()),
            }
        }
    }

    /// Works through what has come, and keeps the rest.
    fn drive(&mut self, incoming: &mut Vec<u8>, plain: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let (done, driven) = self.step(incoming, plain);
        incoming.drain(..done);
        driven
    }

    /// Works through what has come: how much of it is of no more use.
    fn step(&mut self, incoming: &mut [u8], plain: &mut dyn FnMut(&[u8])) -> (usize, io::Result<()>) {
        let mut done = 0;
        let mut failure = None;
        loop {
            // After a fault nothing more is read, and reading the same once more would be another.
            let rest = if failure.is_none() { &mut incoming[done..] } else { &mut [] };
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(rest);
            let mut taken = discard;
            let state = match state {
                Ok(state) => state,
                // Once more: there is an alert to be sent.
                Err(error) if failure.is_none() => {
                    done += taken;
                    failure = Some(other(error));
                    self.finished = true;
                    continue;
                }
                Err(_) => break,
            };
            let result = match state {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        taken += record.discard;
                        plain(record.payload);
                    }
                    Ok(true)
                }
                ConnectionState::ReadEarlyData(mut early) => {
                    while let Some(Ok(record)) = early.next_record() {
                        taken += record.discard;
                        plain(record.payload);
                    }
                    Ok(true)
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(&mut self.outgoing, |space| data.encode(space)).map(|()| true)
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    Ok(true)
                }
                ConnectionState::PeerClosed => {
                    self.ended = true;
                    Ok(true)
                }
                _ => Ok(false),
            };
            done += taken;
            match result {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return (done, Err(error)),
            }
        }
        (done, failure.map_or(Ok(()), Err))
    }
}

/// Encrypts into a space that grows as needed; how long it came out.
fn encrypt(
    writer: &mut WriteTraffic<'_, rustls::server::ServerConnectionData>,
    bytes: &[u8],
    space: &mut Vec<u8>,
) -> io::Result<usize> {
    if space.len() < bytes.len() + OVERHEAD {
        space.resize(bytes.len() + OVERHEAD, 0);
    }
    loop {
        match writer.encrypt(bytes, space) {
            Ok(length) => return Ok(length),
            Err(EncryptError::InsufficientSize(needed)) if needed.required_size > space.len() => {
                space.resize(needed.required_size, 0);
            }
            Err(error) => return Err(other(error)),
        }
    }
}

/// Puts a part of a handshake behind what waits.
fn encode(outgoing: &mut Vec<u8>, mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> io::Result<()> {
    let length = outgoing.len();
    let mut room = 512;
    loop {
        outgoing.resize(length + room, 0);
        match encode(&mut outgoing[length..]) {
            Ok(written) => {
                outgoing.truncate(length + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) if needed.required_size > room => room = needed.required_size,
            Err(error) => {
                outgoing.truncate(length);
                return Err(other(error));
            }
        }
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// That the socket takes no more for now is no error.
fn would_block(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::WouldBlock { Ok(()) } else { Err(error) }
}
