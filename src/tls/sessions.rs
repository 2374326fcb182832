//! Sessions that a client takes up again: tickets that it keeps for us, and zones that all workers share.
//!
//! A session belongs to a *context*: the certificates, and whom a client's certificate must come from. It can't be taken up
//! under another one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::{ProducesTickets, StoresServerSessions};
use sha2::{Digest, Sha256};

use crate::server::clock;

/// What a session is bound to: a digest.
pub type Context = [u8; 32];

/// A session is about so long in a zone.
const SESSION_SIZE: usize = 256;

/// How a key in a ticket's front is told from others.
const KEY_NAME: usize = 16;

/// Tickets of one context.
#[derive(Debug)]
pub struct Tickets {
    context: Context,
    timeout: u32,
    /// The first seals, all open; without any, the process has keys of its own that change with time.
    keys: Arc<Vec<TicketKey>>,
}

/// A key from a file that several servers may share.
pub struct TicketKey {
    name: [u8; KEY_NAME],
    key: LessSafeKey,
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKey")
    }
}

impl TicketKey {
    /// Makes a key of a file's content, which is random.
    pub fn new(content: &[u8]) -> Option<Self> {
        let digest = |label: &[u8]| Sha256::new().chain_update(label).chain_update(content).finalize();
        let key = UnboundKey::new(&AES_256_GCM, &digest(b"pushgate ticket key")).ok()?;
        let name = digest(b"pushgate ticket name");
        Some(Self { name: name[..KEY_NAME].try_into().ok()?, key: LessSafeKey::new(key) })
    }

    fn seal(&self, mut plain: Vec<u8>) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(self.name), &mut plain)
            .ok()?;
        Some([&self.name[..], &nonce, &plain].concat())
    }

    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.strip_prefix(&self.name)?.split_at_checked(NONCE_LEN)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = self.key.open_in_place(nonce, Aad::from(self.name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

/// The process's own keys for tickets; a reload keeps them.
fn own_keys() -> Option<&'static Arc<dyn ProducesTickets>> {
    static KEYS: LazyLock<Option<Arc<dyn ProducesTickets>>> =
        LazyLock::new(|| rustls::crypto::aws_lc_rs::Ticketer::new().ok());
    KEYS.as_ref()
}

impl Tickets {
    /// Tickets for a context that hold for so many seconds.
    pub fn new(context: Context, timeout: u64, keys: Arc<Vec<TicketKey>>) -> Arc<Self> {
        // TLS 1.3 has a week as the longest.
        let timeout = u32::try_from(timeout.min(7 * 24 * 3600)).unwrap_or(u32::MAX);
        Arc::new(Self { context, timeout, keys })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.keys.is_empty() || own_keys().is_some()
    }

    fn lifetime(&self) -> u32 {
        self.timeout
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let ends = clock::unix_time().as_secs() + u64::from(self.timeout);
        let bound = [&self.context[..], &ends.to_be_bytes(), plain].concat();
        match self.keys.first() {
            Some(key) => key.seal(bound),
            None => own_keys()?.encrypt(&bound),
        }
    }

    fn decrypt(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let bound = match self.keys.is_empty() {
            false => self.keys.iter().find_map(|key| key.open(sealed))?,
            true => own_keys()?.decrypt(sealed)?,
        };
        let rest = bound.strip_prefix(&self.context)?;
        let (ends, plain) = rest.split_at_checked(8)?;
        let ends = u64::from_be_bytes(ends.try_into().ok()?);
        (clock::unix_time().as_secs() < ends).then(|| plain.to_vec())
    }
}

/// A zone of sessions that the server keeps.
#[derive(Debug, Default)]
pub struct Zone(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    sessions: HashMap<Vec<u8>, (u64, Vec<u8>)>,
    /// The oldest first.
    order: VecDeque<Vec<u8>>,
    max: usize,
}

impl Zone {
    /// The zone of a name, which a reload finds again.
    pub fn named(name: &str, size: u64) -> Arc<Self> {
        static ZONES: LazyLock<Mutex<HashMap<String, Arc<Zone>>>> = LazyLock::new(Mutex::default);
        let mut zones = ZONES.lock().unwrap_or_else(PoisonError::into_inner);
        let zone = Arc::clone(zones.entry(name.to_owned()).or_default());
        zone.kept().max = usize::try_from(size).unwrap_or(usize::MAX) / SESSION_SIZE;
        zone
    }

    /// Keeps something until a time, seconds since 1970. The oldest go when there is no more room.
    pub fn keep(&self, key: Vec<u8>, ends: u64, value: Vec<u8>) {
        let mut kept = self.kept();
        while kept.order.len() >= kept.max.max(1) {
            let Some(oldest) = kept.order.pop_front() else { break };
            kept.sessions.remove(&oldest);
        }
        if kept.sessions.insert(key.clone(), (ends, value)).is_none() {
            kept.order.push_back(key);
        }
    }

    /// What is kept under a key and still holds.
    pub fn find(&self, key: &[u8]) -> Option<Vec<u8>> {
        let kept = self.kept();
        let (ends, value) = kept.sessions.get(key)?;
        (clock::unix_time().as_secs() < *ends).then(|| value.clone())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A context's part of a zone.
#[derive(Debug)]
pub struct Sessions {
    context: Context,
    timeout: u64,
    zone: Arc<Zone>,
}

impl Sessions {
    /// Keeps sessions of a context for so many seconds.
    pub fn new(context: Context, timeout: u64, zone: Arc<Zone>) -> Arc<Self> {
        Arc::new(Self { context, timeout, zone })
    }

    fn key(&self, id: &[u8]) -> Vec<u8> {
        [&self.context[..], id].concat()
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        self.zone.keep(self.key(&id), clock::unix_time().as_secs() + self.timeout, session);
        true
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.zone.find(&self.key(id))
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        // Its place in the order stays until its turn comes, which bounds both.
        let (ends, session) = self.zone.kept().sessions.remove(&self.key(id))?;
        (clock::unix_time().as_secs() < ends).then_some(session)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_holds_in_its_context_alone() {
        for keys in [vec![], vec![TicketKey::new(&[7; 80]).expect("a key")]] {
            let keys = Arc::new(keys);
            let tickets = Tickets::new([1; 32], 300, Arc::clone(&keys));
            let sealed = tickets.encrypt(b"session").expect("sealed");
            assert_eq!(tickets.decrypt(&sealed).as_deref(), Some(&b"session"[..]));
            assert_eq!(Tickets::new([2; 32], 300, Arc::clone(&keys)).decrypt(&sealed), None);
            let mut broken = sealed;
            *broken.last_mut().expect("not empty") ^= 1;
            assert_eq!(tickets.decrypt(&broken), None);
            let late = Tickets::new([1; 32], 0, keys);
            assert_eq!(late.decrypt(&late.encrypt(b"session").expect("sealed")), None);
        }
    }

    #[test]
    fn a_zone_is_bounded() {
        let zone = Zone::named("a_zone_is_bounded", 2 * SESSION_SIZE as u64);
        let sessions = Sessions::new([1; 32], 300, Arc::clone(&zone));
        for id in [b"a", b"b", b"c"] {
            assert!(sessions.put(id.to_vec(), id.to_vec()));
        }
        assert_eq!((sessions.get(b"a"), sessions.get(b"c")), (None, Some(b"c".to_vec())));
        assert_eq!((sessions.take(b"b"), sessions.take(b"b")), (Some(b"b".to_vec()), None));
        assert_eq!(Sessions::new([2; 32], 300, zone).get(b"c"), None);
    }
}
