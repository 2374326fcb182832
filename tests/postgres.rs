//! The postgres module against a real PostgreSQL: what the recorded cases can't show, for it takes faults, time or size.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::postgres::{Mode, Postgres};
use support::pushgate::{self, Pushgate};
use support::site_of_postgres::{OLD_AND_NEW, check, config, get, start};
use support::{http, recipe, wait};

// LISTEN.

#[test]
fn listen_goes_to_a_connection_of_its_own() {
    let postgres = Postgres::private();
    postgres.superuser_session().rows("alter role test set log_statement = 'all'");
    let server = start(
        &postgres,
        "location = /listen { postgres_pass old; set_quote_json_str $c $arg_c; postgres_query 'listen $c'; }
         location = /unlisten { postgres_pass old; set_quote_json_str $c $arg_c; postgres_query 'unlisten $c'; }
         location = /channels { postgres_pass old; postgres_query 'select count(*) from pg_listening_channels()'; }",
    );
    check(&server, "/listen?c=Some%20\"name", 200, "");
    assert!(postgres.log().contains("LISTEN \"Some%20\"\"name\""), "{}", postgres.log());
    check(&server, "/channels", 200, "0");
    check(&server, "/unlisten?c=Some%20\"name", 200, "");
    wait::until("nobody listens", || postgres.log().contains("UNLISTEN \"Some%20\"\"name\""));

    let long = "k".repeat(64);
    check(&server, &format!("/listen?c={long}"), 400, "");
    server.until_logged(&["[error]", &long, "63"]);
    check(&server, "/listen", 400, "");
}

#[test]
fn a_channel_in_quotes_is_a_variable_where_the_grammar_says_so() {
    let postgres = Postgres::private();
    postgres.superuser_session().rows("alter role test set log_statement = 'all'");
    let server = start(
        &postgres,
        r#"location = /old { postgres_pass old; set_unescape_uri $c $arg_c; postgres_query 'listen "$c"'; }
           location = /part { postgres_pass old; set_unescape_uri $c $arg_c; postgres_query 'LISTEN "to ${c}"'; }
           location = /json { postgres_pass old; set_quote_json_str $c $arg_c; postgres_query 'listen "$c"'; }
           location = /end { postgres_pass old; set_unescape_uri $c $arg_c; postgres_query 'unlisten "$c"'; }
           location = /new { postgres_pass new; set_unescape_uri $c $arg_c; postgres_query 'listen "$c"'; }"#,
    );
    let cases = [
        ("/old?c=Foo", "LISTEN \"Foo\""),
        ("/old?c=a%22%3Bdrop%20table%20t%3B--", "LISTEN \"a\"\";drop table t;--\""),
        ("/old?c=b%22%22", "LISTEN \"b\"\"\"\"\""),
        ("/part?c=x%22", "LISTEN \"to x\"\"\""),
        ("/json?c=Some\"name", "LISTEN \"Some\"\"name\""),
        ("/end?c=a%22%3Bdrop%20table%20t%3B--", "UNLISTEN \"a\"\";drop table t;--\""),
        // Today's module has no variables but those with a type.
        ("/new?c=Foo", "LISTEN \"$c\""),
    ];
    for (target, expected) in cases {
        check(&server, target, 200, "");
        wait::until(expected, || postgres.log().contains(expected));
    }
    check(&server, "/old?c=", 400, "");
    check(&server, &format!("/old?c={}", "k".repeat(64)), 400, "");
}

#[test]
fn a_restart_is_said_once_and_absence_at_the_start_too() {
    let postgres = Postgres::stopped();
    let server = start(
        &postgres,
        "location = /listen { postgres_pass new; postgres_query 'listen $arg_c::ID'; postgres_timeout 500ms; }
         location = /old { postgres_pass old; postgres_query 'select 1'; }
         location = /new { postgres_pass new; postgres_query 'select 1'; postgres_output value; }",
    );
    server.until_logged(&["[error]", "127.0.0.1", &postgres.port().to_string(), "refused"]);
    check(&server, "/old", 502, "");
    check(&server, "/new", 500, "");
    check(&server, "/listen?c=early", 504, "");

    postgres.start();
    server.until_logged(&["listening for upstream"]);
    check(&server, "/listen?c=early", 200, "");
    check(&server, "/old", 200, "1");
    postgres.restart(Mode::Fast);
    server.until_logged(&["listening again to 1 channel"]);
    assert_eq!(server.logged(&["connection", "lost"]), 1, "{}", server.log());
    check(&server, "/old", 200, "1");
    check(&server, "/new", 200, "1");
}

#[test]
fn a_reload_that_changes_the_upstream_keeps_the_channels() {
    let postgres = Postgres::private();
    postgres.superuser_session().rows("alter role test set log_statement = 'all'");
    let locations = "location = /listen { postgres_pass new; postgres_query 'listen $arg_c::ID'; }";
    let server = start(&postgres, locations);
    check(&server, "/listen?c=kept", 200, "");
    let listens = || postgres.log().matches("LISTEN \"kept\"").count();
    assert_eq!(listens(), 1, "{}", postgres.log());
    server.configure(&config(OLD_AND_NEW, locations).replacen(
        "host=127.0.0.1",
        "host=127.0.0.1 application_name=changed",
        1,
    ));
    server.signal("HUP");
    wait::until("the new one listens", || listens() == 2);
    let session = postgres.superuser_session();
    let old = "select 1 from pg_stat_activity where application_name = 'nginx'";
    wait::until("the old one has gone", || session.rows(old).is_empty());
}

#[test]
fn check_asks_the_servers() {
    let postgres = Postgres::shared();
    let config = config(
        OLD_AND_NEW,
        r#"location = /good { postgres_pass new; postgres_query "select $arg_a::int4 + 1, $arg_b::text"; }
           location = /bad { postgres_pass new;
               postgres_query "select nosuch from pg_class"; }
           location = /listen { postgres_pass new; postgres_query "listen $arg_c::ID"; }
           location = /placed { postgres_pass old; postgres_query "select 1 where '$arg_a' = 'x' and 1 = $arg_b"; }
           location = /direct { postgres_pass host=127.0.0.1 port=%%PG_PORT%% dbname=test user=test password=test;
               postgres_query "select $arg_a::int8"; }
           }
           upstream gone { postgres_server host=127.0.0.1 port=1 user=test dbname=test; postgres_keepalive 1; }
           server { listen 127.0.0.1:%%PORT%%; server_name other;"#,
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nginx.conf");
    let config = config.replace("%%PORT%%", "1").replace("%%PG_PORT%%", &postgres.port().to_string());
    std::fs::write(&file, config).unwrap();
    let output =
        std::process::Command::new(pushgate::binary()).args(["check", "--db", "--no-color"]).arg(&file).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "upstream \"new\": PostgreSQL 1",
        "primary, no TLS, role \"test\", database \"test\"",
        "prepares, with parameters {integer,text}",
        &format!("postgres_pass to \"127.0.0.1:{}\": PostgreSQL 1", postgres.port()),
        "prepares, with parameters {bigint}",
        "upstream \"gone\"",
        "column \"nosuch\" does not exist",
        "nginx.conf:25",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    assert_eq!(said.matches(": prepares").count(), 3, "{said}");
    assert!(!said.contains("password=test"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

// Values that would be SQL.

#[test]
fn no_value_becomes_sql() {
    let postgres = Postgres::shared();
    let session = postgres.session();
    session.rows("create table if not exists kept (id int, name text)");
    session.rows("truncate kept; insert into kept values (1, 'one'), (2, 'two')");
    let server = start(
        postgres,
        r#"location = /number { postgres_pass old; postgres_query "select name from kept where id = $arg_v"; }
           location = /literal { postgres_pass old; postgres_query "select name from kept where name = '$arg_v'"; }
           location = /like { postgres_pass old; postgres_query "select name from kept where name like '%$arg_v%' order by 1"; }
           location = /escaped { postgres_pass old; postgres_escape $v $arg_v; postgres_query "select $v"; }
           location = /sql { postgres_pass old; set_quote_sql_str $v $arg_v; postgres_query "select $v"; }
           location = /pgsql { postgres_pass old; set_quote_pgsql_str $v $arg_v; postgres_query "select $v"; }
           location = /json { postgres_pass old; set_quote_json_str $v $arg_v; postgres_query "select '{\"v\": $v}'"; }
           location = /order { postgres_pass old; postgres_query "select name from kept order by $arg_v"; }
           location = /typed { postgres_pass new; postgres_query "select $arg_v::text"; postgres_output value; }"#,
    );
    check(&server, "/number?v=2", 200, "two");
    for injection in ["1%20or%201=1", "1;drop%20table%20kept", "id", "(select%201)", "1--", "1/**/or/**/true"] {
        // As in nginx, arguments are not decoded; those who decode them meet the same wall.
        for value in [injection.to_owned(), injection.replace("%20", "\t")] {
            check(&server, &format!("/number?v={value}"), 400, "");
        }
    }
    server.until_logged(&["[error]", "arg_v", "refused", "client: 127.0.0.1"]);
    check(&server, "/literal?v=one", 200, "one");
    check(&server, "/literal?v='or'1'='1", 200, "");
    check(&server, "/literal?v=\\", 200, "");
    check(&server, "/like?v=o", 200, "one\ntwo");
    check(&server, "/like?v='", 200, "");
    for location in ["/escaped", "/sql", "/pgsql", "/typed"] {
        for value in ["it's", "\\'", "x'||version()||'", "$$", "--", "\"", "a\\\\b", "ü"] {
            check(&server, &format!("{location}?v={value}"), 200, value);
        }
    }
    check(&server, "/json?v=it's", 200, "{\"v\": \"it's\"}");
    check(&server, "/order?v=name", 200, "one\ntwo");
    check(&server, "/order?v=name;drop", 400, "");
    assert_eq!(session.rows("select count(*) from kept"), [[Some("2".to_owned())]]);
}

#[test]
fn templates_of_2018_are_prepared() {
    let server = start(
        Postgres::shared(),
        r#"location = /typed { postgres_pass old; set $id $arg_id; set $name $arg_name;
               postgres_query ":select :i:id + 1, :name, :nosuch is null"; }
           location = /named { postgres_pass old; set $name $arg_name; set $sql "select :name, :action"; set $action x;
               postgres_query ":index"; }"#,
    );
    check(&server, "/typed?id=41&name=o'hara", 200, "42\no'hara\nt");
    check(&server, "/typed?id=1;drop&name=x", 500, "");
    check(&server, "/named?name=n'", 200, "n'\nindex");
}

#[test]
fn pieces_of_2018_come_from_a_variable() {
    let server = start(
        Postgres::shared(),
        r#"location = /piece { postgres_pass old; set $id $arg_id; set $table pg_class;
               set $meta '{"cols":"relname, :i:id","from":"from $table\u000Awhere oid = 1259"}';
               postgres_query ":select :@:cols :@:from"; }
           location = /named { postgres_pass old; set $id $arg_id; set $action x; set $sql "select :@:what";
               set $meta '{"what": ":id || :action"}'; postgres_query ":index"; }
           location = /none { postgres_pass old; set $meta '{}'; postgres_query ":select :@:what"; }
           location = /ok { postgres_pass old; postgres_query "select 1"; }"#,
    );
    check(&server, "/piece?id=5", 200, "pg_class\n5");
    check(&server, "/piece?id=5;drop", 500, "");
    check(&server, "/named?id=a'", 200, "a'index");
    check(&server, "/none", 500, "");
    server.until_logged(&["[error]", "no \"what\" in $meta"]);
    check(&server, "/ok", 200, "1");
}

#[test]
fn a_statement_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("one.sql"), "-- A comment; and $arg_v::int4\nselect $arg_v::int4 + 1;\n")
        .unwrap();
    std::fs::write(folder.path().join("old.sql"), "select '$arg_v'\n").unwrap();
    let server = start(
        Postgres::shared(),
        &r#"location = /one { postgres_pass new; postgres_query GET file://FOLDER/one.sql; postgres_output value; }
            location = /old { postgres_pass old; postgres_query file:FOLDER/old.sql; }"#
            .replace("FOLDER", &folder.path().display().to_string()),
    );
    check(&server, "/one?v=41", 200, "42");
    check(&server, "/old?v=it's", 200, "it's");
}

#[test]
fn splicing_can_be_switched_on() {
    let server = start(
        Postgres::shared(),
        r#"postgres_unsafe_interpolation on;
           location = /any { postgres_pass old; postgres_query "select $arg_v"; }
           location = /listen { postgres_pass old; postgres_query "listen $arg_v"; }"#,
    );
    check(&server, "/any?v=1+1", 200, "2");
    check(&server, "/any?v='a'||'b'", 200, "ab");
    check(&server, "/any?v=1;select(2)", 500, "");
    check(&server, "/listen?v=\"spliced\"", 200, "");
}

// Large results.

#[test]
fn a_large_result_leaves_as_it_comes() {
    let server = start(
        Postgres::shared(),
        r#"location = /json { postgres_pass new;
               postgres_query "select i, 'row ' || i as name from generate_series(1, 300000) i"; postgres_output json; }
           location = /csv { postgres_pass new;
               postgres_query "select i, repeat('x', 40) as t from generate_series(1, 300000) i"; postgres_output csv; }"#,
    );
    check_start(&server);
    let idle = server.resident_kb();
    let (status, body) = get(&server, "/json");
    assert_eq!(status, 200);
    assert!(body.starts_with("[{\"i\":1,\"name\":\"row 1\"},"), "{}", &body[..80]);
    assert!(body.ends_with(",{\"i\":300000,\"name\":\"row 300000\"}]"), "{}", &body[body.len() - 80..]);
    let (_, body) = get(&server, "/csv");
    assert_eq!(body.lines().count(), 300_001);
    let grown = server.resident_kb().saturating_sub(idle);
    assert!(grown < 30_000, "grew by {grown} KB");
}

fn check_start(server: &Pushgate) {
    let (status, _) = get(server, "/none");
    assert_eq!(status, 404);
}

#[test]
fn a_client_that_goes_away_cancels_its_query() {
    let postgres = Postgres::private();
    let server = start(
        &postgres,
        r#"location = /slow { postgres_pass new; postgres_query "select 'leaves', pg_sleep(60)"; postgres_output json; }
           location = /endless { postgres_pass new;
               postgres_query "select 'leaves', generate_series(1, 1000000000)"; postgres_output csv; }"#,
    );
    let session = postgres.superuser_session();
    let active = || {
        let running = "select 1 from pg_stat_activity where query like '%leaves%' and state = 'active' \
                       and pid <> pg_backend_pid()";
        session.rows(running).len()
    };
    for target in ["/slow", "/endless"] {
        let mut stream = http::connect(server.port());
        stream.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        wait::until("the query runs", || active() == 1);
        if target == "/endless" {
            let mut some = [0; 1000];
            stream.read_exact(&mut some).unwrap();
        }
        drop(stream);
        wait::until("the query is cancelled", || active() == 0);
    }
}

// Faults.

#[test]
fn what_breaks_recovers() {
    let postgres = Postgres::private();
    let server = start(
        &postgres,
        r#"location = /end { postgres_pass new; postgres_query "select pg_terminate_backend(pg_backend_pid())"; }
           location = /cancel { postgres_pass new; postgres_query "select pg_cancel_backend(pg_backend_pid()), pg_sleep(1)"; }
           location = /slow { postgres_pass new; postgres_query "select pg_sleep(30)"; postgres_timeout 200ms; }
           location = /broken { postgres_pass new;
               postgres_query "select 1 / (i - 200000) from generate_series(1, 300000) i"; postgres_output json; }
           location = /two { postgres_pass new; postgres_query "select 1; select 2"; }
           location = /copy { postgres_pass new; postgres_query "copy (select 1) to stdout"; }
           location = /ok { postgres_pass new; postgres_query "select 1"; postgres_output value; }"#,
    );
    check(&server, "/end", 500, "");
    server.until_logged(&["terminating connection due to administrator command"]);
    check(&server, "/ok", 200, "1");
    check(&server, "/cancel", 500, "");
    check(&server, "/slow", 504, "");
    check(&server, "/two", 500, "");
    check(&server, "/copy", 500, "");
    check(&server, "/ok", 200, "1");
    // The answer has begun when the error comes: it is broken off, not ended.
    let answer = http::request(server.port(), "GET", "/broken", "", "");
    assert!(!answer.body.ends_with("0\r\n\r\n"), "{}", &answer.body[answer.body.len() - 80..]);
    server.until_logged(&["a result broke off", "division by zero", "request: \"GET /broken HTTP/1.1\""]);
    assert_eq!(server.logged(&["prematurely"]), 0, "{}", server.log());
    check(&server, "/ok", 200, "1");
    postgres.restart(Mode::Immediate);
    check(&server, "/ok", 200, "1");
}

/// A way to PostgreSQL that can go silent: it takes what comes, and passes nothing on.
struct Proxy {
    port: u16,
    is_silent: Arc<AtomicBool>,
}

impl Proxy {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self { port: listener.local_addr().unwrap().port(), is_silent: Arc::default() };
        let is_silent = Arc::clone(&this.is_silent);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", port)).unwrap());
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for (mut from, mut to) in [(client, server), back] {
                    let is_silent = Arc::clone(&is_silent);
                    std::thread::spawn(move || {
                        let mut buffer = [0; 4096];
                        while let Ok(length @ 1..) = from.read(&mut buffer) {
                            if !is_silent.load(Ordering::Relaxed) && to.write_all(&buffer[..length]).is_err() {
                                break;
                            }
                        }
                        let _ended = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        this
    }
}

#[test]
fn a_silent_network_ends_in_a_timeout() {
    let postgres = Postgres::shared();
    let proxy = Proxy::to(postgres.port());
    let server = start(
        postgres,
        &r#"location = /far { postgres_pass far; postgres_query "select 1"; postgres_output value; postgres_timeout 300ms; }
           location = /near { postgres_pass new; postgres_query "select 1"; postgres_output value; }
           }
           upstream far { postgres_server host=127.0.0.1 port=FAR dbname=test user=test password=test connect_timeout=500ms;
               postgres_keepalive 2; }
           server { listen 127.0.0.1:%%PORT%%; server_name other;"#
            .replace("FAR", &proxy.port.to_string()),
    );
    check(&server, "/far", 200, "1");
    proxy.is_silent.store(true, Ordering::Relaxed);
    // The kept connection first, then new ones.
    for _ in 0..3 {
        check(&server, "/far", 504, "");
        check(&server, "/near", 200, "1");
    }
    server.until_logged(&["[error]", "timed out"]);
    proxy.is_silent.store(false, Ordering::Relaxed);
    wait::until("the far server answers again", || get(&server, "/far") == (200, "1".to_owned()));
}

#[test]
fn who_may_not_log_in_is_told() {
    let server = start(
        Postgres::shared(),
        r#"location = /password { postgres_pass host=127.0.0.1 port=%%PG_PORT%% dbname=test user=test password=wrong; postgres_query "select 1"; }
           location = /database { postgres_pass host=127.0.0.1 port=%%PG_PORT%% dbname=nosuch user=test password=test; postgres_query "select 1"; }
           location = /role { postgres_pass host=127.0.0.1 port=%%PG_PORT%% dbname=test user=nosuch password=test; postgres_query "select 1"; }
           location = /tls { postgres_pass host=127.0.0.1 port=%%PG_PORT%% dbname=test user=test password=test sslmode=require; postgres_query "select 1"; }
           location = /limit { postgres_pass host=127.0.0.1 port=%%PG_PORT%% dbname=test user=test password=test "options='-c statement_timeout=100'"; postgres_query "select pg_sleep(5)"; }"#,
    );
    for (target, status, sqlstate) in [
        ("/password", 502, "28P01"),
        ("/database", 502, "3D000"),
        ("/role", 502, "28P01"),
        ("/tls", 502, "TLS"),
        ("/limit", 500, "57014"),
    ] {
        check(&server, target, status, "");
        server.until_logged(&["[error]", &format!("GET {target} "), sqlstate]);
    }
}

#[test]
fn a_full_server_and_a_full_pool_are_told() {
    let postgres = Postgres::private();
    postgres.superuser_session().rows("alter role test connection limit 2");
    let server = start(
        &postgres,
        r#"location = /new { postgres_pass new; postgres_query "select 1"; postgres_output value; }
           location = /few { postgres_pass few; postgres_query "select 1"; postgres_output value; }
           location = /hold { postgres_pass few; postgres_query "select pg_sleep(2), 'holds'"; }
           }
           upstream few { postgres_server host=127.0.0.1 port=%%PG_PORT%% dbname=test user=test password=test;
               postgres_keepalive 1 overflow=reject; }
           server { listen 127.0.0.1:%%PORT%%; server_name other;"#,
    );
    let holding = http::connect(server.port());
    (&holding).write_all(b"GET /hold HTTP/1.0\r\n\r\n").unwrap();
    let session = postgres.superuser_session();
    let holds =
        "select 1 from pg_stat_activity where query like '%holds%' and state = 'active' and pid <> pg_backend_pid()";
    wait::until("the connection is held", || session.rows(holds).len() == 1);
    check(&server, "/few", 502, "");
    let other = postgres.session();
    check(&server, "/new", 502, "");
    server.until_logged(&["[error]", "53300"]);
    drop(other);
    wait::until("the other session has ended", || get(&server, "/new").0 == 200);
    drop(holding);
    wait::until("the connection is free again", || get(&server, "/few").0 == 200);
}

#[test]
fn any_bytes_come_through() {
    let server = start(
        Postgres::shared(),
        r#"location = /bytes { postgres_pass new; postgres_query "select '\\x00ff0a'::bytea"; postgres_output binary; }
           location = /latin { postgres_pass host=127.0.0.1 port=%%PG_PORT%% dbname=test user=test password=test client_encoding=LATIN1;
               postgres_query "select chr(228)"; postgres_output value; }
           location = /nul { postgres_pass new; set_unescape_uri $v $arg_v; postgres_query "select $v::text"; postgres_output value; }
           location = /placed { postgres_pass old; set_unescape_uri $v $arg_v; postgres_query "select '$v'"; }"#,
    );
    let bytes = |target: &str| {
        let answer = http::raw(server.port(), format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes());
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        answer[head + 4..].to_vec()
    };
    assert_eq!(bytes("/bytes"), b"\x00\xff\x0a");
    assert_eq!(bytes("/latin"), b"\xe4");
    for (value, status) in [("a%00b", 500), ("%FF", 500), ("%C3%A4", 200)] {
        let (got, _) = get(&server, &format!("/nul?v={value}"));
        assert_eq!(got, status, "{value}\n{}", server.log());
    }
    check(&server, "/placed?v=%00", 400, "");
    check(&server, "/placed?v=%FF", 400, "");
}

// What a query found.

#[test]
fn rewrites_of_2018_send_elsewhere() {
    let server = start(
        Postgres::shared(),
        r#"location = /made { postgres_pass old; postgres_query "select 7 as id, 'a b/c' as name";
               postgres_rewrite GET no_errors /items/:id/:name; }
           location = /failed { postgres_pass old; postgres_query "select '{\"errors\": {\"x\": \"bad\"}, \"code\": \"no way\"}'::json";
               postgres_rewrite GET no_errors /fine;
               postgres_rewrite GET errors "https://$host/failed?why=:code"; }
           location = /rows { postgres_pass old; postgres_query "select 1 as id"; postgres_rewrite GET rows "/seen//$arg_x/:id/end"; }
           location = /none { postgres_pass old; postgres_query "select 1 where false"; postgres_rewrite GET rows /x; postgres_output text; }"#,
    );
    let located = |target: &str| {
        let answer = http::request(server.port(), "GET", target, "", "");
        (answer.status, answer.header("Location").unwrap_or_default().to_owned())
    };
    let origin = format!("http://localhost:{}", server.port());
    assert_eq!(located("/made"), (303, format!("{origin}/items/7/a%20b%2Fc")));
    assert_eq!(located("/failed"), (303, "https://localhost/failed?why=no%20way".to_owned()));
    assert_eq!(located("/rows?x=1"), (303, format!("{origin}/seen/1/end")));
    assert_eq!(located("/none"), (200, String::new()));
}

// A storm.

#[test]
fn a_storm_of_notifications_reaches_those_who_read() {
    const STORM: usize = 100_000;
    let postgres = Postgres::shared();
    let server = recipe::start(postgres);
    let session = postgres.session();
    let mut readers: Vec<_> = (0..3).map(|_| recipe::client(&server, "storm")).collect();
    // They never read a byte, and are let go when their queues are full.
    let stalled: Vec<_> = (0..3).map(|_| recipe::client(&server, "storm")).collect();
    readers[0].until_listening(&session, "storm");
    session.notify("storm", "begins");
    let reading: Vec<_> = readers
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                while client.text() != "begins" {}
                for number in 0..STORM {
                    assert_eq!(client.text(), format!("message {number}"));
                }
            })
        })
        .collect();
    let storm = format!(
        "do $$ begin for i in 0..{} loop perform pg_notify('storm', 'message ' || i); end loop; end $$",
        STORM - 1
    );
    session.rows(&storm);
    for reader in reading {
        reader.join().unwrap();
    }
    drop(stalled);
    check(&server, "/subscribe", 404, "");
}
