//! ngx_http_log_module: a line for each request.

mod format;
mod open_files;

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::value::{Template, parse_msec, parse_number, parse_size};
use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot};
use crate::http::{Module, Next, Phase, Request, root};
use crate::server::log::{Level, shown};
use crate::server::log_buffer::{BufferedLog, Buffering};
use crate::server::log_file::LogFile;
use crate::server::sockets::reason;
use crate::server::syslog::Syslog;
use format::{Format, combined, log_format};
use open_files::{OpenFiles, open_log_file_cache};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_log",
        sections: &[
            SectionRow::of::<Formats>(&[]),
            SectionRow::of::<AccessLogs>(&[]),
            SectionRow::of::<OpenFiles>(&[]),
        ],
        commands: COMMANDS,
        variables: &[],
    },
    phases: &[(Phase::Log, log)],
    acts: Some(|settings| settings.get::<AccessLogs>().logs.as_ref().is_some_and(|logs| !logs.is_empty())),
    ..Module::EMPTY
};

/// The buffer of a compressed log that names none.
const GZIP_BUFFER: usize = 64 * 1024;

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
        syntax: "path | syslog:server=address[,parameter=value] [format [buffer=size] [gzip[=level]] [flush=time] \
                 [if=condition]] | off",
        default: "logs/access.log combined",
        doc: "Where requests are logged, and in which form. Several may be given on one level; an inner block's \
              replace those around it. The path may have variables: such a log is written only while the `root` \
              exists. Under `if`, a request whose condition is empty or `0` is left out. With `buffer` (64k for `gzip`) \
              lines are written together when there is no more room, after `flush`, when logs are reopened, and at the \
              end; all threads share the buffer.",
        file: file!(),
        apply: access_log,
        ..Directive::BASE
    },
    Directive {
        name: "open_log_file_cache",
        contexts: Contexts::HTTP_ALL,
        args: Args::between(1, 4),
        syntax: "max=N [inactive=time] [min_uses=N] [valid=time] | off",
        default: "off",
        doc: "How many logs whose paths have variables are kept open. One that was not used for `inactive` (10s), or \
              less than `min_uses` (1) times, goes first. After `valid` (60s) one is opened anew, in case its file was \
              moved away.",
        file: file!(),
        apply: open_log_file_cache,
        ..Directive::BASE
    },
];

/// The formats and buffers that the `http` block knows.
#[derive(Debug)]
pub struct Formats;

/// The same while the file is read.
#[derive(Debug, Default)]
pub struct Known {
    formats: Vec<(String, Arc<Format>)>,
    /// One for each file.
    buffers: Vec<Arc<BufferedLog>>,
}

impl Section for Formats {
    type Raw = Known;

    fn merge(_: &Self::Raw, _: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
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
    Buffered(Arc<BufferedLog>),
    /// A path with variables.
    Path(Template),
    Syslog(Arc<Syslog>),
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
    let to = if let Some(parameters) = word.strip_prefix("syslog:") {
        To::Syslog(Arc::new(Syslog::parse(parameters)?))
    } else {
        let path = cx.options().full_path(&word);
        match word.contains('$') {
            true => To::Path(Template::compile(&path.into_os_string().into_vec(), cx, Some(call.word_at(0)))?),
            false => To::File(LogFile::at(&path)),
        }
    };
    let format = format(cx, call)?;
    let Parameters { condition, buffering } = Parameters::read(cx, call)?;
    let to = match (to, buffering) {
        (to, None) => to,
        (To::Path(_), Some(_)) => return Err(Fault::new("buffered logs cannot have variables in name")),
        (To::Syslog(_), Some(_)) => return Err(Fault::new("logs to syslog cannot be buffered")),
        (To::File(file), Some(how)) => To::Buffered(buffered(cx, call, file, how)?),
        (to @ To::Buffered(_), Some(_)) => to,
    };
    cx.edit::<AccessLogs>().logs.push(AccessLog { to, format, condition });
    Ok(())
}

/// The buffer of a file: all that write to it share one.
fn buffered(cx: &mut Cx<'_>, call: &Call<'_>, file: Arc<LogFile>, how: Buffering) -> Result<Arc<BufferedLog>, Fault> {
    let mut unknown = Known::default();
    let known = cx.edit_around::<Formats>(Contexts::HTTP).unwrap_or(&mut unknown);
    match known.buffers.iter().find(|other| *other.file() == file) {
        Some(other) if other.how() == how => Ok(Arc::clone(other)),
        Some(_) => {
            let message = format!("access_log \"{}\" already defined with conflicting parameters", call.text(0));
            Err(Fault::new(message))
        }
        None => {
            let log = BufferedLog::new(file, how);
            known.buffers.push(Arc::clone(&log));
            Ok(log)
        }
    }
}

/// The format that an `access_log` names, which must stand before it.
fn format(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<Arc<Format>, Fault> {
    let name = if call.len() > 1 { call.text(1) } else { "combined".into() };
    if name == "combined" {
        return Ok(combined());
    }
    let known = cx.edit_around::<Formats>(Contexts::HTTP);
    let found = known.and_then(|known| known.formats.iter().find(|(known, _)| *known == name));
    found.map(|(_, format)| Arc::clone(format)).ok_or_else(|| {
        Fault::new(format!("unknown log format \"{name}\""))
            .word(1)
            .help("a log_format must stand before the access_log that uses it")
    })
}

/// What follows the format.
struct Parameters {
    condition: Option<Template>,
    buffering: Option<Buffering>,
}

impl Parameters {
    fn read(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<Self, Fault> {
        let (mut size, mut flush, mut gzip, mut condition) = (None, None, None, None);
        for index in 2..call.len() {
            let word = call.bytes(index);
            let wrong = |what: &str, value: &[u8]| {
                Fault::new(format!("invalid {what} \"{}\"", String::from_utf8_lossy(value))).word(index)
            };
            if let Some(text) = word.strip_prefix(b"buffer=") {
                let read = parse_size(text).filter(|size| *size > 0).and_then(|size| usize::try_from(size).ok());
                size = Some(read.ok_or_else(|| wrong("buffer size", text))?);
            } else if let Some(text) = word.strip_prefix(b"flush=") {
                let read = parse_msec(text).filter(|time| !time.is_zero());
                flush = Some(read.ok_or_else(|| wrong("flush time", text))?);
            } else if word == b"gzip" || word.starts_with(b"gzip=") {
                let text = word.get(5..).unwrap_or(b"1");
                let level = parse_number(text).and_then(|level| u32::try_from(level).ok());
                let level = level.filter(|level| (1..=9).contains(level));
                gzip = Some(level.ok_or_else(|| wrong("compression level", text))?);
                size = size.or(Some(GZIP_BUFFER));
            } else if let Some(text) = word.strip_prefix(b"if=") {
                let at = call.word_at(index);
                condition = Some(Template::compile(text, cx, Some(at)).map_err(|fault| fault.word(index))?);
            } else {
                return Err(invalid_parameter(call, index));
            }
        }
        if flush.is_some() && size.is_none() {
            return Err(Fault::new(format!("no buffer is defined for access_log \"{}\"", call.text(0))));
        }
        Ok(Self { condition, buffering: size.map(|size| Buffering { size, flush, gzip }) })
    }
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

impl To {
    fn write(&self, request: &Request, line: &[u8]) {
        match self {
            Self::File(file) => file.write(line),
            Self::Buffered(log) => {
                if let Some((time, round)) = log.write(line) {
                    flush_later(log, time, round);
                }
            }
            Self::Path(path) => write_at(request, &request.eval(path), line),
            Self::Syslog(syslog) => syslog.send(line),
        }
    }
}

/// Has the lines of a round written when their time is over. A worker that ends before leaves that to the process.
fn flush_later(log: &Arc<BufferedLog>, time: Duration, round: u64) {
    let log = Arc::downgrade(log);
    tokio::task::spawn_local(async move {
        tokio::time::sleep(time).await;
        if let Some(log) = log.upgrade() {
            log.flush_round(round);
        }
    });
}

/// Writes to a log whose path has variables. As in nginx the site's folder must exist, so that a client can't have
/// files made under names that it invents.
fn write_at(request: &Request, path: &Bytes, line: &[u8]) {
    let folder = root::document_root(request);
    if let Err(error) = std::fs::metadata(Path::new(std::ffi::OsStr::from_bytes(&folder))) {
        let message =
            format!("testing \"{}\" existence failed ({}) while logging request", shown(&folder), reason(&error));
        request.log(Level::Error, &message);
        return;
    }
    let file = match &request.settings::<OpenFiles>().0 {
        Some(cache) => cache.open(path),
        None => open_files::open(path),
    };
    match file {
        Ok(file) => file.write(line),
        Err(error) => {
            let message = format!("open() \"{}\" failed ({}) while logging request", shown(path), reason(&error));
            request.log(Level::Crit, &message);
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
        check("access_log a.log combined gzip flush=1m; access_log a.log combined buffer=64k gzip=1 flush=60s;", &[]);
        check(
            "access_log a.log combined gzip; access_log a.log combined buffer=64k;",
            &["access_log \"a.log\" already defined with conflicting parameters"],
        );
        check("access_log syslog:server=127.0.0.1,tag=t combined if=$arg_a;", &[]);
        check("access_log syslog:server=127.0.0.1 combined gzip;", &["logs to syslog cannot be buffered"]);
        check("error_log memory:32m debug; error_log stderr; error_log syslog:server=127.0.0.1 info;", &[]);
        check("error_log memory:1k;", &["invalid buffer size \"1k\""]);
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
}
