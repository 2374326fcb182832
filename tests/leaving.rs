//! Clients that leave before their answer is whole, and sides of a tunnel that stop.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use support::http;
use support::pushgate::Pushgate;
use support::wait;

/// How long something that happens at once may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server behind the proxy: it hands over each request's path with its connection.
fn backend() -> (u16, mpsc::Receiver<(String, TcpStream)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            if sender.send((path, stream)).is_err() {
                return;
            }
        }
    });
    (port, receiver)
}

fn start(locations: &str, back: u16) -> Pushgate {
    let config = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid;\n\
        events { worker_connections 64; }\n\
        http {\n\
            log_format short '$uri $status $upstream_status $upstream_bytes_sent $body_bytes_sent';\n\
            access_log logs/access.log short;\n\
            server { listen 127.0.0.1:%%PORT%%; proxy_http_version 1.1; %%LOCATIONS%% }\n\
        }";
    let back = format!("127.0.0.1:{back}");
    Pushgate::start(&config.replace("%%LOCATIONS%%", locations), &[("BACK", &back)])
}

fn ask(server: &Pushgate, path: &str, headers: &str) -> TcpStream {
    let mut client = http::connect(server.port());
    write!(client, "GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n").unwrap();
    client
}

/// Waits for the end of a connection.
fn end_of(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.read(&mut [0; 1024]) {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("the connection goes on: {other:?}"),
    }
}

fn until(stream: &mut TcpStream, end: &[u8]) {
    let mut got = Vec::new();
    while !got.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        got.push(byte[0]);
    }
}

/// The access log, once it has a path.
fn access_log(server: &Pushgate, path: &str) -> String {
    wait::until("the access log has it", || server.read("logs/access.log").contains(path));
    server.read("logs/access.log")
}

const GONE: &str =
    "epoll_wait() reported that client prematurely closed connection, so upstream connection is closed too";

#[test]
fn what_a_client_waited_for_ends_with_it() {
    let (back, requests) = backend();
    let server = start(
        "location / { proxy_pass http://%%BACK%%; }\n\
         location /unbuffered { proxy_buffering off; proxy_pass http://%%BACK%%; }\n\
         location /asked { auth_request /auth; proxy_pass http://%%BACK%%; }\n\
         location /auth { internal; log_subrequest on; proxy_pass http://%%BACK%%; }",
        back,
    );
    // Before the head.
    let client = ask(&server, "/head", "");
    let (_, stream) = requests.recv_timeout(PATIENCE).unwrap();
    drop(client);
    end_of(stream);
    server.until_logged(&[GONE, "while sending request to upstream", "/head"]);
    // Amid a body in which nothing comes: before the client has anything, and after that.
    for path in ["/buffered", "/unbuffered"] {
        let mut client = ask(&server, path, "");
        let (_, mut stream) = requests.recv_timeout(PATIENCE).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\nabc").unwrap();
        if path == "/unbuffered" {
            until(&mut client, b"abc");
        }
        drop(client);
        end_of(stream);
        server.until_logged(&[GONE, "while reading upstream", path]);
    }
    // In a subrequest that it waits for.
    let client = ask(&server, "/asked", "");
    let (path, stream) = requests.recv_timeout(PATIENCE).unwrap();
    assert_eq!(path, "/auth");
    drop(client);
    end_of(stream);
    server.until_logged(&[GONE, "/asked", "subrequest: \"/auth\""]);
    let log = access_log(&server, "/asked");
    let lines: Vec<_> = log.lines().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["/head 499 -", "/buffered 499 200", "/unbuffered 200 200", "/asked 499 -"], "{log}");
    assert!(!log.contains("/head 499 - 0 "), "what was sent counts: {log}");
}

#[test]
fn what_comes_after_the_answer_does_not_need_the_client() {
    let (back, requests) = backend();
    let server = start(
        "location / { post_action /after; proxy_pass http://%%BACK%%; }\n\
         location /after { proxy_pass http://%%BACK%%; }",
        back,
    );
    let client = ask(&server, "/", "");
    let (_, mut stream) = requests.recv_timeout(PATIENCE).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    let (path, mut after) = requests.recv_timeout(PATIENCE).unwrap();
    assert_eq!(path, "/after");
    drop(client);
    // Time to be ended, if it were.
    after.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(after.read(&mut [0]).is_err(), "the request was given up");
    after.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    let log = access_log(&server, "/after");
    assert!(log.starts_with("/after 200 200, 204") || log.starts_with("/after 200 200 : 204"), "{log}");
}

#[test]
fn only_what_was_sent_counts() {
    let (back, _requests) = backend();
    let server = start("sendfile on;", back);
    std::fs::File::create(server.path("html/large")).unwrap().set_len(1 << 30).unwrap();
    let mut client = ask(&server, "/large", "");
    client.read_exact(&mut [0; 1000]).unwrap();
    drop(client);
    let log = access_log(&server, "/large");
    let sent: u64 = log.trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(sent > 0 && sent < 1 << 30, "{log}");
    server.until_logged(&["client prematurely closed connection", "while sending response to client", "/large"]);
}

#[test]
fn sides_of_a_tunnel_that_stop() {
    let (back, requests) = backend();
    let server = start(
        "location / { proxy_pass http://%%BACK%%; proxy_set_header Upgrade $http_upgrade;\n\
             proxy_set_header Connection $http_connection; }\n\
         location /silent { proxy_pass http://%%BACK%%; proxy_read_timeout 100ms; proxy_set_header Upgrade x;\n\
             proxy_set_header Connection upgrade; }\n\
         location /full { proxy_pass http://%%BACK%%; send_timeout 100ms; proxy_set_header Upgrade x;\n\
             proxy_set_header Connection upgrade; }",
        back,
    );
    let upgrade = "Upgrade: x\r\nConnection: upgrade\r\n";
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    // Nothing comes.
    let client = ask(&server, "/silent", upgrade);
    let (_, mut stream) = requests.recv_timeout(PATIENCE).unwrap();
    stream.write_all(switch).unwrap();
    end_of(stream);
    server
        .until_logged(&["[info]", "upstream timed out (110: Connection timed out) while proxying upgraded connection"]);
    drop(client);
    // The client takes nothing.
    let client = ask(&server, "/full", upgrade);
    let (_, mut stream) = requests.recv_timeout(PATIENCE).unwrap();
    stream.write_all(switch).unwrap();
    while stream.write_all(&[b'x'; 65536]).is_ok() {}
    server.until_logged(&["[info]", "client timed out (110: Connection timed out) while proxying upgraded connection"]);
    drop(client);
    // The upstream ends with what it has not read.
    let mut client = ask(&server, "/", upgrade);
    let (_, mut stream) = requests.recv_timeout(PATIENCE).unwrap();
    stream.write_all(switch).unwrap();
    client.write_all(b"not read").unwrap();
    stream.peek(&mut [0]).unwrap();
    drop(stream);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"\r\n\r\n"));
    server
        .until_logged(&["[error]", "recv() failed (104: Connection reset by peer) while proxying upgraded connection"]);
}
