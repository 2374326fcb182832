//! TLS to PostgreSQL, as libpq's `sslmode` says: queries and the listener, right and wrong certificates.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use support::http;
use support::postgres::Postgres;
use support::pushgate::Pushgate;
use support::tls::{Authority, Identity};
use support::wait;

/// A server with an upstream for each `sslmode`; the name is the location's too.
fn start(postgres: &Postgres, upstreams: &[(&str, &str, &str)], files: &str) -> Pushgate {
    let port = postgres.port();
    let (mut blocks, mut locations) = (String::new(), String::new());
    for (name, host, tls) in upstreams {
        blocks += &format!(
            "upstream {name} {{ postgres_keepalive 2; postgres_server host={host} hostaddr=127.0.0.1 port={port} dbname=test \
             user=test password=test application_name={name} {}; }}\n",
            tls.replace("FILES", files)
        );
        locations += &format!(
            "location = /{name} {{ postgres_pass {name}; \
             postgres_query \"select ssl from pg_stat_ssl where pid = pg_backend_pid()\"; postgres_output value; }}
             location = /{name}/listen {{ postgres_pass {name}; postgres_query \"listen $arg_c::id\"; postgres_timeout 500ms; }}\n"
        );
    }
    let config = format!(
        "daemon off; error_log logs/error.log info; pid logs/nginx.pid; worker_processes 1; events {{}}
         http {{ access_log off; {blocks} server {{ listen 127.0.0.1:%%PORT%%; {locations} }} }}"
    );
    Pushgate::start(&config, &[])
}

#[test]
fn certificates_count_as_the_mode_says() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let files = tempfile::tempdir().unwrap();
    std::fs::set_permissions(files.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(files.path().join("right.pem"), &right.pem).unwrap();
    std::fs::write(files.path().join("wrong.pem"), &wrong.pem).unwrap();
    let postgres = Postgres::with_tls(&right.identity("db.example", 1));
    let good = [
        ("plain", "db.example", "sslmode=disable"),
        ("prefer", "other.example", "sslmode=prefer"),
        ("require", "other.example", "sslmode=require"),
        ("ca", "other.example", "sslmode=verify-ca sslrootcert=FILES/right.pem"),
        ("full", "db.example", "sslmode=verify-full sslrootcert=FILES/right.pem"),
    ];
    // With a root, `require` checks the chain as libpq does.
    let bad = [
        ("requireroot", "db.example", "sslmode=require sslrootcert=FILES/wrong.pem", "UnknownIssuer"),
        ("wrongca", "db.example", "sslmode=verify-ca sslrootcert=FILES/wrong.pem", "UnknownIssuer"),
        ("wrongfull", "db.example", "sslmode=verify-full sslrootcert=FILES/wrong.pem", "UnknownIssuer"),
        ("wrongname", "other.example", "sslmode=verify-full sslrootcert=FILES/right.pem", "not valid for name"),
        ("noroot", "db.example", "sslmode=verify-ca", "sslrootcert is missing"),
    ];
    let all: Vec<_> = good.iter().copied().chain(bad.iter().map(|(name, host, tls, _)| (*name, *host, *tls))).collect();
    let server = start(&postgres, &all, &files.path().display().to_string());
    let session = postgres.superuser_session();
    for (name, ..) in good {
        let answer = http::get(server.port(), &format!("/{name}"));
        let tls = if name == "plain" { "f" } else { "t" };
        assert!(answer.status == 200 && answer.body.contains(tls), "{name}: {}\n{}", answer.body, server.log());
        server.until_logged(&[&format!("listening for upstream \"{name}\"")]);
        let listens = || http::get(server.port(), &format!("/{name}/listen?c={name}")).status == 200;
        wait::until(&format!("{name} listens"), listens);
        // Both backends: the query's, which is kept, and the listener's; the look for a pooler has a third for a while.
        let backends = format!(
            "select ssl, count(*) from pg_stat_ssl join pg_stat_activity using (pid) \
             where application_name = '{name}' group by ssl"
        );
        let both = [[Some(tls.to_owned()), Some("2".to_owned())]];
        wait::until(&format!("{name} has two backends, TLS: {tls}"), || session.rows(&backends) == both);
    }
    for (name, _, _, reason) in bad {
        assert_eq!(http::get(server.port(), &format!("/{name}")).status, 502, "{name}\n{}", server.log());
        server.until_logged(&["[error]", &format!("GET /{name} "), reason]);
        assert_eq!(http::get(server.port(), &format!("/{name}/listen?c=x")).status, 504, "{name}\n{}", server.log());
        server.until_logged(&["[error]", &format!("upstream \"{name}\" can't be listened to yet"), reason]);
    }
}

#[test]
fn a_certificate_that_signs_itself_may_be_named_as_the_root() {
    let own = Identity::signing_itself("db.example");
    let files = tempfile::tempdir().unwrap();
    std::fs::set_permissions(files.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    own.write(files.path(), "own");
    let postgres = Postgres::with_tls(&own);
    let server = start(
        &postgres,
        &[
            ("ca", "other.example", "sslmode=verify-ca sslrootcert=FILES/own.pem"),
            ("full", "db.example", "sslmode=verify-full sslrootcert=FILES/own.pem"),
            ("wrongname", "other.example", "sslmode=verify-full sslrootcert=FILES/own.pem"),
        ],
        &files.path().display().to_string(),
    );
    for (name, status) in [("ca", 200), ("full", 200), ("wrongname", 502)] {
        assert_eq!(http::get(server.port(), &format!("/{name}")).status, status, "{name}\n{}", server.log());
    }
}
