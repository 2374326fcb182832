//! Logs that go to a syslog server: `syslog:server=address[,facility=...][,severity=...][,tag=...][,nohostname]`.

use std::cell::Cell;
use std::io;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;
use socket2::{Domain, SockAddr, Socket, Type};

use super::log::Level;
use super::sockets::reason;
use super::{clock, live, local_time};
use crate::config::value::{AddressError, parse_address};
use crate::config::{Fault, ListenAddress};
use crate::sys;

/// The port of a server that is named without one.
const PORT: u16 = 514;

/// RFC 3164's bound of a tag.
const MAX_TAG: usize = 32;

/// In the order of their numbers, as nginx calls them.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv", "ftp", "ntp",
    "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// A server that lines are sent to, each as a datagram.
#[derive(Debug)]
pub struct Syslog {
    parameters: Parameters,
    socket: ArcSwapOption<Socket>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameters {
    server: ListenAddress,
    facility: usize,
    severity: Level,
    tag: String,
    has_host: bool,
}

/// Two that send the same to the same server are one.
impl PartialEq for Syslog {
    fn eq(&self, other: &Self) -> bool {
        self.parameters == other.parameters
    }
}

impl Eq for Syslog {}

impl Syslog {
    /// Reads what follows `syslog:`. It connects with the first line.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let (mut server, mut facility, mut severity, mut tag, mut has_host) = (None, None, None, None, true);
        for word in text.split(',') {
            let twice = |name: &str| Err(Fault::new(format!("duplicate syslog \"{name}\"")).word(0));
            match word.split_once('=') {
                Some(("server", _)) if server.is_some() => return twice("server"),
                Some(("facility", _)) if facility.is_some() => return twice("facility"),
                Some(("severity", _)) if severity.is_some() => return twice("severity"),
                Some(("tag", _)) if tag.is_some() => return twice("tag"),
                Some(("server", address)) => server = Some(parse_server(address)?),
                Some(("facility", name)) => {
                    let number = FACILITIES.iter().position(|known| *known == name);
                    facility = Some(number.ok_or_else(|| {
                        Fault::new(format!("unknown syslog facility \"{name}\""))
                            .word(0)
                            .help(format!("it may be: {}", FACILITIES.join(", ")))
                    })?);
                }
                Some(("severity", name)) => {
                    let level = Level::exactly(name);
                    severity =
                        Some(level.ok_or_else(|| Fault::new(format!("unknown syslog severity \"{name}\"")).word(0))?);
                }
                Some(("tag", name)) => tag = Some(parse_tag(name)?),
                None if word == "nohostname" => has_host = false,
                _ => return Err(Fault::new(format!("unknown syslog parameter \"{word}\"")).word(0)),
            }
        }
        let parameters = Parameters {
            server: server.ok_or_else(|| Fault::new("no syslog server specified").word(0))?,
            facility: facility.unwrap_or(FACILITIES.len() - 1),
            severity: severity.unwrap_or(Level::Info),
            tag: tag.unwrap_or_else(|| "nginx".to_owned()),
            has_host,
        };
        Ok(Self { parameters, socket: ArcSwapOption::empty() })
    }

    /// Sends a line of an access log.
    pub fn send(&self, line: &[u8]) {
        self.send_as(self.parameters.severity, line);
    }

    /// Sends a line that is of this importance.
    pub fn send_as(&self, level: Level, line: &[u8]) {
        thread_local! {
            /// What can't be sent is told in the error log, which may go to the same server.
            static IS_SENDING: Cell<bool> = const { Cell::new(false) };
        }
        if IS_SENDING.replace(true) {
            return;
        }
        let mut datagram = self.parameters.header(level, clock::unix_seconds()).into_bytes();
        datagram.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        if let Err((call, error)) = self.try_send(&datagram) {
            let server = &self.parameters.server;
            let message = format!("{call}() failed ({}) while logging to syslog, server: {server}", reason(&error));
            live::log(Level::Alert, &message);
        }
        IS_SENDING.set(false);
    }

    /// Sends a datagram, by a new socket if there is none. It never waits: what finds no room is lost.
    fn try_send(&self, datagram: &[u8]) -> Result<(), (&'static str, io::Error)> {
        let socket = match self.socket.load_full() {
            Some(socket) => socket,
            None => {
                let socket = Arc::new(self.parameters.connect()?);
                self.socket.store(Some(Arc::clone(&socket)));
                socket
            }
        };
        match socket.send(datagram) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(("send", error)),
            Err(error) => {
                self.socket.store(None);
                Err(("send", error))
            }
        }
    }
}

impl Parameters {
    /// `<190>Nov 23 06:28:03 host tag: `
    fn header(&self, level: Level, seconds: i64) -> String {
        static HOST: LazyLock<String> = LazyLock::new(sys::host_name);
        let priority = self.facility * 8 + level as usize;
        let time = local_time::now(seconds).syslog();
        match self.has_host {
            true => format!("<{priority}>{time} {} {}: ", *HOST, self.tag),
            false => format!("<{priority}>{time} {}: ", self.tag),
        }
    }

    fn connect(&self) -> Result<Socket, (&'static str, io::Error)> {
        let (domain, address) = match &self.server {
            ListenAddress::Ip(ip) => (Domain::for_address(*ip), SockAddr::from(*ip)),
            ListenAddress::Unix(path) => (Domain::UNIX, SockAddr::unix(path).map_err(|error| ("connect", error))?),
        };
        let socket = Socket::new(domain, Type::DGRAM, None).map_err(|error| ("socket", error))?;
        socket.set_nonblocking(true).map_err(|error| ("ioctl", error))?;
        socket.connect(&address).map_err(|error| ("connect", error))?;
        Ok(socket)
    }
}

fn parse_server(text: &str) -> Result<ListenAddress, Fault> {
    parse_address(text, PORT, false).map_err(|error| {
        let fault = Fault::new(format!("{} in syslog server \"{text}\"", error.words())).word(0);
        match error {
            AddressError::Name => fault.help("names are not looked up here: write the address"),
            _ => fault,
        }
    })
}

fn parse_tag(text: &str) -> Result<String, Fault> {
    if text.len() > MAX_TAG {
        return Err(Fault::new(format!("syslog tag length exceeds {MAX_TAG}")).word(0));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        let message = "syslog \"tag\" only allows alphanumeric characters and underscore";
        return Err(Fault::new(message).word(0));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn parameters() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(findings(&format!("error_log syslog:{text};")), expected, "{text}");
        };
        check("server=127.0.0.1", &[]);
        check("server=[::1]:5514,facility=local0,severity=debug,tag=my_site,nohostname", &[]);
        check("server=unix:/dev/log,severity=warn", &[]);
        check("server=127.0.0.1,server=127.0.0.1", &["duplicate syslog \"server\""]);
        check("facility=kern,facility=kern", &["duplicate syslog \"facility\""]);
        check("tag=a,tag=b", &["duplicate syslog \"tag\""]);
        check("server=127.0.0.1:0", &["invalid port in syslog server \"127.0.0.1:0\""]);
        check("server=no-such-host.invalid", &["host not found in syslog server \"no-such-host.invalid\""]);
        check("facility=local8", &["unknown syslog facility \"local8\""]);
        check("severity=loud", &["unknown syslog severity \"loud\""]);
        check("tag=a-b", &["syslog \"tag\" only allows alphanumeric characters and underscore"]);
        check(&format!("tag={}", "x".repeat(33)), &["syslog tag length exceeds 32"]);
        check("color=red", &["unknown syslog parameter \"color=red\""]);
        check("tag=a", &["no syslog server specified"]);
    }

    #[test]
    fn headers() {
        let header = |text: &str, level| Syslog::parse(text).map(|syslog| syslog.parameters.header(level, 0));
        let time = local_time::now(0).syslog();
        assert_eq!(header("server=127.0.0.1,nohostname", Level::Info).ok(), Some(format!("<190>{time} nginx: ")));
        let host = sys::host_name();
        let with_host = header("server=127.0.0.1,facility=kern,tag=t", Level::Emerg);
        assert_eq!(with_host.ok(), Some(format!("<0>{time} {host} t: ")));
    }
}
