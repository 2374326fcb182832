//! The process's own directives: ngx_core_module and what belongs to the whole file.

pub mod affinity;
pub mod environment;

use std::path::PathBuf;

use affinity::Affinity;
use environment::Environment;

use crate::config::value::{Flag, Msec, Number, Offset, Path, Text, Value, parse_number};
use crate::config::{
    Args, Body, Builder, Call, Config, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot,
    Status,
};
use crate::http::Module;
use crate::server::log::{self, LogSettings};
use crate::{settings, sys};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "core",
        sections: &[
            Process::ROW,
            Ignored::ROW,
            SectionRow::of::<User>(&[]),
            SectionRow::of::<Affinity>(&[]),
            SectionRow::of::<Environment>(&[]),
            SectionRow::of::<LogSettings>(&[]),
        ],
        commands: COMMANDS,
        variables: &[],
    },
    ..Module::EMPTY
};

settings! {
    /// How the process runs.
    pub struct Process {
        /// Whether the server goes into the background.
        "daemon" MAIN = "on" => pub daemon: Flag,
        /// Whether the process has workers beside its first thread. `off` is for debugging: one worker, which stays who
        /// started the process.
        "master_process" MAIN = "on" => pub master_process: Flag,
        /// How many worker threads serve; `auto` is one for each core.
        "worker_processes" MAIN = "1" => pub workers: Workers,
        /// The file that the process's id is written to, which `-s` reads.
        "pid" MAIN = "logs/nginx.pid" => pub pid: Path,
        /// How many files and sockets the process may have open.
        "worker_rlimit_nofile" MAIN = "0" => pub open_files: Number,
        /// The largest core file that a crash may leave.
        "worker_rlimit_core" MAIN = "" => pub core_size: Option<Offset>,
        /// The folder that core files of workers go to; their user must be able to write there.
        "working_directory" MAIN = "" => pub working_directory: Option<Path>,
        /// The nice value of the worker threads, -20 to 20: less is more urgent.
        "worker_priority" MAIN = "0" => pub priority: Priority,
        /// How long connections may last after the server was told to quit; 0: as long as they like.
        "worker_shutdown_timeout" MAIN = "0" => pub shutdown_timeout: Msec,
    }
}

impl Process {
    /// How many worker threads there are to be.
    pub fn worker_count(&self) -> usize {
        if *self.master_process { self.workers.0 } else { 1 }
    }

    /// The file of the process's id: the configuration's, or else the one that the command line knows.
    pub fn pid_file(config: &Config) -> PathBuf {
        let options = &config.built.options;
        let is_written = config.built.scope(Builder::MAIN).applied.iter().any(|applied| applied.row.name == "pid");
        match &options.pid {
            Some(path) if !is_written => path.clone(),
            _ => options.prefix.join(&*config.main().get::<Self>().pid),
        }
    }
}

settings! {
    /// What tunes things that do not exist here.
    pub struct Ignored {
        /// How often nginx asks for the time.
        @Status::Ignored("the clock is read when it is needed"); "timer_resolution" MAIN = "0" => pub timer_resolution: Msec,
        /// Prefix of the names of nginx's lock files.
        @Status::Ignored("there are no lock files"); "lock_file" MAIN = "logs/nginx.lock" => pub lock_file: Text,
        /// Whether PCRE expressions are compiled to machine code.
        @Status::Ignored("they always are, where the machine allows"); "pcre_jit" MAIN = "off" => pub pcre_jit: Flag,
    }
}

const COMMANDS: &[Directive] = &[
    Directive {
        name: "user",
        contexts: Contexts::MAIN,
        args: Args::between(1, 2),
        once: true,
        syntax: "user [group]",
        default: "nobody",
        doc: "Who the process becomes after its sockets are bound, when root starts it.",
        file: file!(),
        apply: user,
        ..Directive::BASE
    },
    Directive {
        name: "load_module",
        contexts: Contexts::MAIN,
        syntax: "file",
        status: Status::Partly("modules are built in; a file whose name is one of theirs is accepted"),
        doc: "Loads a module in nginx. Here it checks that the module is one that Pushgate has.",
        file: file!(),
        apply: load_module,
        ..Directive::BASE
    },
    Directive {
        name: "debug_points",
        contexts: Contexts::MAIN,
        syntax: "stop | abort",
        status: Status::Ignored("it helps to debug nginx itself"),
        doc: "What nginx does on an inner error.",
        file: file!(),
        apply: debug_points,
        ..Directive::BASE
    },
    affinity::COMMAND,
    environment::COMMAND,
    Directive::ignored(
        "thread_pool",
        Contexts::MAIN,
        Args::between(2, 3),
        "files are read without a pool",
        "Names a pool of threads that read files in nginx.",
    ),
    Directive::ignored("ssl_engine", Contexts::MAIN, Args::ONE, "TLS is rustls's", "Names OpenSSL's hardware engine."),
    Directive {
        name: "events",
        contexts: Contexts::MAIN,
        args: Args::NONE,
        body: Body::Block,
        once: true,
        doc: "The block of the directives that say how connections are handled.",
        file: file!(),
        apply: events,
        ..Directive::BASE
    },
    log::COMMANDS[0],
];

/// A number of workers.
#[derive(Clone, Copy, Debug)]
pub struct Workers(pub usize);

impl Value for Workers {
    const SYNTAX: &'static str = "number | auto";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        if call.bytes(0) == b"auto" {
            return Ok(Self(std::thread::available_parallelism().map_or(1, usize::from)));
        }
        let number = parse_number(call.bytes(0)).filter(|number| *number > 0).ok_or_else(|| call.invalid_value())?;
        Ok(Self(usize::try_from(number).unwrap_or(usize::MAX)))
    }

    fn from_default(_: &'static str) -> Self {
        Self(1)
    }
}

/// A nice value.
#[derive(Clone, Copy, Debug)]
pub struct Priority(pub i32);

impl Value for Priority {
    const SYNTAX: &'static str = "number";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        let word = call.bytes(0);
        let (sign, digits) = match word {
            [b'-', digits @ ..] => (-1, digits),
            [b'+', digits @ ..] => (1, digits),
            digits => (1, digits),
        };
        let number = parse_number(digits).and_then(|number| i32::try_from(number).ok());
        number.map(|number| Self(sign * number)).ok_or_else(|| call.fault("invalid number").word(0))
    }

    fn from_default(_: &'static str) -> Self {
        Self(0)
    }
}

/// Who the process becomes.
#[derive(Clone, Debug)]
pub struct User {
    /// Name, user and group; `None`: whoever started it, where `nobody` does not exist.
    pub identity: Option<(String, u32, u32)>,
}

/// What the file says.
#[derive(Debug, Default)]
pub struct RawUser(Option<(String, u32, u32)>);

impl Section for User {
    type Raw = RawUser;

    fn merge(raw: &RawUser, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        let nobody = || sys::user_ids("nobody").map(|(uid, gid)| ("nobody".to_owned(), uid, gid));
        Self { identity: raw.0.clone().or_else(|| parent.map_or_else(nobody, |parent| parent.identity.clone())) }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn user(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if cx.options().offline {
        return Ok(());
    }
    let name = call.text(0);
    let (uid, mut gid) = sys::user_ids(&name).ok_or_else(|| {
        Fault::new(format!("getpwnam(\"{name}\") failed")).word(0).help("create the user, or name one that exists")
    })?;
    // Without a second word nginx takes the group of the same name.
    let group = if call.len() > 1 { call.text(1) } else { name.clone() };
    gid = sys::group_id(&group).or_else(|| (call.len() == 1).then_some(gid)).ok_or_else(|| {
        Fault::new(format!("getgrnam(\"{group}\") failed")).word(1).help("create the group, or name one that exists")
    })?;
    cx.edit::<User>().0 = Some((name.into_owned(), uid, gid));
    Ok(())
}

/// The modules that are built in, by the names of their files in nginx's packages.
const BUILT_IN: &[&str] =
    &["ngx_http_push_stream_module", "ngx_http_set_misc_module", "ngx_postgres_module", "ndk_http_module"];

fn load_module(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let word = call.text(0);
    let stem = std::path::Path::new(&*word).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    if stem.is_some_and(|stem| BUILT_IN.contains(&stem.as_str())) {
        return Ok(());
    }
    let path = cx.options().full_path(&word);
    let path = path.display();
    let reason = "cannot open shared object file: No such file or directory";
    Err(Fault::new(format!("dlopen() \"{path}\" failed ({path}: {reason})"))
        .word(0)
        .help(format!("modules are built in; Pushgate has {}", BUILT_IN.join(", "))))
}

fn debug_points(_: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    match call.bytes(0) {
        b"stop" | b"abort" => Ok(()),
        _ => Err(Fault::new(format!("invalid value \"{}\"", call.text(0))).word(0)),
    }
}

fn events(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let scope = cx.block(Contexts::EVENTS, call);
    cx.model().events = Some(scope);
    Ok(())
}
