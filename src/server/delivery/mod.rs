//! Delivery: a worker's subscribers, each a socket and a small state machine in a slab. No task for any of them, no
//! buffer while idle, no timer of its own.
//!
//! [`Delivery::run`] is one task of the worker. It waits for three things: the worker's inbox of the hub, the sockets (an
//! epoll of the slab's own, which the runtime watches as one descriptor), and the next deadline. What the inbox holds is
//! written straight to the sockets, everything new for a subscriber in one system call; only what a socket does not take is
//! queued on its subscriber. Between batches the other tasks of the worker have their turn.
//!
//! A subscriber begins with [`Delivery::subscribe`], before the client is answered: from then on it misses nothing. It
//! gets its socket with [`Delivery::adopt`] when the answer has been sent, or is forgotten with [`Delivery::abandon`].

pub mod deflate;
pub mod frame;
pub mod gzip;
mod queue;
mod reading;
mod roster;
mod sending;
mod socket;
mod state;
pub mod subscriber;
#[cfg(test)]
mod tests;
mod timers;
pub mod websocket;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mio::{Events, Poll};
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::hub::Hub;
use crate::hub::channel::ChannelId;
use crate::hub::inbox::{Entry, Wake, WorkerId};
use crate::hub::limits::Refused;
use crate::server::delivery::reading::Progress;
use crate::server::delivery::roster::Plan;
pub use crate::server::delivery::socket::Connected;
use crate::server::delivery::state::{Effect, News, State};
use crate::server::delivery::subscriber::{Farewell, NewSubscriber, Reason, Settings, SubscriberId, Subscription};
use crate::server::delivery::timers::moment;
use crate::sys::nested_poll;

/// So many deliveries or reads, and others have their turn: about two milliseconds.
const TURN: usize = 256;

/// So many entries of the inbox are delivered together. It bounds what is put together for one subscriber.
const ROUND: usize = 64;

/// What one read takes at most.
const READ_BUFFER: usize = 64 * 1024;

/// The server's clock, as far as delivery needs it.
pub trait Clock {
    /// Time that never goes back, from some beginning.
    fn monotonic(&self) -> Duration;
    /// Seconds since 1970.
    fn seconds(&self) -> u64;
}

/// The subscribers of one worker. It belongs to the worker's thread.
pub struct Delivery {
    state: RefCell<State>,
    clock: Rc<dyn Clock>,
    notify: Arc<Notify>,
    /// How often the inbox was emptied, and whether what was in it is being delivered.
    rounds: Cell<u64>,
    is_delivering: Cell<bool>,
    /// Taken by [`Self::run`].
    poll: RefCell<Option<Poll>>,
}

/// Wakes a worker's delivery.
struct Waker(Arc<Notify>);

impl Wake for Waker {
    fn wake(&self) {
        self.0.notify_one();
    }
}

impl Delivery {
    /// No subscribers yet.
    pub fn new(hub: Arc<Hub>, worker: WorkerId, clock: Rc<dyn Clock>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let notify = Arc::new(Notify::new());
        let inbox = hub.add_worker(worker, Box::new(Waker(Arc::clone(&notify))));
        let state = RefCell::new(State::new(hub, inbox, registry, Rc::clone(&clock)));
        Ok(Self {
            state,
            clock,
            notify,
            rounds: Cell::new(0),
            is_delivering: Cell::new(false),
            poll: RefCell::new(Some(poll)),
        })
    }

    /// Gives a subscriber its places, or none at all. What it is to get waits for [`Self::adopt`].
    pub fn subscribe(&self, new: NewSubscriber<'_>) -> Result<Subscription, Refused> {
        let now = self.now();
        self.state.borrow_mut().subscribe(new, now)
    }

    /// Gives a subscriber its socket, with what was already read from it. Whoever accepted it has set its options.
    pub fn adopt(&self, id: SubscriberId, socket: impl Into<Connected>, leftover: Bytes) -> io::Result<()> {
        self.adopt_with(id, socket.into(), leftover, Bytes::new())
    }

    /// The same, with the head of the answer still to be sent. Where nothing waits to be sent after it, it waits for what
    /// comes first.
    pub fn adopt_with(&self, id: SubscriberId, connected: Connected, leftover: Bytes, head: Bytes) -> io::Result<()> {
        let now = self.now();
        let adopted = self.state.borrow_mut().adopt(id, connected, &leftover, head, now);
        self.notify.notify_one();
        adopted
    }

    /// Keeps something until a subscriber's connection has ended: what counts it among those that are limited.
    pub fn keep(&self, id: SubscriberId, things: Vec<Rc<dyn Any>>) {
        self.state.borrow_mut().keep(id, things);
    }

    /// Takes what waits in a mailbox, oldest first, and forgets the subscriber.
    pub fn collect(&self, id: SubscriberId) -> Vec<Bytes> {
        let parts = self.state.borrow_mut().collect(id);
        self.notify.notify_one();
        parts
    }

    /// Whether something waits for a subscriber.
    pub fn has_mail(&self, id: SubscriberId) -> bool {
        self.state.borrow_mut().subscriber(id).is_some_and(|subscriber| subscriber.has_mail())
    }

    /// Waits until all is delivered that is in the inbox now.
    pub async fn catch_up(&self) {
        let begun = self.rounds.get();
        // One round may be half done, the next one takes all that is there.
        while (self.is_delivering.get() || !self.state.borrow().inbox().is_empty()) && self.rounds.get() < begun + 2 {
            tokio::task::yield_now().await;
        }
    }

    /// Forgets a subscriber whose handshake came to nothing.
    pub fn abandon(&self, id: SubscriberId) {
        self.with(|state, _| state.lose(id, Reason::Broken));
    }

    /// Says farewell to a subscriber, after all that waits for it.
    pub fn close(&self, id: SubscriberId, farewell: Farewell<'_>) {
        // One that has no socket yet gets its farewell when it has.
        self.with(|state, now| state.leave(id, Reason::Asked, farewell, now));
    }

    /// Sends bytes of the subscriber's protocol to it alone.
    pub fn send(&self, id: SubscriberId, bytes: Bytes) {
        self.with(|state, now| state.send(id, bytes, now));
    }

    /// Has all subscribers that have some settings go on with others. They stay where they are in their channels.
    pub fn replace_settings(&self, old: &Rc<Settings>, new: &Rc<Settings>) {
        self.with(|state, now| state.replace_settings(old, new, now));
    }

    /// Reads no more of what a client sends; what has been read already waits too.
    pub fn pause_reading(&self, id: SubscriberId) {
        self.with(|state, _| state.pause(id));
    }

    /// Reads again.
    pub fn resume_reading(&self, id: SubscriberId) {
        self.with(|state, _| state.resume(id));
    }

    /// The channels of a subscriber, in the order it was given them; none of one who is gone.
    pub fn channels(&self, id: SubscriberId) -> SmallVec<[ChannelId; 1]> {
        self.state.borrow().channels(id)
    }

    /// How many subscribers there are.
    pub fn len(&self) -> usize {
        self.state.borrow().open()
    }

    /// All subscribers.
    pub fn subscribers(&self) -> Vec<SubscriberId> {
        self.state.borrow().subscribers()
    }

    /// Nobody is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections that still take their last words, or whose clients have not yet closed.
    pub fn leaving(&self) -> usize {
        self.state.borrow().leaving()
    }

    /// Says farewell to all.
    pub fn shutdown(&self, farewell: Farewell<'_>) {
        self.with(|state, now| state.leave_all(farewell, now));
    }

    /// Delivers, as long as it is polled. Run it once.
    pub async fn run(&self) -> io::Result<()> {
        let Some(poll) = self.poll.take() else {
            return Err(io::Error::other("delivery runs already"));
        };
        let mut sockets = nested_poll::watch(poll)?;
        let mut work = Work::new();
        loop {
            self.settle();
            let unread = self.state.borrow().has_unread();
            let deadline = self.state.borrow().next_deadline();
            let pause = deadline.map(|tick| moment(tick).saturating_sub(self.clock.monotonic()));
            // The branches are tried in random order, so that none of them starves another.
            tokio::select! {
                () = std::future::ready(()), if unread => self.read_waiting(&mut work).await,
                () = self.notify.notified() => self.deliver_inbox(&mut work).await,
                ready = sockets.readable_mut() => {
                    let mut ready = ready?;
                    ready.get_inner_mut().poll(&mut work.events, Some(Duration::ZERO)).or_else(interrupted)?;
                    if work.events.iter().count() < work.events_capacity {
                        ready.clear_ready();
                    }
                    self.watch_sockets(&mut work).await;
                }
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => self.keep_time(&mut work).await,
            }
        }
    }

    /// Delivers all that is in the inbox.
    async fn deliver_inbox(&self, work: &mut Work) {
        let inbox = Arc::clone(self.state.borrow().inbox());
        inbox.drain(&mut work.entries);
        self.is_delivering.set(true);
        for round in work.entries.chunks(ROUND) {
            self.state.borrow_mut().plan(round, &mut work.plan);
            for job in &work.plan.jobs {
                for turn in work.plan.targets[job.targets.clone()].chunks(TURN) {
                    let now = self.now();
                    self.state.borrow_mut().deliver(turn, job, now);
                    self.turn(turn.len(), &mut work.done).await;
                }
            }
            let now = self.now();
            let flushes = self.state.borrow_mut().queue_singles(&mut work.plan, now);
            for turn in flushes.chunks(TURN) {
                let now = self.now();
                self.state.borrow_mut().flush_all(turn, now);
                self.turn(turn.len(), &mut work.done).await;
            }
            let now = self.now();
            self.state.borrow_mut().leave_deleted(&mut work.plan, now);
            self.settle();
        }
        work.entries.clear();
        work.plan.clear();
        self.is_delivering.set(false);
        self.rounds.set(self.rounds.get() + 1);
    }

    /// Reads from sockets that have something, and writes to those that have room again.
    async fn watch_sockets(&self, work: &mut Work) {
        work.ready.clear();
        work.ready.extend(work.events.iter().map(state::Readiness::of));
        for at in 0..work.ready.len() {
            let ready = work.ready[at];
            let now = self.now();
            if ready.writable {
                self.state.borrow_mut().flush(ready.id, now);
            }
            if ready.readable {
                self.read(ready.id, ready.ended, &mut work.buffer);
            }
            self.turn(1, &mut work.done).await;
        }
    }

    /// Reads on where reading had to stop: after a pause, or because one client sent more than its share.
    async fn read_waiting(&self, work: &mut Work) {
        let waiting = self.state.borrow_mut().take_unread();
        for id in waiting {
            self.read(id, true, &mut work.buffer);
            self.turn(1, &mut work.done).await;
        }
        tokio::task::yield_now().await;
    }

    /// Reads what one client sent, and tells its module. No borrow is held while the module is told.
    fn read(&self, id: SubscriberId, ended: bool, buffer: &mut [u8]) {
        let input = self.state.borrow_mut().input(id, ended);
        let Some(mut input) = input else { return };
        loop {
            let progress = self.state.borrow_mut().read(&mut input, buffer, self.now());
            match progress {
                Some(Progress::Message(events, opcode, payload)) => {
                    if guarded(|| events.message(id, opcode, payload)).is_none() {
                        self.close(id, Farewell::Code(1011, "internal error"));
                    }
                }
                Some(Progress::More) => {}
                None => return,
            }
        }
    }

    /// Sees to those whose deadline is over.
    async fn keep_time(&self, work: &mut Work) {
        loop {
            let now = self.now();
            let Some((tick, due)) = self.state.borrow_mut().due(now) else {
                return;
            };
            for turn in due.chunks(TURN) {
                turn.iter().for_each(|id| self.state.borrow_mut().look_at(*id, tick, now));
                self.turn(turn.len(), &mut work.done).await;
            }
        }
    }

    /// Tells modules what happened.
    fn settle(&self) {
        loop {
            let effects = self.state.borrow_mut().take_effects();
            if effects.is_empty() {
                return;
            }
            for Effect { events, id, news } in effects {
                guarded(|| match news {
                    News::Mail => events.mail(id),
                    News::Left(left) => events.left(id, left),
                    News::Closed(closed) => events.closed(id, closed),
                });
            }
        }
    }

    /// Counts what was done, and lets others have their turn when it was enough.
    async fn turn(&self, count: usize, done: &mut usize) {
        *done += count;
        if *done >= TURN {
            *done = 0;
            self.settle();
            tokio::task::yield_now().await;
        }
    }

    /// Does something for a caller, and has what follows from it told later, by [`Self::run`]: the caller may be in the
    /// middle of something.
    fn with(&self, action: impl FnOnce(&mut State, timers::Tick)) {
        let now = self.now();
        action(&mut self.state.borrow_mut(), now);
        self.notify.notify_one();
    }

    fn now(&self) -> timers::Tick {
        timers::tick(self.clock.monotonic())
    }
}

/// What [`Delivery::run`] works with, kept for its space.
struct Work {
    entries: Vec<Entry>,
    plan: Plan,
    events: Events,
    events_capacity: usize,
    ready: Vec<state::Readiness>,
    buffer: Vec<u8>,
    done: usize,
}

impl Work {
    fn new() -> Self {
        let events_capacity = 1024;
        Self {
            entries: Vec::new(),
            plan: Plan::default(),
            events: Events::with_capacity(events_capacity),
            events_capacity,
            ready: Vec::new(),
            buffer: vec![0; READ_BUFFER],
            done: 0,
        }
    }
}

/// A signal is no error.
fn interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// Tells a module something. An error of the program in it, which the panic hook writes down, must end this one
/// subscriber's affair and not the delivery to all; no borrow is held meanwhile. `None`: there was one.
fn guarded<T>(tell: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(tell)).ok()
}
