//! Processes that don't outlive the test.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait;

/// A running program; killed when dropped, and when the test binary dies in whatever way.
pub(crate) struct Process {
    child: Child,
    guard: Option<Guard>,
}

impl Process {
    /// Starts `command`. When the test binary ends without having stopped it, it gets `farewell` (TERM, INT ...) and
    /// `folder` is removed.
    pub(crate) fn start(command: &mut Command, farewell: &str, folder: &std::path::Path) -> Self {
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let guard = Guard::over(child.id(), farewell, folder);
        Self { child, guard: Some(guard) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap();
        if status.is_some() {
            self.guard = None;
        }
        status
    }

    /// The exit status if it ends within `time`.
    pub(crate) fn wait(&mut self, time: Duration) -> Option<ExitStatus> {
        wait::holds_within(time, || self.ended().is_some()).then(|| self.ended()).flatten()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _gone = self.child.kill();
            let _status = self.child.wait();
        }
    }
}

/// Sends a signal (`HUP`, `TERM` ...) to a process.
pub(crate) fn signal(pid: u32, name: &str) {
    // The shell's own `kill`: a minimal Debian has no /bin/kill.
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).stderr(Stdio::null()).status();
    assert!(status.is_ok(), "cannot run sh");
}

/// Whether a process that is not our child still runs (a zombie doesn't).
pub(crate) fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// A shell that reads from a pipe which we hold: when we die the pipe ends, and the shell ends what we left behind.
struct Guard {
    shell: Child,
    pipe: ChildStdin,
}

impl Guard {
    fn over(pid: u32, farewell: &str, folder: &std::path::Path) -> Self {
        let script = r#"trap "" INT TERM HUP; read -r _ || { kill -"$2" "$1"; rm -rf "$3"; }"#;
        let mut shell = Command::new("sh")
            .args(["-c", script, "guard", &pid.to_string(), farewell])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pipe = shell.stdin.take().unwrap();
        Self { shell, pipe }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _told = self.pipe.write_all(b"\n");
        let _status = self.shell.wait();
    }
}
