//! A responder that knows which certificates are revoked: OpenSSL's own.

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::process::Process;
use super::tls::Authority;

/// A running `openssl ocsp`; gone when dropped.
pub(crate) struct Responder {
    // Before the folder, so that the server has ended when that is removed.
    _process: Process,
    _folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Responder {
    /// Answers about the certificates of an authority: those with these serial numbers are good, and those revoked.
    pub(crate) fn start(authority: &Authority, good: &[u64], revoked: &[u64]) -> Self {
        let folder = tempfile::Builder::new().prefix("pushgate-ocsp-").tempdir().unwrap();
        let mut index = String::new();
        for serial in good {
            writeln!(index, "V\t400101000000Z\t\t{serial:02X}\tunknown\t/CN={serial}").unwrap();
        }
        for serial in revoked {
            writeln!(index, "R\t400101000000Z\t210101000000Z\t{serial:02X}\tunknown\t/CN={serial}").unwrap();
        }
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let (ca, key) = (file("ca.pem", &authority.pem), file("ca.key", &authority.key));
        let mut command = Command::new("openssl");
        command.args(["ocsp", "-port", "0", "-nmin", "60"]).arg("-index").arg(file("index.txt", &index));
        command.arg("-CA").arg(&ca).arg("-rsigner").arg(&ca).arg("-rkey").arg(key);
        let (reader, writer) = std::io::pipe().unwrap();
        command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
        let process = Process::start(&mut command, "TERM", folder.path());
        // Its end of the pipe is the process's alone, so that reading ends with it.
        drop(command);
        let line = BufReader::new(reader).lines().map_while(Result::ok).find(|line| line.starts_with("ACCEPT"));
        let line = line.expect("openssl ocsp tells its port");
        let port = line.split_whitespace().nth(1).and_then(|address| address.rsplit(':').next()).unwrap();
        Self { _process: process, _folder: folder, port: port.parse().unwrap() }
    }
}
