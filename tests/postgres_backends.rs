//! Backends of PostgreSQL that end in the middle of a result, and a server that has none left to give.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};

use support::postgres::Postgres;
use support::site_of_postgres::{check, get, start};
use support::{http, wait};

#[test]
fn a_backend_that_ends_in_the_middle_breaks_the_answer_off() {
    let postgres = Postgres::private();
    let server = start(
        &postgres,
        // The first sleeps most of the time, the second most of the time can't write.
        r#"location = /sleeping { postgres_pass new;
               postgres_query "select 'ends', i, repeat('x', 10000), pg_sleep(0.01) from generate_series(1, 1000000) i";
               postgres_output csv; }
           location = /writing { postgres_pass new;
               postgres_query "select 'ends', generate_series(1, 1000000000), repeat('x', 100)";
               postgres_output json; }
           location = /ok { postgres_pass new; postgres_query "select 1"; postgres_output value; }"#,
    );
    let session = postgres.superuser_session();
    let cases = [(1, "/sleeping", "terminating connection due to administrator command"), (2, "/writing", "")];
    for (number, target, reason) in cases {
        let mut stream = http::connect(server.port());
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        let mut begins = [0; 1000];
        stream.read_exact(&mut begins).unwrap();
        assert!(begins.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", begins.escape_ascii());
        let ended = session.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where query like '%ends%' and state = 'active' and pid <> pg_backend_pid()",
        );
        assert_eq!(ended.len(), 1, "{target}");
        let mut rest = Vec::new();
        // Whether it ends or is reset, it is not whole.
        let _reset = stream.read_to_end(&mut rest);
        assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "{target}: the answer looks whole");
        wait::until("the log says why", || server.logged(&["[error]", "a result broke off"]) == number);
        server.until_logged(&["[error]", "a result broke off", reason]);
        check(&server, "/ok", 200, "1");
    }
}

#[test]
fn a_server_without_connections_to_give_is_told() {
    let postgres = Postgres::with_settings(&["max_connections=5", "superuser_reserved_connections=2"]);
    let server = start(
        &postgres,
        r#"location = /new { postgres_pass new; postgres_query "select 1"; postgres_output value; }
           location = /old { postgres_pass old; postgres_query "select 1"; }
           location = /listen { postgres_pass new; postgres_query "listen $arg_c::id"; postgres_timeout 500ms; }"#,
    );
    // The listener has one of the three.
    server.until_logged(&["listening for upstream \"new\""]);
    let others = [postgres.session(), postgres.session()];
    for target in ["/new", "/old"] {
        check(&server, target, 502, "");
        server.until_logged(&["[error]", &format!("GET {target} "), "SQLSTATE 53300"]);
    }
    // The listener has its own already.
    check(&server, "/listen?c=x", 200, "");
    drop(others);
    wait::until("the sessions have ended", || get(&server, "/new") == (200, "1".to_owned()));
    check(&server, "/old", 200, "1");
}
