//! What `postgres_server` takes: where a PostgreSQL is and how to log in there.
//!
//! Two grammars are read, and the text itself tells which one it is:
//!
//! * `ADDR[:PORT] [dbname=D] [user=U] [password=P] [port=N]`, the modules of 2015 and 2018;
//! * libpq's connection string, `host=... dbname=...` or `postgresql://...`, the newest module.
//!
//! A first word with neither `=` nor `://` in it is an address. Names are not resolved here.

mod libpq;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::journal::Journal;

/// PostgreSQL's own port.
pub const DEFAULT_PORT: u16 = 5432;
/// Where to connect, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Tried one after another until one answers.
    pub hosts: Vec<Host>,
    /// The database; the server takes the user's name if it is missing.
    pub dbname: Option<String>,
    /// The role to log in as.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Whether to speak TLS.
    pub sslmode: SslMode,
    /// File of the certificates to trust; `system` takes the machine's own.
    pub sslrootcert: Option<PathBuf>,
    /// Our own certificate, and its key.
    pub sslcert: Option<PathBuf>,
    /// Key of `sslcert`.
    pub sslkey: Option<PathBuf>,
    /// How long connecting and logging in may take together.
    pub connect_timeout: Option<Duration>,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Command-line options for the backend, as `-c geqo=off`.
    pub options: Option<String>,
    /// Encoding of what is sent and received; the database's own if missing.
    pub client_encoding: Option<String>,
    /// Which kind of server will do.
    pub target_session_attrs: TargetSession,
    /// What is written of the connections.
    pub journal: Journal,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            dbname: None,
            user: None,
            password: None,
            sslmode: SslMode::Prefer,
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            connect_timeout: None,
            application_name: "nginx".to_owned(),
            options: None,
            client_encoding: None,
            target_session_attrs: TargetSession::Any,
            journal: Journal::default(),
        }
    }
}

/// One place to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The machine, or the folder of its socket.
    pub address: Address,
    /// The port, which names the socket's file too.
    pub port: u16,
}

/// A machine or a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Reached by TCP: a name for the certificate and the resolver, and the address if it is known already.
    Tcp {
        /// What was written as `host`, or the address as text.
        name: String,
        /// Spares the resolver.
        ip: Option<IpAddr>,
    },
    /// The folder with the socket.
    Unix(PathBuf),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp { name, ip: None } => write!(f, "{name}:{}", self.port),
            Address::Tcp { ip: Some(IpAddr::V6(ip)), .. } => write!(f, "[{ip}]:{}", self.port),
            Address::Tcp { ip: Some(IpAddr::V4(ip)), .. } => write!(f, "{ip}:{}", self.port),
            Address::Unix(dir) => write!(f, "unix:{}/.s.PGSQL.{}", dir.display(), self.port),
        }
    }
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server refuses to go without.
    Allow,
    /// If the server can.
    Prefer,
    /// Always, whoever the server is (checked if `sslrootcert` is given, as libpq does).
    Require,
    /// Always, and the certificate's chain is checked.
    VerifyCa,
    /// Always, and the certificate's chain and name are checked.
    VerifyFull,
}

/// libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSession {
    /// Any server.
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// One that is no standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby if there is one.
    PreferStandby,
}

/// Which of the two grammars a server was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grammar {
    /// `ADDR dbname=...`, 2015 and 2018.
    Address,
    /// libpq's.
    Libpq,
}

/// A whole `postgres_server`: the connection and its place among the upstream's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLine {
    /// Which grammar it was written in.
    pub grammar: Grammar,
    /// Where to connect.
    pub connect: ConnectOptions,
    /// Its share of the connections.
    pub weight: u32,
    /// At most so many connections from one worker; 0 is no limit.
    pub max_conns: u32,
    /// After so many failures within `fail_timeout` it is left alone for as long; 0 is never.
    pub max_fails: u32,
    /// See `max_fails`.
    pub fail_timeout: Duration,
    /// Used only when no other is left.
    pub backup: bool,
    /// Never used.
    pub down: bool,
}

/// Why a `postgres_server` is wrong, in libpq's or the module's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "each says itself")]
pub enum ConninfoError {
    #[error("postgres: invalid parameter \"{0}\" in \"postgres_server\"")]
    InvalidParameter(String),
    #[error("postgres: invalid port in upstream \"{0}\"")]
    InvalidPort(String),
    #[error("postgres: invalid host in upstream \"{0}\"")]
    InvalidHost(String),
    #[error("missing \"=\" after \"{0}\" in connection info string")]
    MissingEquals(String),
    #[error("unterminated quoted string in connection info string")]
    Unterminated,
    #[error("invalid connection option \"{0}\"")]
    UnknownOption(String),
    #[error("connection option \"{0}\" is not supported here")]
    Unsupported(String),
    #[error("invalid URI query parameter: \"{0}\"")]
    UnknownUriParameter(String),
    #[error("missing key/value separator \"=\" in URI query parameter: \"{0}\"")]
    UriMissingEquals(String),
    #[error("invalid percent-encoded token: \"{0}\"")]
    PercentToken(String),
    #[error("forbidden value %00 in percent-encoded value: \"{0}\"")]
    PercentNul(String),
    #[error("end of string reached when looking for matching \"]\" in IPv6 host address in URI: \"{0}\"")]
    UriBracket(String),
    #[error("invalid {option} value: \"{value}\"")]
    InvalidValue { option: &'static str, value: String },
    #[error("invalid {option} value: \"{value}\"")]
    HostAddr { option: &'static str, value: String },
    #[error("could not match {given} port numbers to {hosts} hosts")]
    PortCount { given: usize, hosts: usize },
    #[error("could not match {hosts} host names to {addresses} hostaddr values")]
    HostCount { hosts: usize, addresses: usize },
    #[error("ngx_atoi == NGX_ERROR")]
    Port(String),
    #[error("ngx_parse_time == NGX_ERROR")]
    Time(String),
    #[error("\"{option}\" value \"{value}\" must be {must_be}")]
    Option { option: &'static str, value: String, must_be: &'static str },
}

type Result<T> = std::result::Result<T, ConninfoError>;

/// Reads the arguments of one `postgres_server`.
pub fn parse_server(words: &[&str]) -> Result<ServerLine> {
    let mut line = ServerLine {
        grammar: Grammar::Libpq,
        connect: ConnectOptions::default(),
        weight: 1,
        max_conns: 0,
        max_fails: 1,
        fail_timeout: Duration::from_secs(10),
        backup: false,
        down: false,
    };
    match words.split_first() {
        Some((address, parameters)) if grammar_of(address) == Grammar::Address => {
            line.grammar = Grammar::Address;
            line.connect = parse_address_line(address, parameters)?;
        }
        _ => {
            let mut conninfo = Vec::new();
            for &word in words {
                if !line.takes(word)? {
                    conninfo.push(word);
                }
            }
            line.connect = parse_conninfo(&conninfo.join(" "))?;
        }
    }
    Ok(line)
}

/// Reads a libpq connection string or URI.
pub fn parse_conninfo(text: &str) -> Result<ConnectOptions> {
    libpq::parse(text)
}

/// Reads an nginx time: `2` and `2s` are two seconds, `500ms`, `1m30s`.
#[must_use]
pub fn parse_time(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let milliseconds = match rest.get(..unit)? {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        rest = rest.get(unit..)?.trim_start();
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
    }
    Some(total)
}

impl ServerLine {
    /// Whether `word` is one of the module's own options rather than a part of the connection string.
    fn takes(&mut self, word: &str) -> Result<bool> {
        match word.split_once('=') {
            None if word == "backup" => self.backup = true,
            None if word == "down" => self.down = true,
            Some(("weight", value)) => {
                self.weight = number("weight", value)?;
                if self.weight == 0 {
                    return Err(must_be("weight", value, "positive"));
                }
            }
            Some(("max_conns", value)) => self.max_conns = number("max_conns", value)?,
            Some(("max_fails", value)) => self.max_fails = number("max_fails", value)?,
            Some(("fail_timeout", value)) => {
                self.fail_timeout = parse_time(value).ok_or_else(|| must_be("fail_timeout", value, "time"))?;
            }
            // Only shapes the text of the original's log lines.
            Some(("error_verbosity", value)) => {
                if !matches!(value, "default" | "sqlstate" | "terse" | "verbose") {
                    let allowed = "\"default\", \"sqlstate\", \"terse\" or \"verbose\"";
                    return Err(must_be("error_verbosity", value, allowed));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn number(option: &'static str, value: &str) -> Result<u32> {
    value.parse().map_err(|_| must_be(option, value, "number"))
}

fn must_be(option: &'static str, value: &str, must_be: &'static str) -> ConninfoError {
    ConninfoError::Option { option, value: value.to_owned(), must_be }
}

fn grammar_of(first: &str) -> Grammar {
    if first.contains('=') || first.contains("://") { Grammar::Libpq } else { Grammar::Address }
}

fn parse_address_line(address: &str, parameters: &[&str]) -> Result<ConnectOptions> {
    let mut options = ConnectOptions::default();
    let mut host = parse_address(address)?;
    for word in parameters {
        match word.split_once('=') {
            Some(("dbname", value)) => options.dbname = Some(value.to_owned()),
            Some(("user", value)) => options.user = Some(value.to_owned()),
            Some(("password", value)) => options.password = Some(value.into()),
            Some(("port", value)) => {
                host.port = value.parse().map_err(|_| ConninfoError::InvalidPort(address.to_owned()))?;
            }
            _ => return Err(ConninfoError::InvalidParameter((*word).to_owned())),
        }
    }
    options.hosts.push(host);
    Ok(options)
}

/// nginx's address: `host`, `host:port`, `[v6]:port`, `unix:/dir`.
fn parse_address(text: &str) -> Result<Host> {
    if let Some(dir) = text.strip_prefix("unix:") {
        return Ok(Host { address: Address::Unix(dir.into()), port: DEFAULT_PORT });
    }
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, "")) => (name, None),
        Some((name, rest)) => (name, rest.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    if name.is_empty() {
        return Err(ConninfoError::InvalidHost(text.to_owned()));
    }
    let port = match port.map(str::parse) {
        None => DEFAULT_PORT,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err(ConninfoError::InvalidPort(text.to_owned())),
    };
    Ok(Host { address: tcp(name), port })
}

fn tcp(name: &str) -> Address {
    Address::Tcp { name: name.to_owned(), ip: name.parse().ok() }
}
/// For the fuzzer: no text makes the parser panic.
#[doc(hidden)]
pub fn fuzz_conninfo(text: &str) {
    let words: Vec<&str> = text.split(' ').collect();
    drop(parse_server(&words));
    drop(parse_conninfo(text));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    /// Hosts, database, user and password of a `postgres_server`, or the error's text.
    fn check(words: &[&str], expected: &str) {
        let shown = match parse_server(words) {
            Ok(ServerLine { connect, .. }) => {
                let hosts: Vec<String> = connect.hosts.iter().map(Host::to_string).collect();
                format!(
                    "{} db={} user={} password={}",
                    hosts.join(","),
                    connect.dbname.unwrap_or_default(),
                    connect.user.unwrap_or_default(),
                    connect.password.map(|password| password.reveal().to_owned()).unwrap_or_default()
                )
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected, "{words:?}");
    }

    #[test]
    fn the_grammar_of_2015_and_2018() {
        check(&["127.0.0.1", "dbname=d", "user=u", "password=p=q"], "127.0.0.1:5432 db=d user=u password=p=q");
        check(&["db.example:6000", "dbname=d"], "db.example:6000 db=d user= password=");
        check(&["[::1]:6000"], "[::1]:6000 db= user= password=");
        check(&["unix:/tmp", "port=6001"], "unix:/tmp/.s.PGSQL.6001 db= user= password=");
        check(&["127.0.0.1:5432", "port=7"], "127.0.0.1:7 db= user= password=");
        check(
            &["127.0.0.1", "sslmode=require"],
            "postgres: invalid parameter \"sslmode=require\" in \"postgres_server\"",
        );
        check(&["127.0.0.1:x"], "postgres: invalid port in upstream \"127.0.0.1:x\"");
    }

    #[test]
    fn libpq_key_value() {
        check(&["host=h", "port=1", "dbname=d"], "h:1 db=d user= password=");
        check(&["host = h  user='a b' password='it\\'s \\\\'"], "h:5432 db= user=a b password=it's \\");
        check(&["host=h hostaddr=127.0.0.2"], "127.0.0.2:5432 db= user= password=");
        check(&["host=a,b,/run port=1,2,3"], "a:1,b:2,unix:/run/.s.PGSQL.3 db= user= password=");
        check(&["host=a,b port=9"], "a:9,b:9 db= user= password=");
        check(&["host=unix:/tmp"], "unix:/tmp/.s.PGSQL.5432 db= user= password=");
        check(&["user=u"], "unix:/run/postgresql/.s.PGSQL.5432 db= user=u password=");
        check(&["host=h", "foo=1"], "invalid connection option \"foo\"");
        check(&["host=h", "x"], "missing \"=\" after \"x\" in connection info string");
        check(&["host='h"], "unterminated quoted string in connection info string");
        check(&["host=h port=a"], "ngx_atoi == NGX_ERROR");
        check(&["host=h connect_timeout=a"], "ngx_parse_time == NGX_ERROR");
        check(&["host=h sslmode=yes"], "invalid sslmode value: \"yes\"");
        check(&["host=a,b,c port=1,2"], "could not match 2 port numbers to 3 hosts");
        check(&["host=h service=x"], "connection option \"service\" is not supported here");
    }

    #[test]
    fn libpq_uri() {
        check(&["postgresql://u:p%40@h:1/d"], "h:1 db=d user=u password=p@");
        check(&["postgres://a:1,[::1]:2/d?user=x"], "a:1,[::1]:2 db=d user=x password=");
        check(&["postgresql://%2Ftmp/d"], "unix:/tmp/.s.PGSQL.5432 db=d user= password=");
        check(&["postgresql://h?foo=1"], "invalid URI query parameter: \"foo\"");
        check(&["postgresql://h/%zz"], "invalid percent-encoded token: \"%zz\"");
        check(
            &["postgresql://[::1/d"],
            "end of string reached when looking for matching \"]\" in IPv6 host address in URI: \"postgresql://[::1/d\"",
        );
    }

    #[test]
    fn options_of_a_server() {
        let line = parse_server(&["host=h", "weight=3", "max_fails=0", "fail_timeout=1m", "backup"]).unwrap();
        assert_eq!((line.weight, line.max_fails, line.fail_timeout.as_secs(), line.backup), (3, 0, 60, true));
        check(&["host=h", "weight=a"], "\"weight\" value \"a\" must be number");
        check(&["host=h", "weight=0"], "\"weight\" value \"0\" must be positive");
        check(
            &["host=h", "error_verbosity=x"],
            "\"error_verbosity\" value \"x\" must be \"default\", \"sqlstate\", \"terse\" or \"verbose\"",
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        let options = parse_conninfo("host=h password=hush sslmode=verify-full connect_timeout=2").unwrap();
        assert!(!format!("{options:?}").contains("hush"));
        assert_eq!(options.connect_timeout, Some(Duration::from_secs(2)));
        assert_eq!(options.application_name, "nginx");
    }
}
