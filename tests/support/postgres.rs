//! A PostgreSQL cluster of our own in a temporary folder, and sessions with it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::ports::Port;
use super::process::Process;
use super::tls::Identity;
use super::wait;

/// A private cluster with a role and a database `test`, password `test`; gone when dropped.
pub(crate) struct Postgres {
    // Before the folder, so that the server has ended when that is removed.
    running: Mutex<Option<Process>>,
    folder: tempfile::TempDir,
    port: Port,
    settings: Vec<String>,
}

/// How to stop or restart: PostgreSQL's own words.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    /// Sessions are told and ended.
    Fast,
    /// Like a crash: connections break, recovery follows.
    Immediate,
}

impl Postgres {
    /// A cluster for one test, which may stop and restart it.
    pub(crate) fn private() -> Self {
        let postgres = Self::stopped();
        postgres.start();
        postgres
    }

    /// The cluster that the tests of one binary share: nobody may stop it.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: LazyLock<Postgres> = LazyLock::new(Postgres::private);
        &SHARED
    }

    /// A cluster that is prepared, but not running yet.
    pub(crate) fn stopped() -> Self {
        let this = Self { running: Mutex::new(None), folder: open_folder(), port: Port::free(), settings: vec![] };
        this.initdb();
        this
    }

    /// A private one with settings of its own (`name=value`).
    pub(crate) fn with_settings(settings: &[&str]) -> Self {
        let mut postgres = Self::stopped();
        postgres.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
        postgres.start();
        postgres
    }

    /// A private one that speaks TLS and shows this certificate.
    pub(crate) fn with_tls(identity: &Identity) -> Self {
        let mut postgres = Self::stopped();
        identity.write(&postgres.data(), "tls");
        let owner = postgres.data().metadata().unwrap();
        let key = postgres.data().join("tls.key");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&key, Some(owner.uid()), Some(owner.gid())).unwrap();
        postgres.settings = ["ssl=on", "ssl_cert_file=tls.pem", "ssl_key_file=tls.key"].map(str::to_owned).to_vec();
        postgres.start();
        postgres
    }

    fn initdb(&self) {
        let output = self
            .tool("initdb")
            .args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"])
            .args(["--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(self.data())
            .output()
            .unwrap();
        assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        // The role is made by the server in single-user mode, so that the first real start has all.
        let mut single = self
            .tool("postgres")
            .arg("--single")
            .arg("-D")
            .arg(self.data())
            .arg("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sql = "CREATE ROLE test LOGIN PASSWORD 'test' CREATEDB\nCREATE DATABASE test OWNER test\n";
        std::io::Write::write_all(single.stdin.as_mut().unwrap(), sql.as_bytes()).unwrap();
        assert!(single.wait_with_output().unwrap().status.success(), "cannot create the role `test`");
    }

    pub(crate) fn start(&self) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = self.tool("postgres");
        command.arg("-D").arg(self.data());
        for setting in [
            format!("port={}", self.port.number),
            format!("unix_socket_directories={}", self.folder.path().display()),
            "listen_addresses=127.0.0.1".into(),
            "max_connections=300".into(),
            "fsync=off".into(),
            "full_page_writes=off".into(),
            "autovacuum=off".into(),
        ]
        .iter()
        .chain(&self.settings)
        {
            command.arg("-c").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        *self.lock() = Some(Process::start(&mut command, "INT", self.folder.path()));
        wait::until("PostgreSQL accepts connections", || {
            if let Some(status) = self.lock().as_mut().and_then(Process::ended) {
                panic!("PostgreSQL ended with {status}: {}", self.log());
            }
            Session::connect(&self.superuser()).is_ok()
        });
    }

    pub(crate) fn stop(&self, mode: Mode) {
        let mut process = self.lock().take().expect("PostgreSQL is running");
        process.signal(match mode {
            Mode::Fast => "INT",
            Mode::Immediate => "QUIT",
        });
        assert!(process.wait(Duration::from_secs(20)).is_some(), "PostgreSQL does not stop: {}", self.log());
    }

    pub(crate) fn restart(&self, mode: Mode) {
        self.stop(mode);
        self.start();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    /// What the server wrote to its log since its last start.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A session of the role `test` in the database `test`.
    pub(crate) fn session(&self) -> Session {
        self.session_of("test")
    }

    /// The same in another database.
    pub(crate) fn session_of(&self, database: &str) -> Session {
        let target = format!("host=127.0.0.1 port={} dbname={database} user=test password=test", self.port());
        Session::connect(&target).unwrap_or_else(|e| panic!("cannot connect to PostgreSQL: {e}"))
    }

    /// A session of the superuser.
    pub(crate) fn superuser_session(&self) -> Session {
        Session::connect(&self.superuser()).unwrap_or_else(|e| panic!("cannot connect to PostgreSQL: {e}"))
    }

    /// Makes a new empty database that belongs to `test`, and tells its name.
    pub(crate) fn new_database(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        // One at a time: PostgreSQL refuses to copy a template twice at once.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.superuser_session().rows(&format!("CREATE DATABASE {name} OWNER test TEMPLATE template0"));
        name
    }

    /// A standby of this cluster, which follows it.
    pub(crate) fn standby(&self) -> Self {
        let folder = open_folder();
        let standby = Self { running: Mutex::new(None), folder, port: Port::free(), settings: vec![] };
        let output = self
            .tool("pg_basebackup")
            .args(["--no-sync", "--write-recovery-conf", "--checkpoint=fast", "-D"])
            .arg(standby.data())
            .args(["-d", &self.superuser()])
            .output()
            .unwrap();
        assert!(output.status.success(), "pg_basebackup failed: {}", String::from_utf8_lossy(&output.stderr));
        standby.start();
        standby
    }

    fn superuser(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.folder.path().display(), self.port())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// One of PostgreSQL's programs.
    fn tool(&self, name: &str) -> Command {
        unprivileged(&programs().join(name), self.folder.path())
    }
}

/// A folder in which a program may make its own files that runs as another user.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("pushgate-pg-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    folder
}

/// A program that refuses to run as root; whoever owns the folder decides.
fn unprivileged(program: &Path, folder: &Path) -> Command {
    let mut command = if folder.metadata().unwrap().uid() == 0 {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
    command
}

/// PgBouncer in front of a cluster; it knows the database `test` and asks nobody for a password.
pub(crate) struct Pooler {
    // Before the folder, so that it has ended when that is removed.
    _process: Process,
    _folder: tempfile::TempDir,
    port: Port,
}

impl Pooler {
    /// One that lends servers for a `session`, a `transaction` or a `statement`.
    pub(crate) fn start(postgres: &Postgres, mode: &str) -> Self {
        let (folder, port) = (open_folder(), Port::free());
        let file = folder.path().join("pgbouncer.ini");
        let config = format!(
            "[databases]\ntest = host=127.0.0.1 port={} dbname=test user=test password=test\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {mode}\ndefault_pool_size = 4\n",
            postgres.port(),
            port.number
        );
        std::fs::write(&file, config).unwrap();
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"].map(Path::new);
        let program =
            program.into_iter().find(|path| path.exists()).expect("PgBouncer is installed (Debian: pgbouncer)");
        let mut command = unprivileged(program, folder.path());
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::start(&mut command, "TERM", folder.path());
        let this = Self { _process: process, _folder: folder, port };
        let target = format!("host=127.0.0.1 port={} dbname=test user=test", this.port());
        wait::until("PgBouncer accepts connections", || Session::connect(&target).is_ok());
        this
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A child that is killed leaves its own children for a moment; one that is told to stop waits for them.
        if self.lock().is_some() {
            self.stop(Mode::Immediate);
        }
    }
}

/// The folder of PostgreSQL's programs; Debian keeps them out of the PATH. The newest wins.
fn programs() -> PathBuf {
    let version =
        |path: &PathBuf| path.iter().filter_map(|part| part.to_str()?.parse::<f32>().ok()).fold(0.0, f32::max);
    let debian = glob::glob("/usr/lib/postgresql/*/bin").unwrap().filter_map(Result::ok);
    let usual = ["/usr/bin", "/usr/local/bin", "/usr/local/pgsql/bin"].map(PathBuf::from);
    debian
        .max_by(|a, b| version(a).total_cmp(&version(b)))
        .into_iter()
        .chain(usual)
        .find(|folder| Path::exists(&folder.join("initdb")))
        .expect("PostgreSQL's server is installed (Debian: postgresql)")
}

/// A database session; `NULL` comes as `None`.
pub(crate) struct Session {
    client: tokio_postgres::Client,
    runtime: tokio::runtime::Runtime,
}

impl Session {
    pub(crate) fn connect(target: &str) -> Result<Self, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(target, NoTls).await?;
            tokio::spawn(connection);
            Ok(client)
        })?;
        Ok(Self { client, runtime })
    }

    /// The rows of the last statement in `sql`, or what went wrong.
    pub(crate) fn query(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        let mut rows = Vec::new();
        for message in self.runtime.block_on(self.client.simple_query(sql))? {
            match message {
                SimpleQueryMessage::RowDescription(_) => rows.clear(),
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect());
                }
                _ => {}
            }
        }
        Ok(rows)
    }

    /// The rows of a statement that is expected to succeed.
    #[track_caller]
    pub(crate) fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.query(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"))
    }

    /// `NOTIFY channel, 'payload'`, both of any characters.
    #[track_caller]
    pub(crate) fn notify(&self, channel: &str, payload: &str) {
        let channel = channel.replace('"', "\"\"");
        let payload = payload.replace('\'', "''");
        self.rows(&format!("NOTIFY \"{channel}\", '{payload}'"));
    }
}
