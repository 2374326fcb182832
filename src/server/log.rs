//! `error_log`: what the server says of itself, in nginx's form.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use super::clock;
use super::local_time;
use super::log_file::LogFile;
use super::syslog::Syslog;
use crate::config::value::parse_size;
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot, Status};

/// How long a line may be, with its end: what is more is cut off. A log in memory must have room for one.
const MAX_LINE: usize = 2048;

/// How important a message is; nginx's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are nginx's")]
pub enum Level {
    Emerg,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

impl Level {
    const WORDS: [(&'static str, Self); 8] = [
        ("emerg", Self::Emerg),
        ("alert", Self::Alert),
        ("crit", Self::Crit),
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("notice", Self::Notice),
        ("info", Self::Info),
        ("debug", Self::Debug),
    ];

    /// nginx's word for it.
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize].0
    }

    /// The level of a word.
    pub fn of(word: &str) -> Option<Self> {
        if word.starts_with("debug") { Some(Self::Debug) } else { Self::exactly(word) }
    }

    /// The level that is called just so.
    pub fn exactly(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, level)| *level)
    }
}

/// The row that this file brings.
pub const COMMANDS: &[Directive] = &[Directive {
    name: "error_log",
    contexts: Contexts::MAIN.union(Contexts::HTTP_ALL),
    args: Args::SOME,
    syntax: "file | stderr | syslog:server=address[,parameter=value] | memory:size [level]",
    default: "logs/error.log error",
    doc: "Where errors are written, and from which level on: `debug`, `info`, `notice`, `warn`, `error`, `crit`, \
          `alert` or `emerg`. Several may be given on one level of the configuration; an inner block's replace those \
          around it. After `syslog:` come the server's address (`unix:` too) and, if wanted, `facility`, `severity`, \
          `tag` and `nohostname`.",
    status: Status::Partly("nothing is kept of a log in memory, as there is no other way to it than a debugger"),
    file: file!(),
    apply: error_log,
    ..Directive::BASE
}];

/// Where errors go that belong to a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    targets: Vec<Target>,
    finest: Level,
}

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    to: To,
    level: Level,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum To {
    Stderr,
    File(Arc<LogFile>),
    Syslog(Arc<Syslog>),
    /// nginx keeps a log for the debugger; here nothing is kept.
    Memory,
}

impl Section for LogSettings {
    type Raw = Vec<Target>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        match parent {
            Some(parent) if raw.is_empty() => parent.clone(),
            _ if raw.is_empty() => {
                let path = cx.options.error_log.clone().unwrap_or_else(|| PathBuf::from("logs/error.log"));
                Self::new(vec![Target {
                    to: To::of(&path.to_string_lossy(), cx.options.full_path("")),
                    level: Level::Error,
                }])
            }
            _ => Self::new(raw.clone()),
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

impl To {
    fn of(word: &str, prefix: PathBuf) -> Self {
        match word {
            "stderr" => Self::Stderr,
            path => Self::File(LogFile::at(&prefix.join(path))),
        }
    }
}

fn error_log(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let target = Target::parse(call, cx)?;
    cx.edit::<LogSettings>().push(target);
    Ok(())
}

impl Target {
    /// `file | stderr | syslog: | memory: [level]`, as `error_log` takes it.
    pub fn parse(call: &Call<'_>, cx: &Cx<'_>) -> Result<Self, Fault> {
        let word = call.text(0);
        let to = if let Some(parameters) = word.strip_prefix("syslog:") {
            To::Syslog(Arc::new(Syslog::parse(parameters)?))
        } else if let Some(size) = word.strip_prefix("memory:") {
            parse_size(size.as_bytes())
                .filter(|size| *size >= MAX_LINE as u64)
                .ok_or_else(|| Fault::new(format!("invalid buffer size \"{size}\"")).word(0))?;
            To::Memory
        } else {
            To::of(&word, cx.options().full_path(""))
        };
        let mut level = Level::Error;
        for index in 1..call.len() {
            let word = call.text(index);
            level = Level::of(&word).ok_or_else(|| Fault::new(format!("invalid log level \"{word}\"")).word(index))?;
        }
        Ok(Self { to, level })
    }

    fn write(&self, level: Level, line: &str) {
        match &self.to {
            To::Syslog(syslog) => syslog.send_as(level, line.as_bytes()),
            To::Memory => {}
            To::Stderr => drop(std::io::stderr().write_all(line.as_bytes())),
            To::File(file) => file.write(line.as_bytes()),
        }
    }
}

impl LogSettings {
    /// A log of its own, with these targets.
    pub fn new(targets: Vec<Target>) -> Self {
        let finest = targets.iter().map(|target| target.level).max().unwrap_or(Level::Error);
        Self { targets, finest }
    }

    /// Whether a message of a level is written anywhere.
    pub fn wants(&self, level: Level) -> bool {
        level <= self.finest
    }

    /// Writes a message about a connection (0: about none).
    pub fn write(&self, level: Level, connection: u64, message: &str) {
        let line = line(level, connection, message);
        for target in self.targets.iter().filter(|target| level <= target.level) {
            target.write(level, &line);
        }
    }

    /// Writes whole lines as they are, whatever the level.
    pub fn append(&self, lines: &str) {
        for target in &self.targets {
            target.write(Level::Info, lines);
        }
    }

    /// Writes a message about the process itself.
    pub fn say(&self, level: Level, message: &str) {
        if self.wants(level) {
            self.write(level, 0, message);
        }
    }

    /// The files among them.
    pub fn files(&self) -> impl Iterator<Item = &Arc<LogFile>> {
        self.targets.iter().filter_map(|target| match &target.to {
            To::File(file) => Some(file),
            To::Stderr | To::Syslog(_) | To::Memory => None,
        })
    }
}

/// Bytes as a log shows them: text as it is, what would break a line or the terminal as `\\xNN`.
pub fn shown(bytes: &[u8]) -> impl fmt::Display + '_ {
    Shown(bytes)
}

struct Shown<'b>(&'b [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for ch in chunk.valid().chars() {
                if ch.is_control() { write!(f, "\\x{:02X}", u32::from(ch))? } else { write!(f, "{ch}")? }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// `2026/11/23 06:28:03 [error] 123#123: *5 message`
fn line(level: Level, connection: u64, message: &str) -> String {
    let time = local_time::now(clock::unix_seconds());
    let process = std::process::id();
    let thread = crate::sys::thread_id();
    let mut line = format!("{} [{}] {process}#{thread}: ", time.log(), level.word());
    if connection > 0 {
        line.push_str(&format!("*{connection} "));
    }
    line.push_str(message);
    line.truncate(line.floor_char_boundary(MAX_LINE - 1));
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_where_nginx_cuts_it() {
        let cut = |message: &str| line(Level::Error, 1, message).len();
        let head = cut("");
        assert_eq!(cut(&"x".repeat(2048 - head)), 2048);
        assert_eq!(cut(&"x".repeat(5000)), 2048);
        assert!(line(Level::Error, 1, &"\u{e4}".repeat(5000)).ends_with("\u{e4}\n"));
    }
}
