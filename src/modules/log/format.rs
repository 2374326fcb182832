//! `log_format`: the form of a line of an access log.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::Formats;
use crate::config::{Call, Cx, Fault, Position, Registry, Value, VarId, VariableRow};
use crate::http::Request;
use crate::http::wire::escape::{JsonDigits, push_json};

/// The form of a line.
#[derive(Debug)]
pub(super) struct Format {
    escaping: Escaping,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Text(Bytes),
    Variable(VarId),
    /// Read past the request's table of variables: `combined` is there even if no directive names it.
    BuiltIn(&'static VariableRow, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escaping {
    Default,
    Json,
    None,
}

pub(super) fn log_format(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let name = call.text(0).into_owned();
    if name == "combined" || cx.edit::<Formats>().formats.iter().any(|(known, _)| *known == name) {
        return Err(Fault::new(format!("duplicate \"log_format\" name \"{name}\"")).word(0));
    }
    let (escaping, first) = match call.bytes(1).strip_prefix(b"escape=") {
        None => (Escaping::Default, 1),
        Some(b"default") => (Escaping::Default, 2),
        Some(b"json") => (Escaping::Json, 2),
        Some(b"none") => (Escaping::None, 2),
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            return Err(Fault::new(format!("unknown log format escaping \"{other}\""))
                .word(1)
                .help("it may be: default, json, none"));
        }
    };
    let mut pieces = Vec::new();
    for index in first..call.len() {
        compile(call.bytes(index), cx, call.word_at(index), &mut pieces).map_err(|fault| fault.word(index))?;
    }
    cx.edit::<Formats>().formats.push((name, Arc::new(Format { escaping, pieces })));
    Ok(())
}

/// Cuts a format into pieces. Unlike elsewhere, `$1` is no capture here.
fn compile(mut text: &[u8], cx: &mut Cx<'_>, at: Position, pieces: &mut Vec<Piece>) -> Result<(), Fault> {
    while let Some(dollar) = memchr::memchr(b'$', text) {
        if dollar > 0 {
            pieces.push(Piece::Text(Bytes::copy_from_slice(&text[..dollar])));
        }
        let invalid = || Fault::new(format!("invalid parameter \"{}\"", String::from_utf8_lossy(&text[dollar..])));
        let rest = &text[dollar + 1..];
        let is_braced = rest.first() == Some(&b'{');
        let rest = &rest[usize::from(is_braced)..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let (name, rest) = rest.split_at(length);
        let name = String::from_utf8_lossy(name);
        let rest = match (is_braced, rest.split_first()) {
            (false, _) => rest,
            (true, Some((b'}', rest))) => rest,
            (true, None) if name.is_empty() => return Err(invalid()),
            (true, _) => {
                return Err(Fault::new(format!("the closing bracket in \"{name}\" variable is missing")));
            }
        };
        if name.is_empty() {
            return Err(invalid());
        }
        pieces.push(Piece::Variable(cx.variables().used(&name, Some(at))));
        text = rest;
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(Bytes::copy_from_slice(text)));
    }
    Ok(())
}

/// nginx's own format.
pub(super) fn combined() -> Arc<Format> {
    static COMBINED: LazyLock<Arc<Format>> = LazyLock::new(|| {
        let text = |text: &'static str| Some(Piece::Text(Bytes::from_static(text.as_bytes())));
        let variable = |name: &str, suffix| {
            Registry::get().variables().find(|row| row.name == name).map(|row| Piece::BuiltIn(row, suffix))
        };
        let pieces = [
            variable("remote_addr", ""),
            text(" - "),
            variable("remote_user", ""),
            text(" ["),
            variable("time_local", ""),
            text("] \""),
            variable("request", ""),
            text("\" "),
            variable("status", ""),
            text(" "),
            variable("body_bytes_sent", ""),
            text(" \""),
            variable("http_", "referer"),
            text("\" \""),
            variable("http_", "user_agent"),
            text("\""),
        ];
        Arc::new(Format { escaping: Escaping::Default, pieces: pieces.into_iter().flatten().collect() })
    });
    Arc::clone(&COMBINED)
}

impl Format {
    /// The line of a request, with its end.
    pub(super) fn line(&self, request: &Request) -> Vec<u8> {
        let mut line = Vec::with_capacity(256);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => line.extend_from_slice(text),
                Piece::Variable(id) => self.escaping.push(&mut line, &request.variable(*id)),
                Piece::BuiltIn(row, suffix) => self.escaping.push(&mut line, &(row.read)(request, suffix)),
            }
        }
        line.push(b'\n');
        line
    }
}

impl Escaping {
    /// Appends a value. Only the default form shows that there is none.
    fn push(self, line: &mut Vec<u8>, value: &Value) {
        match (self, value) {
            (Self::Default, None) => line.push(b'-'),
            (_, None) => {}
            (Self::None, Some(value)) => line.extend_from_slice(value),
            (Self::Default, Some(value)) => {
                for byte in value {
                    match byte {
                        b'"' | b'\\' | ..0x20 | 0x7f.. => push_hex(line, b"\\x", *byte),
                        byte => line.push(*byte),
                    }
                }
            }
            (Self::Json, Some(value)) => push_json(line, value, JsonDigits::Upper),
        }
    }
}

fn push_hex(line: &mut Vec<u8>, start: &[u8], byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    line.extend_from_slice(start);
    line.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping() {
        let check = |escaping: Escaping, value: Option<&'static [u8]>, expected: &str| {
            let mut line = Vec::new();
            escaping.push(&mut line, &value.map(Bytes::from_static));
            assert_eq!(String::from_utf8_lossy(&line), expected, "{escaping:?} {value:?}");
        };
        check(Escaping::Default, None, "-");
        check(Escaping::Default, Some(b""), "");
        check(Escaping::Default, Some(b"ag\"ent\\ \xc3\x7f\n"), "ag\\x22ent\\x5C \\xC3\\x7F\\x0A");
        check(Escaping::Json, None, "");
        check(Escaping::Json, Some(b"q\"\\\t\x01\x1f"), "q\\\"\\\\\\t\\u0001\\u001F");
        check(Escaping::Json, Some("ü".as_bytes()), "ü");
        check(Escaping::None, None, "");
        check(Escaping::None, Some(b"r\"aw"), "r\"aw");
    }
}
