//! The process from its start to its end: sockets, workers, signals, reloads.

use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fs, io, thread};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::clock;
use super::crew::Crew;
use super::inherited::{self, Inherited};
use super::live::Live;
use super::log::{Level, LogSettings, shown};
use super::sockets::{self, Bound, failed_on, reason};
use super::systemd::Systemd;
use super::upgrade::{Program, Successor};
use super::{folders, log_buffer, log_file};
use crate::compile::Compiled;
use crate::config::{self, ListenAddress, LoadOptions, Severity};
use crate::http::error_page::PRODUCT_VERSION;
use crate::modules::MODULES;
use crate::modules::core::Process;
use crate::modules::core::environment::Environment;
use crate::sys::{self, HeldSignals, Limit};

/// What [`Signals`] waits for.
const SIGNALS: [i32; 7] =
    [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH, libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];

/// Why a server did not start; nginx's line for it, without the level.
pub(super) type Failure = String;

/// Runs the server until it is told to end. The configuration must be good.
pub fn run(compiled: Compiled) -> ExitCode {
    let options = compiled.config.built.options.clone();
    let compiled = Arc::new(compiled);
    let started = hold_signals().and_then(|held| start(&compiled).map(|(server, begun)| (server, begun, held)));
    match started {
        Ok((server, begun, held)) => server.serve(options, begun, held),
        Err(failure) => {
            complain(&compiled, &failure);
            ExitCode::FAILURE
        }
    }
}

/// Has signals wait until there is somebody to handle them. Clients can connect before that, and whoever sees the port
/// open may send a HUP, which would end the process; and tokio loses a signal that one thread notices before another
/// has said that it waits for it. The workers never handle them.
fn hold_signals() -> Result<HeldSignals, Failure> {
    HeldSignals::hold(&SIGNALS).map_err(|error| format!("sigprocmask() failed ({})", reason(&error)))
}

/// Says on standard error, and in the log, why there is no server.
#[expect(clippy::print_stderr, reason = "a server that does not start says so where it was started")]
fn complain(compiled: &Compiled, failure: &str) {
    eprintln!("pushgate: [emerg] {failure}");
    compiled.config.main().get::<LogSettings>().say(Level::Emerg, failure);
}

/// A server whose workers run.
struct Server {
    live: &'static Live,
    crew: Crew,
    pid: Arc<Path>,
    program: Program,
    /// The program that is to take over, while it runs.
    successor: Option<Successor>,
    exits: UnboundedSender<ExitStatus>,
    /// Whether nobody's terminal sends the signals.
    is_in_background: bool,
    systemd: Systemd,
}

/// What a server waits for, beside its signals, and what it has bound.
struct Begun {
    bound: Vec<Bound>,
    ended: UnboundedReceiver<ExitStatus>,
}

/// Does what must be done while there is one thread and root's rights.
fn start(compiled: &Arc<Compiled>) -> Result<(Server, Begun), Failure> {
    let main = compiled.config.main();
    if let Some(zone) = main.get::<Environment>().value("TZ") {
        sys::set_zone(zone);
    }
    folders::make(compiled)?;
    open_logs()?;
    let variable = std::env::var(inherited::VARIABLE).ok();
    let program = Program::new(variable.is_some()).map_err(|error| format!("getcwd() failed ({})", reason(&error)))?;
    let mut left = variable.as_deref().map(|variable| take_sockets(compiled, variable)).unwrap_or_default();
    let process = main.get::<Process>();
    let workers = process.worker_count();
    let bind = |listener| sockets::bind(listener, workers, &mut left);
    let bound = compiled.listeners.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
    if *process.daemon && variable.is_none() {
        sys::daemonize().map_err(|error| format!("daemon() failed ({})", reason(&error)))?;
    }
    let pid: Arc<Path> = Process::pid_file(&compiled.config).into();
    write_pid(&pid)?;
    let live = Live::start(Arc::clone(compiled));
    set_limits(live, process);
    log_panics(live);
    let mut crew = Crew::new(live);
    crew.resize(workers)?;
    let (exits, ended) = mpsc::unbounded_channel();
    let is_in_background = *process.daemon || variable.is_some();
    let systemd = Systemd::from_environment();
    let server = Server { live, crew, pid, program, successor: None, exits, is_in_background, systemd };
    Ok((server, Begun { bound, ended }))
}

/// Takes what a program before this one has left.
fn take_sockets(compiled: &Compiled, variable: &str) -> Inherited {
    let log = compiled.config.main().get::<LogSettings>();
    log.say(Level::Notice, &format!("using inherited sockets from \"{variable}\""));
    let left = Inherited::take(variable);
    for fault in &left.faults {
        log.say(Level::Emerg, fault);
    }
    left
}

fn set_limits(live: &Live, process: &Process) {
    let set = |what, name, limit| {
        if let Err(error) = sys::set_limit(what, limit) {
            live.log(Level::Alert, &format!("setrlimit({name}) failed ({})", reason(&error)));
        }
    };
    if *process.open_files > 0 {
        set(Limit::Files, "RLIMIT_NOFILE", *process.open_files);
    }
    if let Some(size) = &process.core_size {
        set(Limit::Core, "RLIMIT_CORE", **size);
    }
}

fn open_logs() -> Result<(), Failure> {
    for file in log_file::all() {
        file.open().map_err(|error| failed_on("open", file.path(), &error))?;
    }
    Ok(())
}

fn write_pid(path: &Path) -> Result<(), Failure> {
    fs::write(path, format!("{}\n", std::process::id())).map_err(|error| failed_on("open", path, &error))
}

/// A panic is a fault of ours: it ends the one task that it happens in, and is written down, on one line.
fn log_panics(live: &'static Live) {
    std::panic::set_hook(Box::new(move |info| {
        let what = shown(info.payload_as_str().unwrap_or("no message").as_bytes()).to_string();
        let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        live.log(Level::Alert, &format!("an error of the program ended a task: {what} at {place}"));
    }));
}

impl Server {
    /// Serves until a signal ends it.
    fn serve(mut self, options: LoadOptions, begun: Begun, held: HeldSignals) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                self.live.log(Level::Emerg, &format!("the runtime could not be started: {error}"));
                return ExitCode::FAILURE;
            }
        };
        self.live.log(Level::Notice, &format!("{PRODUCT_VERSION} started, {} workers", self.crew.len()));
        let ended = runtime.block_on(async {
            let signals = Signals::new()?;
            drop(held);
            // Modules first: a client is to find everything as the configuration says.
            self.apply();
            self.crew.listen(begun.bound);
            self.systemd.ready();
            Ok::<_, io::Error>(self.run(options, signals, begun.ended).await)
        });
        match ended {
            Ok(End::Gracefully) => {}
            Ok(End::AtOnce) => self.stop(),
            Err(error) => {
                self.live.log(Level::Emerg, &format!("signals could not be handled: {error}"));
                return ExitCode::FAILURE;
            }
        }
        self.remove(self.successor.as_ref().map_or(&self.pid, Successor::own_file));
        log_buffer::flush_all();
        self.live.log(Level::Notice, "exit");
        ExitCode::SUCCESS
    }

    /// Lets the modules see the configuration that holds from now on.
    fn apply(&self) {
        let compiled = self.live.compiled();
        for apply in MODULES.iter().filter_map(|module| module.apply) {
            apply(&compiled, self.live);
        }
    }

    /// Does what signals say, until one ends the server.
    async fn run(&mut self, options: LoadOptions, signals: Signals, mut ended: UnboundedReceiver<ExitStatus>) -> End {
        let Signals { mut hup, mut usr1, mut usr2, mut winch, mut term, mut int, mut quit } = signals;
        loop {
            tokio::select! {
                // As in nginx: the old program is back, with the configuration that it had.
                _ = hup.recv() => match self.successor.is_some() && self.crew.len() == 0 {
                    true => self.work_again(),
                    false => self.reload(&options),
                },
                _ = usr1.recv() => self.reopen(),
                _ = usr2.recv() => self.upgrade(),
                _ = winch.recv() => self.rest(),
                Some(status) = ended.recv() => self.successor_ended(status),
                _ = term.recv() => return self.end_at_once(),
                _ = int.recv() => return self.end_at_once(),
                _ = quit.recv() => {
                    let threads = self.quit();
                    // The second time, or the hard way, does not wait.
                    let done = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
                    tokio::select! {
                        _ = done => return End::Gracefully,
                        _ = term.recv() => return End::AtOnce,
                        _ = int.recv() => return End::AtOnce,
                    }
                }
            }
        }
    }

    /// Reads the configuration anew. One that is not good changes nothing.
    fn reload(&mut self, options: &LoadOptions) {
        self.live.log(Level::Notice, "reconfiguring");
        self.systemd.reloading();
        self.reconfigure(options);
        self.systemd.ready();
    }

    fn reconfigure(&mut self, options: &LoadOptions) {
        let config = config::load(options.clone());
        let compiled = Arc::new(Compiled::new(config));
        for diagnostic in &compiled.config.built.diagnostics {
            if diagnostic.severity >= Severity::Warn {
                let level = if diagnostic.refuses { Level::Emerg } else { Level::Warn };
                let line = diagnostic.nginx_line(&compiled.config.built.sources).to_string();
                let message = line.split_once("] ").map_or(line.as_str(), |(_, message)| message);
                self.live.log(level, message);
            }
        }
        if !compiled.config.is_good() {
            return;
        }
        match self.take_over(compiled) {
            Ok(()) => self.live.log(Level::Notice, "the new configuration holds"),
            Err(failure) => self.live.log(Level::Emerg, &failure),
        }
    }

    fn take_over(&mut self, compiled: Arc<Compiled>) -> Result<(), Failure> {
        folders::make(&compiled)?;
        open_logs()?;
        let process = compiled.config.main().get::<Process>();
        let workers = process.worker_count();
        let is_known = |address: &ListenAddress| self.crew.listening().iter().any(|bound| *bound.address == *address);
        let new = compiled.listeners.iter().filter(|listener| !is_known(&listener.address));
        let bind = |listener| sockets::bind(listener, workers, &mut Inherited::default());
        let bound = new.map(bind).collect::<Result<Vec<_>, _>>()?;
        let more = self.crew.missing(&compiled, workers)?;
        self.move_pid(Process::pid_file(&compiled.config).into())?;
        let before = self.live.compiled();
        self.live.replace(Arc::clone(&compiled));
        set_limits(self.live, process);
        self.apply();
        self.crew.widen(more);
        self.crew.follow();
        self.crew.listen(bound);
        for address in self.crew.leave(&compiled, &before) {
            remove_socket(&address);
        }
        self.crew.resize(workers)
    }

    /// Puts the process's number where the configuration wants it from now on.
    fn move_pid(&mut self, path: Arc<Path>) -> Result<(), Failure> {
        if path != self.pid && self.successor.is_none() {
            write_pid(&path)?;
            self.remove(&self.pid);
            self.pid = path;
        }
        Ok(())
    }

    /// Starts another program, which is to take over.
    fn upgrade(&mut self) {
        if self.successor.is_some() || self.program.has_predecessor() {
            self.live.log(Level::Notice, "signal 12 (SIGUSR2) received, ignoring");
            return;
        }
        self.live.log(Level::Notice, "changing binary");
        let listening = self.crew.listening();
        self.successor = Successor::start(self.live, &self.program, &self.pid, listening, &self.exits);
    }

    fn successor_ended(&mut self, status: ExitStatus) {
        if let Some(successor) = self.successor.take() {
            successor.ended(self.live, status, &self.pid);
            self.systemd.ready();
            if self.crew.len() == 0 {
                self.work_again();
            }
        }
    }

    /// Has the workers end as those of a server that quits. The sockets stay open: another program may serve them.
    fn rest(&mut self) {
        if !self.is_in_background {
            // It may be a terminal that says how large it is now.
            self.live.log(Level::Notice, "signal 28 (SIGWINCH) received, ignoring");
            return;
        }
        self.live.log(Level::Notice, "signal 28 (SIGWINCH) received, stop accepting connections");
        self.crew.dismiss();
    }

    /// Has workers serve again.
    fn work_again(&mut self) {
        let compiled = self.live.compiled();
        self.live.log(Level::Notice, "workers serve again");
        if let Err(failure) = self.crew.resize(compiled.config.main().get::<Process>().worker_count()) {
            self.live.log(Level::Emerg, &failure);
        }
    }

    fn reopen(&self) {
        log_buffer::flush_all();
        for file in log_file::all() {
            if let Err(error) = file.reopen() {
                self.live.log(Level::Emerg, &failed_on("open", file.path(), &error));
            }
        }
        self.live.log(Level::Notice, "logs reopened");
    }

    fn quit(&mut self) -> Vec<JoinHandle<()>> {
        self.live.log(Level::Notice, "shutting down gracefully");
        self.begin_to_end();
        self.crew.quit()
    }

    fn end_at_once(&self) -> End {
        self.begin_to_end();
        End::AtOnce
    }

    /// Says that the server ends, unless another program goes on.
    fn begin_to_end(&self) {
        if self.successor.is_none() {
            self.systemd.stopping();
        }
        if self.successor.is_none() && !self.program.has_predecessor() {
            self.crew.listening().iter().for_each(|bound| remove_socket(&bound.address));
        }
        self.live.close();
    }

    /// Has the workers end at once. They get a moment for it, in which they tell the subscribers.
    fn stop(&self) {
        const MOMENT: Duration = Duration::from_secs(1);
        self.crew.stop();
        let until = clock::now().after(MOMENT);
        while !self.crew.have_ended() && clock::now() < until {
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn remove(&self, path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            let message = failed_on("unlink", path, &error);
            self.live.log(Level::Alert, &message);
        }
    }
}

/// The signals that the process handles.
struct Signals {
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
    winch: Signal,
    term: Signal,
    int: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            winch: signal(SignalKind::window_change())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }
}

/// How the server ends.
enum End {
    Gracefully,
    AtOnce,
}

fn remove_socket(address: &ListenAddress) {
    if let ListenAddress::Unix(path) = address {
        // Nothing is lost if it is gone already.
        drop(fs::remove_file(path));
    }
}
