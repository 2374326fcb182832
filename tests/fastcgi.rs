//! FastCGI servers behind Pushgate, that behave well and badly.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use support::http;
use support::pushgate::Pushgate;

const END: u8 = 3;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// A record as an application sends it.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[1, kind, 0, 1, high, low, 3, 0][..], content, &[0; 3]].concat()
}

/// Names and values.
type Params = Vec<(String, String)>;

/// A request: whether its connection is to be kept, its parameters, and its body.
fn read_request(stream: &mut TcpStream) -> Option<(bool, Params, Vec<u8>)> {
    let (mut keeps, mut params, mut body) = (false, Vec::new(), Vec::new());
    loop {
        let mut header = [0; 8];
        stream.read_exact(&mut header).ok()?;
        let mut content = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]]))];
        stream.read_exact(&mut content).ok()?;
        stream.read_exact(&mut vec![0; header[6].into()]).ok()?;
        match (header[1], content.is_empty()) {
            (1, _) => keeps = content[2] == 1,
            (4, _) => params.extend(content),
            (5, false) => body.extend(content),
            (5, true) => return Some((keeps, pairs(&params), body)),
            (kind, _) => panic!("a record of type {kind}"),
        }
    }
}

fn pairs(mut bytes: &[u8]) -> Params {
    let mut pairs = Vec::new();
    while !bytes.is_empty() {
        let mut length = || match bytes[0] {
            short @ ..=127 => {
                bytes = &bytes[1..];
                usize::from(short)
            }
            _ => {
                let long = u32::from_be_bytes(bytes[..4].try_into().unwrap()) & 0x7fff_ffff;
                bytes = &bytes[4..];
                long as usize
            }
        };
        let (name, value) = (length(), length());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        pairs.push((text(&bytes[..name]), text(&bytes[name..name + value])));
        bytes = &bytes[name + value..];
    }
    pairs
}

/// Answers as the request's query says, and tells its parameters and body.
fn serve(mut stream: TcpStream) {
    while let Some((keeps, params, body)) = read_request(&mut stream) {
        let value = |name: &str| params.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
        let answer: Vec<Vec<u8>> = match value("QUERY_STRING") {
            "plain" => {
                let list: String = params.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
                let text = format!("Content-Type: text/plain\r\nX-Powered-By: test\r\n\r\n{list}{}", body.len());
                let (first, second) = text.as_bytes().split_at(20);
                vec![record(STDOUT, first), record(STDERR, b"oh dear.\n"), record(STDOUT, second), record(STDOUT, b"")]
            }
            "status" => {
                vec![record(STDOUT, b"Status: 404 Not Here\nContent-Type: text/plain\n\ngone"), record(STDOUT, b"")]
            }
            "location" => vec![record(STDOUT, b"Location: http://a/b\r\n\r\n"), record(STDOUT, b"")],
            "long" => vec![record(STDOUT, b"Content-Length: 5\r\n\r\nhello world"), record(STDOUT, b"")],
            "short" => vec![record(STDOUT, b"Content-Length: 50\r\n\r\nhello"), record(STDOUT, b"")],
            "badstatus" => vec![record(STDOUT, b"Status: oops\r\n\r\n")],
            "nothing" => vec![record(STDOUT, b"")],
            "http" => vec![b"HTTP/1.1 200 OK\r\n\r\n".to_vec()],
            "endless" => vec![record(STDOUT, &[b'x'; 60_000])],
            "connection" => vec![
                record(STDOUT, format!("A: b\r\n\r\n{}", stream.peer_addr().unwrap()).as_bytes()),
                record(STDOUT, b""),
            ],
            query => panic!("{query}"),
        };
        stream.write_all(&answer.concat()).unwrap();
        let _sent = stream.write_all(&record(END, &[0; 8]));
        if !keeps {
            return;
        }
    }
}

fn server(settings: &str) -> Pushgate {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(|| serve(stream));
        }
    });
    let config = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid;\n\
                  events { worker_connections 64; }\n\
                  http { upstream php { server 127.0.0.1:%%BACK%%; keepalive 4; } server { listen 127.0.0.1:%%PORT%%;\n\
                  client_max_body_size 8m; location / { fastcgi_pass php; fastcgi_index index.php;\n\
                  fastcgi_split_path_info ^(.+\\.php)(/.*)$;\n\
                  fastcgi_param SCRIPT_NAME $fastcgi_script_name; fastcgi_param PATH_INFO $fastcgi_path_info if_not_empty;\n\
                  fastcgi_param QUERY_STRING $query_string; fastcgi_param CONTENT_LENGTH $content_length; %%SETTINGS%% } } }";
    Pushgate::start(config, &[("SETTINGS", settings), ("BACK", &port)])
}

#[test]
fn a_script_is_told_of_the_request_and_answers() {
    let server = server("");
    let headers = "X-A: 1\r\nX-A: 2\r\nCookie: a=b\r\n";
    let answer = http::request(server.port(), "GET", "/app.php/more?plain", headers, "");
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("text/plain")));
    assert_eq!(answer.header("X-Powered-By"), Some("test"));
    let lines = "SCRIPT_NAME=/app.php\nPATH_INFO=/more\nQUERY_STRING=plain\nCONTENT_LENGTH=\n\
                 HTTP_HOST=localhost\nHTTP_CONNECTION=close\nHTTP_X_A=1, 2\nHTTP_COOKIE=a=b\n0";
    assert!(answer.body.contains(lines), "{}", answer.body);
    server.until_logged(&[
        "FastCGI sent in stderr: \"oh dear\" while reading response header from upstream",
        "fastcgi://127.0.0.1:",
    ]);
    assert!(http::get(server.port(), "/a/?plain").body.contains("SCRIPT_NAME=/a/index.php\nQUERY_STRING"));
    let body = "x".repeat(300_000);
    let answer = http::post(server.port(), "/?plain", &body);
    assert!(answer.body.contains("CONTENT_LENGTH=300000\n") && answer.body.contains("\n300000"), "{answer:?}");
}

#[test]
fn statuses() {
    let server = server("");
    let answer = http::get(server.port(), "/?status");
    assert!(answer.head.starts_with("HTTP/1.1 404 Not Here\r\n") && answer.body.contains("gone"), "{answer:?}");
    assert!(answer.header("Status").is_none());
    let answer = http::get(server.port(), "/?location");
    assert_eq!((answer.status, answer.header("Location")), (302, Some("http://a/b")));
}

#[test]
fn answers_that_are_no_good() {
    let server = server("");
    let check = |query: &str, status: u16, logged: &str| {
        assert_eq!(http::get(server.port(), &format!("/?{query}")).status, status, "{query}");
        server.until_logged(&[logged, query]);
    };
    check("long", 200, "upstream sent more data than specified in \"Content-Length\" header while reading upstream");
    check("short", 200, "upstream prematurely closed FastCGI stdout while reading upstream");
    check("badstatus", 502, "upstream sent invalid status \"oops\" while reading response header from upstream");
    check("nothing", 502, "upstream prematurely closed FastCGI stdout while reading response header from upstream");
    check("http", 502, "upstream sent unsupported FastCGI protocol version: 72 while reading");
    check("endless", 502, "upstream sent too big header while reading response header from upstream");
}

#[test]
fn connections_are_kept_where_that_is_asked_for() {
    let kept = server("fastcgi_keep_conn on;");
    let ask = |server: &Pushgate| http::get(server.port(), "/?connection").body;
    assert_eq!(ask(&kept), ask(&kept));
    let closed = server("");
    assert_ne!(ask(&closed), ask(&closed));
}

#[test]
fn a_complaint_may_make_an_answer_a_bad_one() {
    assert_eq!(http::get(server("fastcgi_catch_stderr dear;").port(), "/?plain").status, 502);
}
