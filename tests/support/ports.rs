//! Free TCP ports on 127.0.0.1.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// A port of our own, for as long as this value lives.
///
/// The kernel chooses it, and the socket stays bound but never listens: with SO_REUSEADDR on both sides a server can
/// listen there, while the kernel gives the port to nobody else. Until then a connection to it is refused.
pub(crate) struct Port {
    pub(crate) number: u16,
    _held: Socket,
}

impl Port {
    pub(crate) fn free() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let number = socket.local_addr().unwrap().as_socket_ipv4().unwrap().port();
        Self { number, _held: socket }
    }
}
