//! Listening sockets: one for each worker and address.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::inherited::Inherited;
use crate::compile::Listener;
use crate::config::{Keepalive, ListenAddress, ListenOptions};

/// nginx's own backlog on Linux.
const BACKLOG: i32 = 511;

/// How often, and how far apart, a taken address is tried; as nginx does.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// The sockets of an address, one for each worker.
#[derive(Debug)]
pub(super) struct Bound {
    /// The address.
    pub(super) address: Arc<ListenAddress>,
    /// A socket for each worker, in their order.
    pub(super) sockets: Vec<OwnedFd>,
}

/// Binds an address for a number of workers, unless a program before this one has left its sockets. The error is nginx's
/// line for it.
pub(super) fn bind(listener: &Listener, workers: usize, inherited: &mut Inherited) -> Result<Bound, String> {
    let mut sockets = inherited.of(&listener.address);
    for socket in &sockets {
        set_and_listen(&SockRef::from(socket), &listener.options).map_err(|error| failed(listener, &error))?;
    }
    let mut tries = 0;
    while sockets.is_empty() {
        match first(&listener.address, &listener.options) {
            Ok(socket) => sockets.push(socket),
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) && tries + 1 < TRIES => {
                tries += 1;
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(failed(listener, &error)),
        }
    }
    let more = widen(&sockets, listener, workers)?;
    sockets.extend(more);
    Ok(Bound { address: Arc::new(listener.address.clone()), sockets })
}

fn failed(listener: &Listener, error: &io::Error) -> String {
    format!("bind() to {} failed ({})", listener.address, reason(error))
}

/// The sockets that an address lacks for a number of workers.
pub(super) fn widen(sockets: &[OwnedFd], listener: &Listener, workers: usize) -> Result<Vec<OwnedFd>, String> {
    let Some(first) = sockets.first() else { return Ok(Vec::new()) };
    let more = (sockets.len()..workers).map(|_| another(first, &listener.address, &listener.options));
    more.collect::<io::Result<_>>().map_err(|error| failed(listener, &error))
}

/// One more socket of an address, which shares it; or the same once more, where that can't be: in the file system, and
/// with what nginx has bound.
fn another(first: &OwnedFd, address: &ListenAddress, options: &ListenOptions) -> io::Result<OwnedFd> {
    match address {
        ListenAddress::Ip(ip) if SockRef::from(first).reuse_port()? => shared(*ip, options),
        ListenAddress::Ip(_) | ListenAddress::Unix(_) => first.try_clone(),
    }
}

fn shared(ip: std::net::SocketAddr, options: &ListenOptions) -> io::Result<OwnedFd> {
    let socket = ip_socket(ip, options)?;
    socket.set_reuse_port(true)?;
    socket.bind(&ip.into())?;
    set_and_listen(&SockRef::from(&socket), options)?;
    Ok(socket.into())
}

fn first(address: &ListenAddress, options: &ListenOptions) -> io::Result<OwnedFd> {
    match address {
        ListenAddress::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // What a server that was killed left behind would be in the way. A living one answers, and what is no socket
            // refuses in another way: they stay.
            let left_behind = Socket::new(Domain::UNIX, Type::STREAM, None)?.connect(&SockAddr::unix(path)?);
            let is_dead = left_behind.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if is_dead && std::fs::symlink_metadata(path)?.file_type().is_socket() {
                std::fs::remove_file(path)?;
            }
            socket.bind(&SockAddr::unix(path)?)?;
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
            set_and_listen(&SockRef::from(&socket), options)?;
            Ok(socket.into())
        }
        ListenAddress::Ip(ip) => {
            // Several sockets share the address, but not with another program: a bind without sharing shows whether
            // one is there. Port 0 would give each a port of its own.
            let probe = ip_socket(*ip, options)?;
            probe.bind(&(*ip).into())?;
            drop(probe);
            shared(*ip, options)
        }
    }
}

fn ip_socket(address: std::net::SocketAddr, options: &ListenOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(options.ipv6only.unwrap_or(true))?;
    }
    Ok(socket)
}

/// Sets what accepted connections inherit, and listens.
fn set_and_listen(socket: &SockRef<'_>, options: &ListenOptions) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    if let Some(size) = options.rcvbuf {
        socket.set_recv_buffer_size(size)?;
    }
    if let Some(size) = options.sndbuf {
        socket.set_send_buffer_size(size)?;
    }
    if socket.domain()? != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    match options.keepalive {
        None => {}
        Some(Keepalive::On) => socket.set_keepalive(true)?,
        Some(Keepalive::Off) => socket.set_keepalive(false)?,
        Some(Keepalive::Times { idle, interval, count }) => {
            let mut keepalive = TcpKeepalive::new();
            if let Some(idle) = idle {
                keepalive = keepalive.with_time(Duration::from_secs(idle.into()));
            }
            if let Some(interval) = interval {
                keepalive = keepalive.with_interval(Duration::from_secs(interval.into()));
            }
            if let Some(count) = count {
                keepalive = keepalive.with_retries(count);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
    }
    socket.listen(options.backlog.unwrap_or(BACKLOG))
}

/// `open() "/var/log/nginx/access.log" failed (13: Permission denied)`
pub fn failed_on(call: &str, path: &Path, error: &io::Error) -> String {
    format!("{call}() \"{}\" failed ({})", path.display(), reason(error))
}

/// `98: Address already in use`
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    match error.raw_os_error() {
        Some(number) => format!("{number}: {text}"),
        None => text.to_owned(),
    }
}
