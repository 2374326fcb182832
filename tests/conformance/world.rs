//! What a case lives in: its prefix folder, ports, server, scripted backends, connections and database sessions.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use regex::Regex;

use crate::backend::Backend;
use crate::case::{Case, File, Observed};
use crate::connection::Connection;
use crate::support::ports::Port;
use crate::support::postgres::{Postgres, Session};
use crate::support::process::{self, Process};
use crate::support::{pushgate, wait};
use crate::text::{Values, show, substitute, unshow};

pub(crate) struct World<'a> {
    case: &'a Case,
    pub(crate) values: Values,
    pub(crate) connections: BTreeMap<String, Connection>,
    pub(crate) backends: BTreeMap<String, Backend>,
    sessions: BTreeMap<String, Session>,
    ports: BTreeMap<String, Port>,
    server: Option<Process>,
    // The last, so that all has ended when it is removed.
    prefix: tempfile::TempDir,
}

impl<'a> World<'a> {
    /// Prepares everything but the server; `config` is the case's or that of one of its checks.
    pub(crate) fn prepare(case: &'a Case, config: &str) -> Result<Self, String> {
        static PORT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bPORT[0-9]*\b").unwrap());
        let prefix = pushgate::prefix();
        let mut values = Values::from([("PREFIX".into(), prefix.path().display().to_string())]);
        let mut ports = BTreeMap::new();
        for name in PORT.find_iter(&case.source_text).map(|found| found.as_str()).chain(["PORT"]) {
            let port = ports.entry(name.to_owned()).or_insert_with(Port::free);
            values.insert(name.into(), port.number.to_string());
        }
        if case.needs_postgres() {
            let postgres = Postgres::shared();
            let pairs =
                [("HOST", "127.0.0.1".into()), ("PORT", postgres.port().to_string()), ("DB", postgres.new_database())];
            let role = [("USER", "test".into()), ("PASSWORD", "test".into())];
            values.extend(pairs.into_iter().chain(role).map(|(name, value)| (format!("PG_{name}"), value)));
        }
        let (connections, backends, sessions) = Default::default();
        let mut this = Self { case, values, connections, backends, sessions, ports, server: None, prefix };
        this.prepare_files(config).map_err(|e| format!("preparing files: {e}"))?;
        for statement in &case.sql {
            let sql = substitute(statement, &this.values);
            this.session("main").query(&sql).map_err(|e| format!("preparing SQL: {sql}: {e:?}"))?;
        }
        for spec in &case.backends {
            let backend =
                Backend::start(spec, this.port(&spec.port), &this.values).map_err(|e| format!("backend: {e}"))?;
            this.backends.insert(spec.name.clone(), backend);
        }
        Ok(this)
    }

    fn prepare_files(&self, config: &str) -> std::io::Result<()> {
        for file in &self.case.files {
            self.write(file)?;
        }
        self.write_text("conf/nginx.conf", config)?;
        // Folders changed their times when files were added.
        self.case.files.iter().filter(|file| file.folder).try_for_each(|file| self.set_mtime(file))
    }

    fn write(&self, file: &File) -> std::io::Result<()> {
        if file.folder {
            std::fs::create_dir_all(self.path(&file.path))?;
        } else {
            self.write_text(&file.path, &file.text)?;
        }
        if let Some(mode) = &file.mode {
            let mode = u32::from_str_radix(mode, 8).map_err(std::io::Error::other)?;
            std::fs::set_permissions(self.path(&file.path), PermissionsExt::from_mode(mode))?;
        }
        self.set_mtime(file)
    }

    fn set_mtime(&self, file: &File) -> std::io::Result<()> {
        let Some(seconds) = file.mtime else {
            return Ok(());
        };
        std::fs::File::open(self.path(&file.path))?.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    pub(crate) fn write_text(&self, path: &str, text: &str) -> std::io::Result<()> {
        let path = self.path(path);
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, unshow(&substitute(text, &self.values)))
    }

    /// A path in the prefix folder.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.prefix.path().join(path)
    }

    pub(crate) fn port(&self, name: &str) -> u16 {
        self.ports[name].number
    }

    /// The connection of that name, opened to `port` when it isn't yet.
    pub(crate) fn connection(&mut self, name: &str, port: &str) -> std::io::Result<&mut Connection> {
        if !self.connections.contains_key(name) {
            let connection = Connection::open(self.port(port))?;
            self.connections.insert(name.to_owned(), connection);
        }
        Ok(self.connections.get_mut(name).expect("it was just put there"))
    }

    /// The database session of that name.
    pub(crate) fn session(&mut self, name: &str) -> &Session {
        let target = || {
            let value = |name: &str| self.values.get(&format!("PG_{name}")).map_or("", String::as_str);
            let (host, port, db) = (value("HOST"), value("PORT"), value("DB"));
            format!("host={host} port={port} dbname={db} user={} password={}", value("USER"), value("PASSWORD"))
        };
        self.sessions
            .entry(name.to_owned())
            .or_insert_with(|| Session::connect(&target()).expect("PostgreSQL is running"))
    }

    /// Starts the server and waits until it listens.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        let said = std::fs::File::create(self.path("logs/startup.txt")).map_err(|e| e.to_string())?;
        let mut command = pushgate::command(self.prefix.path());
        command.stdout(said.try_clone().map_err(|e| e.to_string())?).stderr(said);
        self.server = Some(Process::start(&mut command, "TERM", self.prefix.path()));

        let listening = self.port(&self.first_port());
        let mut ended = None;
        let ready = wait::holds_within(wait::PATIENCE, || {
            let status = self.server.as_mut().and_then(Process::ended);
            ended = status.filter(|status| !(self.case.daemon && status.success()));
            ended.is_some() || std::net::TcpStream::connect(("127.0.0.1", listening)).is_ok()
        });
        let said = || show(&std::fs::read(self.path("logs/startup.txt")).unwrap_or_default()).trim().to_owned();
        match ended {
            Some(status) => Err(format!("the server does not start ({status}):\n{}", said())),
            None if !ready => Err(format!("the server does not listen:\n{}", said())),
            None if self.case.daemon && !wait::holds_within(wait::PATIENCE, || self.daemon_pid().is_some()) => {
                Err("no process id in logs/nginx.pid".into())
            }
            None => Ok(()),
        }
    }

    /// `PORT`, or whatever the configuration names first.
    fn first_port(&self) -> String {
        static NAMED: LazyLock<Regex> = LazyLock::new(|| Regex::new("%%(PORT[0-9]*)%%").unwrap());
        let config = &self.case.config;
        let first = NAMED.captures(config).filter(|_| !config.contains("%%PORT%%"));
        first.map_or_else(|| "PORT".into(), |found| found[1].to_owned())
    }

    fn daemon_pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.path("logs/nginx.pid")).ok()?.trim().parse().ok()
    }

    /// The process to send signals to, while it runs.
    fn alive(&mut self) -> Option<u32> {
        if self.case.daemon {
            self.daemon_pid().filter(|pid| process::runs(*pid))
        } else {
            let server = self.server.as_mut()?;
            server.ended().is_none().then(|| server.pid())
        }
    }

    pub(crate) fn signal(&mut self, name: &str) {
        if let Some(pid) = self.alive() {
            process::signal(pid, name);
        }
    }

    /// The exit code of the main process if it ends within `time`.
    pub(crate) fn wait(&mut self, time: Duration) -> Option<i32> {
        if !wait::holds_within(time, || self.alive().is_none()) {
            return None;
        }
        if self.case.daemon { Some(0) } else { self.server.as_mut()?.ended()?.code() }
    }

    /// Ends everything; what went wrong with that.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        for statement in &self.case.sql_after {
            let sql = substitute(statement, &self.values);
            // The case may have removed already what it made.
            let _gone = self.session("main").query(&sql);
        }
        self.connections.clear();
        self.backends.clear();
        let Some(pid) = self.alive() else {
            return Ok(());
        };
        process::signal(pid, "TERM");
        let ended = wait::holds_within(wait::PATIENCE, || self.alive().is_none());
        if !ended {
            process::signal(pid, "KILL");
        }
        ended.then_some(()).ok_or_else(|| "the server does not stop on SIGTERM".into())
    }

    /// Runs the binary again with these arguments.
    pub(crate) fn run(&self, args: &[String]) -> std::io::Result<Observed> {
        let args = args.iter().map(|arg| substitute(arg, &self.values));
        let output = pushgate::command(self.prefix.path()).args(args).output()?;
        let stdout = messages(&output.stdout);
        Ok(Observed {
            exit: output.status.code(),
            stderr: Some(messages(&output.stderr)),
            stdout: (!stdout.is_empty()).then_some(stdout),
            ..Observed::default()
        })
    }
}

/// The lines of an output without program name, time stamp and process ids.
fn messages(output: &[u8]) -> Vec<String> {
    static TIME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ").unwrap());
    static PROCESS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^(\[\w+\]) \d+#\d+: ").unwrap());
    let program = pushgate::binary();
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    let clean = |line: &str| {
        let line = TIME.replace(line, "");
        let line = PROCESS.replace(&line, "$1 ");
        let after = |name: &str| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned);
        after("nginx").or_else(|| after(&program)).unwrap_or_else(|| line.to_string())
    };
    show(output).lines().map(clean).collect()
}
