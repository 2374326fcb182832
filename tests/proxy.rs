//! The proxy in front of servers that behave well and badly.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use support::http;
use support::pushgate::Pushgate;

/// A server behind the proxy: each connection is handed to a function.
fn backend(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(&serve));
    port
}

/// The head of a request, and what came of the body with it.
fn head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Some((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
        }
    }
}

fn proxy(port: u16, settings: &str) -> Pushgate {
    let config = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid;\n\
                  events { worker_connections 64; }\n\
                  http { server { listen 127.0.0.1:%%PORT%%; location / {\n\
                  proxy_pass http://127.0.0.1:%%BACK%%; %%SETTINGS%% } } }";
    Pushgate::start(config, &[("BACK", &port.to_string()), ("SETTINGS", settings)])
}

#[test]
fn a_body_too_long_for_memory_arrives_whole() {
    let port = backend(|mut stream| {
        let Some((head, mut body)) = head(&mut stream) else { return };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
        let begun = body.len();
        body.resize(length, 0);
        stream.read_exact(&mut body[begun..]).unwrap();
        let sum: u64 = (1..).zip(&body).map(|(place, byte)| place * u64::from(*byte)).sum();
        let answer = format!("{length} {sum}");
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).unwrap();
    });
    let server = proxy(port, "client_max_body_size 8m; client_body_buffer_size 16k;");
    let body: String = (0..3_000_000u32).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
    let sum: u64 = (1..).zip(body.bytes()).map(|(place, byte): (u64, u8)| place * u64::from(byte)).sum();
    assert_eq!(http::post(server.port(), "/", &body).body, format!("{} {sum}", body.len()));
    server.until_logged(&["a client request body is buffered to a temporary file"]);

    let mut chunks =
        String::from("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in body.as_bytes().chunks(50_000) {
        chunks.push_str(&format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece)));
    }
    chunks.push_str("0\r\n\r\n");
    let answer = http::raw(server.port(), chunks.as_bytes());
    assert!(String::from_utf8_lossy(&answer).contains(&format!("{} {sum}", body.len())));
}

#[test]
fn a_head_without_an_end_is_given_up() {
    let port = backend(|mut stream| {
        if head(&mut stream).is_some() && stream.write_all(b"HTTP/1.1 200 OK\r\n").is_ok() {
            while stream.write_all(b"X-More: and more and more\r\n").is_ok() {}
        }
    });
    let server = proxy(port, "");
    assert_eq!(http::get(server.port(), "/").status, 502);
    server.until_logged(&["upstream sent too big header while reading response header from upstream"]);
}

#[test]
fn an_answer_that_breaks_off_is_not_made_whole() {
    let port = backend(|mut stream| {
        let Some((head, _)) = head(&mut stream) else { return };
        let answer: &[u8] = match head.starts_with("GET /chunks") {
            true => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            false => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        };
        stream.write_all(answer).unwrap();
    });
    let server = proxy(port, "");
    for path in ["/chunks", "/length"] {
        let answer = http::get(server.port(), path);
        assert!(answer.body.contains("hello") && !answer.body.contains("0\r\n\r\n"), "{path}: {answer:?}");
        server.until_logged(&["upstream prematurely closed connection while reading upstream", path]);
    }
}

#[test]
fn silence_ends_with_504() {
    let port = backend(|mut stream| {
        let _request = head(&mut stream);
        let _closed = stream.read(&mut [0; 1]);
    });
    let server = proxy(port, "proxy_read_timeout 100ms;");
    assert_eq!(http::get(server.port(), "/").status, 504);
    server
        .until_logged(&["upstream timed out (110: Connection timed out) while reading response header from upstream"]);
}
