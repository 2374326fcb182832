//! A file's bytes to a socket, without a way through the program's memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Has the kernel send a part of a file; says how much of it the socket took. 0 is the end of the file.
pub fn send_file(socket: &impl AsFd, file: &File, offset: u64, count: usize) -> io::Result<usize> {
    let mut offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: both descriptors are borrowed for the call, and the offset lives through it.
    let sent = unsafe { libc::sendfile(socket.as_fd().as_raw_fd(), file.as_raw_fd(), &raw mut offset, count) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
