//! A site whose locations ask PostgreSQL.

use super::http;
use super::postgres::Postgres;
use super::pushgate::Pushgate;

/// An upstream in the grammar of 2018, and one in today's.
pub(crate) const OLD_AND_NEW: &str = "
    upstream old { postgres_server 127.0.0.1:%%PG_PORT%% dbname=test user=test password=test; }
    upstream new {
        postgres_server host=127.0.0.1 port=%%PG_PORT%% dbname=test user=test password=test;
        postgres_keepalive 4;
    }";

/// The configuration of one server with upstreams and locations.
pub(crate) fn config(upstreams: &str, locations: &str) -> String {
    format!(
        r#"
daemon off;
error_log logs/error.log info;
pid logs/nginx.pid;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    {upstreams}
    server {{
        listen 127.0.0.1:%%PORT%%;
        {locations}
    }}
}}
"#
    )
}

/// A server with some locations, on [`OLD_AND_NEW`].
#[track_caller]
pub(crate) fn start(postgres: &Postgres, locations: &str) -> Pushgate {
    Pushgate::start(&config(OLD_AND_NEW, locations), &[("PG_PORT", &postgres.port().to_string())])
}

/// The status and body of a GET by HTTP/1.0, whose body is not cut into chunks.
#[track_caller]
pub(crate) fn get(server: &Pushgate, target: &str) -> (u16, String) {
    let answer = http::raw(server.port(), format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes());
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {target}: {text:?}"));
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// Compares what a GET brings; the body only with 200.
#[track_caller]
pub(crate) fn check(server: &Pushgate, target: &str, status: u16, body: &str) {
    let (got, text) = get(server, target);
    let text = if status == 200 { text.as_str() } else { "" };
    assert_eq!((got, text), (status, body), "{target}\n{}", server.log());
}
