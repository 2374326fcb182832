//! The two servers: their configurations, how they are started in a folder of their own, and how they are stopped.

use std::error::Error;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{Cores, Tree};

/// Lines of the configuration for `pushgate check`.
pub(crate) const LINES: usize = 10_000;

/// Connections and open files that a server is allowed.
pub(crate) const CONNECTIONS: u64 = 20_000;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Ours.
    Pushgate,
    /// Debian's nginx, with nchan where channels are needed; in a row with a database what the row names.
    Peer,
}

impl Side {
    /// Both, in the order of the runs.
    pub(crate) const BOTH: [Self; 2] = [Self::Pushgate, Self::Peer];

    /// For the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pushgate => "Pushgate",
            Self::Peer => "the peer",
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// Pushgate's binary.
    pub(crate) pushgate: PathBuf,
    /// Debian's nginx.
    pub(crate) nginx: PathBuf,
    /// Its nchan module.
    pub(crate) nchan: PathBuf,
}

/// A running server; stopped when dropped.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its processes.
    pub(crate) tree: Tree,
    child: Child,
    /// Its prefix; a field, so that it goes after the server has stopped.
    folder: TempDir,
}

impl Server {
    /// Starts a fresh one with so many workers, on a core of its own or `everywhere`. Returns when it answers.
    pub(crate) fn start(
        side: Side,
        programs: &Programs,
        cores: &Cores,
        workers: usize,
        everywhere: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let text = |prefix: &Path, address| configuration(side, programs, prefix, address, workers);
        Self::launch(program(side, programs)?, cores, everywhere, text)
    }

    /// Starts a fresh Pushgate over a PostgreSQL: one worker on a core of its own, or one for each core.
    pub(crate) fn over(
        postgres: SocketAddr,
        programs: &Programs,
        cores: &Cores,
        everywhere: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let workers = if everywhere { cores.count() } else { 1 };
        let text = |prefix: &Path, address| database_configuration(postgres, prefix, address, workers);
        Self::launch(program(Side::Pushgate, programs)?, cores, everywhere, text)
    }

    /// Starts a fresh one without channels; `inside` is given its folder and its address.
    pub(crate) fn plain(
        side: Side,
        programs: &Programs,
        cores: &Cores,
        workers: usize,
        inside: impl FnOnce(&Path, SocketAddr) -> String,
    ) -> Result<Self, Box<dyn Error>> {
        let text = |prefix: &Path, address| plain_configuration(side, prefix, &inside(prefix, address), workers);
        Self::launch(program(side, programs)?, cores, workers > 1, text)
    }

    /// Starts an nginx that requests are passed on to, beside the generator: its work is not the measured server's.
    pub(crate) fn upstream(
        programs: &Programs,
        inside: impl FnOnce(&Path, SocketAddr) -> String,
    ) -> Result<Self, Box<dyn Error>> {
        let spawn = |command: &mut Command| Ok(command.spawn()?);
        let text = |prefix: &Path, address| plain_configuration(Side::Peer, prefix, &inside(prefix, address), 1);
        Self::spawn(program(Side::Peer, programs)?, spawn, text)
    }

    /// Its own folder, where its configuration is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes its configuration anew, for a reload.
    pub(crate) fn configure(
        &self,
        side: Side,
        workers: usize,
        inside: impl FnOnce(&Path, SocketAddr) -> String,
    ) -> Result<(), Box<dyn Error>> {
        let folder = self.folder();
        let text = plain_configuration(side, folder, &inside(folder, self.address), workers);
        Ok(fs::write(folder.join("nginx.conf"), text)?)
    }

    fn launch(
        program: &Path,
        cores: &Cores,
        everywhere: bool,
        configuration: impl FnOnce(&Path, SocketAddr) -> String,
    ) -> Result<Self, Box<dyn Error>> {
        Self::spawn(program, |command| cores.spawn(command, everywhere), configuration)
    }

    fn spawn(
        program: &Path,
        spawn: impl FnOnce(&mut Command) -> Result<Child, Box<dyn Error>>,
        configuration: impl FnOnce(&Path, SocketAddr) -> String,
    ) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::Builder::new().prefix("pushgate-bench-").tempdir()?;
        let address = free_address()?;
        let prefix = folder.path();
        fs::write(prefix.join("nginx.conf"), configuration(prefix, address))?;
        let mut command = Command::new(program);
        command.arg("-p").arg(prefix).arg("-c").arg(prefix.join("nginx.conf")).arg("-e").arg(prefix.join("error.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(prefix.join("stderr"))?);
        let child = spawn(&mut command)?;
        let mut server = Self { address, tree: Tree(child.id()), child, folder };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<(), Box<dyn Error>> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("does not start: {status}; {}", self.complaint()).into());
            }
            if Instant::now() > end {
                return Err(format!("does not listen after 10 s; {}", self.complaint()).into());
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// The last thing that it said.
    fn complaint(&self) -> String {
        let prefix = self.folder.path();
        let said = ["stderr", "error.log"].map(|name| fs::read_to_string(prefix.join(name)).unwrap_or_default());
        let last = said.iter().flat_map(|text| text.lines()).rfind(|line| !line.trim().is_empty());
        last.map_or_else(|| "it said nothing".to_owned(), str::to_owned)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tree.stop();
        // Reaps what has ended.
        self.child.wait().ok();
    }
}

/// How long the side takes to check a configuration of [`LINES`] lines (the peer: `nginx -t`).
pub(crate) fn check(side: Side, programs: &Programs, cores: &Cores) -> Result<Duration, Box<dyn Error>> {
    let folder = tempfile::Builder::new().prefix("pushgate-bench-").tempdir()?;
    let file = folder.path().join("nginx.conf");
    fs::write(&file, long_configuration(side, programs, folder.path(), free_address()?))?;
    let mut command = Command::new(program(side, programs)?);
    match side {
        Side::Pushgate => command.arg("check").arg(&file),
        Side::Peer => command.arg("-t").arg("-p").arg(folder.path()).arg("-c").arg(&file),
    };
    let (stdout, stderr) = (folder.path().join("stdout"), folder.path().join("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
    let start = Instant::now();
    let status = cores.spawn(&mut command, false)?.wait()?;
    let took = start.elapsed();
    if !status.success() {
        let said = [stdout, stderr].map(|file| fs::read_to_string(file).unwrap_or_default()).concat();
        let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        return Err(format!("finds fault with the {LINES} lines: {status}; {first}").into());
    }
    Ok(took)
}

fn program(side: Side, programs: &Programs) -> Result<&Path, Box<dyn Error>> {
    let path = match side {
        Side::Pushgate => &programs.pushgate,
        Side::Peer => &programs.nginx,
    };
    if !path.exists() {
        return Err(format!("there is no {}", path.display()).into());
    }
    Ok(path)
}

/// A port that the kernel chose, free again for the server.
pub(crate) fn free_address() -> Result<SocketAddr, Box<dyn Error>> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// What all configurations have in common, around what stands in `http`.
fn around(load: &str, prefix: &Path, workers: usize, http: &str) -> String {
    let (user, prefix) = (user(), prefix.display());
    format!(
        r#"{load}
{user}
worker_processes {workers};
worker_rlimit_nofile {CONNECTIONS};
daemon off;
pid {prefix}/server.pid;
error_log {prefix}/error.log error;
events {{ worker_connections {CONNECTIONS}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    {http}
}}
"#
    )
}

/// With locations for channels, in each side's directives.
fn configuration(side: Side, programs: &Programs, prefix: &Path, listen: SocketAddr, workers: usize) -> String {
    let Channels { load, http, subscriber, publisher } = Channels::of(side, programs, prefix);
    let [events, stream] = unending(side);
    let inside = format!(
        r#"{http}
    server {{
        listen {listen};
        location = /ok {{ return 200 "ok"; }}
        location = /pub {{ {publisher} }}
        location ~ /ws/(.*) {{ {subscriber} }}
        location ~ /es/(.*) {{ {events} }}
        location ~ /st/(.*) {{ {stream} }}
    }}"#
    );
    around(&load, prefix, workers, &inside)
}

/// Websocket subscribers of channel `$1` and a publisher to channel `$arg_id`, without history, in each side's directives.
struct Channels {
    load: String,
    http: String,
    subscriber: &'static str,
    publisher: &'static str,
}

impl Channels {
    fn of(side: Side, programs: &Programs, prefix: &Path) -> Self {
        match side {
            Side::Pushgate => Self {
                load: String::new(),
                http: "push_stream_shared_memory_size 64m;".to_owned(),
                subscriber: r#"push_stream_subscriber websocket; push_stream_channels_path $1; push_stream_message_template "~text~";"#,
                publisher: "push_stream_publisher; push_stream_channels_path $arg_id; push_stream_channel_info_on_publish off;",
            },
            Side::Peer => Self {
                load: format!("load_module {};", programs.nchan.display()),
                http: nginx_folders(prefix) + "nchan_shared_memory_size 64m;",
                subscriber: "nchan_subscriber websocket; nchan_channel_id $1; nchan_subscriber_first_message newest;",
                publisher: "nchan_publisher http; nchan_channel_id $arg_id; nchan_store_messages off;",
            },
        }
    }
}

/// Pushgate over a PostgreSQL, with the rows' queries. Who subscribes lets PostgreSQL listen to the channel.
fn database_configuration(postgres: SocketAddr, prefix: &Path, listen: SocketAddr, workers: u32) -> String {
    let (host, port) = (postgres.ip(), postgres.port());
    let inside = format!(
        r#"push_stream_shared_memory_size 64m;
    upstream db {{
        postgres_server host={host} port={port} user=postgres dbname=postgres;
        postgres_keepalive 32;
    }}
    map $request_uri $channel {{ ~^/(ws|listen)/(?<name>.*)$ $name; }}
    server {{
        listen {listen};
        location = /account {{
            postgres_pass db;
            postgres_query "SELECT abalance FROM pgbench_accounts WHERE aid = $arg_id::int";
            postgres_output value;
        }}
        location = /json {{ postgres_pass db; postgres_query "select * from goods"; postgres_output json; }}
        location = /csv {{ postgres_pass db; postgres_query "select * from goods"; postgres_output csv; }}
        location ~ ^/listen {{ postgres_pass db; postgres_query "listen $channel"; }}
        location ~ ^/ws/(.*) {{
            push_stream_subscriber websocket;
            push_stream_channels_path $1;
            push_stream_message_template "~text~";
            push_stream_client_subscribed_request /listen;
        }}
        location = /pub {{ push_stream_publisher; push_stream_channels_path $arg_id; push_stream_channel_info_on_publish off; }}
    }}"#
    );
    around("", prefix, workers as usize, &inside)
}

/// Without channels.
fn plain_configuration(side: Side, prefix: &Path, inside: &str, workers: usize) -> String {
    let folders = if side == Side::Peer { nginx_folders(prefix) } else { String::new() };
    around("", prefix, workers, &format!("{folders}\n    {inside}"))
}

/// EventSource and streaming subscribers of channel `$1`. Pushgate, as the original, sends their head with what comes first:
/// the header template has it sent at once, as nchan does.
fn unending(side: Side) -> [&'static str; 2] {
    match side {
        Side::Pushgate => [
            r#"push_stream_subscriber eventsource; push_stream_channels_path $1; push_stream_message_template "~text~"; push_stream_header_template "hi";"#,
            r#"push_stream_subscriber streaming; push_stream_channels_path $1; push_stream_message_template "~text~"; push_stream_header_template ":";"#,
        ],
        Side::Peer => [
            "nchan_subscriber eventsource; nchan_channel_id $1; nchan_subscriber_first_message newest;",
            "nchan_subscriber http-chunked; nchan_channel_id $1; nchan_subscriber_first_message newest;",
        ],
    }
}

/// Debian's nginx has its folders for bodies under `/var/lib`: ours are not to be there.
fn nginx_folders(prefix: &Path) -> String {
    let prefix = prefix.display();
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {prefix}/{name}; "))
        .concat()
}

/// A server started by root keeps root, for the folder is ours alone.
fn user() -> &'static str {
    if rustix::process::geteuid().is_root() { "user root;" } else { "" }
}

/// Two hundred and fifty sites as people write them, and comments up to [`LINES`] lines.
fn long_configuration(side: Side, programs: &Programs, prefix: &Path, listen: SocketAddr) -> String {
    let Channels { load, http, subscriber, publisher } = Channels::of(side, programs, prefix);
    let mut text = format!(
        "{load}\npid {}/server.pid;\nerror_log stderr;\nevents {{ worker_connections 1024; }}\nhttp {{\n    {http}\n    access_log off;\n",
        prefix.display()
    );
    for site in 0..250 {
        text += &format!(
            r#"
    # Site {site}: what a shop of a middling size asks for.
    server {{
        listen {listen};
        server_name shop{site}.example.com *.shop{site}.example.com;
        root /srv/www/shop{site};
        index index.html index.htm;
        default_type text/html;
        set $shop "shop{site}";
        client_max_body_size 8m;
        keepalive_timeout 65s;
        error_page 404 /404.html;
        error_page 500 502 503 504 =503 @down;

        location / {{
            add_header X-Shop "$shop; {site}";
        }}
        location ^~ /static/ {{
            alias /srv/static/shop{site}/;
            types {{
                text/css css;
                image/png png;
            }}
        }}
        location ~* \.(gif|jpe?g|ico)$ {{
            access_log off;
        }}
        location = /admin {{
            allow 127.0.0.0/8;
            allow 10.{site}.0.0/16;
            deny all;
        }}
        location = /old {{ return 301 /new; }}
        location @down {{ return 503 "back soon"; }}
        location ~ /ws/(.*) {{ {subscriber} }}
        location = /pub {{ allow 127.0.0.1; deny all; {publisher} }}
    }}"#
        );
    }
    let rest = LINES.saturating_sub(text.lines().count() + 1);
    text += &"\n    # Whatever else stands in a grown file.".repeat(rest);
    text + "\n}\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    fn programs() -> Programs {
        Programs { pushgate: "/no/pushgate".into(), nginx: "/no/nginx".into(), nchan: "/no/nchan.so".into() }
    }

    #[test]
    fn the_long_configuration_has_its_lines_and_closes_its_blocks() {
        for side in Side::BOTH {
            let text = long_configuration(side, &programs(), Path::new("/p"), "127.0.0.1:1".parse().unwrap());
            assert_eq!(text.lines().count(), LINES, "{side:?}");
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{side:?}");
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_said_so() {
        let cores = Cores::divide().unwrap();
        let error = Server::start(Side::Pushgate, &programs(), &cores, 1, false).err().unwrap();
        assert_eq!(error.to_string(), "there is no /no/pushgate");
    }

    #[test]
    fn a_server_that_does_not_start_is_quoted() {
        let cores = Cores::divide().unwrap();
        // sh takes the unknown flag for an error, says so, and ends.
        let programs = Programs { pushgate: "/bin/sh".into(), ..programs() };
        let error = Server::start(Side::Pushgate, &programs, &cores, 1, false).err().unwrap().to_string();
        assert!(error.starts_with("does not start: exit status: "), "{error}");
    }
}
