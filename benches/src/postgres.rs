//! A PostgreSQL of our own in a temporary folder, its programs, and a session with it.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::process::{Cores, signal};
use crate::server::free_address;

/// Without an answer for so long, none comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster with the superuser `postgres`, whom it trusts; stopped when dropped.
pub(crate) struct Cluster {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    programs: PathBuf,
    server: Child,
    /// A field, so that it goes after the server has stopped.
    folder: TempDir,
}

impl Cluster {
    /// Makes one, on all cores, and waits until it answers. Nothing is synced to the disk: no row writes.
    pub(crate) fn start(cores: &Cores) -> Result<Self, Box<dyn Error>> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("pushgate-bench-").tempdir()?;
        // Root's cluster is made and run by another user.
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777))?;
        let data = folder.path().join("data");
        let mut initdb = tool(&programs, "initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
        said(initdb.arg(&data))?;
        let address = free_address()?;
        let mut postgres = tool(&programs, "postgres");
        postgres.arg("-D").arg(&data);
        for setting in [
            format!("port={}", address.port()),
            format!("unix_socket_directories={}", folder.path().display()),
            "listen_addresses=127.0.0.1".into(),
            "max_connections=200".into(),
            "shared_buffers=256MB".into(),
            "fsync=off".into(),
            "autovacuum=off".into(),
        ] {
            postgres.arg("-c").arg(setting);
        }
        let log = folder.path().join("log");
        postgres.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let server = cores.spawn(&mut postgres, true)?;
        let cluster = Self { address, programs, server, folder };
        let end = Instant::now() + PATIENCE;
        while let Err(error) = cluster.session() {
            if Instant::now() > end {
                let log = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("PostgreSQL does not start: {error}; {}", log.lines().last().unwrap_or("")).into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(cluster)
    }

    /// A session of the superuser.
    pub(crate) fn session(&self) -> Result<Session, Box<dyn Error>> {
        Session::connect(self.address)
    }

    /// One of PostgreSQL's clients, told where the cluster is.
    pub(crate) fn client(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.env("PGHOST", Ipv4Addr::LOCALHOST.to_string()).env("PGPORT", self.address.port().to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", "postgres").env("LC_ALL", "C");
        command
    }

    /// A folder that clients may write to.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // INT ends sessions that are still there; TERM would wait for them.
        signal(self.server.id(), Signal::INT);
        self.server.wait().ok();
    }
}

/// What a client says on stdout; an error is what it says on stderr.
pub(crate) fn said(command: &mut Command) -> Result<String, Box<dyn Error>> {
    output(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// The same of one that runs already.
pub(crate) fn output(child: Child) -> Result<String, Box<dyn Error>> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The folder of PostgreSQL's programs; Debian keeps each version in one of its own, and the newest wins.
fn programs() -> Result<PathBuf, Box<dyn Error>> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<u32> = versions.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable();
    let debian = versions.iter().rev().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
    let mut folders = debian.chain(["/usr/bin", "/usr/local/bin", "/usr/local/pgsql/bin"].map(PathBuf::from));
    folders
        .find(|folder| ["initdb", "pgbench"].iter().all(|name| folder.join(name).exists()))
        .ok_or_else(|| "there is no PostgreSQL with initdb and pgbench (Debian: postgresql)".into())
}

/// One of the server's programs, which refuse to run as root.
fn tool(programs: &Path, name: &str) -> Command {
    let program = programs.join(name);
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
    command
}

/// A session by the simple protocol; results are not looked at.
pub(crate) struct Session {
    stream: TcpStream,
    incoming: Vec<u8>,
}

impl Session {
    fn connect(address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut session = Self { stream, incoming: Vec::new() };
        let version = 3_u32 << 16;
        session
            .write(None, &[&version.to_be_bytes(), b"user\0postgres\0database\0postgres\0\0".as_slice()].concat())?;
        session.ready()?;
        Ok(session)
    }

    /// Sends statements, one transaction in all, and waits for nothing.
    pub(crate) fn send(&mut self, sql: &str) -> Result<(), Box<dyn Error>> {
        self.write(Some(b'Q'), format!("{sql}\0").as_bytes())
    }

    /// Waits until what was sent is done.
    pub(crate) fn ready(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            while let [kind, a, b, c, d, ..] = self.incoming[..] {
                let end = u32::from_be_bytes([a, b, c, d]) as usize + 1;
                let Some(message) = self.incoming.get(..end) else { break };
                if kind == b'E' {
                    return Err(format!("PostgreSQL: {}", String::from_utf8_lossy(message).replace('\0', " ")).into());
                }
                self.incoming.drain(..end);
                if kind == b'Z' {
                    return Ok(());
                }
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece)? {
                0 => return Err("PostgreSQL closed the session".into()),
                n => self.incoming.extend_from_slice(&piece[..n]),
            }
        }
    }

    /// Both.
    pub(crate) fn run(&mut self, sql: &str) -> Result<(), Box<dyn Error>> {
        self.send(sql)?;
        self.ready()
    }

    fn write(&mut self, kind: Option<u8>, body: &[u8]) -> Result<(), Box<dyn Error>> {
        let length = u32::try_from(body.len() + 4)?.to_be_bytes();
        let message: Vec<u8> = kind.into_iter().chain(length).chain(body.iter().copied()).collect();
        Ok(self.stream.write_all(&message)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    #[test]
    fn a_cluster_answers_sessions_and_clients() {
        let cluster = Cluster::start(&Cores::divide().unwrap()).unwrap();
        let mut session = cluster.session().unwrap();
        session.run("create table t as select generate_series(1, 3000) n; notify t, 'x'").unwrap();
        assert!(session.run("select 1/0").unwrap_err().to_string().contains("division by zero"));
        assert_eq!(said(cluster.client("psql").args(["-Atc", "select count(*) from t"])).unwrap(), "3000\n");
        assert!(said(cluster.client("psql").args(["-Atc", "nonsense"])).unwrap_err().to_string().contains("syntax"));
    }
}
