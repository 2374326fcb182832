//! A worker: a thread with a runtime of its own, its sockets, its connections and its subscribers.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::clock::{self, Moment};
use super::delivery::subscriber::Farewell;
use super::delivery::{self, Delivery};
use super::live::Live;
use super::log::Level;
use crate::compile::Compiled;
use crate::config::ListenAddress;
use crate::http::idle::{self, Idle};
use crate::http::wire::date::DateCache;
use crate::http::{Connection, Peer, Site, Stream};
use crate::hub::inbox::WorkerId;
use crate::modules::MODULES;
use crate::modules::core::affinity::Affinity;
use crate::modules::core::{Process, User};
use crate::modules::events::Connections;
use crate::sys;

/// How long accepting rests when the process has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// What the process tells a worker.
#[derive(Debug)]
pub(super) enum Control {
    /// Listen on a socket too, by its number in its address, unless that is done already.
    Listen(Arc<ListenAddress>, usize, OwnedFd),
    /// Listen there no more. Who has come already is served by the configuration that had the address.
    Leave(Arc<ListenAddress>, Arc<Compiled>),
    /// There is a new configuration.
    Follow,
    /// Listen no more, and end when the last connection has ended by itself.
    Retire,
    /// Finish what is under way, and end.
    Quit,
    /// Tell the subscribers, and end.
    Stop,
}

/// What belongs to a worker's thread, for the modules' handlers.
pub struct Local {
    /// Which worker it is.
    pub worker: WorkerId,
    /// Its subscribers.
    pub delivery: Delivery,
    site: Rc<Site>,
    /// Whether the worker takes no more connections, and wants those that it has to end.
    is_leaving: Rc<Cell<bool>>,
    open: Rc<Cell<usize>>,
    /// When it was last logged that there are too many connections.
    complained: Cell<Option<Moment>>,
    /// When it was last logged that some were ended to make room.
    reused: Cell<Option<Moment>>,
    listening: RefCell<Vec<Listening>>,
}

/// A task that accepts connections.
struct Listening {
    address: Arc<ListenAddress>,
    number: usize,
    leave: oneshot::Sender<Arc<Compiled>>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Local({:?})", self.worker)
    }
}

thread_local! {
    static LOCAL: OnceCell<Rc<Local>> = const { OnceCell::new() };
}

/// This thread's worker; `None` on threads that are none.
pub fn local() -> Option<Rc<Local>> {
    LOCAL.with(|local| local.get().cloned())
}

/// How often a worker that has retired looks whether somebody is left.
const RETIRED_LOOK: Duration = Duration::from_millis(100);

/// Which worker one is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Post {
    /// Its number, which no other has had.
    pub(super) worker: WorkerId,
    /// Its place among those that take connections when it begins, from 0.
    pub(super) place: usize,
}

/// Runs a worker on this thread until it has quit.
pub(super) fn run(live: &'static Live, post: Post, mut control: mpsc::UnboundedReceiver<Control>) -> io::Result<()> {
    take_place(live, post.place)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    let mut running = pin!(tasks.run_until(async move {
        let worker = post.worker;
        let is_leaving = Rc::<Cell<bool>>::default();
        let delivery = Delivery::new(Arc::clone(&live.hub), worker, Rc::new(DeliveryClock { started: clock::now() }))?;
        let site = Rc::new(Site {
            compiled: Box::new(|| live.compiled()),
            idle: Idle::default(),
            is_closing: Box::new({
                let is_leaving = Rc::clone(&is_leaving);
                move || is_leaving.get() || live.is_closing()
            }),
            date: RefCell::new(DateCache::default()),
            scratch: RefCell::default(),
        });
        let local = Rc::new(Local {
            worker,
            delivery,
            site,
            is_leaving,
            open: Rc::default(),
            complained: Cell::new(None),
            reused: Cell::new(None),
            listening: RefCell::default(),
        });
        LOCAL.with(|cell| cell.set(Rc::clone(&local))).map_err(|_| io::Error::other("a thread is one worker"))?;
        let delivering = spawn_local(deliver(Rc::clone(&local), live));
        let sweeping = spawn_local(sweep(Rc::clone(&local)));
        loop {
            let order = match local.is_leaving.get() {
                false => control.recv().await,
                true => match clock::timeout(RETIRED_LOOK, control.recv()).await {
                    Some(order) => order,
                    None if local.is_deserted() => break,
                    None => continue,
                },
            };
            let Some(order) = order else { break };
            match order {
                Control::Listen(address, number, socket) => listen(live, &local, address, number, socket),
                Control::Leave(address, compiled) => leave(&local, &address, &compiled),
                Control::Follow => {
                    let compiled = live.compiled();
                    MODULES.iter().filter_map(|module| module.follow).for_each(|follow| follow(&compiled, &local));
                }
                Control::Retire => {
                    local.is_leaving.set(true);
                    leave_all(live, &local).await;
                }
                Control::Quit => {
                    quit(live, &local, &mut control).await;
                    break;
                }
                Control::Stop => {
                    local.delivery.shutdown(Farewell::Plain);
                    break;
                }
            }
        }
        delivering.abort();
        sweeping.abort();
        Ok(())
    }));
    runtime.block_on(poll_fn(|cx| {
        clock::begin_turn();
        running.as_mut().poll(cx)
    }))
}

/// Gives up root's rights on this thread. The process's first thread keeps them, as nginx's master does, for the logs,
/// ports and keys that a reload opens; it handles nothing that comes from a client.
pub fn become_user(live: &Live) -> io::Result<()> {
    let compiled = live.compiled();
    let main = compiled.config.main();
    match &main.get::<User>().identity {
        Some((name, uid, gid)) if *main.get::<Process>().master_process => {
            sys::drop_thread_privileges(name, *uid, *gid)
        }
        _ => Ok(()),
    }
}

/// Makes the thread what the configuration says of workers.
fn take_place(live: &Live, place: usize) -> io::Result<()> {
    let compiled = live.compiled();
    let main = compiled.config.main();
    let process = main.get::<Process>();
    let failed = |what: &str, error: io::Error| {
        live.log(Level::Alert, &format!("{what} failed ({})", super::sockets::reason(&error)));
    };
    if process.priority.0 != 0
        && let Err(error) = sys::set_priority(process.priority.0)
    {
        failed(&format!("setpriority({})", process.priority.0), error);
    }
    become_user(live)?;
    if let Some(processors) = main.get::<Affinity>().of(place)
        && let Err(error) = sys::set_affinity(&processors)
    {
        failed("sched_setaffinity()", error);
    }
    if let Some(folder) = &process.working_directory
        && let Err(error) = sys::change_folder(folder)
    {
        failed(&format!("chdir(\"{}\")", folder.display()), error);
    }
    Ok(())
}

async fn deliver(local: Rc<Local>, live: &'static Live) {
    if let Err(error) = local.delivery.run().await {
        live.log(Level::Emerg, &format!("delivery to subscribers ended: {error}"));
    }
}

/// Ends connections that have waited long enough for a request.
async fn sweep(local: Rc<Local>) {
    loop {
        tokio::time::sleep(idle::SWEEP).await;
        local.site.idle.sweep();
    }
}

fn listen(live: &'static Live, local: &Rc<Local>, address: Arc<ListenAddress>, number: usize, socket: OwnedFd) {
    if local.listening.borrow().iter().any(|other| other.address == address && other.number == number) {
        return;
    }
    let listener = match Acceptor::new(&address, socket) {
        Ok(listener) => listener,
        Err(error) => {
            live.log(Level::Emerg, &format!("listening on {address} failed: {error}"));
            return;
        }
    };
    let (leave, left) = oneshot::channel();
    let task = spawn_local(accept(live, Rc::clone(local), Arc::clone(&address), listener, left));
    local.listening.borrow_mut().push(Listening { address, number, leave, task });
}

fn leave(local: &Local, address: &ListenAddress, compiled: &Arc<Compiled>) {
    let mut listening = local.listening.borrow_mut();
    for listening in listening.extract_if(.., |listening| *listening.address == *address) {
        listening.leave(compiled);
    }
}

impl Listening {
    /// Ends it; the task is done when all who had come are accepted.
    fn leave(self, compiled: &Arc<Compiled>) -> JoinHandle<()> {
        // A task that has ended by a fault has nobody left to accept.
        drop(self.leave.send(Arc::clone(compiled)));
        self.task
    }
}

/// Stops listening, and ends connections that wait for their next request.
async fn leave_all(live: &'static Live, local: &Local) {
    let listening = local.listening.take();
    for task in listening.into_iter().map(|listening| listening.leave(&live.compiled())) {
        drop(task.await);
    }
    local.site.idle.end_kept();
}

/// Stops listening, and waits for requests under way and for subscribers to go.
async fn quit(live: &'static Live, local: &Rc<Local>, control: &mut mpsc::UnboundedReceiver<Control>) {
    local.is_leaving.set(true);
    leave_all(live, local).await;
    let dismissing = spawn_local(dismiss(Rc::clone(local), live.farewell_time()));
    let timeout = *live.compiled().config.main().get::<Process>().shutdown_timeout;
    let until = (!timeout.is_zero()).then(|| clock::now().after(timeout));
    while !local.is_deserted() {
        if until.is_some_and(|until| clock::now() >= until) {
            live.log(Level::Notice, "worker_shutdown_timeout is over, connections are closed");
            return;
        }
        local.site.idle.end_kept();
        let pause = clock::timeout(Duration::from_millis(10), control.recv()).await;
        if let Some(Some(Control::Stop)) = pause {
            dismissing.abort();
            local.delivery.shutdown(Farewell::Plain);
            return;
        }
    }
}

/// Says farewell to the subscribers, spread over a time, so that they do not all come back at once.
async fn dismiss(local: Rc<Local>, time: Duration) {
    let subscribers = local.delivery.subscribers();
    let (count, begun) = (u32::try_from(subscribers.len()).unwrap_or(u32::MAX).max(1), clock::now());
    for (number, subscriber) in (0u32..).zip(subscribers) {
        let due = time / count * number;
        let passed = clock::now().since(begun);
        if due > passed {
            tokio::time::sleep(due - passed).await;
        }
        local.delivery.close(subscriber, SERVICE_RESTART);
    }
    // And to those who came meanwhile.
    local.delivery.shutdown(SERVICE_RESTART);
}

/// What clients are told by a server that quits.
const SERVICE_RESTART: Farewell<'_> = Farewell::Code(1012, "service restart");

/// A listening socket of either kind.
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    fn new(address: &ListenAddress, socket: OwnedFd) -> io::Result<Self> {
        match address {
            ListenAddress::Ip(_) => TcpListener::from_std(socket.into()).map(Self::Tcp),
            ListenAddress::Unix(_) => UnixListener::from_std(socket.into()).map(Self::Unix),
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Accepted::tcp(stream, peer)
            }
            Self::Unix(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Accepted::unix(stream, peer.as_pathname()))
            }
        }
    }

    /// Ends listening, with those who have come already: closing the socket would reset their connections.
    fn into_waiting(self) -> io::Result<Vec<Accepted>> {
        let mut waiting = Vec::new();
        match self {
            Self::Tcp(listener) => {
                let listener = listener.into_std()?;
                while let Ok((stream, peer)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    waiting.push(Accepted::tcp(TcpStream::from_std(stream)?, peer)?);
                }
            }
            Self::Unix(listener) => {
                let listener = listener.into_std()?;
                while let Ok((stream, peer)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    waiting.push(Accepted::unix(UnixStream::from_std(stream)?, peer.as_pathname()));
                }
            }
        }
        Ok(waiting)
    }
}

/// A connection that was just accepted.
struct Accepted {
    stream: Stream,
    peer: Peer,
    own: Option<SocketAddr>,
}

impl Accepted {
    fn tcp(stream: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        let own = Some(stream.local_addr()?);
        Ok(Self { stream: stream.into(), peer: Peer::Ip(peer), own })
    }

    fn unix(stream: UnixStream, path: Option<&Path>) -> Self {
        let path = path.map(Path::to_owned).unwrap_or_default();
        Self { stream: stream.into(), peer: Peer::Unix(path), own: None }
    }
}

/// Accepts until told to leave.
async fn accept(
    live: &'static Live,
    local: Rc<Local>,
    address: Arc<ListenAddress>,
    acceptor: Acceptor,
    mut left: oneshot::Receiver<Arc<Compiled>>,
) {
    // Who came after a reload that gave the address up, and before this worker was told.
    let mut late = Vec::new();
    let last = loop {
        let accepted = tokio::select! {
            last = &mut left => break last,
            accepted = acceptor.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let compiled = live.compiled();
                match compiled.listener(&address) {
                    Some(_) => begin(live, &local, &address, compiled, accepted),
                    None => late.push(accepted),
                }
            }
            Err(error) if is_shortage(&error) => {
                live.log(Level::Crit, &format!("accept() failed ({})", super::sockets::reason(&error)));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The client was gone before it was accepted.
            Err(_) => {}
        }
    };
    // Without a word, the worker ends.
    let Ok(compiled) = last else { return };
    match acceptor.into_waiting() {
        Ok(waiting) => late.extend(waiting),
        Err(error) => live.log(Level::Crit, &format!("accept() failed ({})", super::sockets::reason(&error))),
    }
    for accepted in late {
        begin(live, &local, &address, Arc::clone(&compiled), accepted);
    }
}

/// Whether the system has no more of something: another attempt at once would fail in the same way.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ENOSPC];
    error.raw_os_error().is_some_and(|number| shortages.contains(&number))
}

/// Serves a connection that was just accepted, unless there are too many.
fn begin(
    live: &'static Live,
    local: &Rc<Local>,
    address: &Arc<ListenAddress>,
    compiled: Arc<Compiled>,
    Accepted { stream, peer, own }: Accepted,
) {
    let settings = compiled.config.built.model.events.map(|events| compiled.config.settings(events));
    let max = settings.map_or(512, |settings| settings.get::<Connections>().max);
    // As in nginx those that wait make room before there is none left.
    if local.used() + max / 16 >= max && local.site.idle.make_room() > 0 {
        local.complain(&local.reused, live, Level::Warn, &format!("{max} {NOT_ENOUGH}, reusing connections"));
    }
    if local.used() >= max {
        local.complain(&local.complained, live, Level::Alert, &format!("{max} {NOT_ENOUGH}"));
        return;
    }
    let listener = compiled.listeners.iter().position(|listener| listener.address == **address).unwrap_or(0);
    let connection = Rc::new(Connection::new(live.next_connection(), stream, peer, own, listener));
    let (site, address) = (Rc::clone(&local.site), Arc::clone(address));
    spawn_counted(&local.open, crate::http::serve(site, connection, address, compiled));
}

const NOT_ENOUGH: &str = "worker_connections are not enough";

impl Local {
    /// Whether no connection is left.
    fn is_deserted(&self) -> bool {
        self.open.get() == 0 && self.delivery.is_empty() && self.delivery.leaving() == 0
    }

    /// How many connections there are, but for those that are about to make room.
    fn used(&self) -> usize {
        (self.open.get() + self.delivery.len()).saturating_sub(self.site.idle.given_up())
    }

    /// Says that there are too many connections, once a second.
    fn complain(&self, last: &Cell<Option<Moment>>, live: &Live, level: Level, message: &str) {
        let now = clock::now();
        if last.get().is_none_or(|last| now.since(last) >= Duration::from_secs(1)) {
            last.set(Some(now));
            live.log(level, message);
        }
    }
}

/// Runs a connection's task. A panic in it ends it alone.
fn spawn_counted(open: &Rc<Cell<usize>>, task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    let open = Open::new(Rc::clone(open));
    spawn_local(async move {
        task.await;
        drop(open);
    })
}

/// Counts an open connection, whatever way it ends.
struct Open(Rc<Cell<usize>>);

impl Open {
    fn new(count: Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The clock as delivery wants it.
struct DeliveryClock {
    started: Moment,
}

impl delivery::Clock for DeliveryClock {
    fn monotonic(&self) -> Duration {
        clock::now().since(self.started)
    }

    fn seconds(&self) -> u64 {
        clock::unix_time().as_secs()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

    use super::*;

    #[test]
    fn a_panic_ends_one_connection_and_is_not_counted_any_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let open = Rc::new(Cell::new(0));
            let (end, ended) = oneshot::channel();
            let well = spawn_counted(&open, async { ended.await.unwrap() });
            let panics = spawn_counted(&open, async { panic!("a fault of ours") });
            assert_eq!(open.get(), 2);
            assert!(panics.await.unwrap_err().is_panic());
            assert_eq!(open.get(), 1);
            end.send(()).unwrap();
            well.await.unwrap();
            assert_eq!(open.get(), 0);
        });
    }
}
