//! Limits beyond the recorded cases: several workers, reloads, subscribers, the words of the log.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use support::pushgate::Pushgate;
use support::{http, wait};

const CONFIG: &str = "daemon off;
    worker_processes 2;
    pid logs/nginx.pid;
    error_log logs/error.log info;
    events { }
    http {
        push_stream_shared_memory_size 16m;
        push_stream_header_template hello;
        limit_req_zone $arg_key zone=requests:1m rate=1r/m;
        limit_req_zone $arg_other zone=others:1m rate=1r/m;
        limit_req_zone $arg_key zone=quick:1m rate=5r/s;
        limit_conn_zone $server_name zone=subscribers:1m;
        server {
            listen 127.0.0.1:%%PORT%%;
            server_name one;
            add_header X-Limit \"$limit_req_status$limit_conn_status\" always;
            location /req { limit_req zone=requests burst=2 nodelay; %%ANSWER%% }
            location /both {
                limit_req zone=others;
                limit_req zone=requests burst=1 nodelay;
                limit_req_log_level warn;
                limit_req_status 429;
                %%ANSWER%%
            }
            location /delay { limit_req zone=quick burst=5; %%ANSWER%% }
            location /dry { limit_req zone=quick burst=1; limit_req_dry_run on; %%ANSWER%% }
            location /sub { limit_conn subscribers 2; push_stream_subscriber; push_stream_channels_path $arg_id; }
            location /slow { limit_rate 2k; %%ANSWER%% }
            location /set { set $limit_rate $arg_rate; %%ANSWER%% }
            location /text { return 200 ok; }
        }
    }";

fn start(answer: &str) -> Pushgate {
    Pushgate::start(CONFIG, &[("ANSWER", answer)])
}

const ANSWER: &str = "try_files /none /text;";

/// Statuses of so many requests, each on a connection of its own, so that both workers get some.
fn statuses(server: &Pushgate, target: &str, count: usize) -> Vec<u16> {
    (0..count).map(|_| http::get(server.port(), target).status).collect()
}

fn granted(server: &Pushgate, target: &str, count: usize) -> usize {
    statuses(server, target, count).iter().filter(|status| **status == 200).count()
}

#[test]
fn all_workers_count_together_and_a_reload_forgets_nothing() {
    let server = start(ANSWER);
    assert_eq!(granted(&server, "/req?key=a", 20), 3);
    server.configure(&CONFIG.replace("/text { return 200 ok; }", "/text { return 200 new; }"));
    server.signal("HUP");
    wait::until("the new configuration answers", || http::get(server.port(), "/text").body == "new");
    assert_eq!(granted(&server, "/req?key=a", 5), 0);
    assert_eq!(granted(&server, "/req?key=b", 5), 3);
    // Another size is another zone.
    server.configure(&CONFIG.replace("zone=requests:1m", "zone=requests:2m").replace("200 ok", "200 larger"));
    server.signal("HUP");
    wait::until("the new configuration answers", || http::get(server.port(), "/text").body == "larger");
    assert_eq!(granted(&server, "/req?key=a", 5), 3);
}

#[test]
fn a_request_that_one_limit_refuses_counts_in_none() {
    let server = start(ANSWER);
    assert_eq!(statuses(&server, "/both?key=a&other=b", 1), [200]);
    // The second limit would take one more, the first refuses it.
    assert_eq!(statuses(&server, "/both?key=a&other=b", 3), [429, 429, 429]);
    assert_eq!(statuses(&server, "/both?key=a&other=c", 2), [200, 429]);
    // Keys that are empty are not counted.
    assert_eq!(statuses(&server, "/both?other=d", 2), [200, 429]);
    let refused = http::get(server.port(), "/both?key=a&other=b");
    assert_eq!(refused.header("X-Limit"), Some("REJECTED"));
    let log = server.log();
    assert!(log.contains("[warn]"), "{log}");
    assert!(log.contains("limiting requests, excess: "), "{log}");
    assert!(log.contains(" by zone \"others\", client: 127.0.0.1, server: one, request: \"GET /both"), "{log}");
}

#[test]
fn what_is_too_fast_is_put_off() {
    let server = start(ANSWER);
    let begun = Instant::now();
    let answers: Vec<_> = (0..3).map(|_| http::get(server.port(), "/delay?key=a")).collect();
    let found: Vec<_> = answers.iter().map(|answer| answer.header("X-Limit").unwrap()).collect();
    assert_eq!(found, ["PASSED", "DELAYED", "DELAYED"]);
    assert!(begun.elapsed() >= Duration::from_millis(390), "two requests wait for 200 ms each");
    assert!(server.log().contains("[warn]"));
    assert!(server.log().contains("delaying request, excess: "), "{}", server.log());
    let dry: Vec<_> = (0..3).map(|_| http::get(server.port(), "/dry?key=b")).collect();
    let found: Vec<_> = dry.iter().map(|answer| (answer.status, answer.header("X-Limit").unwrap())).collect();
    assert_eq!(found, [(200, "PASSED"), (200, "DELAYED_DRY_RUN"), (200, "REJECTED_DRY_RUN")]);
    assert!(server.log().contains("limiting requests, dry run, excess: "), "{}", server.log());
}

#[test]
fn subscribers_count_until_they_leave() {
    let server = start(ANSWER);
    let subscribe = || {
        let mut client = http::connect(server.port());
        client.write_all(b"GET /sub?id=a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut head = [0; 12];
        client.read_exact(&mut head).unwrap();
        (client, String::from_utf8_lossy(&head[9..]).into_owned())
    };
    let (first, status) = subscribe();
    assert_eq!(status, "200");
    let (_second, status) = subscribe();
    assert_eq!(status, "200");
    assert_eq!(subscribe().1, "503");
    drop(first);
    wait::until("there is room for another", || subscribe().1 == "200");
    assert!(server.log().contains("limiting connections by zone \"subscribers\""), "{}", server.log());
}

#[test]
fn an_answer_is_sent_no_faster_than_it_may() {
    let server = start("return 200 %%TEXT%%;".replace("%%TEXT%%", &"x".repeat(3000)).as_str());
    let begun = Instant::now();
    let answer = http::get(server.port(), "/slow");
    assert_eq!(answer.body.len(), 3000);
    assert!(begun.elapsed() >= Duration::from_millis(990), "2048 bytes are a second's");
    let begun = Instant::now();
    assert_eq!(http::get(server.port(), "/set?rate=2560").body.len(), 3000);
    assert!(begun.elapsed() >= Duration::from_millis(990), "2560 bytes are a second's");
    assert_eq!(http::get(server.port(), "/set?rate=fast").body.len(), 3000);
    assert!(server.log().contains("invalid $limit_rate \"fast\""), "{}", server.log());
}
