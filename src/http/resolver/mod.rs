//! Names that are looked up while the server runs: `resolver`, `resolver_timeout`.
//!
//! A [`Resolver`] belongs to the configuration and is shared by the workers, with all that it remembers.

mod exchange;
mod message;
mod settings;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use settings::{Resolving, Servers};

use crate::server::clock::{self, Moment};
use crate::server::live::log;
use crate::server::log::Level;
use crate::server::sockets::reason;
pub use message::Service;
use message::{Answer, Kind, Question, Reading};

/// The name servers of a `resolver`, and what they have said.
#[derive(Debug)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    /// For how long answers hold, whatever they say themselves.
    valid: Option<Duration>,
    kinds: Vec<Kind>,
    turn: AtomicUsize,
    /// The lock of a name is held while it is asked for, so that all who want it wait for one answer.
    names: Mutex<HashMap<Box<str>, Arc<Known>>>,
}

type Known = tokio::sync::Mutex<Option<Found>>;

/// The addresses of a name.
#[derive(Clone, Debug)]
pub struct Found {
    /// At least one; those of IPv4 first.
    pub addresses: Arc<[IpAddr]>,
    /// Until when this holds.
    pub until: Moment,
}

/// Who has a service.
#[derive(Clone, Debug)]
pub struct FoundServices {
    /// At least one.
    pub services: Vec<Service>,
    /// Until when this holds.
    pub until: Moment,
}

/// Why a name has no addresses: the code of DNS, or 110 for silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure(pub u16);

impl Failure {
    /// There is no such name.
    pub const NOT_FOUND: Self = Self(3);
    const SILENCE: Self = Self(110);
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0 {
            1 => "Format error",
            2 => "Server failure",
            3 => "Host not found",
            4 => "Unimplemented",
            5 => "Operation refused",
            110 => "Operation timed out",
            _ => "Unknown error",
        };
        write!(f, "{}: {words}", self.0)
    }
}

/// How many names are remembered.
const MAX_NAMES: usize = 4096;

/// How long one server may take before the next is asked; nginx's own.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause after a round in which no server could be reached.
const PAUSE: Duration = Duration::from_secs(1);

/// How many names lead from one to the next, each asked for anew.
const MAX_ALIASES: usize = 8;

impl Resolver {
    /// Looks a name up.
    pub async fn resolve(&self, name: &str, timeout: Duration) -> Result<Found, Failure> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let known = self.known(&name);
        let asking = async {
            let mut known = known.lock().await;
            match &*known {
                Some(found) if found.until > clock::now() => Ok(found.clone()),
                _ => {
                    *known = None;
                    let found = self.ask(name).await?;
                    Ok(known.insert(found).clone())
                }
            }
        };
        clock::timeout(timeout, asking).await.unwrap_or(Err(Failure::SILENCE))
    }

    /// Asks who has a service, by the name of its SRV records. The answer is not remembered: the caller follows it.
    pub async fn services(&self, name: &str, timeout: Duration) -> Result<FoundServices, Failure> {
        let mut name = name.to_ascii_lowercase();
        let asking = async {
            let mut ttl = u32::MAX;
            for _ in 0..MAX_ALIASES {
                let answer = self.ask_servers(&name, &[Kind::Srv]).await?;
                ttl = ttl.min(answer.ttl);
                if !answer.services.is_empty() {
                    return Ok(FoundServices { services: answer.services, until: self.holds(ttl) });
                }
                match answer.alias {
                    Some(alias) => name = alias,
                    None => break,
                }
            }
            Err(Failure::NOT_FOUND)
        };
        clock::timeout(timeout, asking).await.unwrap_or(Err(Failure::SILENCE))
    }

    /// Until when an answer holds.
    fn holds(&self, ttl: u32) -> Moment {
        clock::now().after(self.valid.unwrap_or_else(|| Duration::from_secs(ttl.into())))
    }

    fn known(&self, name: &str) -> Arc<Known> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Arc::clone(known);
        }
        if names.len() >= MAX_NAMES {
            let now = clock::now();
            names.retain(|_, known| match known.try_lock() {
                Ok(found) => found.as_ref().is_some_and(|found| found.until > now),
                Err(_) => true,
            });
            if names.len() >= MAX_NAMES {
                names.clear();
            }
        }
        Arc::clone(names.entry(name.into()).or_default())
    }

    async fn ask(&self, mut name: String) -> Result<Found, Failure> {
        let mut ttl = u32::MAX;
        for _ in 0..MAX_ALIASES {
            let answer = self.ask_servers(&name, &self.kinds).await?;
            ttl = ttl.min(answer.ttl);
            if !answer.addresses.is_empty() {
                return Ok(Found { addresses: answer.addresses.into(), until: self.holds(ttl) });
            }
            match answer.alias {
                Some(alias) => name = alias,
                None => break,
            }
        }
        Err(Failure::NOT_FOUND)
    }

    /// Asks one server after the other until one answers; the caller has the patience.
    async fn ask_servers(&self, name: &str, kinds: &[Kind]) -> Result<Answer, Failure> {
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        for round in 1_usize.. {
            let server = self.servers[(start + round) % self.servers.len()];
            let is_last = round % self.servers.len() == 0;
            let questions = kinds.iter().map(|kind| {
                let question = Question { id: rand::random(), name, kind: *kind };
                let message = question.message()?;
                Some((question, message))
            });
            let questions: Vec<_> = questions.collect::<Option<_>>().ok_or(Failure::NOT_FOUND)?;
            match clock::timeout(PATIENCE, exchange::ask(server, &questions)).await {
                Some(Ok(readings)) => match join(readings) {
                    Err(failure) if failure != Failure::NOT_FOUND && round < self.servers.len() => {}
                    joined => return joined,
                },
                Some(Err(error)) => {
                    let message = format!("recv() failed ({}) while resolving, resolver: {server}", reason(&error));
                    log(Level::Error, &message);
                    if is_last {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                None => {}
            }
        }
        Err(Failure::SILENCE)
    }
}

/// Puts together what was said of both kinds: addresses of one are enough.
fn join(mut readings: Vec<(Kind, Reading)>) -> Result<Answer, Failure> {
    readings.sort_by_key(|(kind, _)| *kind == Kind::Aaaa);
    let mut all: Option<Answer> = None;
    let mut failure = None;
    for (_, reading) in readings {
        match (reading, &mut all) {
            (Reading::Answer(answer), Some(all)) => {
                if !answer.addresses.is_empty() {
                    all.ttl = all.ttl.min(answer.ttl);
                }
                all.addresses.extend(answer.addresses);
                all.alias = all.alias.take().or(answer.alias);
            }
            (Reading::Answer(answer), None) => all = Some(answer),
            (Reading::Failed(code), _) => {
                failure.get_or_insert_with(|| Failure(code.into()));
            }
            (Reading::Foreign | Reading::Cut, _) => {}
        }
    }
    match all {
        Some(all) if !all.addresses.is_empty() || !all.services.is_empty() || all.alias.is_some() => Ok(all),
        _ => Err(failure.unwrap_or(Failure::NOT_FOUND)),
    }
}
