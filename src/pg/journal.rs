//! What is written of an upstream's connections: `postgres_log` and `postgres_trace`.
//!
//! A trace has a line for each message, in the form of libpq's `PQtrace`: time, `F` (to the server) or `B` (from it),
//! length, name, and what it holds. It begins after the login, so that no password is in it.

use std::fmt::Write;
use std::sync::Arc;

use super::error::ServerError;
use crate::server::log::{Level, LogSettings, shown};
use crate::server::{clock, local_time};

/// Where it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// `postgres_log`
    pub log: Option<Arc<LogSettings>>,
    /// `postgres_trace`
    pub trace: Option<Arc<LogSettings>>,
}

impl Journal {
    /// Writes a message to the log, if there is one.
    pub fn say(&self, level: Level, message: impl FnOnce() -> String) {
        if let Some(log) = self.log.as_ref().filter(|log| log.wants(level)) {
            log.say(level, &format!("postgres: {}", message().replace('\n', " ")));
        }
    }

    /// Writes what the server tells of its own accord.
    pub(crate) fn notice(&self, notice: &ServerError) {
        let level = match notice.severity.as_str() {
            "WARNING" => Level::Warn,
            "NOTICE" => Level::Notice,
            "INFO" | "LOG" => Level::Info,
            "FATAL" | "PANIC" | "ERROR" => Level::Error,
            _ => Level::Debug,
        };
        self.say(level, || notice.to_string());
    }
}

/// Who sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Us,
    Server,
}

/// Writes a line for each whole message in some bytes.
pub(crate) fn trace(to: &LogSettings, from: From, mut bytes: &[u8]) {
    let mut lines = String::new();
    while let Some((message, rest)) = split(bytes) {
        lines.push_str(&stamp());
        lines.push_str(&line(from, message));
        bytes = rest;
    }
    if !lines.is_empty() {
        to.append(&lines);
    }
}

/// The first message: a letter, a length that counts itself, and the rest.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_be_bytes(*bytes.get(1..)?.first_chunk()?);
    bytes.split_at_checked(1 + usize::try_from(length).ok().filter(|length| *length >= 4)?)
}

/// `2026-11-23 06:28:03.000123`
fn stamp() -> String {
    let now = clock::unix_time();
    let time = local_time::now(clock::unix_seconds()).log().replace('/', "-");
    format!("{time}.{:06}", now.subsec_micros())
}

fn line(from: From, message: &[u8]) -> String {
    let (letter, content) = (message[0], &message[5..]);
    let (name, fields) = describe(from, letter);
    let side = if from == From::Us { 'F' } else { 'B' };
    let mut line = format!("\t{side}\t{}\t{name}", message.len() - 1);
    let mut content = Content(content);
    // What does not fit its description ends the line early.
    let _complete = content.show(fields, &mut line);
    line.push('\n');
    line
}

/// The name of a message, and what it holds: `s` is a text, `h` a number of two bytes, `i` of four, `c` a letter, `v` a
/// value with its length, `e` the fields of an error. `*` after a count repeats the rest so often.
fn describe(from: From, letter: u8) -> (&'static str, &'static str) {
    match (from, letter) {
        (From::Us, b'B') => ("Bind", "ssh*h;h*v;h*h"),
        (From::Us, b'C') => ("Close", "cs"),
        (From::Us, b'D') => ("Describe", "cs"),
        (From::Us, b'E') => ("Execute", "si"),
        (From::Us, b'P') => ("Parse", "ssh*i"),
        (From::Us, b'Q') => ("Query", "s"),
        (From::Us, b'S') => ("Sync", ""),
        (From::Us, b'X') => ("Terminate", ""),
        (From::Server, b'1') => ("ParseComplete", ""),
        (From::Server, b'2') => ("BindComplete", ""),
        (From::Server, b'3') => ("CloseComplete", ""),
        (From::Server, b'A') => ("NotificationResponse", "iss"),
        (From::Server, b'C') => ("CommandComplete", "s"),
        (From::Server, b'D') => ("DataRow", "h*v"),
        (From::Server, b'E') => ("ErrorResponse", "e"),
        (From::Server, b'G') => ("CopyInResponse", ""),
        (From::Server, b'H') => ("CopyOutResponse", ""),
        (From::Server, b'I') => ("EmptyQueryResponse", ""),
        (From::Server, b'N') => ("NoticeResponse", "e"),
        (From::Server, b'S') => ("ParameterStatus", "ss"),
        (From::Server, b'T') => ("RowDescription", "h*sihihih"),
        (From::Server, b'Z') => ("ReadyForQuery", "c"),
        (From::Server, b'n') => ("NoData", ""),
        (From::Server, b's') => ("PortalSuspended", ""),
        (From::Server, b't') => ("ParameterDescription", "h*i"),
        _ => ("Unknown", ""),
    }
}

/// The bytes of a message that are not shown yet.
struct Content<'b>(&'b [u8]);

impl<'b> Content<'b> {
    fn show(&mut self, fields: &str, line: &mut String) -> Option<()> {
        for group in fields.split(';') {
            match group.split_once('*') {
                None => self.all(group, line)?,
                Some((before, each)) => {
                    self.all(before.strip_suffix('h').unwrap_or(before), line)?;
                    let count = self.short()?;
                    put(line, count);
                    for _ in 0..count {
                        self.all(each, line)?;
                    }
                }
            }
        }
        Some(())
    }

    fn all(&mut self, fields: &str, line: &mut String) -> Option<()> {
        for field in fields.bytes() {
            match field {
                b's' => quoted(line, '"', self.text()?),
                b'h' => put(line, self.short()?),
                b'i' => put(line, self.long()?),
                b'c' => put(line, char::from(*self.take(1)?.first()?)),
                b'v' => {
                    let length = self.long()?;
                    put(line, length);
                    if let Ok(length) = usize::try_from(length) {
                        quoted(line, '\'', self.take(length)?);
                    }
                }
                _ => self.error(line)?,
            }
        }
        Some(())
    }

    fn error(&mut self, line: &mut String) -> Option<()> {
        while let Some(letter) = self.0.first().filter(|letter| **letter != 0) {
            let letter = char::from(*letter);
            self.take(1)?;
            put(line, letter);
            quoted(line, '"', self.text()?);
        }
        Some(())
    }

    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<&'b [u8]> {
        let text = self.take(memchr::memchr(0, self.0)?)?;
        self.take(1)?;
        Some(text)
    }

    fn short(&mut self) -> Option<i16> {
        self.take(2)?.first_chunk().map(|bytes| i16::from_be_bytes(*bytes))
    }

    fn long(&mut self) -> Option<i32> {
        self.take(4)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
    }
}

fn put(line: &mut String, value: impl std::fmt::Display) {
    // A string takes everything.
    let _written = write!(line, " {value}");
}

fn quoted(line: &mut String, mark: char, text: &[u8]) {
    let _written = write!(line, " {mark}{}{mark}", shown(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(letter: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len() + 4).expect("a short message");
        [&[letter], &length.to_be_bytes()[..], content].concat()
    }

    #[test]
    fn messages_as_lines() {
        let check = |from, letter, content: &[u8], expected: &str| {
            assert_eq!(line(from, &message(letter, content)), format!("\t{expected}\n"));
        };
        check(From::Us, b'S', b"", "F\t4\tSync");
        check(From::Us, b'P', b"s1\0select $1\0\0\x01\0\0\0\x17", "F\t23\tParse \"s1\" \"select $1\" 1 23");
        let bind = b"\0s1\0\0\x01\0\0\0\x02\0\0\0\x02a\n\xff\xff\xff\xff\0\x01\0\x01";
        check(From::Us, b'B', bind, "F\t28\tBind \"\" \"s1\" 1 0 2 2 'a\\x0A' -1 1 1");
        check(From::Us, b'E', b"\0\0\0\0\0", "F\t9\tExecute \"\" 0");
        check(From::Server, b'D', b"\0\x01\0\0\0\x01x", "B\t11\tDataRow 1 1 'x'");
        check(From::Server, b'Z', b"I", "B\t5\tReadyForQuery I");
        check(From::Server, b'E', b"SERROR\0Mno\0\0", "B\t16\tErrorResponse S \"ERROR\" M \"no\"");
        check(From::Server, b'?', b"x", "B\t5\tUnknown");
        // Cut short, or lying about its length.
        check(From::Server, b'D', b"\0\x05\0\0\0\x09x", "B\t11\tDataRow 5 9");
    }

    #[test]
    fn only_whole_messages() {
        let whole = [message(b'S', b""), message(b'Z', b"I")].concat();
        let (first, rest) = split(&whole).expect("two messages");
        assert_eq!((first.len(), split(rest).map(|(message, rest)| (message.len(), rest.len()))), (5, Some((6, 0))));
        assert!(split(&whole[..4]).is_none());
        assert!(split(b"S\0\0\0\x03").is_none());
        assert!(split(b"S\xff\xff\xff\xff").is_none());
    }
}
