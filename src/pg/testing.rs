//! A PostgreSQL of a test's own: a cluster in a temporary folder, on a free port of the loopback and a unix socket.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::conninfo::{ConnectOptions, parse_conninfo};

/// Passwords are checked by SCRAM over TCP; the role `md5user` by md5, `plainuser` in clear text, and nobody by socket.
const HBA: &str = "local all all trust\nhost all md5user 127.0.0.1/32 md5\nhost all plainuser 127.0.0.1/32 password\n\
                   hostssl all tlsuser 127.0.0.1/32 scram-sha-256\nhostnossl all tlsuser 127.0.0.1/32 reject\n\
                   host all all 127.0.0.1/32 scram-sha-256\n";

/// A running server; stopped and removed when dropped.
pub(crate) struct Cluster {
    folder: TempDir,
    pub(crate) port: u16,
}

impl Cluster {
    /// Makes a cluster with the role `tester`, password `secret`, and starts it.
    pub(crate) fn start() -> Self {
        let cluster = Self::stopped();
        cluster.up();
        cluster.psql("set password_encryption = 'md5'; create role md5user login password 'secret'");
        cluster.psql("create role plainuser login password 'secret'");
        cluster.psql("create role tlsuser login password 'secret'");
        cluster
    }

    /// Makes a cluster and does not start it.
    pub(crate) fn stopped() -> Self {
        let folder = tempfile::Builder::new().prefix("pushgate-pg-").tempdir_in("/tmp").expect("a folder");
        // The server does not run as root, and the folder has to be its own.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("its rights");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let cluster = Self { folder, port };
        let password = cluster.path("password");
        std::fs::write(&password, "secret").expect("written");
        let (data, password) = (cluster.path("data"), password.display().to_string());
        let data = data.display().to_string();
        let pwfile = format!("--pwfile={password}");
        cluster.run("initdb", &["-D", &data, "-U", "tester", "-N", "-E", "UTF8", "--no-locale", &pwfile]);
        std::fs::write(cluster.path("data/pg_hba.conf"), HBA).expect("written");
        let settings = format!(
            "port={port}\nunix_socket_directories='{}'\nlisten_addresses='127.0.0.1'\nfsync=off\nmax_connections=40\n",
            cluster.folder.path().display()
        );
        std::fs::write(cluster.path("data/postgresql.auto.conf"), settings).expect("written");
        cluster
    }

    pub(crate) fn up(&self) {
        let (data, log) = (self.path("data").display().to_string(), self.path("log").display().to_string());
        self.run("pg_ctl", &["-D", &data, "-l", &log, "-w", "start"]);
    }

    pub(crate) fn down(&self) {
        let data = self.path("data").display().to_string();
        self.run("pg_ctl", &["-D", &data, "-m", "fast", "-w", "stop"]);
    }

    /// Runs SQL as a client of another kind would.
    pub(crate) fn psql(&self, sql: &str) -> String {
        let (folder, port) = (self.folder.path().display().to_string(), self.port.to_string());
        let output =
            self.run("psql", &["-h", &folder, "-p", &port, "-U", "tester", "-d", "postgres", "-XAtq", "-c", sql]);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Connection options by TCP, with `more` appended to the connection string.
    pub(crate) fn options(&self, more: &str) -> Arc<ConnectOptions> {
        let text = format!("host=127.0.0.1 port={} dbname=postgres user=tester password=secret {more}", self.port);
        Arc::new(parse_conninfo(&text).expect("a good connection string"))
    }

    /// Connection options by the unix socket.
    pub(crate) fn socket_options(&self) -> Arc<ConnectOptions> {
        let text = format!("host={} port={} dbname=postgres user=tester", self.folder.path().display(), self.port);
        Arc::new(parse_conninfo(&text).expect("a good connection string"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a certificate authority and a certificate for `localhost`, and turns TLS on at the next start.
    pub(crate) fn with_tls(&self) {
        let script = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.crt && \
             openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout data/server.key -out s.csr && \
             printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' > ext && \
             openssl x509 -req -in s.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext \
             -out data/server.crt && chmod 600 data/server.key && echo 'ssl=on' >> data/postgresql.auto.conf";
        self.run_at("sh", &["-c", script], self.folder.path());
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        self.run_at(&program(name), arguments, Path::new("/tmp"))
    }

    fn run_at(&self, program: &str, arguments: &[&str], folder: &Path) -> Output {
        let mut command = as_postgres(program);
        command.args(arguments).current_dir(folder);
        // pg_ctl leaves the server behind with our pipes, which would then never end.
        if arguments.contains(&"start") {
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let status = command.status().expect("it runs");
            assert!(status.success(), "{program} {arguments:?}");
            return Output { status, stdout: Vec::new(), stderr: Vec::new() };
        }
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        output
    }
}

/// PostgreSQL refuses to run as root, so root becomes somebody else.
fn as_postgres(program: &str) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", program]);
    command
}

/// A program of the newest PostgreSQL here.
fn program(name: &str) -> String {
    let found = glob::glob(&format!("/usr/lib/postgresql/*/bin/{name}")).expect("a good pattern");
    let newest = found.filter_map(Result::ok).max().expect("PostgreSQL is installed");
    newest.display().to_string()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.path("data").display().to_string();
        let mut stop = as_postgres(&program("pg_ctl"));
        drop(stop.args(["-D", &data, "-m", "immediate", "-w", "stop"]).output());
    }
}

/// Runs a test on a worker's kind of runtime.
pub(crate) fn on_worker<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}
