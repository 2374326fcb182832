//! More clients than there is room for.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};

use support::http;
use support::pushgate::Pushgate;
use support::wait;

const CONFIG: &str = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid;
    events { worker_connections 20; }
    http { server { listen 127.0.0.1:%%PORT%%; location / { return 204; } location /status { stub_status; } } }";

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn connections_that_wait_make_room() {
    let server = Pushgate::start(CONFIG, &[]);
    let mut idle = Vec::new();
    for _ in 0..60 {
        let mut client = http::connect(server.port());
        client.write_all(HEAD).unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 204");
        idle.push(client);
    }
    server.until_logged(&["[warn]", "20 worker_connections are not enough, reusing connections"]);
    // The first has waited longest.
    let mut rest = Vec::new();
    idle[0].read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn connections_that_have_begun_do_not() {
    let server = Pushgate::start(CONFIG, &[]);
    let begin = || {
        let mut client = http::connect(server.port());
        client.write_all(&HEAD[..10]).unwrap();
        client
    };
    let begun: Vec<_> = (0..15).map(|_| begin()).collect();
    wait::until("all heads have begun", || http::get(server.port(), "/status").body.contains("Reading: 15 "));
    let mut more = Vec::new();
    wait::until("there is no more room", || {
        more.push(begin());
        server.log().lines().any(|line| line.ends_with("20 worker_connections are not enough"))
    });
    for mut client in begun {
        client.write_all(&HEAD[10..]).unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 204");
    }
}
