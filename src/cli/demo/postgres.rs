//! A PostgreSQL for the demo: its own cluster in its own folder, on a free port of the loopback interface.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::sys;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
pub(super) struct Postgres {
    /// Its port on 127.0.0.1.
    pub(super) port: u16,
    process: Child,
}

impl Postgres {
    /// Makes a cluster with role, password and database `test`, and starts a server on it.
    pub(super) fn start(folder: &Path) -> Result<Self, String> {
        let programs = programs().ok_or(
            "PostgreSQL is not installed; on Debian and Ubuntu: apt-get install postgresql (or use ./dev demo)",
        )?;
        let data = folder.join("postgres");
        let identity = identity()?;
        fs::create_dir(&data).map_err(|error| format!("{}: {error}", data.display()))?;
        if let Some((uid, gid)) = identity {
            std::os::unix::fs::chown(&data, Some(uid), Some(gid))
                .map_err(|error| format!("{}: {error}", data.display()))?;
        }
        let log = File::create(folder.join("postgres.log")).map_err(|error| format!("postgres.log: {error}"))?;
        let initdb =
            ["--username=test", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--pgdata"];
        let mut command = command(&programs.join("initdb"), identity, &log)?;
        run(command.args(initdb).arg(&data), folder)?;
        let port = free_port().map_err(|error| format!("no free port: {error}"))?;
        let mut command = self::command(&programs.join("postgres"), identity, &log)?;
        command.arg("-D").arg(&data).args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
        command.arg("-c").arg(format!("port={port}"));
        command.arg("-c").arg(format!("unix_socket_directories={}", data.display()));
        sys::die_with_parent(&mut command);
        let process = command.spawn().map_err(|error| format!("postgres could not be started: {error}"))?;
        let mut postgres = Self { port, process };
        postgres.wait(folder)?;
        let mut command = self::command(&programs.join("createdb"), identity, &log)?;
        run(command.args(["-h", "127.0.0.1", "-U", "test", "-p", &port.to_string(), "test"]), folder)?;
        Ok(postgres)
    }

    /// The command that reaches it.
    pub(super) fn psql(&self) -> String {
        format!("psql -h 127.0.0.1 -p {} -U test test", self.port)
    }

    /// Stops it, connections or not.
    pub(super) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let stopped = i32::try_from(self.process.id()).map_err(io::Error::other).and_then(|pid| {
            // SIGINT is PostgreSQL's fast shutdown.
            sys::signal(pid, libc::SIGINT)
        });
        if stopped.is_ok() {
            drop(self.process.wait());
        }
    }

    fn wait(&mut self, folder: &Path) -> Result<(), String> {
        let pause = Duration::from_millis(50);
        let mut waited = Duration::ZERO;
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(format!("postgres ended ({status}): {}", last_line(folder)));
            }
            if waited > PATIENCE {
                return Err(format!("postgres does not answer on port {}: {}", self.port, last_line(folder)));
            }
            std::thread::sleep(pause);
            waited += pause;
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            self.end();
        }
    }
}

/// The newest installation: Debian keeps versions side by side, others have the programs in the path.
fn programs() -> Option<PathBuf> {
    let mut debian: Vec<PathBuf> = glob::glob("/usr/lib/postgresql/*/bin/initdb").ok()?.flatten().collect();
    debian.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::split_paths(&path).map(|folder| folder.join("initdb")).find(|file| file.exists());
    debian.pop().or(path)?.parent().map(Path::to_owned)
}

/// PostgreSQL refuses to run as root: whom it runs as then.
fn identity() -> Result<Option<(u32, u32)>, String> {
    if !sys::is_root() {
        return Ok(None);
    }
    let found = sys::user_ids("postgres").or_else(|| sys::user_ids("nobody"));
    found.map(Some).ok_or_else(|| "root can't run PostgreSQL, and there is no user postgres".to_owned())
}

/// A program of PostgreSQL's, in a process group of its own so that Ctrl-C reaches it in our order.
fn command(program: &Path, identity: Option<(u32, u32)>, log: &File) -> Result<Command, String> {
    let output = || log.try_clone().map_err(|error| format!("postgres.log: {error}"));
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(output()?).stderr(output()?).current_dir("/").process_group(0);
    if let Some((uid, gid)) = identity {
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

fn run(command: &mut Command, folder: &Path) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} failed ({status}): {}", last_line(folder))),
        Err(error) => Err(format!("{name} could not be started: {error}")),
    }
}

fn last_line(folder: &Path) -> String {
    let log = fs::read_to_string(folder.join("postgres.log")).unwrap_or_default();
    log.lines().last().unwrap_or("it says nothing").to_owned()
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
