//! Compressed answers beyond the recorded cases.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use support::http;
use support::pushgate::Pushgate;

const CONFIG: &str = "daemon off;
    worker_processes 1;
    pid logs/nginx.pid;
    error_log logs/error.log info;
    events { }
    http {
        push_stream_shared_memory_size 16m;
        push_stream_footer_template 'the end';
        log_format ratio '$uri $gzip_ratio';
        access_log logs/ratio.log ratio;
        gzip on;
        gzip_types text/plain 'text/event-stream; charset=utf-8';
        gzip_vary on;
        gzip_http_version 1.0;
        types { text/plain txt; }
        server {
            listen 127.0.0.1:%%PORT%%;
            root %%ROOT%%;
            location /pub {
                push_stream_publisher admin;
                push_stream_channels_path $arg_id;
                push_stream_store_messages on;
            }
            location /sub/ {
                push_stream_subscriber;
                push_stream_channels_path $arg_id;
                push_stream_ping_message_interval 100ms;
                push_stream_message_template '~channel~:~text~\\n';
            }
            location /events/ {
                push_stream_subscriber eventsource;
                push_stream_channels_path $arg_id;
            }
            location /static/ { gzip_static on; }
            location /always/ { gzip_static always; gunzip on; }
        }
    }";

/// A server, and the folder of its files.
fn start() -> (Pushgate, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    let server = Pushgate::start(CONFIG, &[("ROOT", root.path().to_str().unwrap())]);
    (server, root)
}

/// Asks for something compressed; the head, and what follows it.
fn ask(server: &Pushgate, target: &str, headers: &str) -> (String, BufReader<TcpStream>) {
    let mut stream = http::connect(server.port());
    let request = format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(answer.read_line(&mut head).unwrap() > 0, "the answer ended: {head:?}");
    }
    (head, answer)
}

const ACCEPT: &str = "Accept-Encoding: gzip\r\n";

fn publish(server: &Pushgate, id: &str, text: &str) {
    assert_eq!(http::post(server.port(), &format!("/pub?id={id}"), text).status, 200);
}

/// Reads from a stream until a text has come.
fn until_read(stream: &mut impl Read, text: &str) -> String {
    let (mut got, mut buffer) = (String::new(), [0; 4096]);
    while !got.contains(text) {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the stream ended: {got:?}");
        got.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    got
}

#[test]
fn each_message_of_a_compressed_stream_can_be_read_when_it_has_come() {
    let (server, _root) = start();
    publish(&server, "a", "stored");
    let follow = |target: &str| {
        let (head, rest) = ask(&server, target, ACCEPT);
        assert!(head.contains("Content-Encoding: gzip\r\n") && head.contains("Vary: Accept-Encoding\r\n"), "{head}");
        GzDecoder::new(rest)
    };
    // The backlog, and pings, which differ in number; two channels get their messages one by one.
    let mut one = follow("/sub/?id=a.b1");
    let mut both = follow("/sub/?id=a.b1/b.b1");
    let mut events = follow("/events/?id=a.b1");
    let mut got = [until_read(&mut one, "a:stored\n"), until_read(&mut both, "a:stored\n")];
    until_read(&mut events, "data: stored\n\n");
    for (number, text) in ["first".to_owned(), "x".repeat(100_000), "last".to_owned()].iter().enumerate() {
        publish(&server, "a", text);
        got[0] += &until_read(&mut one, &format!("{text}\n"));
        got[1] += &until_read(&mut both, &format!("{text}\n"));
        until_read(&mut events, &format!("data: {text}\n\n"));
        if number == 0 {
            publish(&server, "b", "other");
            got[1] += &until_read(&mut both, "b:other\n");
        }
    }
    assert_eq!(http::request(server.port(), "DELETE", "/pub?id=a", "", "").status, 200);
    assert_eq!(http::request(server.port(), "DELETE", "/pub?id=b", "", "").status, 200);
    // The checksum and length at the end are right, or reading would fail.
    for (mut stream, mut got) in [one, both].into_iter().zip(got) {
        stream.read_to_string(&mut got).unwrap();
        assert!(got.ends_with("the end"), "{got:?}");
    }
    events.read_to_string(&mut String::new()).unwrap();
}

#[test]
fn files_are_compressed_or_already_are() {
    let (server, root) = start();
    let plain = "some text, some more text\n".repeat(20_000);
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(b"of the compressed file").unwrap();
    let zipped = encoder.finish().unwrap();
    for folder in ["", "static", "always"] {
        let folder = root.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("long.txt"), &plain).unwrap();
        std::fs::write(folder.join("short.txt.gz"), &zipped).unwrap();
    }
    let get = |target: &str, headers: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        let answer = http::raw(server.port(), request.as_bytes());
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end..].to_vec())
    };
    let (head, body) = get("/long.txt", ACCEPT);
    assert!(head.contains("Content-Encoding: gzip\r\n") && !head.contains("Content-Length"), "{head}");
    let mut got = String::new();
    GzDecoder::new(&unchunked(&body)[..]).read_to_string(&mut got).unwrap();
    assert_eq!(got.len(), plain.len());
    support::wait::until("the ratio is logged", || {
        let log = server.read("logs/ratio.log");
        log.lines()
            .any(|line| line.strip_prefix("/long.txt ").is_some_and(|ratio| ratio.parse().is_ok_and(|n: f64| n > 10.0)))
    });
    let head = http::request(server.port(), "HEAD", "/long.txt", ACCEPT, "").head;
    assert!(head.contains("Content-Encoding: gzip") && !head.contains("Content-Length"), "{head}");

    let (head, body) = get("/static/short.txt", ACCEPT);
    assert!(head.contains("Content-Encoding: gzip\r\n") && head.contains("Vary: Accept-Encoding\r\n"), "{head}");
    assert_eq!(body, zipped);
    assert!(get("/static/short.txt", "").0.starts_with("HTTP/1.1 404"));
    assert_eq!(get("/always/short.txt", ACCEPT).1, zipped);
    let (head, body) = get("/always/short.txt", "");
    assert!(head.contains("Vary: Accept-Encoding\r\n") && !head.contains("Content-Encoding"), "{head}");
    assert_eq!(unchunked(&body), b"of the compressed file");
}

/// A chunked body as it was before.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        plain.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[end + 2 + length + 2..];
        if length == 0 {
            return plain;
        }
    }
}
