//! The recipe, end to end: a real PostgreSQL, the real server, and a websocket library that is not ours.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use support::postgres::{Mode, Postgres, Session};
use support::websocket::Client;
use support::{http, recipe, wait};

/// A bare `select now()` as PostgreSQL writes it.
#[track_caller]
fn assert_is_time(text: &str) {
    let pattern = regex::Regex::new(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d(:\d\d)?$").unwrap();
    assert!(pattern.is_match(text), "not a time: {text:?}");
}

// Connecting.

#[test]
fn the_handshake_is_accepted_by_a_library() {
    let server = recipe::start(Postgres::shared());
    let session = Postgres::shared().session();
    let mut client = Client::try_connect(server.port(), "/websocket?id=handshake", &[]).ok().unwrap();
    client.until_listening(&session, "handshake");
    client.leave();
}

#[test]
fn connecting_does_not_wait_for_the_subscribe_request() {
    let postgres = Postgres::shared();
    let server = recipe::start_with(postgres, &recipe::with("listen $channel", "select pg_sleep(5), 'slow hook'"));
    let session = postgres.superuser_session();
    let client = recipe::client(&server, "slow");
    // The query still runs now, or is still to come: the client was accepted before its end.
    wait::until("the subscribe request runs its query", || {
        let running = "select 1 from pg_stat_activity where query like '%slow%hook%' and state = 'active' \
                       and pid <> pg_backend_pid()";
        !session.rows(running).is_empty()
    });
    drop(client);
}

#[test]
fn a_failing_subscribe_request_is_logged_and_does_not_refuse_the_client() {
    let server = recipe::start_with(Postgres::shared(), &recipe::with("listen $channel", "select 1/0"));
    let mut client = recipe::client(&server, "fails");
    server.until_logged(&["[error]", "fails", "22012"]);
    assert_eq!(http::post(server.port(), "/publisher?id=fails", "still here").status, 200);
    assert_eq!(client.text(), "still here");
}

// NOTIFY.

#[test]
fn a_notification_reaches_every_client_of_its_channel() {
    let server = recipe::start(Postgres::shared());
    let session = Postgres::shared().session();
    let mut clients: Vec<Client> = (0..3).map(|_| recipe::client(&server, "every")).collect();
    let mut other = recipe::client(&server, "every-other");
    clients[2].until_listening(&session, "every");
    other.until_listening(&session, "every-other");
    drain(&mut clients, &session, "every");

    session.notify("every", "hello");
    for client in &mut clients {
        assert_eq!(client.text(), "hello");
        client.silent();
    }
    other.silent();
}

/// Reads on until all have seen one and the same message, whatever came before.
fn drain(clients: &mut [Client], session: &Session, channel: &str) {
    session.notify(channel, "drained");
    for client in clients {
        while client.text() != "drained" {}
    }
}

#[test]
fn payloads_arrive_as_they_are_and_in_order() {
    let server = recipe::start(Postgres::shared());
    let session = Postgres::shared().session();
    let mut client = recipe::client(&server, "payloads");
    client.until_listening(&session, "payloads");
    let long = "x".repeat(7999);
    let payloads =
        ["same", "same", "same", "", "привет, 世界 🙂", "{\"a\": \"b\\\\c\"}", "line\r\nline\ttab", "it's", &long];
    for payload in payloads {
        session.notify("payloads", payload);
    }
    for payload in payloads {
        assert_eq!(client.text(), payload);
    }
    // In one transaction PostgreSQL sends them at once (and equal ones once).
    let many = "do $$ begin for i in 1..1000 loop perform pg_notify('payloads', i::text); end loop; end $$";
    session.rows(many);
    for number in 1..=1000 {
        assert_eq!(client.text(), number.to_string());
    }
    client.silent();
}

// What a client sends.

#[test]
fn the_answer_of_the_publish_request_goes_to_all_once() {
    let server = recipe::start(Postgres::shared());
    let (mut sender, mut other) = (recipe::client(&server, "answer"), recipe::client(&server, "answer"));
    let mut elsewhere = recipe::client(&server, "answer-elsewhere");
    sender.send("anything");
    let answer = sender.text();
    assert_is_time(&answer);
    assert_eq!(other.text(), answer);
    sender.silent();
    other.silent();
    elsewhere.silent();
}

#[test]
fn the_frame_is_the_body_of_a_post_request() {
    let query = "select $request_method::text || ' ' || $arg_id::text || ' ' || $request_body::text";
    let server = recipe::start_with(Postgres::shared(), &recipe::with("select now()", query));
    let mut client = recipe::client(&server, "body");
    for text in ["hello", "it's; \"quoted\" \\ привет", "x"] {
        client.send(text);
        assert_eq!(client.text(), format!("POST body {text}"));
    }
}

#[test]
fn nothing_is_published_when_the_publish_request_fails() {
    let server = recipe::start_with(Postgres::shared(), &recipe::with("select now()", "select 1/0"));
    let (mut sender, mut other) = (recipe::client(&server, "failing"), recipe::client(&server, "failing"));
    sender.send("anything");
    server.until_logged(&["[error]", "22012"]);
    sender.silent();
    other.silent();
    assert_eq!(http::post(server.port(), "/publisher?id=failing", "alive").status, 200);
    assert_eq!((sender.text(), other.text()), ("alive".into(), "alive".into()));
}

#[test]
fn without_a_publish_request_the_frame_itself_is_published() {
    let config = recipe::with("push_stream_client_publish_request /publish;", "");
    let server = recipe::start_with(Postgres::shared(), &config);
    let (mut sender, mut other) = (recipe::client(&server, "frame"), recipe::client(&server, "frame"));
    for text in ["hello", "привет", &"y".repeat(20_000)] {
        sender.send(text);
        assert_eq!(sender.text(), text);
        assert_eq!(other.text(), text);
    }
    sender.silent();
    other.silent();
}

// Leaving.

#[test]
fn a_channel_stays_listened_to_until_its_last_client_leaves() {
    let postgres = Postgres::private();
    postgres.superuser_session().rows("alter role test set log_statement = 'all'");
    let server = recipe::start(&postgres);
    let session = postgres.session();
    let (mut first, mut second) = (recipe::client(&server, "leave"), recipe::client(&server, "leave"));
    let mut third = recipe::client(&server, "leave");
    first.until_listening(&session, "leave");
    third.until_listening(&session, "leave");
    drain(std::slice::from_mut(&mut second), &session, "leave");
    let unlistened = || postgres.log().to_lowercase().contains("unlisten \"leave\"");

    first.leave();
    // Without a word: the connection is just closed.
    drop(third);
    wait::until("the server has seen both leave", || {
        http::get(server.port(), "/publisher?id=leave").body.contains("\"subscribers\": 1")
    });
    session.notify("leave", "still here");
    assert_eq!(second.text(), "still here");
    assert!(!unlistened(), "a client is still on the channel:\n{}", postgres.log());

    second.leave();
    wait::until("the channel is no longer listened to", unlistened);
}

#[test]
fn a_channel_that_was_left_can_be_joined_again() {
    let server = recipe::start(Postgres::shared());
    let session = Postgres::shared().session();
    for _ in 0..5 {
        let mut client = recipe::client(&server, "rejoin");
        client.until_listening(&session, "rejoin");
        client.leave();
    }
}

// The publisher.

#[test]
fn the_publisher_publishes_and_tells() {
    let server = recipe::start(Postgres::shared());
    let port = server.port();
    let mut client = recipe::client(&server, "news");
    let info = |published: u32| {
        format!(
            "{{\"channel\": \"news\", \"published_messages\": {published}, \"stored_messages\": 0, \"subscribers\": 1}}\r\n"
        )
    };
    for (number, method) in [(1, "POST"), (2, "PUT")] {
        let answer = http::request(port, method, "/publisher?id=news", "", "from HTTP");
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{method}");
        assert_eq!(client.text(), "from HTTP");
        assert_eq!(http::get(port, "/publisher?id=news").body, info(number));
    }
    let answer = http::post(port, "/admin?id=news", "with information");
    assert_eq!((answer.status, answer.body), (200, info(3)));
    assert_eq!(client.text(), "with information");

    assert_eq!(http::request(port, "DELETE", "/publisher?id=news", "", "").status, 405);
    let answer = http::request(port, "DELETE", "/admin?id=news", "", "");
    assert_eq!(answer.status, 200);
    assert_eq!(client.text(), "Channel deleted");
    assert_eq!(http::get(port, "/publisher?id=news").status, 404);
}

#[test]
fn the_publisher_is_for_those_who_are_allowed() {
    let allowed = "allow 127.0.0.1/16;";
    let server = recipe::start_with(Postgres::shared(), &recipe::with(allowed, "allow 10.0.0.0/8;"));
    let mut client = recipe::client(&server, "denied");
    assert_eq!(http::post(server.port(), "/publisher?id=denied", "no").status, 403);
    assert_eq!(http::get(server.port(), "/publisher?id=denied").status, 403);
    client.silent();
}

#[test]
fn internal_locations_are_not_found_from_outside() {
    let server = recipe::start(Postgres::shared());
    for location in ["/subscribe", "/unsubscribe", "/publish"] {
        assert_eq!(http::get(server.port(), &format!("{location}?id=x")).status, 404, "{location}");
        assert_eq!(http::post(server.port(), &format!("{location}?id=x"), "x").status, 404, "{location}");
    }
}

// Ids.

#[test]
fn any_id_names_its_own_channel() {
    let server = recipe::start(Postgres::shared());
    let session = Postgres::shared().session();
    let longest = "k".repeat(63);
    let ids = [
        "plain",
        "MixedCase",
        "канал",
        "世界",
        "🙂",
        "o'hara",
        "a\"b",
        "a\\b",
        "\"\"",
        "\\\"",
        "a\\\\\"b",
        "--",
        "a;b",
        "a--b",
        "$1",
        "$$",
        "select",
        "12345",
        "a.b-c_d",
        "a+b",
        "a=b",
        "{\"json\":1}",
        &longest,
    ];
    for id in ids {
        let mut client = recipe::client(&server, id);
        client.until_listening(&session, id);
        let answer = http::post(server.port(), &format!("/publisher?id={id}"), "by HTTP");
        assert_eq!(answer.status, 200, "{id}");
        assert_eq!(client.text(), "by HTTP", "{id}");
        client.leave();
    }
    // A browser escapes what cannot stand in a URL; the channel is the same.
    for (escaped, id) in
        [("a%20b", "a b"), ("a%22b", "a\"b"), ("%D0%BA%D0%B0%D0%BD%D0%B0%D0%BB", "канал"), ("%F0%9F%99%82", "🙂")]
    {
        let mut client = recipe::client(&server, escaped);
        client.until_listening(&session, id);
        client.leave();
    }
    let mut client = recipe::client(&server, "CaseCounts");
    client.until_listening(&session, "CaseCounts");
    session.notify("casecounts", "folded");
    client.silent();
}

#[test]
fn an_id_that_can_not_be_listened_to_is_refused_with_the_reason() {
    let server = recipe::start(Postgres::shared());
    let id = "k".repeat(64);
    let (code, reason) = recipe::client(&server, &id).closed();
    assert_eq!(code, 1008);
    assert!(reason.contains("63"), "the reason names the limit: {reason:?}");
    server.until_logged(&["[error]", &id, "63"]);

    // 32 letters, 64 bytes.
    assert_eq!(recipe::client(&server, &"я".repeat(32)).closed().0, 1008);
}

#[test]
fn a_missing_id_is_answered_as_by_the_original() {
    let server = recipe::start(Postgres::shared());
    for target in ["/publisher", "/publisher?id="] {
        let answer = http::post(server.port(), target, "x");
        assert_eq!(answer.status, 400, "{target}");
        assert_eq!(answer.header("X-Nginx-PushStream-Explain"), Some("No channel id provided."), "{target}");
    }
}

// PostgreSQL comes and goes.

const CROWD: usize = 100;

#[test]
fn nobody_notices_a_restart_of_postgres() {
    for mode in [Mode::Fast, Mode::Immediate] {
        let postgres = Postgres::private();
        let server = recipe::start(&postgres);
        let id = |number: usize| format!("crowd{}", number % 20);
        let mut clients: Vec<Client> = (0..CROWD).map(|number| recipe::client(&server, &id(number))).collect();
        let session = postgres.session();
        for (number, client) in clients.iter_mut().enumerate() {
            client.until_listening(&session, &id(number));
        }
        drop(session);

        postgres.restart(mode);
        let session = postgres.session();
        for (number, client) in clients.iter_mut().enumerate() {
            client.until_listening(&session, &id(number));
        }
        assert_eq!(server.logged(&["connection", "lost"]), 1, "{mode:?}: said once:\n{}", server.log());
        assert_eq!(server.logged(&["listening again"]), 1, "{mode:?}: said once:\n{}", server.log());
    }
}

#[test]
fn postgres_may_be_absent_at_the_start() {
    let postgres = Postgres::stopped();
    let server = recipe::start(&postgres);
    let mut client = recipe::client(&server, "early");
    server.until_logged(&["127.0.0.1", &postgres.port().to_string(), "refused"]);
    assert_eq!(http::post(server.port(), "/publisher?id=early", "without a database").status, 200);
    assert_eq!(client.text(), "without a database");

    postgres.start();
    let session = postgres.session();
    client.until_listening(&session, "early");
}
