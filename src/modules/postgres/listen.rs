//! LISTEN and NOTIFY: one listener for each upstream, whatever the number of workers and channels.
//!
//! All of them live on a thread of their own. What PostgreSQL passes on is published to the channel of the same name.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::pass::{Passing, To};
use super::query::Queries;
use super::server::Servers;
use crate::compile::Compiled;
use crate::config::Settings;
use crate::http::wire::escape::{Unescape, unescape};
use crate::hub::PublishOptions;
use crate::hub::limits::Refused;
use crate::hub::message::Draft;
use crate::pg::conninfo::Grammar;
use crate::pg::journal::Journal;
use crate::pg::listener::{Event, Listener, Notification, listener};
use crate::server::live::Live;
use crate::server::log::Level;
use crate::server::{clock, worker};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The listeners of the process, by upstream, and the door to their thread.
static LISTENERS: Mutex<Option<Listeners>> = Mutex::new(None);

struct Listeners {
    live: &'static Live,
    tasks: UnboundedSender<Task>,
    by_upstream: HashMap<String, (Arc<Servers>, Listener)>,
}

/// Starts the listeners that a configuration needs, and lets those go that it does not.
pub(super) fn apply(compiled: &Compiled, live: &'static Live) {
    let needed = needed(compiled);
    let mut listeners = lock();
    if listeners.is_none() && !needed.is_empty() {
        *listeners = match Listeners::start(live) {
            Ok(started) => Some(started),
            Err(error) => {
                live.log(Level::Emerg, &format!("the thread that listens to PostgreSQL could not be started: {error}"));
                None
            }
        };
    }
    if let Some(listeners) = listeners.as_mut() {
        listeners.by_upstream.retain(|name, _| needed.iter().any(|servers| servers.name == *name));
        for servers in &needed {
            listeners.of(servers);
        }
    }
}

/// The listener of an upstream.
pub(super) fn of(servers: &Arc<Servers>) -> Option<Listener> {
    let live = Live::get()?;
    let mut listeners = lock();
    if listeners.is_none() {
        *listeners = Listeners::start(live).ok();
    }
    Some(listeners.as_mut()?.of(servers))
}

/// The name to listen to, for one that a statement gives.
///
/// push_stream decodes the `%XX` in the path of its channels, a variable such as `$arg_id` keeps them. So a browser, which
/// must escape `канал`, subscribes to that channel and lets PostgreSQL listen to `%D0%BA…`.
// Differs from nginx: there such a client never gets a notification; here it is the channel's name that is listened to.
pub(super) fn channel_name(name: String) -> String {
    let decoded = unescape(name.as_bytes(), Unescape::All);
    let Some(live) = Live::get().filter(|_| *decoded != *name.as_bytes()) else { return name };
    let now = clock::unix_time().as_secs();
    let exists = |id: &[u8]| live.hub.statistics(id, now).is_some();
    match std::str::from_utf8(&decoded) {
        Ok(decoded) if exists(decoded.as_bytes()) && !exists(name.as_bytes()) => decoded.to_owned(),
        _ => name,
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Listeners>> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The upstreams that locations with a LISTEN pass to, as far as the configuration names them.
fn needed(compiled: &Compiled) -> Vec<Arc<Servers>> {
    let mut needed: Vec<Arc<Servers>> = Vec::new();
    for settings in &compiled.config.settings {
        let Some(servers) = listened(compiled, settings) else { continue };
        if !needed.iter().any(|known| known.name == servers.name) {
            needed.push(servers);
        }
    }
    needed
}

fn listened(compiled: &Compiled, settings: &Settings) -> Option<Arc<Servers>> {
    if !settings.get::<Queries>().queries.iter().any(|query| query.sql.is_listen()) {
        return None;
    }
    match settings.get::<Passing>().to.as_ref()? {
        To::Direct(servers) => Some(Arc::clone(servers)),
        To::Name(_, name) => super::pass::upstream(compiled, name).map(Arc::clone),
    }
}

impl Listeners {
    /// Starts their thread.
    fn start(live: &'static Live) -> io::Result<Self> {
        let (tasks, orders) = mpsc::unbounded_channel();
        thread::Builder::new().name("postgres".to_owned()).spawn(move || {
            if let Err(error) = run(live, orders) {
                live.log(Level::Emerg, &format!("the thread that listens to PostgreSQL ended: {error}"));
            }
        })?;
        Ok(Self { live, tasks, by_upstream: HashMap::new() })
    }

    fn of(&mut self, servers: &Arc<Servers>) -> Listener {
        if let Some((known, listener)) = self.by_upstream.get(&servers.name)
            && **known == **servers
        {
            return listener.clone();
        }
        let live = self.live;
        let (name, store) = (servers.label(), servers.grammar == Grammar::Libpq);
        let was_up = AtomicBool::new(false);
        let journal = servers.journal();
        let (handle, task) = listener(
            servers.listener_options(),
            Arc::new(move |channel| has_subscribers(live, channel)),
            Arc::new(move |notification| publish(live, notification, store)),
            Arc::new(move |event| say(live, &journal, &name, &was_up, &event)),
        );
        self.run(task);
        let before = self.by_upstream.insert(servers.name.clone(), (Arc::clone(servers), handle.clone()));
        if let Some((_, before)) = before {
            // The upstream was changed by a reload: its clients stay, and so do their channels.
            let handle = handle.clone();
            self.run(async move {
                for channel in before.channels().await {
                    drop(handle.listen(&channel));
                }
            });
        }
        handle
    }

    fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        // The thread ends with the process only.
        drop(self.tasks.send(Box::pin(task)));
    }
}

fn run(live: &'static Live, mut tasks: UnboundedReceiver<Task>) -> io::Result<()> {
    worker::become_user(live)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        while let Some(task) = tasks.recv().await {
            tokio::spawn(task);
        }
    });
    Ok(())
}

fn has_subscribers(live: &Live, channel: &str) -> bool {
    let channel = live.hub.statistics(channel.as_bytes(), clock::unix_time().as_secs());
    channel.is_some_and(|channel| channel.subscribers > 0)
}

/// Today's module stores what is notified; the one of 2018 only passes it on.
fn publish(live: &Live, notification: Notification, store: bool) {
    let options = PublishOptions { store, create: false };
    let draft = Draft::text(notification.payload);
    let published = live.hub.publish(notification.channel.as_bytes(), draft, clock::unix_time().as_secs(), options);
    match published {
        // Its clients have just left.
        Ok(_) | Err(Refused::NoSuchChannel) => {}
        Err(refused) => {
            let channel = notification.channel.escape_default();
            live.log(
                Level::Error,
                &format!("postgres: a notification of \"{channel}\" was not published: {refused:?}"),
            );
        }
    }
}

fn say(live: &Live, journal: &Journal, upstream: &str, was_up: &AtomicBool, event: &Event) {
    let channels = |count: &usize| if *count == 1 { "1 channel".to_owned() } else { format!("{count} channels") };
    let (level, message) = match event {
        Event::Down { reason, channels: count } if was_up.load(Ordering::Relaxed) => {
            let deaf = channels(count);
            (
                Level::Error,
                format!("postgres: connection to upstream \"{upstream}\" lost, {deaf} not listened to: {reason}"),
            )
        }
        Event::Down { reason, .. } => {
            (Level::Error, format!("postgres: upstream \"{upstream}\" can't be listened to yet: {reason}"))
        }
        Event::Up { channels: count, again: true } => {
            (Level::Notice, format!("postgres: listening again to {} of upstream \"{upstream}\"", channels(count)))
        }
        Event::Up { again: false, .. } => (Level::Notice, format!("postgres: listening for upstream \"{upstream}\"")),
        Event::Pooled { by_transaction: true } => (
            Level::Error,
            format!(
                "postgres: upstream \"{upstream}\" is a pooler that lends servers for a transaction: notifications will be \
                 lost; name PostgreSQL itself, or let the pooler lend for a session (pool_mode=session)"
            ),
        ),
        Event::Pooled { by_transaction: false } => (
            Level::Notice,
            format!("postgres: upstream \"{upstream}\" is a pooler: the listener keeps one of its servers for itself"),
        ),
        Event::Refused { channel, error } => {
            let (channel, code) = (channel.escape_default(), &error.code);
            (Level::Error, format!("postgres: LISTEN \"{channel}\" failed: {error} (SQLSTATE {code})"))
        }
    };
    if matches!(event, Event::Up { .. }) {
        was_up.store(true, Ordering::Relaxed);
    }
    let message = super::failure::one_line(&message);
    match &journal.log {
        Some(log) => log.say(level, &message),
        None => live.log(level, &message),
    }
}
