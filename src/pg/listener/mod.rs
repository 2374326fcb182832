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

mod connect;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use self::task::Task;
use super::conninfo::ConnectOptions;
use super::error::ServerError;
use super::sql::MAX_NAME;
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
    /// There is a pooler in between: said at the start.
    Pooled {
        /// Whether it lends servers for a transaction, so that notifications are lost.
        by_transaction: bool,
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
    Channels(oneshot::Sender<Vec<String>>),
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
        self.command(check_name(channel), |answer| Command::Listen(channel.to_owned(), answer))
    }

    /// Stops listening to a channel, if nobody is subscribed to it.
    pub fn unlisten(&self, channel: &str) -> Reply {
        self.command(check_name(channel), |answer| Command::Unlisten(channel.to_owned(), answer))
    }

    /// Stops listening to all channels that nobody is subscribed to.
    pub fn unlisten_all(&self) -> Reply {
        self.command(Ok(()), Command::UnlistenAll)
    }

    /// The channels that are wanted: for a listener that takes this one's place.
    pub async fn channels(&self) -> Vec<String> {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Command::Channels(answer)).is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
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

    fn command(&self, name: Result<(), ListenError>, command: impl FnOnce(Answer) -> Command) -> Reply {
        let (answer, answered) = oneshot::channel();
        let sent = name.and_then(|()| self.commands.send(command(answer)).map_err(|_| ListenError::Stopped));
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
            Ok(answered) => Pin::new(answered).poll(cx).map(|answer| answer.unwrap_or(Err(ListenError::Stopped))),
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

#[cfg(test)]
mod tests;
