//! ngx_http_log_module: a line for each request.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::config::value::{Template, parse_number, parse_sec, parse_size};
use crate::config::{
    Args, Call, Contexts, Cx, Declarations, Diagnostic, Directive, Fault, Merge, Position, Registry, Section,
    SectionRow, Severity, Slot, Status, Value, VarId, VariableRow,
};
use crate::http::wire::escape::{JsonDigits, push_json};
use crate::http::{Module, Next, Phase, Request, root};
use crate::server::log::{Level, shown};
use crate::server::log_file::LogFile;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_log",
        sections: &[SectionRow::of::<Formats>(&[]), SectionRow::of::<AccessLogs>(&[])],
        commands: COMMANDS,
        variables: &[],
    },
    phases: &[(Phase::Log, log)],
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[
    Directive {
        name: "log_format",
        contexts: Contexts::HTTP,
        args: Args::at_least(2),
        syntax: "name [escape=default | json | none] string ...",
        default: "combined '$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                  \"$http_referer\" \"$http_user_agent\"'",
        doc: "Names a form for lines of access logs. `escape` says how values are made harmless: by `\\x22` and its \
              like, for strings of JSON, or not at all.",
        file: file!(),
        apply: log_format,
        ..Directive::BASE
    },
    Directive {
        name: "access_log",
        contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION).union(Contexts::LIMIT_EXCEPT),
        args: Args::SOME,
        syntax: "path [format [buffer=size] [gzip[=level]] [flush=time] [if=condition]] | off",
        default: "logs/access.log combined",
        status: Status::Partly("lines are written at once: buffer, flush and gzip have no effect; syslog is refused"),
        doc: "Where requests are logged, and in which form. Several may be given on one level; an inner block's \
              replace those around it. The path may have variables: such a log is written only while the `root` \
              exists. Under `if`, a request whose condition is empty or `0` is left out.",
        file: file!(),
        apply: access_log,
        ..Directive::BASE
    },
    Directive::ignored(
        "open_log_file_cache",
        Contexts::HTTP_ALL,
        Args::between(1, 4),
        "a log whose path has variables is opened for each line",
        "How many logs whose paths have variables nginx keeps open.",
    ),
];

/// The formats that the `http` block names.
#[derive(Debug)]
pub struct Formats;

impl Section for Formats {
    type Raw = Vec<(String, Arc<Format>)>;

    fn merge(_: &Self::Raw, _: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// The form of a line.
#[derive(Debug)]
pub struct Format {
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

fn log_format(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let name = call.text(0).into_owned();
    if name == "combined" || cx.edit::<Formats>().iter().any(|(known, _)| *known == name) {
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
    cx.edit::<Formats>().push((name, Arc::new(Format { escaping, pieces })));
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
fn combined() -> Arc<Format> {
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

/// The access logs of a block.
#[derive(Clone, Debug)]
pub struct AccessLogs {
    /// `None`: nothing was said around it, so that a server has the default.
    logs: Option<Arc<[AccessLog]>>,
}

/// One `access_log`.
#[derive(Clone, Debug)]
pub struct AccessLog {
    to: To,
    format: Arc<Format>,
    condition: Option<Template>,
}

#[derive(Clone, Debug)]
enum To {
    File(Arc<LogFile>),
    /// A path with variables.
    Path(Template),
}

/// What a block says of them.
#[derive(Debug, Default)]
pub struct RawLogs {
    off: bool,
    logs: Vec<AccessLog>,
}

impl Section for AccessLogs {
    type Raw = RawLogs;
    const ALWAYS: bool = true;

    fn merge(raw: &RawLogs, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        let inherited = parent.and_then(|parent| parent.logs.clone());
        let logs = match raw {
            RawLogs { off: true, .. } => Some([].into()),
            RawLogs { logs, .. } if !logs.is_empty() => Some(logs.as_slice().into()),
            _ if inherited.is_some() => inherited,
            // The file is not opened where every server names another.
            _ if Contexts::SERVER.contains(cx.context) => {
                let file = LogFile::at(&cx.options.full_path("logs/access.log"));
                Some([AccessLog { to: To::File(file), format: combined(), condition: None }].into())
            }
            _ => None,
        };
        Self { logs }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn access_log(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let word = call.text(0);
    if word == "off" {
        cx.edit::<AccessLogs>().off = true;
        return if call.len() == 1 { Ok(()) } else { Err(invalid_parameter(call, 1)) };
    }
    if word.starts_with("syslog:") {
        return Err(Fault::new(format!("\"{word}\" is not supported in \"access_log\""))
            .word(0)
            .code("unsupported-value")
            .help("name a file"));
    }
    let path = cx.options().full_path(&word);
    let to = if word.contains('$') {
        To::Path(Template::compile(&path.into_os_string().into_vec(), cx, Some(call.word_at(0)))?)
    } else {
        To::File(LogFile::at(&path))
    };
    let format = format(cx, call)?;
    let condition = parameters(cx, call, &to)?;
    cx.edit::<AccessLogs>().logs.push(AccessLog { to, format, condition });
    Ok(())
}

/// The format that an `access_log` names, which must stand before it.
fn format(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<Arc<Format>, Fault> {
    let name = if call.len() > 1 { call.text(1) } else { "combined".into() };
    if name == "combined" {
        return Ok(combined());
    }
    let known = cx.edit_around::<Formats>(Contexts::HTTP);
    let found = known.and_then(|known| known.iter().find(|(known, _)| *known == name));
    found.map(|(_, format)| Arc::clone(format)).ok_or_else(|| {
        Fault::new(format!("unknown log format \"{name}\""))
            .word(1)
            .help("a log_format must stand before the access_log that uses it")
    })
}

/// Checks what follows the format, and gives the condition.
fn parameters(cx: &mut Cx<'_>, call: &Call<'_>, to: &To) -> Result<Option<Template>, Fault> {
    let mut condition = None;
    let (mut is_buffered, mut is_flushed) = (false, false);
    for index in 2..call.len() {
        let word = call.bytes(index);
        let wrong = |what: &str, value: &[u8]| {
            Fault::new(format!("invalid {what} \"{}\"", String::from_utf8_lossy(value))).word(index)
        };
        if let Some(size) = word.strip_prefix(b"buffer=") {
            parse_size(size).filter(|size| *size > 0).ok_or_else(|| wrong("buffer size", size))?;
            is_buffered = true;
        } else if let Some(time) = word.strip_prefix(b"flush=") {
            parse_sec(time).filter(|time| *time > 0).ok_or_else(|| wrong("flush time", time))?;
            is_flushed = true;
        } else if word == b"gzip" || word.starts_with(b"gzip=") {
            let level = word.get(5..).unwrap_or(b"1");
            let is_level = parse_number(level).is_some_and(|level| (1..=9).contains(&level));
            is_level.then_some(()).ok_or_else(|| wrong("compression level", level))?;
            is_buffered = true;
            let message = "the log is not compressed: \"gzip\" has no effect here";
            let at = Some(call.word_at(index));
            cx.report(Diagnostic::new(Severity::Lint, "ignored", message).near(at));
        } else if let Some(text) = word.strip_prefix(b"if=") {
            let at = call.word_at(index);
            condition = Some(Template::compile(text, cx, Some(at)).map_err(|fault| fault.word(index))?);
        } else {
            return Err(invalid_parameter(call, index));
        }
    }
    if is_flushed && !is_buffered {
        return Err(Fault::new(format!("no buffer is defined for access_log \"{}\"", call.text(0))));
    }
    if is_buffered && matches!(to, To::Path(_)) {
        return Err(Fault::new("buffered logs cannot have variables in name"));
    }
    Ok(condition)
}

fn invalid_parameter(call: &Call<'_>, index: usize) -> Fault {
    Fault::new(format!("invalid parameter \"{}\"", call.text(index))).word(index)
}

/// The handler of the log phase.
fn log(request: &mut Request) -> Next<'_> {
    for log in request.settings::<AccessLogs>().logs.iter().flat_map(|logs| logs.iter()) {
        let is_wanted = |condition: &Template| !matches!(&request.eval(condition)[..], b"" | b"0");
        if log.condition.as_ref().is_none_or(is_wanted) {
            log.to.write(request, &log.format.line(request));
        }
    }
    Next::Declined
}

impl Format {
    /// The line of a request, with its end.
    fn line(&self, request: &Request) -> Vec<u8> {
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

impl To {
    fn write(&self, request: &Request, line: &[u8]) {
        match self {
            Self::File(file) => file.write(line),
            Self::Path(path) => write_at(request, &request.eval(path), line),
        }
    }
}

/// Writes to a log whose path has variables. As in nginx the site's folder must exist, so that a client can't have
/// files made under names that it invents.
fn write_at(request: &Request, path: &[u8], line: &[u8]) {
    let folder = root::document_root(request);
    if let Err(error) = std::fs::metadata(Path::new(std::ffi::OsStr::from_bytes(&folder))) {
        request.log(Level::Error, &format!("testing \"{}\" existence failed ({error})", shown(&folder)));
        return;
    }
    let file = LogFile::at(Path::new(std::ffi::OsStr::from_bytes(path)));
    match file.open() {
        Ok(()) => file.write(line),
        Err(error) => {
            request.log(Level::Crit, &format!("open() \"{}\" failed ({error})", shown(path)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, LoadOptions, load_text};

    fn load(http: &str) -> Config {
        let text = format!("events {{}} http {{ {http} server {{ location /x {{ }} }} }}");
        load_text(LoadOptions { offline: true, ..LoadOptions::default() }, text.as_bytes())
    }

    #[test]
    fn messages() {
        let check = |http: &str, expected: &[&str]| {
            let config = load(http);
            let got: Vec<_> = config.built.diagnostics.iter().map(|finding| &finding.message).collect();
            assert_eq!(got, expected, "{http}");
        };
        check("log_format a '$uri ' $status; access_log logs/a.log a;", &[]);
        check("access_log a.log; access_log b.log combined buffer=4k flush=1s if=$arg_a; access_log off;", &[]);
        check("log_format a x; log_format a y;", &["duplicate \"log_format\" name \"a\""]);
        check("log_format combined x;", &["duplicate \"log_format\" name \"combined\""]);
        check("log_format a $nosuch;", &["unknown \"nosuch\" variable"]);
        check("log_format a escape=xml $uri;", &["unknown log format escaping \"xml\""]);
        check("log_format a 'x $';", &["invalid parameter \"$\""]);
        check("log_format a '${uri';", &["the closing bracket in \"uri\" variable is missing"]);
        check("log_format a '$(';", &["invalid parameter \"$(\""]);
        check("access_log a.log none;", &["unknown log format \"none\""]);
        check("access_log a.log combined color=red;", &["invalid parameter \"color=red\""]);
        check("access_log off on;", &["invalid parameter \"on\""]);
        check("access_log a.log combined buffer=0;", &["invalid buffer size \"0\""]);
        check("access_log a.log combined flush=1s;", &["no buffer is defined for access_log \"a.log\""]);
        check("access_log a.log combined gzip=10;", &["invalid compression level \"10\""]);
        check("access_log $host.log combined buffer=1k;", &["buffered logs cannot have variables in name"]);
    }

    #[test]
    fn inheritance() {
        let check = |http: &str, server: &str, expected: usize| {
            let text = format!("events {{}} http {{ {http} server {{ {server} location /x {{ }} }} }}");
            let config = load_text(LoadOptions { offline: true, ..LoadOptions::default() }, text.as_bytes());
            let scope = config.built.model.locations[0].scope;
            let logs = config.settings(scope).get::<AccessLogs>().logs.clone().expect("a location's logs are known");
            assert_eq!(logs.len(), expected, "{http} / {server}");
        };
        check("", "", 1);
        check("access_log off;", "", 0);
        check("access_log a; access_log b;", "", 2);
        check("access_log a; access_log b;", "access_log c;", 1);
        check("access_log off;", "access_log c;", 1);
        check("access_log a;", "access_log c; access_log off;", 0);
    }

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
