//! An epoll within the runtime's: many sockets, of which the runtime sees one descriptor.

use std::io;

use mio::Poll;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the running tokio runtime watch an epoll, which is readable when one of its sockets is ready.
#[allow(unsafe_code, reason = "tokio asks us to promise that the descriptor stays open")]
pub fn watch(poll: Poll) -> io::Result<AsyncFd<Poll>> {
    // SAFETY: a `Poll` owns its descriptor, has the same one for all its life, and closes it only when it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(poll, Interest::READABLE) }?)
}
