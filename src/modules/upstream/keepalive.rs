//! ngx_http_upstream_keepalive_module: how connections to an upstream's servers are kept.

use crate::config::value::{Msec, Number};
use crate::settings;

settings! {
    /// How long connections are kept, and for how much.
    pub struct Times {
        /// How many requests a connection may carry.
        "keepalive_requests" UPSTREAM = "1000" => pub requests: Number,
        /// How long a connection may live; it is closed after the next request then.
        "keepalive_time" UPSTREAM = "1h" => pub time: Msec,
        /// How long a connection may be idle.
        "keepalive_timeout" UPSTREAM = "60s" => pub timeout: Msec,
    }
}
