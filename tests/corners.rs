//! Corners of nginx that were found by running the same configuration on both.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;

use support::pushgate::Pushgate;
use support::{http, wait};

const CONFIG: &str = "daemon off;
    worker_processes 1;
    pid logs/nginx.pid;
    error_log logs/error.log info;
    events { }
    http {
        log_format short '\"$request\" $status $request_completion.';
        log_format type '$sent_http_content_type.';
        log_format body '$request_method [$request_body]';
        access_log logs/access.log short;
        client_header_timeout 300ms;
        server {
            listen 127.0.0.1:%%PORT%%;
            listen unix:%%PREFIX%%/socket;
            set_real_ip_from 127.0.0.1;
            set_real_ip_from 10.0.0.0/8;
            real_ip_recursive on;
            add_header X-Client $remote_addr/$remote_port;
            location /forwarded { real_ip_header X-Forwarded-For; try_files /none /text; }
            location /other { real_ip_header X-Other; try_files /none /text; }
            location /text { real_ip_header X-None; stub_status; }
            location /address { return 200 \"$server_addr [$server_port]\"; }
            location /slow { limit_rate 1; return 200 abcdef; }
            location /big { send_timeout 300ms; reset_timedout_connection on; alias %%PREFIX%%/big; }
            location /nothing { reset_timedout_connection on; return 444; }
            client_max_body_size 9;
            location /long { error_page 413 /too-long; }
            location /too-long { return 200 \"too long\"; }
            location /header { return 200 [$http_a_b]; }
            location /page { alias %%PREFIX%%/page; }
            location /zipped { gzip on; gzip_types *; proxy_pass http://127.0.0.1:%%PORT%%/page; }
            location /broken { gunzip on; add_header Content-Encoding gzip; alias %%PREFIX%%/page; }
            location /type {
                access_log logs/type.log type;
                add_header Content-Type text/other;
                return 200 type;
            }
            location /body { access_log logs/body.log body; proxy_pass http://127.0.0.1:%%PORT%%/address; }
            location /unread { lingering_close off; return 200 unread; }
        }
        server {
            listen 127.0.0.1:%%PORT%%;
            server_name own;
            underscores_in_headers on;
            large_client_header_buffers 4 16k;
            return 200 [$http_a_b];
        }
    }";

fn start() -> Pushgate {
    Pushgate::start(CONFIG, &[])
}

#[test]
fn of_several_headers_the_last_one_names_the_client() {
    let server = start();
    let client = |target: &str, headers: &str| {
        let answer = http::request(server.port(), "GET", target, headers, "");
        answer.header("X-Client").map(str::to_owned).unwrap()
    };
    assert_eq!(client("/forwarded", "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n"), "2.2.2.2/");
    assert_eq!(client("/forwarded", "X-Forwarded-For: 1.1.1.1:7\r\nX-Forwarded-For: 10.0.0.1\r\n"), "1.1.1.1/7");
    assert_eq!(client("/forwarded", "X-Forwarded-For: x, 10.0.0.2\r\nX-Forwarded-For: 010.0.0.1\r\n"), "10.0.0.2/");
    assert_eq!(client("/other", "X-Other: 1.1.1.1\r\nX-Other: 2.2.2.2\r\n"), "1.1.1.1/");
    let last_is_empty = client("/forwarded", "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For:\r\n");
    assert!(last_is_empty.starts_with("127.0.0.1/"), "{last_is_empty}");
}

#[test]
fn a_socket_in_the_file_system_is_an_address() {
    let server = start();
    let mut stream = std::os::unix::net::UnixStream::connect(server.path("socket")).unwrap();
    stream.write_all(b"GET /address HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(&format!("\r\n\r\nunix:{} []", server.path("socket").display())), "{answer}");
}

#[test]
fn a_request_without_an_answer_is_logged_as_far_as_it_came() {
    let server = start();
    assert_eq!(http::raw(server.port(), b"GET /beg"), b"");
    server.until_logged(&[
        "client timed out (110: Connection timed out) while reading client request line",
        "\"GET /beg\"",
    ]);
    assert_eq!(http::raw(server.port(), b""), b"");
    server.until_logged(&[
        "client timed out (110: Connection timed out) while waiting for request, client: 127.0.0.1, server: 127.0.0.1:",
    ]);
    let mut stream = http::connect(server.port());
    stream.write_all(b"GET /address HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let _begin = stream.read(&mut [0; 100]).unwrap();
    drop(stream);
    server.until_logged(&["client 127.0.0.1 closed keepalive connection"]);
    let lines = ["\"GET /beg\" 408 .", "\"GET /address HTTP/1.1\" 200 OK."];
    wait::until("both are logged", || lines.iter().all(|line| server.read("logs/access.log").contains(line)));
}

#[test]
fn who_goes_while_an_answer_is_held_back_is_missed() {
    let server = start();
    let mut stream = http::connect(server.port());
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    server.until_logged(&["client prematurely closed connection while sending response to client", "\"GET /slow"]);
    wait::until("it is logged", || server.read("logs/access.log").contains("\"GET /slow HTTP/1.1\" 200 ."));
}

#[test]
fn connections_that_timed_out_are_reset() {
    let server = start();
    std::fs::write(server.path("big"), vec![b'x'; 20 << 20]).unwrap();
    for target in ["/big", "/nothing"] {
        let mut stream = http::connect(server.port());
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        wait::until("it is logged", || server.read("logs/access.log").contains(&format!("\"GET {target} HTTP/1.1\"")));
        let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{target}");
    }
    server.until_logged(&["client timed out (110: Connection timed out) while sending response to client", "/big"]);
}

#[test]
fn the_rest_of_a_body_is_read_whatever_lingering_says() {
    let server = start();
    let mut stream = http::connect(server.port());
    stream.write_all(b"POST /unread HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 6\r\n\r\nabc").unwrap();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    stream.write_all(b"def").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("\r\n\r\nunread"), "{rest}");
}

#[test]
fn a_server_reads_what_follows_its_name_in_its_own_way() {
    let server = start();
    let get = |host: &str, headers: &str| {
        let request = format!("GET /header HTTP/1.1\r\nConnection: close\r\nHost: {host}\r\n{headers}\r\n");
        String::from_utf8(http::raw(server.port(), request.as_bytes())).unwrap()
    };
    assert!(get("other", "A_b: 1\r\n").ends_with("\r\n\r\n[]"));
    assert!(get("own", "A_b: 1\r\n").ends_with("\r\n\r\n[1]"));
    assert!(get("OWN.", "A_b: 1\r\n").ends_with("\r\n\r\n[1]"));
    let long = format!("X: {}\r\n", "x".repeat(10_000));
    assert!(get("other", &long).starts_with("HTTP/1.1 400 "));
    assert!(get("own", &long).starts_with("HTTP/1.1 200 "));
    let absolute = b"GET http://own/header HTTP/1.1\r\nConnection: close\r\nA_b: 1\r\nHost: other\r\n\r\n";
    assert!(http::raw(server.port(), absolute).ends_with(b"\r\n\r\n[1]"));
}

#[test]
fn the_page_for_a_body_that_is_too_long_is_shown_whatever_the_length() {
    let server = start();
    let answer = http::post(server.port(), "/long", "0123456789");
    assert_eq!((answer.status, &answer.body[..]), (413, "too long"));
    assert_eq!(server.logged(&["client intended to send too large body: 10 bytes"]), 1);
}

#[test]
fn what_is_compressed_does_not_go_through_a_file() {
    let server = start();
    std::fs::write(server.path("page"), "some text that repeats\n".repeat(100_000)).unwrap();
    let answer = http::raw(
        server.port(),
        b"GET /zipped HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n",
    );
    assert!(String::from_utf8_lossy(&answer).contains("Content-Encoding: gzip"));
    wait::until("it is logged", || server.read("logs/access.log").contains("\"GET /zipped HTTP/1.1\" 200 OK."));
    assert_eq!(server.logged(&["buffered to a temporary file"]), 0, "{}", server.log());
}

#[test]
fn what_is_not_compressed_as_it_says_is_not_blamed_on_the_client() {
    let server = start();
    server.write("page", "this is no gzip");
    http::raw(server.port(), b"GET /broken HTTP/1.0\r\n\r\n");
    server.until_logged(&["[error]", "inflate() failed: 0, -3", "\"GET /broken"]);
    wait::until("it is logged", || server.read("logs/access.log").contains("\"GET /broken HTTP/1.0\" 200 ."));
    assert_eq!(server.logged(&["prematurely closed", "/broken"]), 0);
}

#[test]
fn of_two_types_the_servers_own_is_the_variable() {
    let server = start();
    assert_eq!(http::get(server.port(), "/type").body, "type");
    wait::until("it is logged", || server.read("logs/type.log") == "text/plain.\n");
}

#[test]
fn a_request_without_a_body_has_none_to_log() {
    let server = start();
    http::get(server.port(), "/body");
    http::post(server.port(), "/body", "abc");
    http::request(server.port(), "POST", "/body", "", "");
    wait::until("all are logged", || server.read("logs/body.log") == "GET [-]\nPOST [abc]\nPOST []\n");
}
