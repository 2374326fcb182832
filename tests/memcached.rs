//! memcached behind Pushgate: the real one, and servers that answer oddly.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use support::ports::Port;
use support::process::Process;
use support::pushgate::Pushgate;
use support::{http, wait};

/// A running memcached.
struct Memcached {
    // Before the folder, so that the server has ended when that is removed.
    _process: Process,
    _folder: tempfile::TempDir,
    port: Port,
}

impl Memcached {
    fn start() -> Self {
        let (folder, port) = (support::pushgate::prefix(), Port::free());
        let mut command = Command::new("memcached");
        command.args(["--listen=127.0.0.1", "--udp-port=0", "--user=root", "--port"]).arg(port.number.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::start(&mut command, "TERM", folder.path());
        let this = Self { _process: process, _folder: folder, port };
        wait::until("memcached listens", || TcpStream::connect(("127.0.0.1", this.port.number)).is_ok());
        this
    }

    /// Sends a command, and reads until a line that ends the answer.
    fn ask(&self, command: &str, last: &str) -> String {
        let mut stream = BufReader::new(http::connect(self.port.number));
        stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        while !answer.ends_with(&format!("{last}\r\n")) {
            assert_ne!(stream.read_line(&mut answer).unwrap(), 0, "{answer}");
        }
        answer
    }

    fn set(&self, key: &str, flags: u32, value: &str) {
        self.ask(&format!("set {key} {flags} 0 {}\r\n{value}", value.len()), "STORED");
    }

    /// How many connections there were in all.
    fn connections(&self) -> u64 {
        let stats = self.ask("stats", "END");
        let line = stats.lines().find_map(|line| line.strip_prefix("STAT total_connections ")).unwrap();
        line.parse().unwrap()
    }
}

/// A server that has these in `upstream` and in its location.
#[track_caller]
fn server(upstream: &str, location: &str) -> Pushgate {
    let config = format!(
        "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid;\n\
         events {{ worker_connections 64; }}\n\
         http {{ types {{ text/plain txt; }} upstream cache {{ {upstream} }} server {{ listen 127.0.0.1:%%PORT%%;\n\
         location / {{ set $memcached_key $uri$is_args$args; memcached_pass cache; {location} }}\n\
         location @missing {{ return 200 \"made for $uri\"; }}\n\
         location /none {{ set $memcached_key $arg_none; memcached_pass cache; }} }} }}"
    );
    Pushgate::start(&config, &[])
}

#[test]
fn values() {
    let memcached = Memcached::start();
    let server = server(&format!("server 127.0.0.1:{};", memcached.port.number), "memcached_gzip_flag 2;");
    memcached.set("/a.txt", 0, "hello world");
    let answer = http::get(server.port(), "/a.txt");
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello world"));
    assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
    assert_eq!((answer.header("Content-Type"), answer.header("Content-Length")), (Some("text/plain"), Some("11")));
    assert_eq!((answer.header("Content-Encoding"), answer.header("Accept-Ranges")), (None, Some("bytes")));
    let answer = http::request(server.port(), "HEAD", "/a.txt", "", "");
    assert_eq!((answer.status, answer.header("Content-Length"), answer.body.as_str()), (200, Some("11"), ""));
    let answer = http::request(server.port(), "GET", "/a.txt", "Range: bytes=6-\r\n", "");
    assert_eq!((answer.status, answer.body.as_str()), (206, "world"));

    memcached.set("/with%20blank?and%25more", 2, "gzip");
    let answer = http::get(server.port(), "/with%20blank?and%more");
    assert_eq!((answer.body.as_str(), answer.header("Content-Encoding")), ("gzip", Some("gzip")));
    memcached.set("/empty", 4, "");
    let answer = http::get(server.port(), "/empty");
    assert_eq!(
        (answer.status, answer.header("Content-Length"), answer.header("Content-Encoding")),
        (200, Some("0"), None)
    );
    let long = "\r\nEND\r\n".repeat(100_000);
    memcached.set("/long", 0, &long);
    assert_eq!(http::get(server.port(), "/long").body, long);

    let answer = http::get(server.port(), "/nothing");
    assert!(answer.status == 404 && answer.body.contains("404 Not Found"), "{answer:?}");
    server.until_logged(&["[info]", "key: \"/nothing\" was not found by memcached", "memcached://127.0.0.1:"]);
    assert_eq!(http::post(server.port(), "/a.txt", "x").status, 405);
    assert_eq!(http::get(server.port(), "/none").status, 500);
    server.until_logged(&["the \"$memcached_key\" variable is not set"]);
}

#[test]
fn what_is_missing_is_made_elsewhere() {
    let memcached = Memcached::start();
    let server = server(&format!("server 127.0.0.1:{};", memcached.port.number), "error_page 404 502 = @missing;");
    assert_eq!(http::get(server.port(), "/page").body, "made for /page");
}

#[test]
fn connections_are_kept() {
    let memcached = Memcached::start();
    let upstream = format!("server 127.0.0.1:{}; keepalive 1;", memcached.port.number);
    let server = server(&upstream, "");
    memcached.set("/key", 0, "value");
    let before = memcached.connections();
    for _ in 0..5 {
        assert_eq!(http::get(server.port(), "/key").body, "value");
        assert_eq!(http::get(server.port(), "/other").status, 404);
    }
    // One for the requests, and one that asks for the number.
    assert_eq!(memcached.connections() - before, 2);
}

/// Answers every request with the same, and notes it.
fn odd(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            assert!(request.starts_with("get /"), "{request:?}");
            // Whoever has seen enough may have gone.
            let _sent = stream.write_all(answer.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
            let _ended = stream.read_to_end(&mut Vec::new());
        }
    });
    port
}

#[test]
fn answers_that_are_no_good() {
    let check = |answer: &'static str, status: u16, body: &str, logged: &str| {
        let server = server(&format!("server 127.0.0.1:{};", odd(answer)), "memcached_gzip_flag 1;");
        let got = http::get(server.port(), "/key");
        assert_eq!(got.status, status, "{answer:?}");
        assert!(got.body.starts_with(body), "{answer:?} {got:?}");
        server.until_logged(&[logged]);
    };
    let bad = |answer, message: &str| {
        check(answer, 502, "", &format!("{message} while reading response header from upstream"));
    };
    bad("ERROR\r\n", "memcached sent invalid response: \"ERROR\"");
    bad("VALUE /key 0 5\nhello\r\nEND\r\n", "memcached sent invalid response: \"VALUE /key 0 5\"");
    bad(
        "VALUE /other 0 5\r\nhello\r\nEND\r\n",
        "memcached sent invalid key in response \"VALUE /other 0 5\" for key \"/key\"",
    );
    bad(
        "VALUE /key x 5\r\nhello\r\nEND\r\n",
        "memcached sent invalid flags in response \"VALUE /key x 5\" for key \"/key\"",
    );
    bad(
        "VALUE /key 0 x\r\nhello\r\nEND\r\n",
        "memcached sent invalid length in response \"VALUE /key 0 x\" for key \"/key\"",
    );
    bad("", "upstream prematurely closed connection");
    check("VALUE /key 0 5\r\nhello world\r\nEND\r\n", 200, "hello", "memcached sent invalid trailer");
    check("VALUE /key 0 5\r\nhello\r\nEND\r\nmore", 200, "hello", "memcached sent invalid trailer");
    check("VALUE /key 0 50\r\nhello", 200, "hello", "upstream prematurely closed connection");
}

#[test]
fn the_next_server_is_asked_for_what_is_missing() {
    let upstream = |answer| format!("server 127.0.0.1:{}; server 127.0.0.1:{};", odd("END\r\n"), odd(answer));
    let server = server(&upstream("VALUE /key 0 5\r\nhello\r\nEND\r\n"), "memcached_next_upstream not_found;");
    for _ in 0..4 {
        assert_eq!(http::get(server.port(), "/key").body, "hello");
    }
}
