//! What `-V` says of the build, in the words that scripts look for in nginx's answer.

use super::options::{DEFAULT_ERROR_LOG, DEFAULT_FILE, DEFAULT_PID, DEFAULT_PREFIX};
use crate::config::{Registry, Status};

/// nginx's modules that are built in only where asked for, each with a directive that it brings.
const ASKED_FOR: [(&str, &str); 14] = [
    ("http_ssl", "ssl_certificate"),
    ("http_v2", "http2"),
    ("http_v3", "http3"),
    ("http_realip", "set_real_ip_from"),
    ("http_addition", "add_before_body"),
    ("http_sub", "sub_filter"),
    ("http_gunzip", "gunzip"),
    ("http_gzip_static", "gzip_static"),
    ("http_auth_request", "auth_request"),
    ("http_random_index", "random_index"),
    ("http_secure_link", "secure_link"),
    ("http_slice", "slice"),
    ("http_stub_status", "stub_status"),
    ("http_dav", "dav_methods"),
];

/// Those that are built in unless told otherwise and that are not here yet.
const EXPECTED: [(&str, &str); 7] = [
    ("http_ssi", "ssi"),
    ("http_browser", "modern_browser"),
    ("http_fastcgi", "fastcgi_pass"),
    ("http_uwsgi", "uwsgi_pass"),
    ("http_scgi", "scgi_pass"),
    ("http_grpc", "grpc_pass"),
    ("http_memcached", "memcached_pass"),
];

/// nginx's `configure` arguments, as if nginx had been built to do what this program does.
pub(super) fn arguments() -> String {
    let mut text = format!(
        "--prefix={} --conf-path={DEFAULT_FILE} --error-log-path={DEFAULT_ERROR_LOG} --pid-path={DEFAULT_PID}",
        DEFAULT_PREFIX.trim_end_matches('/')
    );
    for (module, directive) in ASKED_FOR {
        if works(directive) {
            text.push_str(&format!(" --with-{module}_module"));
        }
    }
    for (module, directive) in EXPECTED {
        if !works(directive) {
            text.push_str(&format!(" --without-{module}_module"));
        }
    }
    text + " --without-http-cache --add-module=nginx-push-stream-module --add-module=ngx_postgres \
            --add-module=set-misc-nginx-module"
}

/// Whether a directive is there and does something.
fn works(directive: &str) -> bool {
    let rows = Registry::get().named(directive).unwrap_or_default();
    rows.iter().any(|row| matches!(row.status, Status::Works | Status::Partly(_)))
}
