//! A name server of our own: dnsmasq, with names from a file that tests change.

use std::fmt::Write;
use std::process::{Command, Stdio};

use super::ports::Port;
use super::process::Process;

/// A running dnsmasq that knows names below `test`; gone when dropped.
pub(crate) struct Dnsmasq {
    // Before the folder, so that the server has ended when that is removed.
    process: Process,
    folder: tempfile::TempDir,
    port: Port,
}

impl Dnsmasq {
    /// Starts one whose answers hold for so many seconds.
    pub(crate) fn start(ttl: u32, names: &[(&str, &str)]) -> Self {
        Self::start_with(ttl, names, &[])
    }

    /// The same with more of its options.
    pub(crate) fn start_with(ttl: u32, names: &[(&str, &str)], options: &[String]) -> Self {
        let folder = tempfile::Builder::new().prefix("pushgate-dns-").tempdir().unwrap();
        let port = Port::free();
        write(&folder, names);
        let mut command = Command::new("/usr/sbin/dnsmasq");
        command
            .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--local=/test/", "--user=root"])
            .args(["--listen-address=127.0.0.1", "--bind-interfaces", "--conf-file=/dev/null", "--pid-file="])
            .arg(format!("--port={}", port.number))
            .arg(format!("--local-ttl={ttl}"))
            .arg(format!("--addn-hosts={}", folder.path().join("names").display()))
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Process::start(&mut command, "TERM", folder.path());
        let this = Self { process, folder, port };
        super::wait::until("dnsmasq listens", || std::net::TcpStream::connect(("127.0.0.1", this.port())).is_ok());
        this
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    /// Changes what it knows.
    pub(crate) fn set(&self, names: &[(&str, &str)]) {
        write(&self.folder, names);
        self.process.signal("HUP");
    }
}

fn write(folder: &tempfile::TempDir, names: &[(&str, &str)]) {
    let mut text = String::new();
    for (name, address) in names {
        writeln!(text, "{address} {name}").unwrap();
    }
    std::fs::write(folder.path().join("names"), text).unwrap();
}
