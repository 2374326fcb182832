//! What all threads share: the configuration that holds now, the hub, and whether the process is going.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use std::time::Duration;

use arc_swap::ArcSwap;

use super::clock::{self, Moment};
use super::log::{Level, LogSettings};
use crate::compile::Compiled;
use crate::hub::Hub;
use crate::hub::limits::Limits;

/// The process's shared state.
#[derive(Debug)]
pub struct Live {
    compiled: ArcSwap<Compiled>,
    /// The channels.
    pub hub: Arc<Hub>,
    /// When the process started.
    pub started: Moment,
    is_closing: AtomicBool,
    farewell_millis: AtomicU64,
    connections: AtomicU64,
}

static LIVE: OnceLock<Live> = OnceLock::new();

impl Live {
    /// Makes a configuration the first that holds.
    pub(super) fn start(compiled: Arc<Compiled>) -> &'static Self {
        LIVE.get_or_init(|| Self {
            compiled: ArcSwap::new(compiled),
            hub: Arc::new(Hub::new(Limits::default())),
            started: clock::now(),
            is_closing: AtomicBool::new(false),
            farewell_millis: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        })
    }

    /// The state, once the server has started.
    pub fn get() -> Option<&'static Self> {
        LIVE.get()
    }

    /// The configuration that holds for new requests.
    pub fn compiled(&self) -> Arc<Compiled> {
        self.compiled.load_full()
    }

    pub(super) fn replace(&self, compiled: Arc<Compiled>) {
        self.compiled.store(compiled);
    }

    /// Whether the process was told to quit.
    pub fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// Over which time the subscribers are told to go when the process quits.
    pub fn farewell_time(&self) -> Duration {
        Duration::from_millis(self.farewell_millis.load(Ordering::Relaxed))
    }

    /// Sets it.
    pub fn set_farewell_time(&self, time: Duration) {
        self.farewell_millis.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The number of the next connection.
    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Writes to the process's own error log.
    pub fn log(&self, level: Level, message: &str) {
        self.compiled.load().config.main().get::<LogSettings>().say(level, message);
    }
}

/// Writes to the process's own error log, or nowhere before there is one.
pub fn log(level: Level, message: &str) {
    if let Some(live) = Live::get() {
        live.log(level, message);
    }
}
