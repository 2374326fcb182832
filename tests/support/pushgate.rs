//! The server under test, in a folder of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::ports::Port;
use super::process::Process;
use super::wait;

/// The binary under test; `PUSHGATE_BIN` names another one with nginx's command line.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("PUSHGATE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_pushgate").into(), PathBuf::from)
}

/// nginx's command line for a prefix folder, with nothing of our environment that could change an answer.
pub(crate) fn command(prefix: &Path) -> Command {
    command_of(&binary(), prefix)
}

/// The same of another program, or of this one by another name.
pub(crate) fn command_of(program: &Path, prefix: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("-p").arg(format!("{}/", prefix.display())).arg("-c").arg(prefix.join("conf/nginx.conf"));
    command.env("TZ", "UTC").env("LC_ALL", "C").env_remove("NGINX").current_dir("/").stdin(Stdio::null());
    command
}

/// A new prefix folder, which the workers (they may run as `nobody`) can enter.
pub(crate) fn prefix() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("pushgate-test-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["conf", "logs", "html"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    folder
}

/// A running server; stopped when dropped.
pub(crate) struct Pushgate {
    // Before the folder, so that the server has ended when that is removed.
    process: Process,
    prefix: tempfile::TempDir,
    port: Port,
    replace: Vec<(String, String)>,
}

impl Pushgate {
    /// Starts the server and waits until it listens. In `config`, `%%PORT%%` is a free port, `%%PREFIX%%` the folder, and each
    /// name in `replace` its value.
    #[track_caller]
    pub(crate) fn start(config: &str, replace: &[(&str, &str)]) -> Self {
        let (prefix, port) = (prefix(), Port::free());
        let mut replace: Vec<_> =
            replace.iter().map(|(name, value)| (format!("%%{name}%%"), (*value).to_owned())).collect();
        replace.push(("%%PORT%%".into(), port.number.to_string()));
        replace.push(("%%PREFIX%%".into(), prefix.path().display().to_string()));
        std::fs::write(prefix.path().join("conf/nginx.conf"), substitute(config, &replace)).unwrap();

        let said = std::fs::File::create(prefix.path().join("logs/startup.txt")).unwrap();
        let mut command = command(prefix.path());
        command.stdout(said.try_clone().unwrap()).stderr(said);
        let process = Process::start(&mut command, "TERM", prefix.path());
        let mut this = Self { process, prefix, port, replace };
        this.until_listening();
        this
    }

    #[track_caller]
    fn until_listening(&mut self) {
        wait::until("the server listens", || {
            if let Some(status) = self.process.ended() {
                panic!("the server does not start ({status}): {}{}", self.read("logs/startup.txt"), self.log());
            }
            // Its number is written when it has all its sockets, of which that port is one.
            !self.read("logs/nginx.pid").is_empty() && std::net::TcpStream::connect(("127.0.0.1", self.port())).is_ok()
        });
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A file of the prefix folder; empty when it is not there.
    pub(crate) fn read(&self, path: &str) -> String {
        let bytes = std::fs::read(self.prefix.path().join(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        std::fs::write(self.prefix.path().join(path), text).unwrap();
    }

    /// Where a file of the prefix folder is.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.prefix.path().join(path)
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.prefix.path().join(from), self.prefix.path().join(to)).unwrap();
    }

    /// The error log.
    pub(crate) fn log(&self) -> String {
        self.read("logs/error.log")
    }

    /// Waits until the error log has a line that contains all of `words`.
    #[track_caller]
    pub(crate) fn until_logged(&self, words: &[&str]) {
        let found = wait::holds_within(wait::PATIENCE, || self.logged(words) > 0);
        assert!(found, "the error log has no line with {words:?}:\n{}", self.log());
    }

    /// How many lines of the error log contain all of `words`.
    pub(crate) fn logged(&self, words: &[&str]) -> usize {
        self.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// Puts another configuration in place of the first, for the next reload.
    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(self.prefix.path().join("conf/nginx.conf"), substitute(config, &self.replace)).unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// The exit status, if it ends within `time`.
    pub(crate) fn wait(&mut self, time: Duration) -> Option<ExitStatus> {
        self.process.wait(time)
    }

    /// How many descriptors the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Resident memory in KB.
    pub(crate) fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Pushgate {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            self.process.signal("TERM");
            let stopped = self.process.wait(wait::PATIENCE).is_some();
            // While a test already fails, its own message is the one to show.
            assert!(stopped || std::thread::panicking(), "the server does not stop on SIGTERM");
        }
        if std::thread::panicking() {
            let tail: Vec<_> = self.log().lines().rev().take(40).map(str::to_owned).collect();
            for line in tail.iter().rev() {
                eprintln!("error.log: {line}");
            }
        }
    }
}

fn substitute(text: &str, replace: &[(String, String)]) -> String {
    replace.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}
