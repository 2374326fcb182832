//! The process from its start to its end: sockets, workers, signals, reloads.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fs, io, thread};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedSender};

use super::clock;
use super::live::Live;
use super::log::{Level, LogSettings, shown};
use super::sockets::{self, Bound, reason};
use super::worker::{self, Control};
use super::{log_buffer, log_file};
use crate::compile::Compiled;
use crate::config::{self, ListenAddress, LoadOptions, Severity};
use crate::http::error_page::PRODUCT_VERSION;
use crate::modules::MODULES;
use crate::modules::core::Process;
use crate::sys::{self, HeldSignals};

/// What [`Signals`] waits for.
const SIGNALS: [i32; 7] =
    [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH, libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];

/// Why a server did not start; nginx's line for it, without the level.
type Failure = String;

/// Runs the server until it is told to end. The configuration must be good.
pub fn run(compiled: Compiled) -> ExitCode {
    let options = compiled.config.built.options.clone();
    let compiled = Arc::new(compiled);
    let started = hold_signals().and_then(|held| start(&compiled).map(|(server, bound)| (server, bound, held)));
    match started {
        Ok((server, bound, held)) => server.serve(options, bound, held),
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
    workers: Vec<Worker>,
    listening: Vec<Arc<ListenAddress>>,
    pid: Arc<Path>,
}

struct Worker {
    control: UnboundedSender<Control>,
    /// `None` once somebody waits for its end.
    thread: Option<JoinHandle<()>>,
}

/// Does what must be done while there is one thread and root's rights, and starts the workers.
fn start(compiled: &Arc<Compiled>) -> Result<(Server, Vec<Bound>), Failure> {
    open_logs()?;
    let main = compiled.config.main();
    let process = main.get::<Process>();
    let workers = process.workers.0;
    let bound =
        compiled.listeners.iter().map(|listener| sockets::bind(listener, workers)).collect::<Result<Vec<_>, _>>()?;
    if *process.daemon {
        sys::daemonize().map_err(|error| format!("daemon() failed ({})", reason(&error)))?;
    }
    let pid: Arc<Path> = Process::pid_file(&compiled.config).into();
    write_pid(&pid)?;
    if *process.open_files > 0
        && let Err(error) = sys::raise_file_limit(*process.open_files)
    {
        main.get::<LogSettings>().say(Level::Alert, &format!("setrlimit(RLIMIT_NOFILE) failed ({})", reason(&error)));
    }
    let live = Live::start(Arc::clone(compiled));
    log_panics(live);
    let workers = (0..workers).map(|number| spawn(live, number)).collect::<Result<Vec<_>, _>>()?;
    let server = Server { live, workers, listening: Vec::new(), pid };
    Ok((server, bound))
}

fn open_logs() -> Result<(), Failure> {
    for file in log_file::all() {
        file.open().map_err(|error| format!("open() \"{}\" failed ({})", file.path().display(), reason(&error)))?;
    }
    Ok(())
}

fn write_pid(path: &Path) -> Result<(), Failure> {
    fs::write(path, format!("{}\n", std::process::id()))
        .map_err(|error| format!("open() \"{}\" failed ({})", path.display(), reason(&error)))
}

/// A panic is a fault of ours: it ends the one task that it happens in, and is written down, on one line.
fn log_panics(live: &'static Live) {
    std::panic::set_hook(Box::new(move |info| {
        let what = shown(info.payload_as_str().unwrap_or("no message").as_bytes()).to_string();
        let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        live.log(Level::Alert, &format!("an error of the program ended a task: {what} at {place}"));
    }));
}

fn spawn(live: &'static Live, number: usize) -> Result<Worker, Failure> {
    let number = u16::try_from(number).map_err(|_| "worker_processes is too large".to_owned())?;
    let (control, orders) = mpsc::unbounded_channel();
    let thread = thread::Builder::new()
        .name(format!("worker {number}"))
        .spawn(move || {
            if let Err(error) = worker::run(live, number, orders) {
                live.log(Level::Emerg, &format!("worker {number} ended: {error}"));
            }
        })
        .map_err(|error| format!("a worker could not be started ({})", reason(&error)))?;
    Ok(Worker { control, thread: Some(thread) })
}

impl Server {
    /// Serves until a signal ends it.
    fn serve(mut self, options: LoadOptions, bound: Vec<Bound>, held: HeldSignals) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                self.live.log(Level::Emerg, &format!("the runtime could not be started: {error}"));
                return ExitCode::FAILURE;
            }
        };
        self.live.log(Level::Notice, &format!("{PRODUCT_VERSION} started, {} workers", self.workers.len()));
        let ended = runtime.block_on(async {
            let signals = Signals::new()?;
            drop(held);
            // Modules first: a client is to find everything as the configuration says.
            self.apply();
            self.listen(bound);
            Ok::<_, io::Error>(self.run(options, signals).await)
        });
        self.remove_files();
        match ended {
            Ok(End::Gracefully) => {}
            Ok(End::AtOnce) => self.stop(),
            Err(error) => {
                self.live.log(Level::Emerg, &format!("signals could not be handled: {error}"));
                return ExitCode::FAILURE;
            }
        }
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
    async fn run(&mut self, options: LoadOptions, signals: Signals) -> End {
        let Signals { mut hup, mut usr1, mut usr2, mut winch, mut term, mut int, mut quit } = signals;
        loop {
            tokio::select! {
                _ = hup.recv() => self.reload(&options),
                _ = usr1.recv() => self.reopen(),
                // Unhandled they would end the process, or mean something else than in nginx.
                _ = usr2.recv() => self.live.log(Level::Warn, "USR2 (another binary takes over) is not supported"),
                _ = winch.recv() => self.live.log(Level::Info, "WINCH (workers end, the rest stays) is not supported"),
                _ = term.recv() => return End::AtOnce,
                _ = int.recv() => return End::AtOnce,
                _ = quit.recv() => {
                    self.quit();
                    // The second time, or the hard way, does not wait.
                    let threads: Vec<_> = self.workers.iter_mut().filter_map(|worker| worker.thread.take()).collect();
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
        open_logs()?;
        let process = compiled.config.main().get::<Process>();
        if process.workers.0 != self.workers.len() {
            let message = "a new number of worker_processes takes effect at the next start";
            self.live.log(Level::Warn, message);
        }
        let new =
            compiled.listeners.iter().filter(|listener| !self.listening.iter().any(|old| **old == listener.address));
        let bound = new.map(|listener| sockets::bind(listener, self.workers.len())).collect::<Result<Vec<_>, _>>()?;
        let gone = |address: &Arc<ListenAddress>| !compiled.listeners.iter().any(|new| new.address == **address);
        let gone: Vec<_> = self.listening.extract_if(.., |address| gone(address)).collect();
        let before = self.live.compiled();
        self.live.replace(Arc::clone(&compiled));
        self.apply();
        for worker in &self.workers {
            self.tell(worker, Control::Follow);
        }
        self.listen(bound);
        for address in gone {
            for worker in &self.workers {
                self.tell(worker, Control::Leave(Arc::clone(&address), Arc::clone(&before)));
            }
            remove_socket(&address);
        }
        Ok(())
    }

    fn listen(&mut self, bound: Vec<Bound>) {
        for Bound { address, sockets } in bound {
            for (worker, socket) in self.workers.iter().zip(sockets) {
                self.tell(worker, Control::Listen(Arc::clone(&address), socket));
            }
            self.listening.push(address);
        }
    }

    fn tell(&self, worker: &Worker, order: Control) {
        if worker.control.send(order).is_err() {
            self.live.log(Level::Emerg, "a worker has ended");
        }
    }

    fn reopen(&self) {
        log_buffer::flush_all();
        for file in log_file::all() {
            if let Err(error) = file.reopen() {
                let message = format!("open() \"{}\" failed ({})", file.path().display(), reason(&error));
                self.live.log(Level::Emerg, &message);
            }
        }
        self.live.log(Level::Notice, "logs reopened");
    }

    fn quit(&self) {
        self.live.log(Level::Notice, "shutting down gracefully");
        self.live.close();
        for worker in &self.workers {
            self.tell(worker, Control::Quit);
        }
    }

    /// Has the workers end at once. They get a moment for it, in which they tell the subscribers.
    fn stop(&self) {
        const MOMENT: Duration = Duration::from_secs(1);
        self.live.close();
        for worker in &self.workers {
            // One whose thread has ended already needs no telling.
            drop(worker.control.send(Control::Stop));
        }
        let until = clock::now().after(MOMENT);
        let ended = || self.workers.iter().all(|worker| worker.thread.as_ref().is_none_or(JoinHandle::is_finished));
        while !ended() && clock::now() < until {
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn remove_files(&self) {
        for address in &self.listening {
            remove_socket(address);
        }
        if let Err(error) = fs::remove_file(&self.pid) {
            let message = format!("unlink() \"{}\" failed ({})", self.pid.display(), reason(&error));
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
