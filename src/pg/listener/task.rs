//! The task behind the handles: what is wanted, what is listened to, and the round trips in between.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::{AsyncMessage, Client};

use super::connect::{Session, connect_any, describe, look, server_error, statement};
use super::{Answer, Command, Counters, Event, Events, Interest, ListenError, ListenerOptions, Notification, Sink};
use crate::pg::pooler::Between;
use crate::pg::sql::{quote_identifier, quote_literal};
use crate::server::clock;

/// So many notifications are passed on in one go.
const BURST: usize = 256;

/// So many commands go in one round trip; a string of them is one transaction.
const BATCH: usize = 500;

pub(super) struct Task {
    pub(super) options: ListenerOptions,
    pub(super) interest: Interest,
    pub(super) sink: Sink,
    pub(super) events: Events,
    pub(super) counters: Arc<Counters>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) channels: BTreeMap<String, Channel>,
    /// Channels to be brought in line at the next round trip.
    pub(super) changed: BTreeSet<String>,
    pub(super) canary: String,
    pub(super) said_down: bool,
    pub(super) was_up: bool,
}

#[derive(Default)]
pub(super) struct Channel {
    wanted: bool,
    listening: bool,
    waiting: Vec<Answer>,
}

/// Why the task leaves a connection.
enum Leave {
    Lost(String),
    NoHandles,
}

/// A round trip under way: for each channel whether it is to be listened to, and what came of it.
type RoundTrip = Pin<Box<dyn Future<Output = Vec<(String, bool, Result<(), tokio_postgres::Error>)>> + Send>>;

impl Task {
    pub(super) async fn run(mut self) {
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
            let until = clock::instant() + pause.mul_f64(jitter);
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
            (self.events)(Event::Down { reason, channels: self.channels.len() });
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
                channel.waiting.drain(..).for_each(|answer| drop(answer.send(Ok(()))));
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
            Command::Channels(answer) => {
                let wanted = self.channels.iter().filter(|(_, channel)| channel.wanted);
                let wanted = wanted.map(|(name, _)| name.clone()).collect();
                // Who asked may have gone.
                drop(answer.send(wanted));
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
        let Session { server, client, mut connection } = session;
        // Beside the work: clients wait for their channels to be listened to.
        let mut looking = (!self.was_up).then(|| Box::pin(look(server)));
        let mut round_trip: Option<RoundTrip> = None;
        let mut flight = Flight::default();
        let mut next_canary = clock::instant();
        self.counters.connected.store(true, Relaxed);
        // Once all channels are listened to.
        let mut is_up = false;
        let mut burst = 0_usize;
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
            let canary_due = if flight.since.is_some() { flight.lost_at } else { next_canary };
            tokio::select! {
                message = poll_fn(|cx| connection.poll_message(cx)) => match message {
                    Some(Ok(AsyncMessage::Notification(notification))) => {
                        self.deliver(&notification, &mut flight);
                        burst += 1;
                        // In a storm the others on this thread want their turn too.
                        if burst.is_multiple_of(BURST) {
                            tokio::task::yield_now().await;
                        }
                    }
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
                between = async { match &mut looking { Some(look) => look.await, None => std::future::pending().await } } => {
                    looking = None;
                    if between != Between::Nothing {
                        (self.events)(Event::Pooled { by_transaction: between == Between::TransactionPooler });
                    }
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => return Leave::NoHandles,
                },
                () = sleep_until(canary_due), if self.options.canary.is_some() => {
                    if flight.since.is_some() {
                        return Leave::Lost("deaf: the canary notification did not come back".to_owned());
                    }
                    let now = clock::instant();
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
        let channels = self.channels.values().filter(|channel| channel.listening).count();
        (self.events)(Event::Up { channels, again: self.was_up });
        self.was_up = true;
        self.said_down = false;
    }

    fn deliver(&self, notification: &tokio_postgres::Notification, flight: &mut Flight) {
        if notification.channel() == self.canary {
            if let Some(since) = flight.since.take_if(|_| notification.payload() == flight.number.to_string()) {
                let away = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.counters.canary_microseconds.store(away.max(1), Relaxed);
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
            channel.waiting.drain(..).for_each(|answer| drop(answer.send(Ok(()))));
            if !channel.wanted {
                self.channels.remove(&name);
            }
        }
        batch
    }

    /// Notes what came of a round trip; an error without an SQLSTATE is the connection's.
    fn settle(&mut self, done: Vec<(String, bool, Result<(), tokio_postgres::Error>)>) -> Result<(), String> {
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
                    (self.events)(Event::Refused { channel: name, error });
                }
            }
        }
        let listening = self.channels.values().filter(|channel| channel.listening).count();
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
        Self { number: 0, since: None, lost_at: clock::instant() }
    }
}

/// Sends a batch as one string. If it is refused, each for itself, to learn which one it was.
fn carry_out(client: &Arc<Client>, batch: Vec<(String, bool)>) -> RoundTrip {
    let client = Arc::clone(client);
    Box::pin(async move {
        let all: Vec<String> = batch.iter().map(|(name, listen)| statement(name, *listen)).collect();
        if client.batch_execute(&all.join(";")).await.is_ok() {
            return batch.into_iter().map(|(name, listen)| (name, listen, Ok(()))).collect();
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
    let notify = format!("NOTIFY {}, {}", quote_identifier(canary), quote_literal(&number.to_string()));
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
