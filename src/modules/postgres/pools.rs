//! The pools of a worker: one for each upstream.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::server::Servers;
use crate::pg::pool::Pool;

thread_local! {
    static POOLS: RefCell<HashMap<String, (Arc<Servers>, Pool)>> = RefCell::default();
}

/// This worker's pool of connections to some servers. It outlives a reload that leaves the upstream as it is; one that
/// changes it has the new pool take its place, and the old one ends with the last request that uses it.
pub(super) fn pool(servers: &Arc<Servers>) -> Pool {
    POOLS.with_borrow_mut(|pools| {
        if let Some((known, pool)) = pools.get_mut(&servers.name) {
            if Arc::ptr_eq(known, servers) {
                return pool.clone();
            }
            if **known == **servers {
                *known = Arc::clone(servers);
                return pool.clone();
            }
        }
        let pool = Pool::new(servers.pool_options());
        pools.insert(servers.name.clone(), (Arc::clone(servers), pool.clone()));
        pool
    })
}
