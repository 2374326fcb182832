//! What nginx answers and logs in corners that the recorded cases leave out; each seen beside nginx itself.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};

use support::pushgate::Pushgate;
use support::{http, wait};

const CONFIG: &str = "daemon off;
    pid logs/nginx.pid;
    error_log logs/error.log info;
    events { }
    http {
        log_format short '$request|$status|$body_bytes_sent|$request_length|$pipe|$content_length';
        access_log logs/access.log short;
        server {
            listen 127.0.0.1:%%PORT%%;
            root .;
            error_page 400 /named-400;
            location = /named-400 { return 200 \"bad $status\"; }
            location = /status { return 200 \"is $status\"; }
            location = /missing { error_page 404 /page; return 404; }
            location = /gone { error_page 404 =200 @nobody; return 404; }
            location = /to-folder { error_page 404 /folder; return 404; }
            location = /recursive { recursive_error_pages on; error_page 404 /second; return 404; }
            location = /second { error_page 404 /page; return 404; }
            location = /once { error_page 404 /second; return 404; }
            location /closed { internal; location /closed/inside { return 200 inside; } }
            location = /any { satisfy any; deny all; alias page; }
            location = /dated { alias page; add_header Last-Modified 'Mon, 28 Sep 1970 06:00:00 GMT'; }
            location = /not-modified { return 304; }
            location = /chunks { sub_filter page PAGE; sub_filter_types *; alias page; }
            location = /up { proxy_pass http://127.0.0.1:%%PORT%%/status; }
            location = /cycle/ { index /cycle/; }
            location = /unmet { error_page 412 416 /status; add_header X-A a always; add_header X-B b; alias page; }
            location = /always { add_header X-A a always; alias page; }
            location = /elsewhere { error_page 302 =203 @page; return 302 http://there/; }
            location @page { return 200 somewhere; }
            location = /silent { try_files /none =200; }
            location = /zero { try_files /none =0; }
            location = /unchanged { try_files /none =304; }
            location = /length { lingering_timeout 1m; return 200 [$content_length]; }
        }
    }";

/// The bytes sent, and what the answer holds (`+`) and does not hold (`-`).
const EXCHANGES: &[(&str, &[&str])] = &[
    ("GET /missing HTTP/1.1\nHost: a\n\n", &["+ 404 ", "+the page", "+ETag: ", "-Last-Modified"]),
    ("GET /page HTTP/1.1\nHost: a\n\n", &["+ 200 ", "+Last-Modified"]),
    ("GET /gone HTTP/1.1\nHost: a\n\n", &["+HTTP/1.1 500 Internal"]),
    ("GET /to-folder HTTP/1.1\nHost: a\n\n", &["+HTTP/1.1 301 ", "+/folder/\r\n"]),
    ("GET /recursive HTTP/1.1\nHost: a\n\n", &["+ 404 ", "+the page"]),
    ("GET /once HTTP/1.1\nHost: a\n\n", &["+ 404 ", "-the page"]),
    ("GET /closed/inside HTTP/1.1\nHost: a\n\n", &["+ 404 "]),
    ("GET /any HTTP/1.1\nHost: a\n\n", &["+ 403 "]),
    ("GET /status HTTP/1.1\nHost: a\n\n", &["+is 200"]),
    (
        "GET /dated HTTP/1.1\nHost: a\n\n",
        &["+ETag: ", "+Last-Modified: Mon, 28 Sep 1970 06:00:00 GMT\r\nAccept-Ranges: "],
    ),
    ("GET /not-modified HTTP/1.1\nHost: a\n\n", &["+Content-Length: 0\r\n", "+Content-Type: "]),
    ("GET /unmet HTTP/1.1\nHost: a\nIf-Match: \"x\"\n\n", &["+ 412 ", "+is 412", "-X-"]),
    (
        "GET /unmet HTTP/1.1\nHost: a\nRange: bytes=9-\n\n",
        &["+ 416 ", "+is 416", "+X-A: a\r\nX-B: b\r\nContent-Range: bytes */8\r\n"],
    ),
    (
        "GET /always HTTP/1.1\nHost: a\nRange: bytes=9-\n\n",
        &["+<h1>416 ", "+X-A: a\r\nContent-Range: bytes */8\r\nX-A: a\r\n", "-ETag"],
    ),
    ("GET /elsewhere HTTP/1.1\nHost: a\n\n", &["+ 203 ", "+somewhere", "+Location: http://there/\r\n"]),
    ("GET /silent HTTP/1.1\nHost: a\n\n", &["-HTTP/"]),
    ("GET /zero HTTP/1.1\nHost: a\n\n", &["+ 404 "]),
    ("GET /unchanged HTTP/1.1\nHost: a\n\n", &["+ 304 ", "+Content-Length: 0\r\n"]),
    ("POST /length HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n1\nx\n0\n\n", &["+[0]"]),
    // A chunk is refused for its size alone, where its body is read.
    ("POST /up HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n1000000000000000\nx", &["+ 400 "]),
    ("POST /up HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n200000\nx", &["+ 413 "]),
    ("GET / HTTP/1.1\n\n", &["+HTTP/1.1 400 ", "+bad 400"]),
    ("GET /%00 HTTP/1.1\nHost: a\n\n", &["+HTTP/1.1 400 ", "+bad 400"]),
    // A client that waits for it is told to go on wherever its body is read or passed over, but not with an error.
    ("GET /status HTTP/1.1\nHost: a\nExpect: 100-continue\n\n", &["+HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"]),
    (
        "POST /status HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 2\n\nxxGET /page HTTP/1.1\nHost: a\n\n",
        &["+HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", "+the page"],
    ),
    ("POST /any HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 2\n\nxx", &["-100 Continue", "+ 403 "]),
    // Bad chunks are answered with 400 where a body is passed over; an error stays what it is.
    ("POST /status HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\nx\n", &["+ 400 "]),
    ("POST /any HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\nx\n", &["+ 403 ", "+Connection: close"]),
];

fn start() -> Pushgate {
    let server = Pushgate::start(CONFIG, &[]);
    server.write("page", "the page");
    std::fs::create_dir(server.path("folder")).unwrap();
    server
}

/// Sends a request whose connection ends with it, and what else the text holds.
fn exchange(server: &Pushgate, request: &str) -> String {
    let request = match request.split_once("\n\n") {
        Some((head, rest)) if !rest.contains("HTTP/1.1") => format!("{head}\nConnection: close\n\n{rest}"),
        _ => request.replace("/page HTTP/1.1\n", "/page HTTP/1.1\nConnection: close\n"),
    };
    String::from_utf8_lossy(&http::raw(server.port(), request.replace('\n', "\r\n").as_bytes())).into_owned()
}

#[test]
fn answers() {
    let server = start();
    for (request, expected) in EXCHANGES {
        let answer = exchange(&server, request);
        for part in *expected {
            let (sign, text) = part.split_at(1);
            assert_eq!(answer.contains(text), sign == "+", "{request}\n{part}\n{answer}");
        }
    }
}

#[test]
fn a_body_that_nobody_wants_does_not_keep_the_answer_back() {
    let server = start();
    let mut client = http::connect(server.port());
    let mut read = |request: &str, end: &str| {
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(end.as_bytes()) {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        String::from_utf8(answer).unwrap()
    };
    let answer = read("POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", "is 200");
    assert!(answer.contains("Connection: keep-alive\r\n"), "{answer}");
    read("defghijPOST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "[8192]");
    read("cde\r\n0\r\n\r\nGET /length HTTP/1.1\r\nHost: a\r\n\r\n", "[]");
    // The connection ends with its last body; the client would not wait for lingering_timeout.
    let head = "POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab";
    read(head, "[8192]");
    client.write_all(b"cde\r\n0\r\n\r\n").unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn who_goes_in_the_middle_of_a_body_gets_no_answer() {
    let server = start();
    for (request, line) in [
        ("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", "POST /up HTTP/1.1|400|0|52|"),
        ("POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", "POST /up HTTP/1.1|400|0|64|"),
    ] {
        let mut client = http::connect(server.port());
        client.write_all(request.as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
        wait::until("it is logged", || server.read("logs/access.log").lines().any(|logged| logged.starts_with(line)));
    }
    assert_eq!(server.logged(&["[info]", "client prematurely closed connection, client: ", "POST /up"]), 2);
}

#[test]
fn a_connection_that_is_reset_amid_a_body_is_logged() {
    let server = start();
    for target in ["/up", "/status"] {
        let mut client = http::connect(server.port());
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\nabc");
        client.write_all(head.as_bytes()).unwrap();
        // Once it is told to go on, its body is being read or passed over.
        client.read_exact(&mut [0; 25]).unwrap();
        socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        server.until_logged(&["[info]", "recv() failed (104: Connection reset by peer), client: ", target]);
    }
}

#[test]
fn log_lines() {
    let server = start();
    let close = "Host: a\r\nConnection: close\r\n";
    let chunks = "Transfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n";
    let requests = [
        format!("GET /chunks HTTP/1.1\r\n{close}\r\n"),
        format!("POST /up HTTP/1.1\r\n{close}{chunks}"),
        format!("GET /status HTTP/1.1\r\nHost: a\r\n\r\nGET /page HTTP/1.1\r\n{close}\r\n"),
        format!("GET /any HTTP/1.1\r\n{close}X_Y: z\r\n\r\n"),
        format!("GET /cycle/ HTTP/1.1\r\n{close}\r\n"),
        format!("POST /any HTTP/1.1\r\n{close}Transfer-Encoding: chunked\r\n\r\nx\r\n"),
        "GET /status HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(),
        format!("GET /status HTTP/1.1\r\nHost: a\r\n\r\nBAD\r\n\r\nGET /page HTTP/1.1\r\n{close}\r\n"),
    ];
    for request in &requests {
        http::raw(server.port(), request.as_bytes());
    }
    for message in [
        "access forbidden by rule, client: ",
        "client sent invalid header line: \"X_Y: z\" while reading client request headers, client: ",
        "rewrite or internal redirection cycle while internally redirecting to \"/cycle/\"",
        "client sent invalid chunked body",
        "client sent invalid host header while reading client request headers, client: 127.0.0.1, server: , \
         request: \"GET /status HTTP/1.1\", host: \"a/b\"",
        "client sent invalid method while reading client pipelined request line",
    ] {
        server.until_logged(&[message]);
    }
    // One that goes in the middle of its head has a line too.
    http::connect(server.port()).write_all(b"GET /cut HTTP/1.1\r\nHo").unwrap();
    server.until_logged(&["client prematurely closed connection while reading client request headers"]);
    let lines = [
        "GET /chunks HTTP/1.1|200|18|52|.|-",
        "POST /up HTTP/1.1|200|6|92|.|3",
        "GET /status HTTP/1.1|200|6|33|.|-",
        "GET /page HTTP/1.1|200|8|50|p|-",
        "GET /cut HTTP/1.1|400|0|19|.|-",
    ];
    for line in lines {
        let is_there = || server.read("logs/access.log").lines().any(|logged| logged == line);
        assert!(wait::holds_within(wait::PATIENCE, is_there), "{line}:\n{}", server.read("logs/access.log"));
    }
}
