//! libpq's connection strings: `key=value` pairs and URIs.

use std::path::PathBuf;

use super::{Address, ConnectOptions, ConninfoError, DEFAULT_PORT, Host, Result, Secret, SslMode, TargetSession};
use super::{parse_time, tcp};

/// Where libpq of Debian looks for the socket when no host is given.
const DEFAULT_SOCKET_DIR: &str = "/run/postgresql";

/// Reads either form.
pub(super) fn parse(text: &str) -> Result<ConnectOptions> {
    let rest = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
    let pairs = match rest {
        Some(rest) => uri_pairs(rest, text)?,
        None => key_value_pairs(text)?,
    };
    from_pairs(pairs)
}

type Pairs = Vec<(String, String)>;

/// Splits `key = 'value' key=value`; a backslash takes the next character as it is.
fn key_value_pairs(text: &str) -> Result<Pairs> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return Err(ConninfoError::MissingEquals(key.to_owned()));
        };
        let (value, after) = value_of(after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

fn value_of(text: &str) -> Result<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices();
    if quoted {
        chars.next();
    }
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if c.is_ascii_whitespace() && !quoted => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(ConninfoError::Unterminated) } else { Ok((value, "")) }
}

/// `[user[:password]@][host[:port],...][/dbname][?key=value&...]`
fn uri_pairs(rest: &str, whole: &str) -> Result<Pairs> {
    let mut pairs = Vec::new();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let hosts = match authority.rsplit_once('@') {
        Some((login, hosts)) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            push(&mut pairs, "user", user)?;
            push(&mut pairs, "password", password)?;
            hosts
        }
        None => authority,
    };
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(v6) => {
                let (name, after) = v6.split_once(']').ok_or_else(|| ConninfoError::UriBracket(whole.to_owned()))?;
                (name, after.strip_prefix(':').unwrap_or(""))
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    push(&mut pairs, "host", &names.join(","))?;
    if ports.iter().any(|port| !port.is_empty()) {
        push(&mut pairs, "port", &ports.join(","))?;
    }
    push(&mut pairs, "dbname", dbname)?;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) =
            parameter.split_once('=').ok_or_else(|| ConninfoError::UriMissingEquals(parameter.to_owned()))?;
        let (key, value) = (percent_decode(key)?, percent_decode(value)?);
        match (key.as_str(), value.as_str()) {
            ("ssl", "true") => pairs.push(("sslmode".to_owned(), "require".to_owned())),
            _ if is_known(&key) => pairs.push((key, value)),
            _ => return Err(ConninfoError::UnknownUriParameter(key)),
        }
    }
    Ok(pairs)
}

fn push(pairs: &mut Pairs, key: &str, value: &str) -> Result<()> {
    if !value.is_empty() {
        pairs.push((key.to_owned(), percent_decode(value)?));
    }
    Ok(())
}

fn percent_decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(0) => return Err(ConninfoError::PercentNul(text.to_owned())),
            Some(decoded) => bytes.push(decoded),
            None => return Err(ConninfoError::PercentToken(text.to_owned())),
        }
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| ConninfoError::PercentToken(text.to_owned()))
}

/// libpq's options that change nothing here: TCP keepalive is always on, and the rest tunes what we don't have.
const WITHOUT_EFFECT: &[&str] = &[
    "fallback_application_name",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "gssencmode",
    "krbsrvname",
    "gsslib",
    "sslcompression",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "channel_binding",
    "load_balance_hosts",
];

/// libpq's options that would change the meaning, and that we don't have.
const UNSUPPORTED: &[&str] =
    &["service", "passfile", "sslcrl", "sslcrldir", "sslpassword", "requirepeer", "replication", "require_auth"];

const TAKEN: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "connect_timeout",
    "application_name",
    "options",
    "client_encoding",
    "target_session_attrs",
];

fn is_known(key: &str) -> bool {
    [TAKEN, WITHOUT_EFFECT, UNSUPPORTED].iter().any(|list| list.contains(&key))
}

fn from_pairs(pairs: Pairs) -> Result<ConnectOptions> {
    let mut options = ConnectOptions::default();
    let (mut host, mut hostaddr, mut port) = (String::new(), String::new(), String::new());
    for (key, value) in pairs {
        // As in libpq an empty value is the same as none.
        let given = (!value.is_empty()).then(|| value.clone());
        match key.as_str() {
            "host" => host = value,
            "hostaddr" => hostaddr = value,
            "port" => port = value,
            "dbname" => options.dbname = given,
            "user" => options.user = given,
            "password" => options.password = given.as_deref().map(Secret::from),
            "sslmode" => options.sslmode = given.map_or(Ok(SslMode::Prefer), |value| sslmode(&value))?,
            "sslrootcert" => options.sslrootcert = given.map(PathBuf::from),
            "sslcert" => options.sslcert = given.map(PathBuf::from),
            "sslkey" => options.sslkey = given.map(PathBuf::from),
            "connect_timeout" => {
                options.connect_timeout = Some(parse_time(&value).ok_or(ConninfoError::Time(value))?);
            }
            "application_name" => options.application_name = value,
            "options" => options.options = given,
            "client_encoding" => options.client_encoding = given,
            "target_session_attrs" => options.target_session_attrs = target_session(&value)?,
            other if WITHOUT_EFFECT.contains(&other) => {}
            other if UNSUPPORTED.contains(&other) => return Err(ConninfoError::Unsupported(key)),
            _ => return Err(ConninfoError::UnknownOption(key)),
        }
    }
    options.hosts = hosts(&host, &hostaddr, &port)?;
    Ok(options)
}

/// Pairs up libpq's three comma-separated lists; one port may stand for all.
fn hosts(host: &str, hostaddr: &str, port: &str) -> Result<Vec<Host>> {
    let names: Vec<&str> = host.split(',').collect();
    let addresses: Vec<&str> = hostaddr.split(',').collect();
    let ports: Vec<&str> = port.split(',').collect();
    let count = if hostaddr.is_empty() { names.len() } else { addresses.len() };
    if !hostaddr.is_empty() && !host.is_empty() && names.len() != count {
        return Err(ConninfoError::HostCount { hosts: names.len(), addresses: count });
    }
    if ports.len() != 1 && ports.len() != count {
        return Err(ConninfoError::PortCount { given: ports.len(), hosts: count });
    }
    let mut hosts = Vec::with_capacity(count);
    for index in 0..count {
        let name = names.get(index).copied().unwrap_or_default();
        let address = match addresses.get(index).copied().unwrap_or_default() {
            "" => host_address(name),
            ip => Address::Tcp {
                name: if name.is_empty() { ip } else { name }.to_owned(),
                ip: Some(ip.parse().map_err(|_| ConninfoError::HostAddr { option: "hostaddr", value: ip.to_owned() })?),
            },
        };
        let port = match ports.get(index).or_else(|| ports.first()).copied().unwrap_or_default() {
            "" => DEFAULT_PORT,
            text => match text.trim().parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(ConninfoError::Port(text.to_owned())),
            },
        };
        hosts.push(Host { address, port });
    }
    Ok(hosts)
}

/// The newest module wants `unix:/dir`, libpq `/dir`: both are clear.
fn host_address(name: &str) -> Address {
    match name.strip_prefix("unix:") {
        _ if name.is_empty() => Address::Unix(DEFAULT_SOCKET_DIR.into()),
        Some(dir) => Address::Unix(dir.into()),
        None if name.starts_with('/') => Address::Unix(name.into()),
        None => tcp(name),
    }
}

fn sslmode(value: &str) -> Result<SslMode> {
    Ok(match value {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            return Err(ConninfoError::InvalidValue { option: "sslmode", value: value.to_owned() });
        }
    })
}

fn target_session(value: &str) -> Result<TargetSession> {
    Ok(match value {
        "any" => TargetSession::Any,
        "read-write" => TargetSession::ReadWrite,
        "read-only" => TargetSession::ReadOnly,
        "primary" => TargetSession::Primary,
        "standby" => TargetSession::Standby,
        "prefer-standby" => TargetSession::PreferStandby,
        _ => {
            return Err(ConninfoError::InvalidValue { option: "target_session_attrs", value: value.to_owned() });
        }
    })
}
