//! `ssl_certificate_cache`: certificates whose names have variables are kept for the next handshake.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::server::ServerConfig;

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

/// Names of certificates and keys.
pub(super) type Names = Vec<(Vec<u8>, Vec<u8>)>;

/// What is kept; all workers share it.
#[derive(Debug)]
pub(super) struct Cache {
    bounds: Bounds,
    kept: Mutex<HashMap<Names, Kept>>,
}

#[derive(Debug)]
struct Kept {
    config: Arc<ServerConfig>,
    read: Moment,
    used: Moment,
}

impl Cache {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, kept: Mutex::default() }
    }

    /// What is kept for some names, or else is loaded now. A failure is not kept.
    pub(super) fn get(
        &self,
        names: Names,
        load: impl FnOnce(&Names) -> Result<Arc<ServerConfig>, String>,
    ) -> Result<Arc<ServerConfig>, String> {
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
