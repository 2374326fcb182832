//! The one connection of the process that LISTENs for an upstream.
//!
//! A [`Listener`] is a handle for any thread; behind it is one task, the future that [`listener`] returns with it. The
//! task knows which channels are wanted and which are listened to, and brings the second in line with the first: what
//! changed while one round trip was under way goes together in the next. That keeps the order of the commands for each
//! channel, and makes ten thousand LISTENs a handful of round trips.
//!
//! A lost connection is made again with growing pauses, and all wanted channels are listened to again. A connection
//! that looks alive but passes nothing on (a pooler, a dead path, a broken server) is found by a canary: a notification
//! to a channel of our own that has to come back.
//!
//! The connection is `tokio-postgres`'s: nothing here needs results in the server's own form.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::conninfo::ConnectOptions;
use super::error::{Error as ConnectError, ServerError};
use super::sql::{MAX_NAME, quote_identifier, quote_literal};
use super::stream::{Stream, connect_with};

/// The listener waits less patiently than a request: another try may find the server back.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// So many commands go in one round trip; a string of them is one transaction.
const BATCH: usize = 500;

/// How a listener behaves.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// The upstream's servers, in order; the first that answers is taken.
    pub servers: Vec<Arc<ConnectOptions>>,
    /// How often the canary flies; none never.
    pub canary: Option<Duration>,
    /// How long it may be away.
    pub canary_timeout: Duration,
    /// The pause before the second attempt; it doubles ...
    pub first_pause: Duration,
    /// ... up to this.
    pub longest_pause: Duration,
}

impl ListenerOptions {
    /// The usual times, for these servers.
    #[must_use]
    pub fn new(servers: Vec<Arc<ConnectOptions>>) -> Self {
        Self {
            servers,
            canary: Some(Duration::from_secs(30)),
            canary_timeout: Duration::from_secs(10),
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(1),
        }
    }
}

/// What PostgreSQL passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The channel's name.
    pub channel: String,
    /// The text, which may be empty.
    pub payload: String,
    /// The backend that sent it.
    pub pid: i32,
}

/// What somebody should write into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is no connection any more, or none yet: said once, and then not again before [`Event::Up`].
    Down {
        /// What happened.
        reason: String,
        /// So many channels hear nothing now.
        channels: usize,
    },
    /// Connected, and listening again to all.
    Up {
        /// So many channels.
        channels: usize,
        /// Whether there was a connection before.
        again: bool,
    },
    /// PostgreSQL does not let us listen to a channel.
    Refused {
        /// Its name.
        channel: String,
        /// Why.
        error: ServerError,
    },
}

/// Why a channel is not listened to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ListenError {
    /// No name at all.
    #[error("the channel has no name")]
    Empty,
    /// PostgreSQL would cut it, and no notification would ever match.
    #[error("channel name of {0} bytes: PostgreSQL knows at most {MAX_NAME}")]
    TooLong(usize),
    /// No name of PostgreSQL can have one.
    #[error("a NUL byte in the channel's name")]
    Nul,
    /// PostgreSQL says no.
    #[error("{0}")]
    Refused(Box<ServerError>),
    /// The process is about to end.
    #[error("the listener has stopped")]
    Stopped,
}

/// Whether anybody is subscribed to a channel, on any worker.
pub type Interest = Arc<dyn Fn(&str) -> bool + Send + Sync>;
/// Where notifications go.
pub type Sink = Arc<dyn Fn(Notification) + Send + Sync>;
/// Where events go.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

type Answer = oneshot::Sender<Result<(), ListenError>>;

/// The handle of a listener.
#[derive(Clone)]
pub struct Listener {
    commands: mpsc::UnboundedSender<Command>,
    counters: Arc<Counters>,
}

/// Figures of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Whether there is a connection.
    pub connected: bool,
    /// Channels listened to right now.
    pub channels: usize,
    /// Notifications passed on since the start.
    pub notifications: u64,
    /// Connections made after the first.
    pub reconnects: u64,
    /// How long the last canary was away.
    pub canary_round_trip: Option<Duration>,
}

#[derive(Default)]
struct Counters {
    connected: AtomicBool,
    channels: AtomicUsize,
    notifications: AtomicU64,
    reconnects: AtomicU64,
    canary_microseconds: AtomicU64,
}

enum Command {
    Listen(String, Answer),
    Unlisten(String, Answer),
    UnlistenAll(Answer),
}

/// A listener, and the task that has to run for it. It ends when the last handle is gone.
pub fn listener(
    options: ListenerOptions,
    interest: Interest,
    sink: Sink,
    events: Events,
) -> (Listener, impl Future<Output = ()> + Send + 'static) {
    let (commands, receiver) = mpsc::unbounded_channel();
    let counters = Arc::new(Counters::default());
    let task = Task {
        options,
        interest,
        sink,
        events,
        counters: Arc::clone(&counters),
        commands: receiver,
        channels: BTreeMap::new(),
        changed: BTreeSet::new(),
        canary: format!("pushgate_canary_{:016x}", rand::random::<u64>()),
        said_down: false,
        was_up: false,
    };
    (Listener { commands, counters }, task.run())
}

impl Listener {
    /// Listens to a channel. The command has its place in the queue when this returns; the future ends when PostgreSQL
    /// has confirmed, be it after the connection is back.
    pub fn listen(&self, channel: &str) -> Reply {
        self.command(check_name(channel), |answer| {
            Command::Listen(channel.to_owned(), answer)
        })
    }

    /// Stops listening to a channel, if nobody is subscribed to it.
    pub fn unlisten(&self, channel: &str) -> Reply {
        self.command(check_name(channel), |answer| {
            Command::Unlisten(channel.to_owned(), answer)
        })
    }

    /// Stops listening to all channels that nobody is subscribed to.
    pub fn unlisten_all(&self) -> Reply {
        self.command(Ok(()), Command::UnlistenAll)
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> ListenerStatus {
        let microseconds = self.counters.canary_microseconds.load(Relaxed);
        ListenerStatus {
            connected: self.counters.connected.load(Relaxed),
            channels: self.counters.channels.load(Relaxed),
            notifications: self.counters.notifications.load(Relaxed),
            reconnects: self.counters.reconnects.load(Relaxed),
            canary_round_trip: (microseconds > 0).then(|| Duration::from_micros(microseconds)),
        }
    }

    fn command(
        &self,
        name: Result<(), ListenError>,
        command: impl FnOnce(Answer) -> Command,
    ) -> Reply {
        let (answer, answered) = oneshot::channel();
        let sent = name.and_then(|()| {
            self.commands
                .send(command(answer))
                .map_err(|_| ListenError::Stopped)
        });
        Reply(sent.map(|()| answered))
    }
}

/// What comes of a command; it need not be waited for.
#[derive(Debug)]
pub struct Reply(Result<oneshot::Receiver<Result<(), ListenError>>, ListenError>);

impl Future for Reply {
    type Output = Result<(), ListenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(answered) => Pin::new(answered)
                .poll(cx)
                .map(|answer| answer.unwrap_or(Err(ListenError::Stopped))),
            Err(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({:?})", self.status())
    }
}

fn check_name(channel: &str) -> Result<(), ListenError> {
    match channel.len() {
        0 => Err(ListenError::Empty),
        _ if channel.contains('\0') => Err(ListenError::Nul),
        1..=MAX_NAME => Ok(()),
        length => Err(ListenError::TooLong(length)),
    }
}

struct Task {
    options: ListenerOptions,
    interest: Interest,
    sink: Sink,
    events: Events,
    counters: Arc<Counters>,
    commands: mpsc::UnboundedReceiver<Command>,
    channels: BTreeMap<String, Channel>,
    /// Channels to be brought in line at the next round trip.
    changed: BTreeSet<String>,
    canary: String,
    said_down: bool,
    was_up: bool,
}

#[derive(Default)]
struct Channel {
    wanted: bool,
    listening: bool,
    waiting: Vec<Answer>,
}

/// A connection, ready to listen.
struct Session {
    client: Arc<Client>,
    connection: tokio_postgres::Connection<Stream, NoTlsStream>,
}

/// Why the task leaves a connection.
enum Leave {
    Lost(String),
    NoHandles,
}

/// A round trip under way: for each channel whether it is to be listened to, and what came of it.
type RoundTrip =
    Pin<Box<dyn Future<Output = Vec<(String, bool, Result<(), tokio_postgres::Error>)>> + Send>>;

impl Task {
    async fn run(mut self) {
        let mut pause = self.options.first_pause;
        loop {
            let leave = match self.connect().await {
                Ok(session) => {
                    pause = self.options.first_pause;
                    self.serve(session).await
                }
                Err(leave) => leave,
            };
            match leave {
                Leave::NoHandles => return,
                Leave::Lost(reason) => self.down(reason),
            }
            // Many processes that lost the same server should not come back all at once.
            let jitter = 0.5 + rand::random::<f64>() / 2.0;
            let until = Instant::now() + pause.mul_f64(jitter);
            pause = (pause * 2).min(self.options.longest_pause);
            if self.commands_until(sleep_until(until)).await.is_none() {
                return;
            }
        }
    }

    fn down(&mut self, reason: String) {
        self.counters.connected.store(false, Relaxed);
        self.counters.channels.store(0, Relaxed);
        for (name, channel) in &mut self.channels {
            channel.listening = false;
            if channel.wanted {
                self.changed.insert(name.clone());
            }
        }
        if !self.said_down {
            self.said_down = true;
            (self.events)(Event::Down {
                reason,
                channels: self.channels.len(),
            });
        }
    }

    /// Takes commands while something else is awaited; none when all handles are gone.
    async fn commands_until<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                command = self.commands.recv() => {
                    self.take(command?);
                    self.settle_absent();
                }
            }
        }
    }

    /// Without a connection nothing is listened to, so what is not wanted is done with.
    fn settle_absent(&mut self) {
        self.channels.retain(|_, channel| {
            if !channel.wanted {
                channel
                    .waiting
                    .drain(..)
                    .for_each(|answer| drop(answer.send(Ok(()))));
            }
            channel.wanted
        });
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Listen(name, answer) => {
                let channel = self.channels.entry(name.clone()).or_default();
                channel.wanted = true;
                channel.waiting.push(answer);
                self.changed.insert(name);
            }
            Command::Unlisten(name, answer) => {
                let is_wanted = (self.interest)(&name);
                match self.channels.get_mut(&name).filter(|_| !is_wanted) {
                    Some(channel) => {
                        channel.wanted = false;
                        channel.waiting.push(answer);
                        self.changed.insert(name);
                    }
                    None => drop(answer.send(Ok(()))),
                }
            }
            Command::UnlistenAll(answer) => {
                for (name, channel) in &mut self.channels {
                    if channel.wanted && !(self.interest)(name) {
                        channel.wanted = false;
                        self.changed.insert(name.clone());
                    }
                }
                drop(answer.send(Ok(())));
            }
        }
    }

    async fn connect(&mut self) -> Result<Session, Leave> {
        let (servers, canary) = (self.options.servers.clone(), self.canary.clone());
        let connected = self.commands_until(async move { connect_any(&servers, &canary).await });
        match connected.await {
            None => Err(Leave::NoHandles),
            Some(Err(error)) => Err(Leave::Lost(error.to_string())),
            Some(Ok(session)) => Ok(session),
        }
    }

    /// Everything while a connection lasts.
    async fn serve(&mut self, session: Session) -> Leave {
        let Session {
            client,
            mut connection,
        } = session;
        let mut round_trip: Option<RoundTrip> = None;
        let mut flight = Flight::default();
        let mut next_canary = Instant::now();
        self.counters.connected.store(true, Relaxed);
        // Once all channels are listened to.
        let mut is_up = false;
        loop {
            if round_trip.is_none() {
                let batch = self.batch();
                if !batch.is_empty() {
                    round_trip = Some(carry_out(&client, batch));
                } else if !is_up {
                    is_up = true;
                    self.up();
                }
            }
            let canary_due = if flight.since.is_some() {
                flight.lost_at
            } else {
                next_canary
            };
            tokio::select! {
                biased;
                message = poll_fn(|cx| connection.poll_message(cx)) => match message {
                    Some(Ok(AsyncMessage::Notification(notification))) => self.deliver(&notification, &mut flight),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Leave::Lost(describe(&error)),
                    None => return Leave::Lost("server closed the connection".to_owned()),
                },
                done = async { match &mut round_trip { Some(trip) => trip.await, None => std::future::pending().await } } => {
                    round_trip = None;
                    if let Err(reason) = self.settle(done) {
                        return Leave::Lost(reason);
                    }
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => return Leave::NoHandles,
                },
                () = sleep_until(canary_due), if self.options.canary.is_some() && is_up => {
                    if flight.since.is_some() {
                        return Leave::Lost("deaf: the canary notification did not come back".to_owned());
                    }
                    let now = Instant::now();
                    flight.since = Some(now);
                    flight.number += 1;
                    flight.lost_at = now + self.options.canary_timeout;
                    next_canary = now + self.options.canary.unwrap_or_default();
                    round_trip = Some(fly(&client, &self.canary, flight.number, round_trip.take()));
                }
            }
        }
    }

    fn up(&mut self) {
        if self.was_up {
            self.counters.reconnects.fetch_add(1, Relaxed);
        }
        let channels = self
            .channels
            .values()
            .filter(|channel| channel.listening)
            .count();
        (self.events)(Event::Up {
            channels,
            again: self.was_up,
        });
        self.was_up = true;
        self.said_down = false;
    }

    fn deliver(&self, notification: &tokio_postgres::Notification, flight: &mut Flight) {
        if notification.channel() == self.canary {
            if let Some(since) = flight
                .since
                .take_if(|_| notification.payload() == flight.number.to_string())
            {
                let away = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.counters
                    .canary_microseconds
                    .store(away.max(1), Relaxed);
            }
            return;
        }
        self.counters.notifications.fetch_add(1, Relaxed);
        (self.sink)(Notification {
            channel: notification.channel().to_owned(),
            payload: notification.payload().to_owned(),
            pid: notification.process_id(),
        });
    }

    /// The changed channels that are not yet as they are wanted; the others have what they wait for.
    fn batch(&mut self) -> Vec<(String, bool)> {
        let mut batch = Vec::new();
        while let Some(name) = self.changed.pop_first() {
            let Some(channel) = self.channels.get_mut(&name) else {
                continue;
            };
            // Somebody may have subscribed since the UNLISTEN came.
            channel.wanted = channel.wanted || (self.interest)(&name);
            if channel.wanted != channel.listening {
                batch.push((name, channel.wanted));
                if batch.len() == BATCH {
                    break;
                }
                continue;
            }
            channel
                .waiting
                .drain(..)
                .for_each(|answer| drop(answer.send(Ok(()))));
            if !channel.wanted {
                self.channels.remove(&name);
            }
        }
        batch
    }

    /// Notes what came of a round trip; an error without an SQLSTATE is the connection's.
    fn settle(
        &mut self,
        done: Vec<(String, bool, Result<(), tokio_postgres::Error>)>,
    ) -> Result<(), String> {
        for (name, listening, result) in done {
            let Some(channel) = self.channels.get_mut(&name) else {
                // The canary's own.
                result.map_err(|error| describe(&error))?;
                continue;
            };
            match result {
                Ok(()) => {
                    channel.listening = listening;
                    // Once more through the batch, which answers if it is still what is wanted.
                    self.changed.insert(name);
                }
                Err(error) => {
                    let error = server_error(&error).ok_or_else(|| describe(&error))?;
                    if error.is_fatal() {
                        return Err(error.to_string());
                    }
                    for answer in channel.waiting.drain(..) {
                        drop(answer.send(Err(ListenError::Refused(Box::new(error.clone())))));
                    }
                    (self.events)(Event::Refused {
                        channel: name,
                        error,
                    });
                }
            }
        }
        let listening = self
            .channels
            .values()
            .filter(|channel| channel.listening)
            .count();
        self.counters.channels.store(listening, Relaxed);
        Ok(())
    }
}

/// The canary's journey.
struct Flight {
    number: u64,
    since: Option<Instant>,
    lost_at: Instant,
}

impl Default for Flight {
    fn default() -> Self {
        Self {
            number: 0,
            since: None,
            lost_at: Instant::now(),
        }
    }
}

/// Sends a batch as one string. If it is refused, each for itself, to learn which one it was.
fn carry_out(client: &Arc<Client>, batch: Vec<(String, bool)>) -> RoundTrip {
    let client = Arc::clone(client);
    Box::pin(async move {
        let all: Vec<String> = batch
            .iter()
            .map(|(name, listen)| statement(name, *listen))
            .collect();
        if client.batch_execute(&all.join(";")).await.is_ok() {
            return batch
                .into_iter()
                .map(|(name, listen)| (name, listen, Ok(())))
                .collect();
        }
        let mut results = Vec::with_capacity(batch.len());
        for ((name, listen), statement) in batch.into_iter().zip(all) {
            results.push((name, listen, client.batch_execute(&statement).await));
        }
        results
    })
}

/// Sends the canary beside whatever is under way.
fn fly(client: &Arc<Client>, canary: &str, number: u64, under_way: Option<RoundTrip>) -> RoundTrip {
    let client = Arc::clone(client);
    let name = canary.to_owned();
    let notify = format!(
        "NOTIFY {}, {}",
        quote_identifier(canary),
        quote_literal(&number.to_string())
    );
    Box::pin(async move {
        let other = async {
            match under_way {
                Some(trip) => trip.await,
                None => Vec::new(),
            }
        };
        let (sent, mut results) = tokio::join!(client.batch_execute(&notify), other);
        results.push((name, true, sent));
        results
    })
}

fn statement(channel: &str, listen: bool) -> String {
    format!(
        "{} {}",
        if listen { "LISTEN" } else { "UNLISTEN" },
        quote_identifier(channel)
    )
}

async fn connect_any(
    servers: &[Arc<ConnectOptions>],
    canary: &str,
) -> Result<Session, ConnectError> {
    let mut last = ConnectError::NoServers;
    for options in servers {
        let limit = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        for host in &options.hosts {
            let session = async {
                let session = connect_with(host, options, |stream| login(stream, options)).await?;
                hatch(session, canary).await
            };
            match timeout(limit, session).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => last = error,
                Err(_) => last = ConnectError::ConnectTimeout,
            }
        }
    }
    Err(last)
}

/// Listens to the canary's channel. A standby refuses that, so that the next host is tried.
async fn hatch(mut session: Session, canary: &str) -> Result<Session, ConnectError> {
    let listen = statement(canary, true);
    let client = Arc::clone(&session.client);
    let mut listening = std::pin::pin!(client.batch_execute(&listen));
    loop {
        tokio::select! {
            listened = &mut listening => {
                listened.map_err(login_error)?;
                return Ok(session);
            }
            message = poll_fn(|cx| session.connection.poll_message(cx)) => match message {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(login_error(error)),
                None => return Err(ConnectError::Authentication("server closed the connection".to_owned())),
            },
        }
    }
}

async fn login(stream: Stream, options: &ConnectOptions) -> Result<Session, ConnectError> {
    let mut config = tokio_postgres::Config::new();
    // The stream has agreed on TLS already.
    config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    config.application_name(&options.application_name);
    if let Some(user) = &options.user {
        config.user(user);
    }
    if let Some(password) = &options.password {
        config.password(password.reveal());
    }
    if let Some(dbname) = &options.dbname {
        config.dbname(dbname);
    }
    if let Some(more) = &options.options {
        config.options(more);
    }
    let (client, connection) = config
        .connect_raw(stream, NoTls)
        .await
        .map_err(login_error)?;
    Ok(Session {
        client: Arc::new(client),
        connection,
    })
}

fn login_error(error: tokio_postgres::Error) -> ConnectError {
    match server_error(&error) {
        Some(error) => ConnectError::Login(Box::new(error)),
        None => ConnectError::Authentication(describe(&error)),
    }
}

fn server_error(error: &tokio_postgres::Error) -> Option<ServerError> {
    let error = error.as_db_error()?;
    Some(ServerError {
        severity: error.severity().to_owned(),
        code: error.code().code().to_owned(),
        message: error.message().to_owned(),
        detail: error.detail().map(str::to_owned),
        hint: error.hint().map(str::to_owned),
        position: None,
    })
}

/// With its cause, which tokio-postgres leaves to the reader.
fn describe(error: &tokio_postgres::Error) -> String {
    match (server_error(error), std::error::Error::source(error)) {
        (Some(error), _) => error.to_string(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;

    use tokio::time::sleep;

    use super::*;
    use crate::pg::testing::{Cluster, on_worker};

    /// A listener with everything it says.
    struct Ear {
        listener: Listener,
        heard: Arc<Mutex<Vec<Notification>>>,
        events: Arc<Mutex<Vec<Event>>>,
        interest: Arc<Mutex<HashSet<String>>>,
    }

    impl Ear {
        fn new(options: ListenerOptions) -> Self {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let events = Arc::new(Mutex::new(Vec::new()));
            let interest = Arc::new(Mutex::new(HashSet::new()));
            let (to_heard, to_events, subscribed) = (
                Arc::clone(&heard),
                Arc::clone(&events),
                Arc::clone(&interest),
            );
            let (listener, task) = listener(
                options,
                Arc::new(move |name| subscribed.lock().unwrap().contains(name)),
                Arc::new(move |notification| to_heard.lock().unwrap().push(notification)),
                Arc::new(move |event| to_events.lock().unwrap().push(event)),
            );
            tokio::spawn(task);
            Self {
                listener,
                heard,
                events,
                interest,
            }
        }

        fn subscribe(&self, name: &str) -> Reply {
            self.interest.lock().unwrap().insert(name.to_owned());
            self.listener.listen(name)
        }

        fn leave(&self, name: &str) -> Reply {
            self.interest.lock().unwrap().remove(name);
            self.listener.unlisten(name)
        }

        /// Waits until so many were heard, and takes them.
        async fn hear(&self, count: usize) -> Vec<String> {
            until(|| self.heard.lock().unwrap().len() >= count).await;
            let heard = std::mem::take(&mut *self.heard.lock().unwrap());
            heard
                .into_iter()
                .map(|notification| format!("{}={}", notification.channel, notification.payload))
                .collect()
        }
    }

    async fn until(what: impl Fn() -> bool) {
        for _ in 0..1000 {
            if what() {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("it did not happen");
    }

    fn options(cluster: &Cluster) -> ListenerOptions {
        ListenerOptions::new(vec![cluster.options("")])
    }

    #[test]
    fn listens_and_unlistens() {
        let cluster = Cluster::start();
        on_worker(async {
            let ear = Ear::new(options(&cluster));
            let long = "k".repeat(63);
            let names = [
                "plain",
                "MixedCase",
                "a b",
                "a\"b",
                "a\\b",
                "o'hara",
                "канал",
                "select",
                "x\";--",
                &long,
            ];
            for name in names {
                ear.subscribe(name).await.unwrap();
                cluster.psql(
                    &format!("notify {}, 'it''s {name}'", quote_identifier(name))
                        .replace("s o'h", "s o''h"),
                );
                assert_eq!(ear.hear(1).await, [format!("{name}=it's {name}")]);
            }
            assert_eq!(ear.listener.listen("").await, Err(ListenError::Empty));
            assert_eq!(ear.listener.listen("a\0b").await, Err(ListenError::Nul));
            assert_eq!(
                ear.listener.listen(&"k".repeat(64)).await,
                Err(ListenError::TooLong(64))
            );

            for _ in 0..100 {
                cluster.psql("notify plain, 'same'; ");
            }
            cluster.psql("notify plain");
            let heard = ear.hear(101).await;
            assert!(heard[..100].iter().all(|text| text == "plain=same") && heard[100] == "plain=");

            // Somebody else is still there, so it stays listened to.
            ear.listener.unlisten("plain").await.unwrap();
            cluster.psql("notify plain, '1'");
            assert_eq!(ear.hear(1).await, ["plain=1"]);
            ear.leave("plain").await.unwrap();
            cluster.psql("notify plain, '2'; notify \"MixedCase\", '3'");
            assert_eq!(ear.hear(1).await, ["MixedCase=3"]);
            // A quick leave and return is in order, whoever waits for what.
            let replies = (ear.leave("MixedCase"), ear.subscribe("MixedCase"));
            assert_eq!((replies.0.await, replies.1.await), (Ok(()), Ok(())));
            cluster.psql("notify \"MixedCase\", '4'");
            assert_eq!(ear.hear(1).await, ["MixedCase=4"]);
            ear.interest.lock().unwrap().clear();
            ear.listener.unlisten_all().await.unwrap();
            until(|| ear.listener.status().channels == 0).await;
            let status = ear.listener.status();
            assert!(
                status.connected && status.notifications == 114 && status.reconnects == 0,
                "{status:?}"
            );
        });
    }

    #[test]
    fn many_channels_are_a_few_round_trips() {
        let cluster = Cluster::start();
        on_worker(async {
            let ear = Ear::new(options(&cluster));
            let began = Instant::now();
            let replies: Vec<Reply> = (0..3000)
                .map(|number| ear.subscribe(&format!("c{number}")))
                .collect();
            for reply in replies {
                reply.await.unwrap();
            }
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{:?}",
                began.elapsed()
            );
            assert_eq!(ear.listener.status().channels, 3000);
            cluster.psql("select pg_notify('c' || i, i::text) from generate_series(0, 2999) i");
            assert_eq!(ear.hear(3000).await.len(), 3000);
        });
    }

    #[test]
    fn comes_back_after_the_server_and_was_there_before_it() {
        let cluster = Cluster::stopped();
        on_worker(async {
            let ear = Ear::new(options(&cluster));
            let early = ear.subscribe("early");
            until(|| !ear.events.lock().unwrap().is_empty()).await;
            cluster.up();
            early.await.unwrap();
            ear.subscribe("late").await.unwrap();
            for round in 1..=2 {
                cluster.down();
                until(|| !ear.listener.status().connected).await;
                let waiting = ear.subscribe(&format!("while down {round}"));
                cluster.up();
                let back = Instant::now();
                waiting.await.unwrap();
                until(|| ear.listener.status().channels == 2 + round).await;
                assert!(
                    back.elapsed() < Duration::from_secs(2),
                    "{:?}",
                    back.elapsed()
                );
                cluster.psql("notify early, 'a'; notify late, 'b'");
                assert_eq!(ear.hear(2).await, ["early=a", "late=b"]);
            }
            until(|| ear.events.lock().unwrap().len() == 6).await;
            let events = ear.events.lock().unwrap();
            let shapes: Vec<String> = events
                .iter()
                .map(|event| match event {
                    Event::Down { channels, .. } => format!("down {channels}"),
                    Event::Up { channels, again } => format!("up {channels} {again}"),
                    Event::Refused { channel, error } => format!("refused {channel} {error}"),
                })
                .collect();
            assert_eq!(
                shapes,
                [
                    "down 1",
                    "up 1 false",
                    "down 2",
                    "up 3 true",
                    "down 3",
                    "up 4 true"
                ]
            );
            assert_eq!(ear.listener.status().reconnects, 2);
        });
    }

    #[test]
    fn a_deaf_connection_is_found() {
        let cluster = Cluster::start();
        on_worker(async {
            // A path that swallows everything the server says once it is told to.
            let silent = Arc::new(AtomicBool::new(false));
            let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = proxy.local_addr().unwrap().port();
            let (swallow, target) = (Arc::clone(&silent), cluster.port);
            tokio::spawn(async move {
                while let Ok((client, _)) = proxy.accept().await {
                    let swallow = Arc::clone(&swallow);
                    tokio::spawn(async move { forward(client, target, &swallow).await });
                }
            });
            let mut options = ListenerOptions::new(vec![cluster.options(&format!("port={port}"))]);
            options.canary = Some(Duration::from_millis(100));
            options.canary_timeout = Duration::from_millis(300);
            let ear = Ear::new(options);
            ear.subscribe("c").await.unwrap();
            until(|| ear.listener.status().canary_round_trip.is_some()).await;
            silent.store(true, Relaxed);
            until(|| !ear.listener.status().connected).await;
            silent.store(false, Relaxed);
            until(|| ear.listener.status().channels == 1).await;
            cluster.psql("notify c, 'x'");
            assert_eq!(ear.hear(1).await, ["c=x"]);
            assert_eq!(ear.listener.status().reconnects, 1);
        });
    }

    async fn forward(client: tokio::net::TcpStream, port: u16, swallow: &AtomicBool) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let server = tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let up = tokio::io::copy(&mut from_client, &mut to_server);
        let down = async {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                if !swallow.load(Relaxed) && to_client.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! { _ = up => {} () = down => {} }
    }

    #[test]
    fn a_wrong_password_is_said_once() {
        let cluster = Cluster::start();
        on_worker(async {
            let ear = Ear::new(ListenerOptions::new(vec![
                cluster.options("password=wrong"),
            ]));
            until(|| !ear.events.lock().unwrap().is_empty()).await;
            sleep(Duration::from_millis(300)).await;
            let events = ear.events.lock().unwrap();
            let [Event::Down { reason, .. }] = &events[..] else {
                panic!("{events:?}")
            };
            assert!(
                reason.contains("password authentication failed"),
                "{reason}"
            );
        });
    }
}
