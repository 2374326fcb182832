//! Another program takes over (USR2): it is started with our listening sockets, and both serve until one is told to quit.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::{fs, io, thread};

use tokio::sync::mpsc::UnboundedSender;

use super::inherited;
use super::live::Live;
use super::log::Level;
use super::sockets::{Bound, reason};
use super::systemd;
use crate::modules::core::environment::Environment;
use crate::sys;

/// How the program was started, for starting it again.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    words: Vec<OsString>,
    /// Who started it, if that was a program which it takes over from.
    predecessor: Option<u32>,
}

impl Program {
    /// To be called at the start: later the file may be another one.
    pub(super) fn new(takes_over: bool) -> io::Result<Self> {
        let words: Vec<_> = std::env::args_os().collect();
        // As it was called, if that was by a path: it may be a link that shows somewhere else by then.
        let called = words.first().map(PathBuf::from).filter(|path| path.components().count() > 1);
        let path = match called {
            Some(path) => std::path::absolute(path)?,
            None => std::env::current_exe()?,
        };
        Ok(Self { path, words, predecessor: takes_over.then(parent_id) })
    }

    /// Whether the program that this one takes over from is still there.
    pub(super) fn has_predecessor(&self) -> bool {
        self.predecessor == Some(parent_id())
    }

    fn start(&self, listening: &[Bound], environment: &Environment) -> io::Result<Child> {
        let descriptors = inherited::descriptors(listening);
        let mut command = Command::new(&self.path);
        if let [name, rest @ ..] = &*self.words {
            command.arg0(name).args(rest);
        }
        command.env_clear().envs(environment.of(|name| std::env::var_os(name)));
        command.envs(std::env::var_os(systemd::VARIABLE).map(|socket| (systemd::VARIABLE, socket)));
        command.env(inherited::VARIABLE, inherited::variable(&descriptors));
        sys::hand_on(&mut command, descriptors);
        command.spawn()
    }
}

/// The program that is to take over. Our own number stands in a file of another name meanwhile.
#[derive(Debug)]
pub(super) struct Successor {
    pid: u32,
    path: PathBuf,
    own_file: PathBuf,
}

impl Successor {
    /// Starts it. When it ends, its status is sent.
    pub(super) fn start(
        live: &Live,
        program: &Program,
        pid_file: &Path,
        listening: &[Bound],
        exits: &UnboundedSender<ExitStatus>,
    ) -> Option<Self> {
        let own_file = moved(pid_file);
        let name = program.path.display();
        if let Err(error) = fs::rename(pid_file, &own_file) {
            let (from, to, reason) = (pid_file.display(), own_file.display(), reason(&error));
            let what = format!("before executing new binary process \"{name}\"");
            live.log(Level::Alert, &format!("rename() {from} to {to} failed {what} ({reason})"));
            return None;
        }
        let compiled = live.compiled();
        match program.start(listening, compiled.config.main().get()) {
            Ok(mut child) => {
                let pid = child.id();
                live.log(Level::Notice, &format!("start new binary process {pid}"));
                let exits = exits.clone();
                let waiting = thread::Builder::new().name("successor".to_owned()).spawn(move || {
                    // When we have ended ourselves nobody wants to know.
                    let _told = child.wait().map(|status| exits.send(status));
                });
                if let Err(error) = waiting {
                    live.log(Level::Alert, &format!("nobody waits for process {pid} ({})", reason(&error)));
                }
                Some(Self { pid, path: program.path.clone(), own_file })
            }
            Err(error) => {
                let reason = reason(&error);
                live.log(
                    Level::Alert,
                    &format!("execve() failed while executing new binary process \"{name}\" ({reason})"),
                );
                take_back(live, &own_file, pid_file, "an attempt to execute new binary process", &program.path);
                None
            }
        }
    }

    /// It has ended: we are who we were.
    pub(super) fn ended(self, live: &Live, status: ExitStatus, pid_file: &Path) {
        let pid = self.pid;
        match (status.code(), status.signal()) {
            (Some(code), _) => {
                live.log(Level::Notice, &format!("new binary process {pid} exited with code {code}"));
            }
            (None, signal) => {
                let signal = signal.unwrap_or_default();
                live.log(Level::Alert, &format!("new binary process {pid} exited on signal {signal}"));
            }
        }
        take_back(live, &self.own_file, pid_file, "the new binary process exited", &self.path);
    }

    /// Where our own number stands.
    pub(super) fn own_file(&self) -> &Path {
        &self.own_file
    }
}

fn take_back(live: &Live, own_file: &Path, pid_file: &Path, when: &str, program: &Path) {
    if let Err(error) = fs::rename(own_file, pid_file) {
        let (from, to, program) = (own_file.display(), pid_file.display(), program.display());
        let reason = reason(&error);
        live.log(Level::Alert, &format!("rename() {from} back to {to} failed after {when} \"{program}\" ({reason})"));
    }
}

/// `nginx.pid.oldbin`
fn moved(pid_file: &Path) -> PathBuf {
    let mut name = pid_file.as_os_str().to_owned();
    name.push(".oldbin");
    name.into()
}
