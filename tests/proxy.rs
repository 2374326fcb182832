//! The proxy in front of servers that behave well and badly.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};

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
    Pushgate::start(config, &[("SETTINGS", settings), ("BACK", &port.to_string())])
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

/// What waits for a word from the other side.
fn signal() -> (mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>) {
    mpsc::channel()
}

fn wait(receiver: &mpsc::Receiver<Vec<u8>>) -> Vec<u8> {
    receiver.recv_timeout(support::wait::PATIENCE).unwrap()
}

/// Reads until these bytes have come.
fn until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while !bytes.windows(end.len()).any(|part| part == end) {
        let length = stream.read(&mut piece).unwrap();
        assert_ne!(length, 0, "it ended with {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&piece[..length]);
    }
    bytes
}

#[test]
fn an_unbuffered_body_is_passed_on_as_it_comes() {
    let (tell, told) = signal();
    let port = backend(move |mut stream| {
        tell.send(until(&mut stream, b"first")).unwrap();
        tell.send(until(&mut stream, b"last\n")).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let server = proxy(port, "proxy_request_buffering off; proxy_http_version 1.1;");
    let mut client = http::connect(server.port());
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst").unwrap();
    let head = String::from_utf8(wait(&told)).unwrap();
    assert!(head.contains("\r\nContent-Length: 10\r\n") && head.ends_with("\r\n\r\nfirst"), "{head}");
    client.write_all(b"last\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
    assert!(until(&mut client, b"\r\n\r\nok").starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(wait(&told), b"last\n");
    // The connection has gone on to the next request.
    let head = String::from_utf8(wait(&told)).unwrap();
    assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{head}");
    client.write_all(b"5\r\nlast\n\r\n0\r\n\r\n").unwrap();
    until(&mut client, b"\r\n\r\nok");
}

#[test]
fn an_early_answer_to_an_unbuffered_body_ends_the_connection() {
    let port = backend(|mut stream| {
        if head(&mut stream).is_some() {
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").unwrap();
            let _closed = stream.read_to_end(&mut Vec::new());
        }
    });
    let server = proxy(port, "proxy_request_buffering off;");
    let mut client = http::connect(server.port());
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbegun").unwrap();
    let answer = String::from_utf8(until(&mut client, b"\r\n\r\nno")).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 403 Forbidden\r\n") && answer.contains("\r\nConnection: close\r\n"),
        "{answer}"
    );
}

#[test]
fn a_client_that_breaks_off_its_unbuffered_body_is_not_the_upstreams_fault() {
    let (tell, told) = signal();
    let port = backend(move |mut stream| {
        if head(&mut stream).is_some() {
            let _closed = stream.read_to_end(&mut Vec::new());
            tell.send(Vec::new()).unwrap();
        }
    });
    let server = proxy(port, "proxy_request_buffering off; proxy_http_version 1.1;");
    let bad = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n";
    assert!(http::raw(server.port(), bad).starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    wait(&told);
    server.until_logged(&["client sent invalid chunked body while sending request to upstream"]);
    let mut client = http::connect(server.port());
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    wait(&told);
    server.until_logged(&["client prematurely closed connection while sending request to upstream"]);
}

#[test]
fn a_slow_client_does_not_hold_the_upstream() {
    const LENGTH: usize = 20_000_000;
    let (tell, told) = signal();
    let port = backend(move |mut stream| {
        let _request = head(&mut stream);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").unwrap();
        let body: Vec<u8> = (0..LENGTH).map(|at| b'a' + (at % 23) as u8).collect();
        stream.write_all(&body).unwrap();
        tell.send(body).unwrap();
    });
    let server = proxy(port, "");
    let mut client = http::connect(server.port());
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let body = wait(&told);
    server.until_logged(&["an upstream response is buffered to a temporary file /", " while reading upstream, client"]);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&body), "it is whole and in order");
}

#[test]
fn what_is_not_buffered_leaves_at_once() {
    let (tell, told) = signal();
    let told = Mutex::new(told);
    let port = backend(move |mut stream| {
        let Some((head, _)) = head(&mut stream) else { return };
        let accel = if head.starts_with("GET /accel") { "X-Accel-Buffering: no\r\n" } else { "" };
        write!(stream, "HTTP/1.1 200 OK\r\n{accel}\r\nhello").unwrap();
        wait(&told.lock().unwrap());
        stream.write_all(b" world").unwrap();
    });
    let server = proxy(port, "location /off { proxy_buffering off; proxy_pass http://127.0.0.1:%%BACK%%; }");
    for path in ["/accel", "/off"] {
        let mut client = http::connect(server.port());
        write!(client, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        until(&mut client, b"\r\n\r\nhello");
        tell.send(Vec::new()).unwrap();
        until(&mut client, b" world");
    }
}

#[test]
fn answers_with_bad_lengths_and_chunks() {
    let port = backend(|mut stream| {
        let Some((head, _)) = head(&mut stream) else { return };
        let answer: &[u8] = match head.split(' ').nth(1).unwrap() {
            "/long" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello world",
            "/chunk" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n",
            "/after" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nworld",
            "/both" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
            "/length" => b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
            "/reset" => {
                socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
                return;
            }
            _ => b"",
        };
        stream.write_all(answer).unwrap();
    });
    let server = proxy(port, "");
    let check = |path: &str, status: u16, body: &str, logged: &str| {
        let answer = http::get(server.port(), path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(status != 200 || answer.body.contains(body) && !answer.body.contains("world"), "{path}: {answer:?}");
        server.until_logged(&[logged, path]);
    };
    check(
        "/long",
        200,
        "hello",
        "upstream sent more data than specified in \"Content-Length\" header while reading upstream",
    );
    assert_eq!(http::raw(server.port(), b"GET /chunk HTTP/1.0\r\n\r\n"), b"", "nothing is sent before it is known");
    server.until_logged(&["upstream sent invalid chunked response while reading upstream", "/chunk"]);
    check("/after", 200, "hello", "upstream sent data after final chunk while reading upstream");
    check(
        "/both",
        502,
        "",
        "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time while reading",
    );
    check(
        "/length",
        502,
        "",
        "upstream sent invalid \"Content-Length\" header: \"Content-Length: five\" while reading",
    );
    check(
        "/reset",
        502,
        "",
        "recv() failed (104: Connection reset by peer) while reading response header from upstream",
    );
    check("/nothing", 502, "", "upstream prematurely closed connection while reading response header from upstream");
}

#[test]
fn an_endless_answer_takes_no_more_memory_than_its_buffers() {
    let port = backend(|mut stream| {
        let _request = head(&mut stream);
        let mut piece = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        piece.resize(64 * 1024, b'x');
        while stream.write_all(&piece).is_ok() {}
    });
    let server = proxy(port, "proxy_max_temp_file_size 1m;");
    let mut client = http::connect(server.port());
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut piece = vec![0; 1024 * 1024];
    client.read_exact(&mut piece).unwrap();
    let before = server.resident_kb();
    for _ in 0..50 {
        client.read_exact(&mut piece).unwrap();
    }
    let grown = server.resident_kb().saturating_sub(before);
    assert!(grown < 8 * 1024, "fifty megabytes went through and {grown} KB stayed");
}

#[test]
fn short_chunks_go_on_together() {
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = Mutex::new(may_go);
    let port = backend(move |mut stream| {
        let _request = head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").unwrap();
        may_go.lock().unwrap().recv().unwrap();
        stream.write_all(b"1\r\nb\r\n1;x=y\r\nc\r\n2\r\nde\r\n0\r\n\r\n").unwrap();
    });
    let server = proxy(port, "proxy_buffering off;");
    let mut client = http::connect(server.port());
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    until(&mut client, b"1\r\na\r\n");
    go.send(()).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "4\r\nbcde\r\n0\r\n\r\n");
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

/// A server that answers with the request it got.
fn mirror() -> u16 {
    backend(|mut stream| {
        let Some((head, mut body)) = head(&mut stream) else { return };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        let begun = body.len();
        body.resize(length, 0);
        stream.read_exact(&mut body[begun..]).unwrap();
        let answer = format!("{head}{}", String::from_utf8_lossy(&body)).replace("\r\n", "|");
        let _gone = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
    })
}

/// What the client gets, without the head's `Server` and `Date`.
fn bare(port: u16, request: &str) -> String {
    let answer = http::raw(port, request.as_bytes());
    let text = String::from_utf8_lossy(&answer).into_owned();
    let lines = text.split("\r\n").filter(|line| !line.starts_with("Server: pushgate") && !line.starts_with("Date: "));
    lines.collect::<Vec<_>>().join("|")
}

#[test]
fn requests_as_upstreams_get_them() {
    let back = mirror();
    let check = |settings: &str, request: &[u8], expected: &str| {
        let server = proxy(back, settings);
        let answer = String::from_utf8_lossy(&http::raw(server.port(), request)).into_owned();
        let body = answer.rsplit_once("\r\n\r\n").unwrap().1.replace(&back.to_string(), "BACK");
        assert_eq!(body, expected, "{settings} {}", String::from_utf8_lossy(request));
    };
    let chunks =
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    // A body in chunks that is there already goes with its length.
    let expected = "POST / HTTP/1.1|Host: 127.0.0.1:BACK|Connection: close|Content-Length: 2||ab";
    check("proxy_http_version 1.1; proxy_request_buffering off;", chunks, expected);
    // Any byte of a path goes on.
    let address = format!("set $to http://127.0.0.1:{back}; rewrite ^ /x%20$uri break;");
    let expected = "GET /x%2520/%C3%A9 HTTP/1.0|Host: 127.0.0.1:BACK|Connection: close||";
    check(&address, b"GET /%c3%a9 HTTP/1.0\r\n\r\n", expected);
}

#[test]
fn any_byte_of_a_path_with_variables_goes_on() {
    let (sender, got) = signal();
    let sender = Mutex::new(sender);
    let back = backend(move |mut stream| {
        sender.lock().unwrap().send(until(&mut stream, b"\r\n\r\n")).unwrap();
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let config = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid; events { }\n\
                  http { server { listen 127.0.0.1:%%PORT%%; location / { proxy_pass http://127.0.0.1:%%BACK%%$uri; } } }";
    let server = Pushgate::start(config, &[("BACK", &back.to_string())]);
    http::raw(server.port(), b"GET /\xe9%fe HTTP/1.0\r\n\r\n");
    assert!(wait(&got).starts_with(b"GET /\xe9\xfe HTTP/1.0\r\n"));
}

#[test]
fn a_client_that_waits_to_go_on_is_told_so() {
    let server = proxy(mirror(), "");
    let told = |request: &str| bare(server.port(), request).starts_with("HTTP/1.1 100 Continue||HTTP/1.1 200 OK|");
    let expect = "Host: a\r\nConnection: close\r\nExpect: 100-continue\r\n";
    assert!(told(&format!("POST / HTTP/1.1\r\n{expect}Content-Length: 2\r\n\r\nab")), "though its body is there");
    assert!(told(&format!("GET / HTTP/1.1\r\n{expect}\r\n")), "though it has none");
    assert!(!told(&format!("POST / HTTP/1.0\r\n{expect}Content-Length: 2\r\n\r\nab")));
}

#[test]
fn heads_of_all_kinds() {
    let back = backend(|mut stream| {
        let Some((head, _)) = head(&mut stream) else { return };
        let answer: &[u8] = match head.split(' ').nth(1).unwrap() {
            "/100" => b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "/101" => b"HTTP/1.1 101 Sw\r\nUpgrade: a\r\n\r\nxyz",
            "/099" => b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
            "/204" => b"HTTP/1.1 204 None\r\nContent-Length: 2\r\n\r\nok",
            "/bare" => b"no head",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        let _gone = stream.write_all(answer);
    });
    let server = proxy(back, "");
    let check = |request: &str, expected: &str| {
        let request = format!("{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(bare(server.port(), &request), expected, "{request}");
    };
    let proper = "HTTP/1.1 200 OK|Content-Length: 2||ok";
    check("GET /100", &format!("HTTP/1.1 100 Continue|Connection: close||{proper}"));
    check("GET /101", "HTTP/1.1 101 Sw|Connection: upgrade|Upgrade: a||xyz");
    check("GET /099", "HTTP/1.1 099 OK|Content-Length: 2|Connection: close||ok");
    check("GET /204", "HTTP/1.1 204 None|Content-Length: 2|Connection: close||");
    check("HEAD /", "HTTP/1.1 200 OK|Content-Length: 2|Connection: close||");
    check("GET /", "HTTP/1.1 200 OK|Content-Length: 2|Connection: close||ok");
    assert_eq!(server.logged(&["HEAD /", "upstream sent more data"]), 0, "{}", server.log());
    let _nothing = bare(server.port(), "HEAD /bare HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    server.until_logged(&["HEAD /bare", "upstream sent more data"]);
}

#[test]
fn what_is_buffered_waits_for_more() {
    let back = backend(|mut stream| {
        let Some((head, _)) = head(&mut stream) else { return };
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        if head.starts_with("GET /silent") {
            let _gone = stream.read(&mut [0]);
        }
    });
    let server = proxy(back, "proxy_read_timeout 200ms;");
    let body = |path: &str| {
        bare(server.port(), &format!("GET {path} HTTP/1.0\r\n\r\n")).rsplit_once("||").unwrap().1.to_owned()
    };
    assert_eq!(body("/close"), "abc");
    assert_eq!(body("/silent"), "");
    server.until_logged(&["upstream timed out (110: Connection timed out) while reading upstream"]);
}

#[test]
fn sockets_that_are_not_there() {
    let config = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid; events { }\n\
                  http { server { listen 127.0.0.1:%%PORT%%; location / { proxy_pass http://unix:%%PREFIX%%/none:/x; } } }";
    let server = Pushgate::start(config, &[]);
    assert_eq!(http::get(server.port(), "/").status, 502);
    let path = server.path("none");
    let path = path.display();
    server.until_logged(&[
        "[crit]",
        &format!("connect() to unix:{path} failed (2: No such file or directory) while connecting to upstream"),
        &format!("upstream: \"http://unix:{path}:/x\""),
    ]);
}

#[test]
fn answers_on_their_way_to_the_client() {
    const VALIDATORS: &str = "ETag: \"e\"\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
    let back = backend(|mut stream| {
        let Some((head, _)) = head(&mut stream) else { return };
        let headers = match head.split(' ').nth(1).unwrap() {
            "/cookie" => "Set-Cookie: a=b; SameSite=Lax\r\n".to_owned(),
            "/nowhere" => {
                "Content-Type: a/b\r\nAccept-Ranges: none\r\nSet-Cookie: c\r\nX-Accel-Redirect:\r\n".to_owned()
            }
            "/denied" => "Content-Type: a/b\r\nSet-Cookie: c\r\nX-Accel-Redirect: /403\r\n".to_owned(),
            "/folder" => "Content-Type: a/b\r\nX-Accel-Redirect: /301\r\n".to_owned(),
            "/koi" => "Content-Type: text/html\r\nX-Accel-Charset: KOI8-R\r\n".to_owned(),
            "/odd" => "Content-Type: text/html\r\nX-Accel-Charset: odd\r\n".to_owned(),
            "/404" => String::new(),
            _ => format!("Content-Type: text/html\r\nAccept-Ranges: bytes\r\n{VALIDATORS}"),
        };
        let status = if head.contains("/404") { "404 No" } else { "200 OK" };
        let text = "0123456789";
        let _gone = write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{text}", text.len());
    });
    let config = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid; events { }\n\
                  http { charset_map koi8-r utf-8 { C0 D18E; } server { listen 127.0.0.1:%%PORT%%;\n\
                  error_page 403 /page; server_tokens off; absolute_redirect off;\n\
                  location / { proxy_pass http://127.0.0.1:%%BACK%%; %%SETTINGS%% }\n\
                  location /403 { return 403; } location /301 { return 301 /x; }\n\
                  location /page { default_type text/plain; return 200 page; } } }";
    let check = |settings: &str, path: &str, headers: &str, expected: &str| {
        let server = Pushgate::start(config, &[("BACK", &back.to_string()), ("SETTINGS", settings)]);
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
        let answer = bare(server.port(), &request).replace("Thu, 01 Jan 1970 00:00:00 GMT", "TIME");
        let answer = answer.replace("|Connection: close|", "|");
        let answer = match answer.split_once("||") {
            Some((head, body)) if body.starts_with("<html>") || !body.is_ascii() || body.contains('\0') => {
                head.to_owned()
            }
            _ => answer,
        };
        assert_eq!(answer, expected, "{settings} {path} {headers}");
        server
    };
    let ok = |headers: &str| format!("HTTP/1.1 200 OK|{headers}||0123456789");
    let plain = ok("Content-Type: text/html|Content-Length: 10|Accept-Ranges: bytes|ETag: \"e\"|Last-Modified: TIME");
    check("", "/", "Range: bytes=1-2\r\n", &plain);
    // Ranges of what has none.
    let part = "HTTP/1.1 206 Partial Content|Content-Type: text/html|Content-Length: 2|ETag: \"e\"|Last-Modified: TIME|\
                Content-Range: bytes 1-2/10||12";
    let whole = ok("Content-Type: text/html|Content-Length: 10|ETag: \"e\"|Last-Modified: TIME|Accept-Ranges: bytes");
    for settings in ["proxy_force_ranges on;", "proxy_force_ranges on; proxy_buffering off; limit_rate 100k;"] {
        check(settings, "/", "Range: bytes=1-2\r\n", part);
        check(settings, "/", "Range: bytes=1-2\r\nIf-Range: \"e\"\r\n", part);
        check(settings, "/", "Range: bytes=1-2\r\nIf-Range: \"f\"\r\n", &whole);
        check(settings, "/", "Range: bytes=1-2,4-5\r\n", &whole);
    }
    // What a filter changes is not the same any more.
    let chunks = "HTTP/1.1 200 OK|Content-Type: text/html|Transfer-Encoding: chunked";
    let same = "ETag: W/\"e\"|Last-Modified: TIME";
    let gzip = "gzip on; gzip_min_length 1; gzip_proxied any;";
    check(gzip, "/", "Accept-Encoding: gzip\r\n", &format!("{chunks}|{same}|Content-Encoding: gzip"));
    check("sub_filter 0 1;", "/", "", &format!("{chunks}|Accept-Ranges: bytes||a|1123456789|0||"));
    check(
        "sub_filter 0 1; sub_filter_last_modified on;",
        "/",
        "",
        &format!("{chunks}|Accept-Ranges: bytes|{same}||a|1123456789|0||"),
    );
    let own = ok("Content-Type: text/html|Content-Length: 10|Accept-Ranges: bytes|ETag: \"f\"|Last-Modified: TIME");
    check("add_header ETag '\"f\"';", "/", "", &own);
    let flags = "proxy_cookie_flags a secure httponly samesite=strict;";
    check(flags, "/cookie", "", &ok("Content-Length: 10|Set-Cookie: a=b; SameSite=Strict; Secure; HttpOnly"));
    // X-Accel-Redirect to what is an error, and what it leaves behind.
    check("", "/nowhere", "", "HTTP/1.1 404 Not Found|Content-Type: text/html|Content-Length: 149|Set-Cookie: c");
    check("", "/denied", "", "HTTP/1.1 403 Forbidden|Content-Type: text/plain|Content-Length: 4|Set-Cookie: c||page");
    check("", "/folder", "", "HTTP/1.1 301 Moved Permanently|Content-Type: text/html|Content-Length: 165|Location: /x");
    check("", "/koi", "", &ok("Content-Type: text/html; charset=KOI8-R|Content-Length: 10"));
    let server = check("", "/odd", "", &ok("Content-Type: text/html|Content-Length: 10"));
    server.until_logged(&["[error]", "unknown charset \"odd\" to override"]);
    // A named location that is not there is an error of its own, whatever was to become of the first.
    let missing = "proxy_intercept_errors on; error_page 404 =200 @missing;";
    check(missing, "/404", "", "HTTP/1.1 500 Internal Server Error|Content-Type: text/html|Content-Length: 173");
    let check_host = |settings: &str, expected: &str| {
        let server = proxy(mirror(), settings);
        assert!(http::get(server.port(), "/").body.contains(expected), "{settings}");
    };
    check_host(
        "set $proxy_host own; proxy_set_header X $proxy_host:$proxy_port; set $proxy_port 7;",
        "|X: own:7|Host: own|",
    );
}

#[test]
fn handshakes_that_the_upstream_ends() {
    let back = backend(|mut stream| {
        // All of the hello, so that it is no reset.
        let mut header = [0; 5];
        stream.read_exact(&mut header).unwrap();
        let mut rest = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        stream.read_exact(&mut rest).unwrap();
    });
    let config = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid; events { }\n\
                  http { server { listen 127.0.0.1:%%PORT%%; location / { proxy_pass https://127.0.0.1:%%BACK%%; } } }";
    let server = Pushgate::start(config, &[("BACK", &back.to_string())]);
    assert_eq!(http::get(server.port(), "/").status, 502);
    server.until_logged(&["[error]", "peer closed connection in SSL handshake while SSL handshaking to upstream"]);
}
