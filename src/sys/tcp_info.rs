//! What the kernel knows of a TCP connection.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// The state of a TCP connection, as the kernel sees it now.
pub fn tcp_info(socket: &impl AsFd) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the socket is borrowed for the call, which writes at most `length` bytes, and the struct has so many.
    let result = unsafe {
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it holds numbers only, for which zeros are good where the kernel wrote nothing.
    Ok(unsafe { info.assume_init() })
}
