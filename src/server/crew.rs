//! The workers of the process, and the sockets that they listen on.
//!
//! An address has a socket for each worker. The process keeps a descriptor of each: so a socket outlives its worker, with
//! the clients that wait in it, and goes to another worker or to another program.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::{self, UnboundedSender};

use super::live::Live;
use super::log::Level;
use super::process::Failure;
use super::sockets::{self, Bound, reason};
use super::worker::{self, Control, Post};
use crate::compile::Compiled;
use crate::config::ListenAddress;
use crate::hub::inbox::WorkerId;

/// The workers.
pub(super) struct Crew {
    live: &'static Live,
    /// Those that take connections. Socket number N of each address is that of worker N, or of N less as many as there are.
    workers: Vec<Worker>,
    /// Those that take none any more, and still have some.
    leaving: Vec<Worker>,
    listening: Vec<Bound>,
    /// The number of the next worker; none is given twice.
    next: u16,
}

struct Worker {
    control: UnboundedSender<Control>,
    /// `None` once somebody waits for its end.
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Crew {
    /// Nobody yet.
    pub(super) fn new(live: &'static Live) -> Self {
        Self { live, workers: Vec::new(), leaving: Vec::new(), listening: Vec::new(), next: 0 }
    }

    /// How many take connections.
    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    /// What is listened on.
    pub(super) fn listening(&self) -> &[Bound] {
        &self.listening
    }

    /// The sockets that are missing for so many workers, address by address. An error is nginx's line for it.
    pub(super) fn missing(&self, compiled: &Compiled, workers: usize) -> Result<Vec<Bound>, Failure> {
        let missing = |bound: &Bound| {
            let listener = compiled.listener(&bound.address)?;
            Some(
                sockets::widen(&bound.sockets, listener, workers)
                    .map(|sockets| Bound { address: Arc::clone(&bound.address), sockets }),
            )
        };
        self.listening.iter().filter_map(missing).collect()
    }

    /// Adds sockets to those of their addresses.
    pub(super) fn widen(&mut self, more: Vec<Bound>) {
        for Bound { address, sockets } in more {
            if let Some(bound) = self.listening.iter_mut().find(|bound| bound.address == address) {
                bound.sockets.extend(sockets);
            }
        }
    }

    /// Has there be so many workers. Those that are too many serve the connections that they have to their end.
    pub(super) fn resize(&mut self, count: usize) -> Result<(), Failure> {
        self.leaving.retain(|worker| !worker.has_ended());
        let before = self.workers.len();
        while self.workers.len() < count {
            let worker = self.hire()?;
            self.workers.push(worker);
        }
        let gone = self.workers.split_off(count);
        for (number, bound) in self.sockets() {
            let was = if before == 0 { None } else { Some(number % before) };
            let now = number % count;
            if was != Some(now) && (now >= before || was.is_some_and(|was| was >= count)) {
                self.give(now, bound, number);
            }
        }
        for worker in &gone {
            self.tell(worker, || Control::Retire);
        }
        self.leaving.extend(gone);
        Ok(())
    }

    /// The sockets, by their number in their address.
    fn sockets(&self) -> impl Iterator<Item = (usize, &Bound)> {
        self.listening.iter().flat_map(|bound| (0..bound.sockets.len()).map(move |number| (number, bound)))
    }

    fn hire(&mut self) -> Result<Worker, Failure> {
        let failed = |reason: String| format!("a worker could not be started ({reason})");
        let (number, live) = (self.next, self.live);
        self.next = number.checked_add(1).ok_or_else(|| failed("there have been too many".to_owned()))?;
        let post = Post { worker: WorkerId(number), place: self.workers.len() };
        let (control, orders) = mpsc::unbounded_channel();
        let thread = thread::Builder::new()
            .name(format!("worker {number}"))
            .spawn(move || {
                if let Err(error) = worker::run(live, post, orders) {
                    live.log(Level::Emerg, &format!("worker {number} ended: {error}"));
                }
            })
            .map_err(|error| failed(reason(&error)))?;
        Ok(Worker { control, thread: Some(thread) })
    }

    /// Listens on more addresses.
    pub(super) fn listen(&mut self, bound: Vec<Bound>) {
        for bound in bound {
            for number in 0..bound.sockets.len() {
                if !self.workers.is_empty() {
                    self.give(number % self.workers.len(), &bound, number);
                }
            }
            self.listening.push(bound);
        }
    }

    /// Has a worker listen on a socket.
    fn give(&self, place: usize, bound: &Bound, number: usize) {
        match bound.sockets[number].try_clone() {
            Ok(socket) => {
                self.tell(&self.workers[place], || Control::Listen(Arc::clone(&bound.address), number, socket))
            }
            Err(error) => {
                self.live.log(Level::Emerg, &format!("listening on {} failed: {error}", bound.address));
            }
        }
    }

    /// Listens no more where a configuration does not; who has come is served by the one before. The addresses that are
    /// given up.
    pub(super) fn leave(&mut self, compiled: &Compiled, before: &Arc<Compiled>) -> Vec<Arc<ListenAddress>> {
        let is_gone = |bound: &mut Bound| compiled.listener(&bound.address).is_none();
        let gone: Vec<_> = self.listening.extract_if(.., is_gone).map(|bound| bound.address).collect();
        for address in &gone {
            for worker in &self.workers {
                self.tell(worker, || Control::Leave(Arc::clone(address), Arc::clone(before)));
            }
        }
        gone
    }

    /// Has all go on with the configuration that holds now.
    pub(super) fn follow(&self) {
        for worker in self.all() {
            self.tell(worker, || Control::Follow);
        }
    }

    /// Has all finish what is under way, and end. The sockets stay open, and clients wait in them.
    pub(super) fn dismiss(&mut self) {
        for worker in self.all() {
            self.tell(worker, || Control::Quit);
        }
        self.leaving.append(&mut self.workers);
    }

    /// The same, and closes the sockets. The threads, to wait for.
    pub(super) fn quit(&mut self) -> Vec<JoinHandle<()>> {
        self.dismiss();
        self.listening.clear();
        self.leaving.iter_mut().filter_map(|worker| worker.thread.take()).collect()
    }

    /// Has all end at once.
    pub(super) fn stop(&self) {
        for worker in self.all() {
            // One whose thread has ended already needs no telling.
            drop(worker.control.send(Control::Stop));
        }
    }

    /// Whether all threads have ended that nobody waits for.
    pub(super) fn have_ended(&self) -> bool {
        self.all().all(Worker::has_ended)
    }

    fn all(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().chain(&self.leaving)
    }

    fn tell(&self, worker: &Worker, order: impl FnOnce() -> Control) {
        // One that was to end may have ended.
        let is_leaving = self.leaving.iter().any(|other| other.control.same_channel(&worker.control));
        if worker.control.send(order()).is_err() && !is_leaving {
            self.live.log(Level::Emerg, "a worker has ended");
        }
    }
}
