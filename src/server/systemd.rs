//! What systemd is told: that the server is ready, reloads, ends, or has become another process (sd_notify(3)).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::clock;

/// The variable that names the socket.
pub(super) const VARIABLE: &str = "NOTIFY_SOCKET";

/// Who is to be told.
#[derive(Debug)]
pub(super) struct Systemd {
    /// A path, or an abstract name after `@`; `None`: nobody.
    name: Option<OsString>,
}

impl Systemd {
    /// Who the environment names.
    pub(super) fn from_environment() -> Self {
        Self { name: std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) }
    }

    /// Clients are served. With the process's number: it may be another one than systemd has started.
    pub(super) fn ready(&self) {
        self.tell(&format!("MAINPID={}\nREADY=1", std::process::id()));
    }

    /// The configuration is read anew; [`Self::ready`] ends it.
    pub(super) fn reloading(&self) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic().as_micros()));
    }

    /// The server ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Whoever does not listen any more is not told: nothing depends on it.
    fn tell(&self, message: &str) {
        if let Some(name) = &self.name {
            drop(send(name, message));
        }
    }
}

fn send(name: &OsStr, message: &str) -> io::Result<usize> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

    use super::*;

    fn told(socket: &UnixDatagram) -> String {
        let mut message = [0; 100];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    #[test]
    fn sockets_have_paths_or_abstract_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("pushgate-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let sockets = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}").into(), UnixDatagram::bind_addr(&abstract_address).unwrap()),
        ];
        for (name, socket) in sockets {
            let systemd = Systemd { name: Some(name) };
            systemd.ready();
            assert_eq!(told(&socket), format!("MAINPID={}\nREADY=1", std::process::id()));
            systemd.reloading();
            let time = told(&socket).strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse::<u128>().unwrap();
            assert!(time > 0 && time <= clock::monotonic().as_micros());
            systemd.stopping();
            assert_eq!(told(&socket), "STOPPING=1");
        }
        Systemd { name: Some("/nowhere/at/all".into()) }.ready();
        Systemd { name: None }.ready();
    }
}
