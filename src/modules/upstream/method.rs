//! What the directives that say how servers are chosen have in common.

use std::sync::Arc;

use super::block::Block;
use crate::config::{Call, Cx};
use crate::http::upstream::peers::Balancer;

/// A way to choose servers, as a block says it.
#[derive(Clone, Debug)]
pub(super) struct Method {
    /// The way.
    pub(super) balancer: Arc<dyn Balancer>,
    /// Whether servers may be backups.
    pub(super) allows_backup: bool,
}

/// Has a block's servers chosen in such a way. As in nginx this ends what the same block said before: another way, and
/// `keepalive`, which has to stand after it.
pub(super) fn set(cx: &mut Cx<'_>, call: &Call<'_>, balancer: impl Balancer + 'static, allows_backup: bool) {
    let raw = cx.edit::<Block>();
    let had_keepalive = raw.keepalive.take().is_some();
    let is_second = raw.method.replace(Method { balancer: Arc::new(balancer), allows_backup }).is_some();
    if had_keepalive || is_second {
        cx.warn("balancing-redefined", "load balancing method redefined", call);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn what_goes_together() {
        let check = |inside: &str, expected: &[&str]| {
            assert_eq!(findings(&format!("upstream u {{ {inside} server 127.0.0.1:1; }}")), expected, "{inside}");
        };
        let redefined = "load balancing method redefined";
        let backup = "balancing method does not support parameter \"backup\"";
        check("least_conn; server 127.0.0.1:2 backup;", &[]);
        check("least_conn; keepalive 8;", &[]);
        check("keepalive 8; least_conn;", &[redefined]);
        check("ip_hash; ip_hash;", &[redefined]);
        check("random two least_conn;", &[]);
        check("random three;", &["invalid parameter \"three\""]);
        check("random two fair;", &["invalid parameter \"fair\""]);
        check("hash $uri; server 127.0.0.1:2 backup;", &[backup]);
        check("ip_hash; server 127.0.0.1:2 backup;", &[backup]);
        check("random; server 127.0.0.1:2 backup;", &[backup]);
        // nginx looks only at what comes after.
        check("server 127.0.0.1:2 backup; random;", &[]);
        check("server 127.0.0.1:2 slow_start=10s;", &["invalid parameter \"slow_start=10s\""]);
    }
}
