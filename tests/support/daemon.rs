//! A server in the background, as nginx runs by default: found by its pid file, which another program may take over.

use std::path::{Path, PathBuf};

use super::ports::Port;
use super::{http, process, pushgate, wait};

/// The server; whoever serves at the end is stopped when this is dropped.
pub(crate) struct Daemon {
    prefix: tempfile::TempDir,
    port: Port,
}

impl Daemon {
    /// Starts it, with more in its environment. In `config`, `%%PORT%%` is a free port and `%%PREFIX%%` the folder.
    #[track_caller]
    pub(crate) fn start(config: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_program(&pushgate::binary(), config, environment)
    }

    /// The same by another name of the program.
    #[track_caller]
    pub(crate) fn start_program(program: &Path, config: &str, environment: &[(&str, &str)]) -> Self {
        let this = Self { prefix: pushgate::prefix(), port: Port::free() };
        this.configure(config);
        let mut command = pushgate::command_of(program, this.prefix.path());
        // What it says goes to a file: a pipe would stay open as long as it runs.
        let said = std::fs::File::create(this.path("logs/startup.txt")).unwrap();
        let status = command.envs(environment.iter().copied()).stderr(said).status().unwrap();
        assert!(status.success(), "it does not start: {}", this.read("logs/startup.txt"));
        wait::until("there is a pid file", || this.read("logs/nginx.pid").ends_with('\n'));
        wait::until("the server listens", || std::net::TcpStream::connect(("127.0.0.1", this.port())).is_ok());
        this
    }

    pub(crate) fn configure(&self, config: &str) {
        let prefix = self.prefix.path().display().to_string();
        let config = config.replace("%%PORT%%", &self.port().to_string()).replace("%%PREFIX%%", &prefix);
        std::fs::write(self.path("conf/nginx.conf"), config).unwrap();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.prefix.path().join(path)
    }

    /// A file of the prefix folder; empty when it is not there.
    pub(crate) fn read(&self, path: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path(path)).unwrap_or_default()).into_owned()
    }

    /// Who serves, by its pid file.
    pub(crate) fn pid(&self) -> u32 {
        self.read("logs/nginx.pid").trim().parse().unwrap_or_else(|_| panic!("no pid file: {}", self.log()))
    }

    /// Who has served and is about to go.
    pub(crate) fn old_pid(&self) -> Option<u32> {
        self.read("logs/nginx.pid.oldbin").trim().parse().ok()
    }

    pub(crate) fn log(&self) -> String {
        self.read("logs/error.log")
    }

    /// Waits until the error log has a line that contains all of `words`.
    #[track_caller]
    pub(crate) fn until_logged(&self, words: &[&str]) {
        let is_there = || self.log().lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(wait::holds_within(wait::PATIENCE, is_there), "no line with {words:?}:\n{}", self.log());
    }

    /// The body of an answer.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> String {
        http::get(self.port(), target).body
    }

    /// Runs nginx's command line on the same configuration.
    pub(crate) fn order(&self, words: &[&str]) {
        let output = pushgate::command(self.prefix.path()).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The threads of a process with a name that begins so, as folders in /proc.
    pub(crate) fn threads(pid: u32, name: &str) -> Vec<PathBuf> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let tasks = tasks.map(|task| task.unwrap().path());
        let is_named =
            |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name));
        let mut tasks: Vec<_> = tasks.filter(is_named).collect();
        tasks.sort();
        tasks
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("error.log: {}", self.log());
        }
        let files = ["logs/nginx.pid", "logs/nginx.pid.oldbin"];
        let pids: Vec<u32> = files.iter().filter_map(|file| self.read(file).trim().parse().ok()).collect();
        for pid in pids {
            process::signal(pid, "TERM");
            if !wait::holds_within(wait::PATIENCE, || !process::runs(pid)) {
                process::signal(pid, "KILL");
            }
        }
    }
}
