//! `ssl_certificate_cache` and `proxy_ssl_certificate_cache`: certificates whose names have variables are kept for the next handshake.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::server::clock::{self, Moment};

/// How many are kept, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// At most so many; where there are more, the one goes that was not used for longest.
    pub max: usize,
    /// One that was not used for so long goes.
    pub inactive: Duration,
    /// After so long it is read anew.
    pub valid: Duration,
}

/// What is kept, by the names of certificates and keys; all workers share it.
#[derive(Debug)]
pub(in crate::http) struct Cache<N, C> {
    bounds: Bounds,
    kept: Mutex<HashMap<N, Kept<C>>>,
}

#[derive(Debug)]
struct Kept<C> {
    config: Arc<C>,
    read: Moment,
    used: Moment,
}

impl<N: Eq + Hash + Clone, C> Cache<N, C> {
    /// An empty one.
    pub(in crate::http) fn new(bounds: Bounds) -> Self {
        Self { bounds, kept: Mutex::new(HashMap::new()) }
    }

    /// What is kept for some names, or else is loaded now. A failure is not kept.
    pub(in crate::http) fn get(
        &self,
        names: N,
        load: impl FnOnce(&N) -> Result<Arc<C>, String>,
    ) -> Result<Arc<C>, String> {
        let now = clock::now();
        let known = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&names).and_then(|kept| {
            kept.used = now;
            (now.since(kept.read) < self.bounds.valid).then(|| Arc::clone(&kept.config))
        });
        if let Some(config) = known {
            return Ok(config);
        }
        // Others need not wait while files are read.
        let config = load(&names)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, kept| now.since(kept.used) < self.bounds.inactive);
        if kept.len() >= self.bounds.max && !kept.contains_key(&names) {
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.used).map(|(names, _)| names.clone());
            oldest.and_then(|oldest| kept.remove(&oldest));
        }
        kept.insert(names, Kept { config: Arc::clone(&config), read: now, used: now });
        Ok(config)
    }
}
