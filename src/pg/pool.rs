//! A worker's connections to one upstream: kept for reuse, limited, with a queue, over several servers.
//!
//! Everything here belongs to one thread. [`Pool::get`] gives a connection that goes back by being dropped: whole and
//! drained it is kept; in the middle of a query it is cancelled and drained first, by a task of the pool; with an open
//! transaction, changed beyond safe quoting, or broken it is closed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::connection::Connection;
use super::conninfo::ConnectOptions;
use super::error::Error;
use crate::server::clock;

/// How long a cancelled query may take to end before its connection is given up.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often kept connections are looked after.
const SWEEP: Duration = Duration::from_secs(1);

/// So many cancelled connections wait for their cancelling; more are closed.
const CANCEL_QUEUE: usize = 256;

/// What an upstream says about its connections.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// In the order of the configuration.
    pub servers: Vec<Server>,
    /// Without it each request has a connection of its own.
    pub keepalive: Option<Keepalive>,
    /// Whether a request waits when all are busy.
    pub queue: Option<Queue>,
}

/// A server of the upstream.
#[derive(Clone, Debug)]
pub struct Server {
    /// How to connect.
    pub connect: Arc<ConnectOptions>,
    /// Its share.
    pub weight: u32,
    /// At most so many connections; 0 is no limit.
    pub max_conns: u32,
    /// After so many failures it is left alone for `fail_timeout`; 0 is never.
    pub max_fails: u32,
    /// See `max_fails`.
    pub fail_timeout: Duration,
    /// Only when no other is left.
    pub backup: bool,
    /// Never.
    pub down: bool,
}

impl From<super::conninfo::ServerLine> for Server {
    fn from(line: super::conninfo::ServerLine) -> Self {
        Self {
            connect: Arc::new(line.connect),
            weight: line.weight,
            max_conns: line.max_conns,
            max_fails: line.max_fails,
            fail_timeout: line.fail_timeout,
            backup: line.backup,
            down: line.down,
        }
    }
}

/// `postgres_keepalive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Busy and idle connections together.
    pub max: usize,
    /// What happens beyond.
    pub overflow: Overflow,
    /// An idle connection is closed after it.
    pub idle_timeout: Option<Duration>,
    /// A connection is closed after so many requests.
    pub requests: Option<u64>,
    /// Whether any idle connection will do, or only one to the server whose turn it is (`mode=multi`).
    pub any_server: bool,
}

/// What happens when a limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// One more connection.
    Ignore,
    /// The request is refused.
    Reject,
}

/// `postgres_queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// So many requests wait.
    pub max: usize,
    /// What happens to one more.
    pub overflow: Overflow,
    /// How long each waits.
    pub timeout: Duration,
}

/// The pool; clones are the same pool.
#[derive(Clone)]
pub struct Pool(Rc<Shared>);

struct Shared {
    options: PoolOptions,
    state: RefCell<State>,
    to_cancel: mpsc::Sender<Held>,
}

struct State {
    /// The last one back is the first one out, so that those not needed age.
    idle: Vec<Held>,
    /// Busy and idle.
    open: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
    servers: Vec<ServerState>,
}

/// An open connection and what counts it.
struct Held {
    connection: Connection,
    requests: u64,
    idle_since: Instant,
    slot: Slot,
}

#[derive(Clone, Debug, Default)]
struct ServerState {
    open: u32,
    /// Of nginx's round robin.
    weight: i64,
    fails: u32,
    failed_at: Option<Instant>,
}

/// What a waiting request is given.
enum Turn {
    Use(Box<Pooled>),
    Open(Slot),
}

/// The right to have one connection open, and the server it is open to. It counts itself out when dropped, which must
/// not be while the state is borrowed.
struct Slot {
    shared: Weak<Shared>,
    server: Option<usize>,
}

/// Figures of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Connections in use.
    pub busy: usize,
    /// Connections kept.
    pub idle: usize,
    /// Requests in the queue.
    pub waiting: usize,
}

impl Pool {
    /// A pool without connections. To be called where `spawn_local` may be (it has a task that looks after the idle).
    #[must_use]
    pub fn new(options: PoolOptions) -> Self {
        let (to_cancel, cancelled) = mpsc::channel(CANCEL_QUEUE);
        let servers = vec![ServerState::default(); options.servers.len()];
        let state = State { idle: Vec::new(), open: 0, waiting: VecDeque::new(), servers };
        let shared = Rc::new(Shared { options, state: RefCell::new(state), to_cancel });
        tokio::task::spawn_local(cancel_all(cancelled));
        tokio::task::spawn_local(sweep(Rc::downgrade(&shared)));
        Self(shared)
    }

    /// A connection: a kept one, a new one, or one that somebody gives back.
    pub async fn get(&self) -> Result<Pooled, Error> {
        let shared = &self.0;
        let preferred = match shared.options.keepalive {
            Some(Keepalive { any_server: false, .. }) => Some(shared.next_server(&[])?),
            _ => None,
        };
        if let Some(kept) = shared.take_idle(preferred) {
            return Ok(kept);
        }
        shared.make_room();
        match shared.admit()? {
            Admission::Open(slot) => shared.open(slot, preferred).await,
            Admission::Wait(turn, limit) => match timeout(limit, turn).await {
                Ok(Ok(Turn::Use(connection))) => Ok(*connection),
                Ok(Ok(Turn::Open(slot))) => shared.open(slot, preferred).await,
                Ok(Err(_)) => Err(Error::PoolFull),
                Err(_) => Err(Error::QueueTimeout),
            },
        }
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let state = self.0.state.borrow();
        let waiting = state.waiting.iter().filter(|turn| !turn.is_closed()).count();
        PoolStatus { busy: state.open - state.idle.len(), idle: state.idle.len(), waiting }
    }

    /// Closes the kept connections.
    pub fn close_idle(&self) {
        self.0.close_idle(|_| true);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?})", self.status())
    }
}

enum Admission {
    Open(Slot),
    Wait(oneshot::Receiver<Turn>, Duration),
}

impl Shared {
    fn take_idle(&self, server: Option<usize>) -> Option<Pooled> {
        loop {
            let mut held = {
                let mut state = self.state.borrow_mut();
                let suits = |held: &Held| server.is_none() || held.slot.server == server;
                let index = state.idle.iter().rposition(suits)?;
                state.idle.remove(index)
            };
            if held.connection.is_alive() && held.connection.is_reusable() {
                held.requests += 1;
                return Some(Pooled(Some(held)));
            }
        }
    }

    /// Idle connections count too. If none of them is to the right server the oldest gives way.
    fn make_room(&self) {
        let oldest = {
            let mut state = self.state.borrow_mut();
            let is_full = self.options.keepalive.is_some_and(|keepalive| state.open >= keepalive.max);
            (is_full && !state.idle.is_empty()).then(|| state.idle.remove(0))
        };
        drop(oldest);
    }

    /// Whether one more connection may be opened, now or later.
    fn admit(self: &Rc<Self>) -> Result<Admission, Error> {
        let mut state = self.state.borrow_mut();
        if let Some(keepalive) = self.options.keepalive.filter(|keepalive| state.open >= keepalive.max) {
            state.waiting.retain(|turn| !turn.is_closed());
            match self.options.queue {
                Some(queue) if state.waiting.len() < queue.max => {
                    let (sender, receiver) = oneshot::channel();
                    state.waiting.push_back(sender);
                    return Ok(Admission::Wait(receiver, queue.timeout));
                }
                Some(queue) if queue.overflow == Overflow::Reject => return Err(Error::PoolFull),
                None if keepalive.overflow == Overflow::Reject => return Err(Error::PoolFull),
                _ => {}
            }
        }
        state.open += 1;
        Ok(Admission::Open(Slot { shared: Rc::downgrade(self), server: None }))
    }

    /// Connects, to the next server if one fails; each is tried once.
    async fn open(&self, mut slot: Slot, preferred: Option<usize>) -> Result<Pooled, Error> {
        let mut tried = Vec::new();
        let mut server = match preferred {
            Some(server) => server,
            None => self.next_server(&tried)?,
        };
        loop {
            tried.push(server);
            slot.count_for(Some(server));
            // In a box: a login with TLS is large, and seldom; a request that finds a connection should not carry its room.
            let error = match Box::pin(Connection::connect(&self.options.servers[server].connect)).await {
                Ok(connection) => {
                    self.state.borrow_mut().servers[server].fails = 0;
                    let held = Held { connection, requests: 1, idle_since: clock::instant(), slot };
                    return Ok(Pooled(Some(held)));
                }
                Err(error) => error,
            };
            slot.count_for(None);
            if !error.is_servers_fault() {
                return Err(error);
            }
            self.failed(server);
            match self.next_server(&tried) {
                Ok(next) => server = next,
                Err(_) => return Err(error),
            }
        }
    }

    /// Smooth weighted round robin, as nginx's, over the servers that are worth a try.
    fn next_server(&self, tried: &[usize]) -> Result<usize, Error> {
        let mut state = self.state.borrow_mut();
        let is_only = self.options.servers.len() == 1;
        let now = clock::instant();
        for backup in [false, true] {
            let mut total = 0;
            let mut best: Option<usize> = None;
            for (index, server) in self.options.servers.iter().enumerate() {
                let current = &mut state.servers[index];
                let full = server.max_conns > 0 && current.open >= server.max_conns;
                // A server alone is always tried, as in nginx: there is nothing better.
                let rests = !is_only && current.rests(server, now);
                if server.backup != backup || server.down || full || rests || tried.contains(&index) {
                    continue;
                }
                current.weight += i64::from(server.weight);
                total += i64::from(server.weight);
                let weight = current.weight;
                if best.is_none_or(|best| weight > state.servers[best].weight) {
                    best = Some(index);
                }
            }
            if let Some(best) = best {
                state.servers[best].weight -= total;
                return Ok(best);
            }
        }
        Err(Error::NoServers)
    }

    fn failed(&self, server: usize) {
        let now = clock::instant();
        let limit = self.options.servers[server].fail_timeout;
        let server = &mut self.state.borrow_mut().servers[server];
        // Failures count together only within the time.
        if server.failed_at.is_some_and(|at| now.duration_since(at) >= limit) {
            server.fails = 0;
        }
        server.fails += 1;
        server.failed_at = Some(now);
    }

    /// Gives a whole connection to who waits longest, or keeps it.
    fn give_back(&self, mut held: Held) {
        loop {
            let next = self.state.borrow_mut().waiting.pop_front();
            let Some(next) = next else { break };
            held.requests += 1;
            let Err(Turn::Use(mut returned)) = next.send(Turn::Use(Box::new(Pooled(Some(held))))) else {
                return;
            };
            // It waits no more.
            match returned.0.take() {
                Some(back) => held = back,
                None => return,
            }
            held.requests -= 1;
        }
        held.idle_since = clock::instant();
        let mut state = self.state.borrow_mut();
        if self.options.keepalive.is_some_and(|keepalive| state.open <= keepalive.max) {
            state.idle.push(held);
        } else {
            drop(state);
            drop(held);
        }
    }

    /// Whether a connection may be used once more.
    fn outlives(&self, held: &Held) -> bool {
        let limit = self.options.keepalive.map_or(Some(1), |keepalive| keepalive.requests);
        limit.is_none_or(|limit| held.requests < limit)
    }

    fn close_idle(&self, mut is_over: impl FnMut(&mut Held) -> bool) {
        let over: Vec<Held> = self.state.borrow_mut().idle.extract_if(.., |held| is_over(held)).collect();
        drop(over);
    }
}

impl ServerState {
    fn rests(&self, server: &Server, now: Instant) -> bool {
        server.max_fails > 0
            && self.fails >= server.max_fails
            && self.failed_at.is_some_and(|at| now.duration_since(at) < server.fail_timeout)
    }
}

impl Slot {
    fn count_for(&mut self, server: Option<usize>) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut state = shared.state.borrow_mut();
        if let Some(before) = self.server {
            state.servers[before].open -= 1;
        }
        if let Some(now) = server {
            state.servers[now].open += 1;
        }
        self.server = server;
    }
}

/// A connection was closed: who waits longest may open another.
impl Drop for Slot {
    fn drop(&mut self) {
        self.count_for(None);
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let next = {
            let mut state = shared.state.borrow_mut();
            state.open -= 1;
            if shared.options.keepalive.is_some_and(|keepalive| state.open >= keepalive.max) {
                return;
            }
            state.waiting.retain(|turn| !turn.is_closed());
            let next = state.waiting.pop_front();
            state.open += usize::from(next.is_some());
            next
        };
        if let Some(next) = next {
            // If it waits no more the slot comes back here by being dropped.
            drop(next.send(Turn::Open(Self { shared: self.shared.clone(), server: None })));
        }
    }
}

/// A connection of the pool; dropping gives it back.
pub struct Pooled(Option<Held>);

impl Deref for Pooled {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0.as_ref().expect("only dropping takes it").connection
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0.as_mut().expect("only dropping takes it").connection
    }
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pooled({:?})", self.0.as_ref().map(|held| &held.connection))
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Some(held) = self.0.take() else { return };
        let Some(shared) = held.slot.shared.upgrade() else {
            return;
        };
        if held.connection.is_broken() {
            return;
        }
        if !held.connection.is_drained() {
            // Full: the connection is closed, and the server finds out when it writes.
            drop(shared.to_cancel.try_send(held));
        } else if held.connection.is_reusable() && shared.outlives(&held) {
            shared.give_back(held);
        }
    }
}

/// Cancels what is given back in the middle of a query, so that the server does not work for nobody.
async fn cancel_all(mut cancelled: mpsc::Receiver<Held>) {
    while let Some(mut held) = cancelled.recv().await {
        tokio::task::spawn_local(async move {
            let ended = async {
                held.connection.cancel_token().cancel().await?;
                held.connection.drain().await
            };
            if let Ok(Ok(())) = timeout(CANCEL_TIMEOUT, ended).await {
                drop(Pooled(Some(held)));
            }
        });
    }
}

/// Closes what has been idle too long, and what the server closed.
async fn sweep(shared: Weak<Shared>) {
    loop {
        sleep(SWEEP).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let limit = shared.options.keepalive.and_then(|keepalive| keepalive.idle_timeout);
        let now = clock::instant();
        shared.close_idle(|held| {
            let too_long = limit.is_some_and(|limit| now.duration_since(held.idle_since) >= limit);
            too_long || !held.connection.is_alive()
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::pg::connection::Query;
    use crate::pg::testing::{Cluster, on_worker};

    fn server(connect: Arc<ConnectOptions>) -> Server {
        Server {
            connect,
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
        }
    }

    const KEEPALIVE: Keepalive =
        Keepalive { max: 2, overflow: Overflow::Reject, idle_timeout: None, requests: None, any_server: true };

    fn pool(servers: Vec<Server>, keepalive: Option<Keepalive>, queue: Option<Queue>) -> Pool {
        Pool::new(PoolOptions { servers, keepalive, queue })
    }

    async fn value(connection: &mut Connection, sql: &str) -> String {
        connection.query(&Query::from(sql)).await.unwrap();
        let row = connection.next_row().await.unwrap().unwrap();
        let value = String::from_utf8_lossy(row.get(0).unwrap()).into_owned();
        connection.drain().await.unwrap();
        value
    }

    /// Lets the pool's own tasks finish; each step of theirs is one answer of the server.
    async fn until(what: impl Fn() -> bool) {
        for _ in 0..2000 {
            if what() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not happen");
    }

    #[test]
    fn connections_are_kept_limited_and_given_back() {
        let cluster = Cluster::start();
        on_worker(async {
            let options = cluster.options("");
            let pool = pool(vec![server(Arc::clone(&options))], Some(KEEPALIVE), None);
            let mut first = pool.get().await.unwrap();
            let pid = first.backend_pid();
            assert_eq!(value(&mut first, "select 1").await, "1");
            drop(first);
            let (first, second) = (pool.get().await.unwrap(), pool.get().await.unwrap());
            assert_eq!(first.backend_pid(), pid);
            assert!(matches!(pool.get().await, Err(Error::PoolFull)));
            drop((first, second));
            assert_eq!(pool.status(), PoolStatus { busy: 0, idle: 2, waiting: 0 });

            // After an error of the statement it is kept, with an open transaction it is not.
            let mut first = pool.get().await.unwrap();
            let pid = first.backend_pid();
            assert!(first.query(&Query::from("select 1/0")).await.is_err());
            drop(first);
            let mut first = pool.get().await.unwrap();
            assert_eq!(first.backend_pid(), pid);
            first.query(&Query::from("begin")).await.unwrap();
            first.drain().await.unwrap();
            drop(first);
            assert_eq!(pool.status().idle, 1);

            // What the server closed is not given out.
            cluster
                .psql("select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'nginx'");
            let mut fresh = pool.get().await.unwrap();
            assert_eq!(value(&mut fresh, "select 2").await, "2");
            drop(fresh);

            // Given back in the middle of a query: it is cancelled and kept.
            let mut slow = pool.get().await.unwrap();
            let pid = slow.backend_pid();
            let query = Query { timeout: Some(Duration::from_millis(20)), ..Query::from("select pg_sleep(60)") };
            assert!(matches!(slow.query(&query).await, Err(Error::QueryTimeout)));
            drop(slow);
            until(|| pool.status().idle == 1).await;
            let mut again = pool.get().await.unwrap();
            assert_eq!((again.backend_pid(), value(&mut again, "select 3").await), (pid, "3".to_owned()));
        });
    }

    #[test]
    fn requests_wait_in_a_queue() {
        let cluster = Cluster::start();
        on_worker(async {
            let keepalive = Keepalive { max: 1, ..KEEPALIVE };
            let queue = Queue { max: 1, overflow: Overflow::Reject, timeout: Duration::from_millis(200) };
            let pool = pool(vec![server(cluster.options(""))], Some(keepalive), Some(queue));
            let busy = pool.get().await.unwrap();
            let pid = busy.backend_pid();
            let waiting = tokio::task::spawn_local({
                let pool = pool.clone();
                async move { pool.get().await.map(|connection| connection.backend_pid()) }
            });
            until(|| pool.status().waiting == 1).await;
            assert!(matches!(pool.get().await, Err(Error::PoolFull)));
            drop(busy);
            assert_eq!(waiting.await.unwrap().unwrap(), pid);

            let mut busy = pool.get().await.unwrap();
            assert!(matches!(pool.get().await, Err(Error::QueueTimeout)));
            // One that breaks leaves its place to who waits.
            let waiting = tokio::task::spawn_local({
                let pool = pool.clone();
                async move { pool.get().await.map(|connection| connection.backend_pid()) }
            });
            until(|| pool.status().waiting == 1).await;
            let farewell = Query::from("select pg_terminate_backend(pg_backend_pid())");
            assert!(busy.query(&farewell).await.is_err() || busy.drain().await.is_err());
            drop(busy);
            assert_ne!(waiting.await.unwrap().unwrap(), pid);
        });
    }

    #[test]
    fn limits_of_a_connection() {
        let cluster = Cluster::start();
        on_worker(async {
            let once = Keepalive { requests: Some(2), ..KEEPALIVE };
            let twice = pool(vec![server(cluster.options(""))], Some(once), None);
            let mut pids = Vec::new();
            for _ in 0..3 {
                pids.push(twice.get().await.unwrap().backend_pid());
            }
            assert!(pids[0] == pids[1] && pids[1] != pids[2]);
            let none = pool(vec![server(cluster.options(""))], None, None);
            drop(none.get().await.unwrap());
            assert_eq!(none.status(), PoolStatus::default());
            let idle = Keepalive { idle_timeout: Some(Duration::from_millis(100)), ..KEEPALIVE };
            let idle = pool(vec![server(cluster.options(""))], Some(idle), None);
            drop(idle.get().await.unwrap());
            assert_eq!(idle.status().idle, 1);
            until(|| idle.status().idle == 0).await;
        });
    }

    #[test]
    fn several_servers() {
        let cluster = Cluster::start();
        let dead = Arc::new(super::super::conninfo::parse_conninfo("host=127.0.0.1 port=1").unwrap());
        on_worker(async {
            let good = cluster.options("application_name=good");
            let spare = cluster.options("application_name=spare");
            let name = "select current_setting('application_name')";
            let servers = vec![
                server(Arc::clone(&dead)),
                server(Arc::clone(&good)),
                Server { backup: true, ..server(Arc::clone(&spare)) },
            ];
            let failover = pool(servers, None, None);
            for _ in 0..3 {
                assert_eq!(value(&mut failover.get().await.unwrap(), name).await, "good");
            }
            let servers = vec![server(Arc::clone(&dead)), Server { backup: true, ..server(Arc::clone(&spare)) }];
            assert_eq!(value(&mut pool(servers, None, None).get().await.unwrap(), name).await, "spare");

            let servers = vec![Server { weight: 3, ..server(Arc::clone(&good)) }, server(spare)];
            let weighted = pool(servers, None, None);
            let mut names = Vec::new();
            for _ in 0..4 {
                names.push(value(&mut weighted.get().await.unwrap(), name).await);
            }
            assert_eq!(names, ["good", "good", "spare", "good"]);

            // In turn, each by connections to its own; an idle one to the other server makes room.
            let keepalive = Keepalive { max: 1, any_server: false, ..KEEPALIVE };
            let servers = vec![server(Arc::clone(&good)), server(cluster.options("application_name=other"))];
            let in_turn = pool(servers, Some(keepalive), None);
            let mut names = Vec::new();
            for _ in 0..3 {
                names.push(value(&mut in_turn.get().await.unwrap(), name).await);
            }
            assert_eq!(names, ["good", "other", "good"]);
            assert_eq!(in_turn.status().idle, 1);

            // Alone, a failing server is tried each time; two are left alone once both have failed.
            let alone = pool(vec![server(Arc::clone(&dead))], None, None);
            for _ in 0..2 {
                assert!(matches!(alone.get().await, Err(Error::Refused { .. })));
            }
            let both = pool(vec![server(Arc::clone(&dead)), server(dead)], None, None);
            assert!(matches!(both.get().await, Err(Error::Refused { .. })));
            assert!(matches!(both.get().await, Err(Error::NoServers)));
        });
    }
}
