//! Headers behind bodies: of the configuration, and of upstreams.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use support::http;
use support::pushgate::Pushgate;

const CONFIG: &str = r#"
daemon off;
worker_processes 1;
error_log logs/error.log info;
pid logs/nginx.pid;
events { }
http {
    log_format told '$request_uri [$sent_trailer_x_t] [$upstream_trailer_x_up]';
    access_log logs/access.log told;
    server {
        listen 127.0.0.1:%%PORT%%;
        add_trailer X-T "$arg_t";
        location / { return 200 "text"; }
        location /missing { return 404; }
        location /always { add_trailer X-T a always; add_trailer X-T "$status" always; return 404 no; }
        location /up { proxy_pass http://127.0.0.1:%%BACK%%; proxy_http_version 1.1; }
        location /up/on {
            proxy_pass http://127.0.0.1:%%BACK%%; proxy_http_version 1.1; proxy_pass_trailers on;
            proxy_hide_header X-Hidden;
        }
        location /up/on/direct {
            proxy_pass http://127.0.0.1:%%BACK%%; proxy_http_version 1.1; proxy_pass_trailers on; proxy_buffering off;
            proxy_buffer_size 1k;
        }
    }
}
"#;

/// An upstream whose answers are chunked, with trailers; a path that ends with `slow` has its answer cut everywhere.
fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let path = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let trailers = match path.contains("bad") {
                true => "no colon here\r\n".to_owned(),
                false if path.contains("big") => format!("X-Up: {}\r\n", "x".repeat(3000)),
                false => "X-Up: 1\r\nX-Hidden: 2\r\nDate: never\r\nX-Up: 3\r\n".to_owned(),
            };
            let answer =
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{trailers}\r\n");
            let step = if path.contains("slow") { 1 } else { answer.len() };
            stream.set_nodelay(true).unwrap();
            for piece in answer.as_bytes().chunks(step) {
                let _broken = stream.write_all(piece);
            }
        }
    });
    port
}

/// What comes behind the head.
fn body(server: &Pushgate, request: &str) -> String {
    let request = request.replace('\n', "\r\n") + "\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = http::raw(server.port(), request.as_bytes());
    String::from_utf8_lossy(&answer).split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A body in chunks, with its text in one: how a slow one is cut is a matter of time.
fn in_one_chunk(body: &str) -> String {
    let (mut text, mut rest) = (String::new(), body);
    while let Some((size, after)) = rest.split_once("\r\n")
        && let Ok(size @ 1..) = usize::from_str_radix(size, 16)
    {
        text += &after[..size];
        rest = after[size..].strip_prefix("\r\n").unwrap();
    }
    format!("{:x}\r\n{text}\r\n{rest}", text.len())
}

#[test]
fn trailers() {
    let server = Pushgate::start(CONFIG, &[("BACK", &upstream().to_string())]);
    let check = |request: &str, expected: &str| {
        assert_eq!(body(&server, request).replace("\r\n", "|"), expected, "{request}");
    };
    check("GET /?t=1 HTTP/1.1", "4|text|0|X-T: 1||");
    check("GET / HTTP/1.1", "4|text|0||");
    check("GET /?t=1 HTTP/1.0", "text");
    check("HEAD /?t=1 HTTP/1.1", "");
    check("GET /always HTTP/1.1", "2|no|0|X-T: a|X-T: 404||");
    assert!(!body(&server, "GET /missing?t=1 HTTP/1.1").contains("X-T"));
    check("GET /up?t=1 HTTP/1.1", "3|abc|0|X-T: 1||");
    for how in ["on", "on/slow", "on/direct", "on/direct/slow"] {
        let expected = match how.contains("direct") {
            true => "3|abc|0|X-Up: 1|X-Hidden: 2|X-Up: 3||",
            false => "3|abc|0|X-Up: 1|X-Up: 3||",
        };
        let got = body(&server, &format!("GET /up/{how} HTTP/1.1"));
        assert_eq!(in_one_chunk(&got).replace("\r\n", "|"), expected, "{how}");
    }
    check("GET /up/on?t=2 HTTP/1.1", "3|abc|0|X-Up: 1|X-Up: 3|X-T: 2||");
    check("GET /up/on HTTP/1.0", "abc");
    assert_eq!(http::raw(server.port(), b"GET /up/on/bad HTTP/1.0\r\n\r\n"), b"");
    server.until_logged(&["upstream sent invalid trailer: \"no\\x20...\" while reading upstream"]);
    http::raw(server.port(), b"GET /up/on/direct/big HTTP/1.0\r\n\r\n");
    server.until_logged(&["upstream sent too big trailers while reading"]);
    support::wait::until("all is logged", || server.read("logs/access.log").contains("/up/on/direct/big"));
    let log = server.read("logs/access.log");
    for line in ["/?t=1 [1] [-]", "/up?t=1 [1] [-]", "/always [a, 404] [-]", "/up/on [-] [1, 3]"] {
        assert!(log.lines().any(|logged| logged == line), "{line}: {log}");
    }
}
