//! How the connections to an upstream are chosen, kept, shared and watched, against real servers.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};

use support::http;
use support::postgres::{Pooler, Postgres};
use support::pushgate::Pushgate;
use support::site_of_postgres::{config, get};
use support::wait;
use support::websocket::Client;

const NEW: &str = "host=127.0.0.1 port=%%PG_PORT%% dbname=test user=test password=test";

/// A server with upstreams and locations; each location's query is sent as it stands.
#[track_caller]
fn start(postgres: &Postgres, upstreams: &str, locations: &str) -> Pushgate {
    let config = config(upstreams, &format!("location = /ready {{ return 204; }} {locations}"));
    Pushgate::start(&config.replace("%%NEW%%", NEW), &[("PG_PORT", &postgres.port().to_string())])
}

/// The body of a GET that is answered with 200.
#[track_caller]
fn body(server: &Pushgate, target: &str) -> String {
    let (status, body) = get(server, target);
    assert_eq!(status, 200, "{target}\n{}", server.log());
    body
}

// What is written.

#[test]
fn a_log_and_a_trace_of_their_own() {
    let postgres = Postgres::private();
    let server = start(
        &postgres,
        "upstream db { postgres_server %%NEW%%; postgres_keepalive 1; \
         postgres_log logs/postgres.log info; postgres_trace logs/postgres.trace debug; }",
        r#"location = /value { postgres_pass db; postgres_query "select $arg_v::text"; postgres_output value; }
           location = /warn { postgres_pass db; postgres_query "do $$ begin raise warning 'look\nhere'; raise debug 'no'; end $$"; }
           location = /bad { postgres_pass db; postgres_query "select nosuch"; }
           location = /listen { postgres_pass db; postgres_query "listen $arg_c::id"; }"#,
    );
    assert_eq!(body(&server, "/value?v=shown"), "shown");
    body(&server, "/warn");
    assert_eq!(get(&server, "/bad").0, 500);
    body(&server, "/listen?c=some");
    postgres.superuser_session().rows("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'test'");
    wait::until("the end of both connections is in the log", || {
        let log = server.read("logs/postgres.log");
        let lines = |words: &[&str]| log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
        lines(&["[error]", "FATAL:  terminating connection due to administrator command"]) >= 1
            && lines(&["[info]", "lost, backend", "after 3 queries"]) == 1
            && lines(&["[error]", "connection to upstream \"db\" lost, 1 channel not listened to"]) == 1
    });
    let log = server.read("logs/postgres.log");
    for words in ["[info]", "[warn]"] {
        assert!(log.contains(words), "{words} is not in\n{log}");
    }
    assert!(log.contains("connected to 127.0.0.1:"), "{log}");
    assert!(log.lines().any(|line| line.contains("WARNING:  look here")), "{log}");
    assert_eq!(server.logged(&["upstream \"db\" lost"]), 0, "{}", server.log());
    // What concerns a request stays in its error log.
    assert_eq!(server.logged(&["nosuch", "/bad"]), 1, "{}", server.log());

    let trace = server.read("logs/postgres.trace");
    let lines: Vec<_> = trace.lines().map(|line| line.split('\t').skip(1).collect::<Vec<_>>().join(" ")).collect();
    // The look for a pooler is there too, and may have come first.
    let is_ours = |line: &String| line.starts_with("F ") && line.ends_with("\"select $1\" 1 25");
    assert!(lines.iter().any(is_ours), "{trace}");
    for words in ["Bind", "'shown'", "DataRow 1 5 'shown'", "ReadyForQuery I", "ErrorResponse S \"ERROR\"", "42703"] {
        assert!(trace.contains(words), "{words} is not in\n{trace}");
    }
    assert!(!trace.contains("password") && !trace.contains("SASL"), "{trace}");
}

// How long connections live.

#[test]
fn requests_and_time_end_a_connection() {
    let server = start(
        Postgres::shared(),
        "upstream few { postgres_server %%NEW%%; postgres_keepalive 1 requests=3; }
         upstream short { postgres_server %%NEW%% application_name=short; postgres_keepalive 1 timeout=200ms; }
         upstream long { postgres_server %%NEW%%; postgres_keepalive 1; }",
        r#"location = /few { postgres_pass few; postgres_query "select pg_backend_pid()"; postgres_output value; }
           location = /short { postgres_pass short; postgres_query "select pg_backend_pid()"; postgres_output value; }
           location = /long { postgres_pass long; postgres_query "select pg_backend_pid()"; postgres_output value; }"#,
    );
    let few: Vec<String> = (0..7).map(|_| body(&server, "/few")).collect();
    assert!(few[0] == few[1] && few[1] == few[2], "{few:?}");
    assert!(few[3] == few[4] && few[4] == few[5], "{few:?}");
    assert!(few[2] != few[3] && few[5] != few[6], "{few:?}");
    let long = body(&server, "/long");
    body(&server, "/short");
    let session = Postgres::shared().superuser_session();
    let is_open = || !session.rows("select 1 from pg_stat_activity where application_name = 'short'").is_empty();
    assert!(is_open());
    wait::until("the idle connection is closed", || !is_open());
    assert_eq!(body(&server, "/long"), long);
}

#[test]
fn requests_wait_in_the_queue() {
    let postgres = Postgres::private();
    let server = start(
        &postgres,
        "upstream patient { postgres_server %%NEW%%; postgres_keepalive 1; postgres_queue 1 overflow=reject timeout=30s; }
         upstream hasty { postgres_server %%NEW%%; postgres_keepalive 1; postgres_queue 1 timeout=200ms; }",
        r#"location = /patient { postgres_pass patient; postgres_query "select pg_advisory_lock(1), pg_advisory_unlock(1), pg_backend_pid()"; postgres_output csv header=off; }
           location = /hasty { postgres_pass hasty; postgres_query "select pg_advisory_lock(1), pg_advisory_unlock(1), pg_backend_pid()"; postgres_output csv header=off; }"#,
    );
    let session = postgres.session();
    let waiting = |count: usize| {
        let sql = "select 1 from pg_locks where locktype = 'advisory' and not granted";
        session.rows(sql).len() == count
    };
    session.rows("select pg_advisory_lock(1)");
    let begin = |target: &str| {
        let mut stream = http::connect(server.port());
        stream.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        stream
    };
    let answer = |mut stream: std::net::TcpStream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        (text[9..12].to_owned(), text.rsplit(',').next().unwrap_or_default().to_owned())
    };
    let first = begin("/patient");
    wait::until("the first has the connection", || waiting(1));
    // Which of the two comes first is theirs to settle: one waits, the other is refused.
    let (second, third) = (begin("/patient"), begin("/patient"));
    let hasty = begin("/hasty");
    wait::until("the hasty one has its connection", || waiting(2));
    let late = begin("/hasty");
    assert_eq!(answer(late).0, "504", "{}", server.log());
    let (refused, served) = {
        second.set_nonblocking(true).unwrap();
        let mut seen = [0; 1];
        let mut is_second = None;
        wait::until("one is refused", || {
            let second_has_news = second.peek(&mut seen).is_ok();
            third.set_nonblocking(true).unwrap();
            let third_has_news = third.peek(&mut seen).is_ok();
            is_second = second_has_news.then_some(true).or_else(|| third_has_news.then_some(false));
            is_second.is_some()
        });
        second.set_nonblocking(false).unwrap();
        third.set_nonblocking(false).unwrap();
        if is_second == Some(true) { (second, third) } else { (third, second) }
    };
    assert_eq!(answer(refused).0, "502", "{}", server.log());
    session.rows("select pg_advisory_unlock(1)");
    let (first, served) = (answer(first), answer(served));
    assert_eq!(first, served, "both had the one connection\n{}", server.log());
    assert_eq!(first.0, "200");
    assert_eq!(answer(hasty).0, "200");
}

// What the servers are.

/// What `check --db` says of a configuration with one upstream that is listened to.
fn checked(server: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nginx.conf");
    let config = format!(
        "events {{}} http {{ upstream db {{ postgres_server {server}; postgres_keepalive 1; }} server {{ listen 127.0.0.1:1;
           location / {{ postgres_pass db; postgres_query \"listen $arg_c::id\"; }} }} }}"
    );
    std::fs::write(&file, config).unwrap();
    let mut command = std::process::Command::new(support::pushgate::binary());
    let output = command.args(["check", "--db", "--no-color"]).arg(&file).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn contains(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
}

#[test]
fn a_pooler_is_found_and_explained() {
    let postgres = Postgres::private();
    let (transactions, sessions) = (Pooler::start(&postgres, "transaction"), Pooler::start(&postgres, "session"));
    let at = |port: u16| format!("host=127.0.0.1 port={port} dbname=test user=test");
    let server = start(
        &postgres,
        &format!(
            "upstream transactions {{ postgres_server {}; postgres_keepalive 2; }}
             upstream sessions {{ postgres_server {}; postgres_keepalive 2; }}
             upstream direct {{ postgres_server %%NEW%%; postgres_keepalive 2; }}",
            at(transactions.port()),
            at(sessions.port())
        ),
        r#"location = /t { postgres_pass transactions; postgres_query "listen $arg_c::id"; }
           location = /s { postgres_pass sessions; postgres_query "listen $arg_c::id"; }
           location = /d { postgres_pass direct; postgres_query "listen $arg_c::id"; }
           location = /one { postgres_pass transactions; postgres_query "select $arg_v::int4 + 1"; postgres_output value; }
           location = /two { postgres_pass transactions; postgres_query "select $arg_v::int4 * 2"; postgres_output value; }"#,
    );
    server.until_logged(&["[error]", "\"transactions\" is a pooler", "pool_mode=session"]);
    server.until_logged(&["\"sessions\" is a pooler", "keeps one of its servers"]);
    server.until_logged(&["listening for upstream \"direct\""]);
    assert_eq!(server.logged(&["\"direct\" is a pooler"]), 0, "{}", server.log());
    // Statements that one connection has prepared are never taken for those of another.
    for value in 0..20 {
        assert_eq!(body(&server, &format!("/one?v={value}")), (value + 1).to_string());
        assert_eq!(body(&server, &format!("/two?v={value}")), (value * 2).to_string());
    }
    contains(&checked(&at(transactions.port())), &["behind a pooler by transactions", "can't be listened to"]);
    let said = checked(&at(sessions.port()));
    contains(&said, &["behind a pooler by sessions"]);
    assert!(!said.contains("can't be listened to"), "{said}");
}

#[test]
fn a_standby_and_a_missing_right_are_explained() {
    let primary = Postgres::private();
    let session = primary.superuser_session();
    session.rows("create database closed");
    session.rows("revoke connect on database closed from public");
    let standby = primary.standby();
    let at = |port: u16| format!("host=127.0.0.1 port={port} dbname=test user=test password=test");
    let (here, there) = (at(primary.port()), at(standby.port()));
    let both = format!(
        "host=127.0.0.1,127.0.0.1 port={},{} dbname=test user=test password=test",
        standby.port(),
        primary.port()
    );
    let server = start(
        &primary,
        &format!(
            "upstream standby {{ postgres_server {there}; postgres_keepalive 2; }}
             upstream both {{ postgres_server {there}; postgres_server {here}; postgres_keepalive 2; }}
             upstream closed {{ postgres_server {}; postgres_keepalive 1; }}
             upstream writes {{ postgres_server {both} target_session_attrs=read-write; postgres_keepalive 1; }}
             upstream reads {{ postgres_server {both} target_session_attrs=standby; postgres_keepalive 1; }}
             upstream prefers {{ postgres_server {here} target_session_attrs=prefer-standby; postgres_keepalive 1; }}
             upstream wants {{ postgres_server {here} target_session_attrs=standby; postgres_keepalive 1; }}",
            here.replace("dbname=test", "dbname=closed")
        ),
        r#"location = /standby { postgres_pass standby; postgres_query "listen $arg_c::id"; postgres_timeout 300ms; }
           location = /both { postgres_pass both; postgres_query "listen $arg_c::id"; }
           location = /closed { postgres_pass closed; postgres_query "listen $arg_c::id"; postgres_timeout 300ms; }
           location = /writes { postgres_pass writes; postgres_query "select pg_is_in_recovery()"; postgres_output value; }
           location = /reads { postgres_pass reads; postgres_query "select pg_is_in_recovery()"; postgres_output value; }
           location = /prefers { postgres_pass prefers; postgres_query "select pg_is_in_recovery()"; postgres_output value; }
           location = /wants { postgres_pass wants; postgres_query "select 1"; postgres_output value; }"#,
    );
    server.until_logged(&[
        "\"standby\" can't be listened to yet",
        "cannot execute LISTEN during recovery",
        "name the primary",
    ]);
    server.until_logged(&[
        "\"closed\" can't be listened to yet",
        "permission denied for database",
        "CONNECT privilege",
    ]);
    assert_eq!(get(&server, "/standby?c=x").0, 504, "{}", server.log());
    assert_eq!(get(&server, "/both?c=x").0, 200, "{}", server.log());
    assert_eq!(body(&server, "/writes"), "f");
    assert_eq!(body(&server, "/reads"), "t");
    assert_eq!(body(&server, "/prefers"), "f");
    assert_eq!(get(&server, "/wants").0, 502);
    server.until_logged(&["[error]", "/wants", "server is not in hot standby mode"]);
    contains(&checked(&there), &["standby, no TLS", "can't be listened to: it is a standby"]);
}

// Many channels.

#[test]
fn ten_thousand_channels_are_heard() {
    const CLIENTS: usize = 100;
    const EACH: usize = 100;
    let postgres = Postgres::shared();
    let server = start(
        postgres,
        "push_stream_shared_memory_size 64m; upstream db { postgres_server %%NEW%%; postgres_keepalive 2; }",
        r#"location = /listen { keepalive_requests 100000; postgres_pass db; postgres_query "listen $arg_c::id"; }
           location = /websocket { push_stream_subscriber websocket; push_stream_channels_path $arg_ids; }"#,
    );
    let name = |number: usize| format!("ch{number}");
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let ids: Vec<_> = (0..EACH).map(|channel| name(client * EACH + channel)).collect();
            Client::connect(server.port(), &format!("/websocket?ids={}", ids.join("/")))
        })
        .collect();
    // As clients come: many at once, each waiting for its own.
    let asking: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let mut stream = http::connect(server.port());
            std::thread::spawn(move || {
                let mut answers = String::new();
                for number in client * EACH..(client + 1) * EACH {
                    let end = if number % EACH + 1 == EACH { "Connection: close\r\n" } else { "" };
                    let request = format!("GET /listen?c=ch{number} HTTP/1.1\r\nHost: h\r\n{end}\r\n");
                    stream.write_all(request.as_bytes()).unwrap();
                }
                stream.read_to_string(&mut answers).unwrap();
                answers.matches("HTTP/1.1 200 OK").count()
            })
        })
        .collect();
    let mut confirmed = 0;
    for asking in asking {
        confirmed += asking.join().unwrap();
    }
    assert_eq!(confirmed, CLIENTS * EACH, "{}", server.log());
    let session = postgres.session();
    session.rows(&format!(
        "do $$ begin for i in 0..{} loop perform pg_notify('ch' || i, 'to ' || i); end loop; end $$",
        CLIENTS * EACH - 1
    ));
    for (number, client) in clients.iter_mut().enumerate() {
        for channel in 0..EACH {
            assert_eq!(client.text(), format!("to {}", number * EACH + channel), "client {number}");
        }
    }
}
