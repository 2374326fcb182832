//! HTTP/2, by clients that we did not write: hyper's, the crate h2's, and bare frames.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use support::pushgate::Pushgate;
use support::tls::Authority;
use support::wait;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

const CONFIG: &str = r#"
daemon off;
worker_processes 1;
error_log logs/error.log info;
pid logs/nginx.pid;
events { }
http {
    push_stream_shared_memory_size 8m;
    log_format told '$request $status $body_bytes_sent $http2 $http_cookie $host';
    access_log logs/access.log told;
    http2_body_preread_size 16k;
    server {
        listen 127.0.0.1:%%PORT%%;
        http2 on;
        location = /text { return 200 "some text"; }
        location = /trailed { add_trailer X-T $arg_t; return 200 "$arg_text"; }
        location / { root html; }
        location = /echo { client_max_body_size 200k; proxy_pass http://127.0.0.1:%%PORT%%/told; }
        location = /pass {
            proxy_pass http://127.0.0.1:%%PORT%%/told; proxy_request_buffering off; proxy_http_version 1.1;
        }
        location ~ ^/through/(.*) {
            proxy_pass http://127.0.0.1:%%PORT%%/ws/$1; proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
        }
        location = /told { return 200 "$request_method $content_length $http_x"; }
        location = /silent { proxy_pass http://127.0.0.1:%%SILENT%%; }
        location = /nothing { return 444; }
        location = /publisher { push_stream_publisher admin; push_stream_channels_path $arg_id; }
        location ~ ^/stream/(.*) { push_stream_subscriber; push_stream_channels_path $1; push_stream_message_template "~text~\n"; }
        location ~ ^/events/(.*) { push_stream_subscriber eventsource; push_stream_channels_path $1; }
        location ~ ^/poll/(.*) { push_stream_subscriber long-polling; push_stream_channels_path $1; }
        location ~ ^/ws/(.*) {
            push_stream_subscriber websocket; push_stream_channels_path $1;
            push_stream_websocket_allow_publish on; push_stream_message_template "~text~";
        }
    }
}
"#;

fn start() -> Pushgate {
    Pushgate::start(CONFIG, &[("SILENT", "9")])
}

/// A connection of the crate h2.
async fn connect(server: &Pushgate) -> SendRequest<Bytes> {
    connect_to_end(server).await.0
}

/// The same, with the task that drives it, which tells how it ended.
async fn connect_to_end(server: &Pushgate) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::task::spawn(connection);
    (sender.ready().await.unwrap(), driving)
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://localhost{path}")).body(()).unwrap()
}

async fn ask(sender: &mut SendRequest<Bytes>, request: Request<()>, body: &[&'static str]) -> Response<RecvStream> {
    let (answer, mut stream) = sender.send_request(request, body.is_empty()).unwrap();
    for (number, piece) in body.iter().enumerate() {
        stream.send_data(Bytes::from_static(piece.as_bytes()), number + 1 == body.len()).unwrap();
    }
    answer.await.unwrap()
}

async fn text(answer: Response<RecvStream>) -> String {
    let mut body = answer.into_body();
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    String::from_utf8(all).unwrap()
}

async fn connect_tls(server: &Pushgate, trusted: &Authority, protocols: &[&str]) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let name = "localhost".try_into().unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn what_is_spoken_inside_of_tls() {
    let (files, authority) = (tempfile::tempdir().unwrap(), Authority::new("Root"));
    authority.identity("localhost", 1).write(files.path(), "localhost");
    let secured = CONFIG.replace("%%PORT%%;\n        http2 on;", "%%PORT%% ssl; %%TLS%%").replacen(
        "http://127",
        "https://127",
        1,
    );
    let tls = |http2: &str| {
        let path = files.path().display();
        let tls =
            format!("http2 {http2}; ssl_certificate {path}/localhost.pem; ssl_certificate_key {path}/localhost.key;");
        Pushgate::start(&secured, &[("SILENT", "9"), ("TLS", &tls)])
    };
    let server = tls("on");
    let stream = connect_tls(&server, &authority, &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn(connection);
    std::fs::write(server.path("html/large"), "0123456789".repeat(100_000)).unwrap();
    assert_eq!(text(ask(&mut sender, request("GET", "/large"), &[]).await).await, "0123456789".repeat(100_000));
    assert_eq!(text(ask(&mut sender, request("POST", "/echo"), &["a", "bc"]).await).await, "POST 3 ");
    let mut stream = ask(&mut sender, request("GET", "/stream/a"), &[]).await;
    assert_eq!(ask(&mut sender, request("POST", "/publisher?id=a"), &["one"]).await.status(), 200);
    assert_eq!(next(&mut stream).await, "one\n");
    wait::until("the log says so", || server.read("logs/access.log").contains("GET /large HTTP/2.0 200 1000000 h2 -"));
    let stream = connect_tls(&server, &authority, &["http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let server = tls("off");
    let stream = connect_tls(&server, &authority, &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn trailers() {
    let server = start();
    let mut sender = connect(&server).await;
    for (args, expected) in [("text=a&t=1", Some("1")), ("t=1", Some("1")), ("text=a", None)] {
        let mut answer = ask(&mut sender, request("GET", &format!("/trailed?{args}")), &[]).await;
        while answer.body_mut().data().await.is_some() {}
        let trailers = answer.body_mut().trailers().await.unwrap();
        assert_eq!(trailers.as_ref().map(|trailers| trailers["x-t"].to_str().unwrap()), expected, "{args}");
    }
    assert_eq!(ask(&mut sender, request("HEAD", "/trailed?t=1"), &[]).await.status(), 200);
}

/// The next bytes of an answer that goes on.
async fn next(answer: &mut Response<RecvStream>) -> String {
    String::from_utf8(answer.body_mut().data().await.unwrap().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn hyper_asks_many_things_at_once() {
    let server = start();
    let stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::task::spawn(connection);
    let asked = (0..100).map(|number| {
        let mut sender = sender.clone();
        async move {
            let (path, status) = if number % 2 == 0 { ("/text", 200) } else { ("/missing", 404) };
            let url = format!("http://localhost{path}");
            let request = Request::builder().uri(url).body(Full::new(Bytes::new())).unwrap();
            let (head, body) = sender.send_request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            assert_eq!(head.status, status);
            assert_eq!(head.headers["content-length"], body.len().to_string());
            assert!(!head.headers.contains_key("connection"), "{head:?}");
        }
    });
    futures_util::future::join_all(asked).await;
}

#[tokio::test]
async fn answers_are_those_of_http1_without_its_connection() {
    let server = start();
    std::fs::write(server.path("html/large"), "0123456789".repeat(100_000)).unwrap();
    let mut sender = connect(&server).await;
    let mut crumbs = request("GET", "/text?a");
    crumbs.headers_mut().append("cookie", "a=1".parse().unwrap());
    crumbs.headers_mut().append("cookie", "b=2".parse().unwrap());
    assert_eq!(text(ask(&mut sender, crumbs, &[]).await).await, "some text");
    let head = ask(&mut sender, request("HEAD", "/large"), &[]).await;
    assert_eq!(head.headers()["content-length"], "1000000");
    assert!(head.body().is_end_stream());
    assert_eq!(text(ask(&mut sender, request("GET", "/large"), &[]).await).await, "0123456789".repeat(100_000));
    let mut part = request("GET", "/large");
    part.headers_mut().insert("range", "bytes=5-7".parse().unwrap());
    let part = ask(&mut sender, part, &[]).await;
    assert_eq!((part.status().as_u16(), &text(part).await[..]), (206, "567"));
    // Paths mean what they mean by HTTP/1.
    assert_eq!(ask(&mut sender, request("GET", "/a/../%74ext"), &[]).await.status(), 200);
    assert_eq!(ask(&mut sender, request("GET", "/../text"), &[]).await.status(), 400);
    wait::until("all is in the access log", || {
        let log = server.read("logs/access.log");
        log.contains("GET /text?a HTTP/2.0 200 9 h2c a=1; b=2 localhost\n")
            && log.contains("GET /large HTTP/2.0 200 1000000 h2c - localhost\n")
            && log.contains("GET /../text HTTP/2.0 400")
    });
}

#[tokio::test]
async fn bodies_of_announced_and_of_unknown_length() {
    let server = start();
    let mut sender = connect(&server).await;
    let mut counted = request("POST", "/echo");
    counted.headers_mut().insert("content-length", "5".parse().unwrap());
    assert_eq!(text(ask(&mut sender, counted, &["hel", "lo"]).await).await, "POST 5 ");
    assert_eq!(text(ask(&mut sender, request("POST", "/echo"), &["a", "bc", "", "def"]).await).await, "POST 6 ");
    // One that is passed on as it comes.
    let passed = text(ask(&mut sender, request("POST", "/pass"), &["ab", "c"]).await).await;
    // In chunks: its length is what is still to come, if it has begun to come.
    assert!(matches!(&passed[..], "POST  " | "POST 0 " | "POST 8192 "), "{passed}");
    // More than the window, which is 16k here, and more than allowed.
    for (count, status) in [(9, 200), (11, 413)] {
        let (answer, mut stream) = sender.send_request(request("POST", "/echo"), false).unwrap();
        let mut left = count * 20_000;
        while left > 0 {
            stream.reserve_capacity(left);
            let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { break };
            let length = room.min(left);
            left -= length;
            if stream.send_data(vec![b'x'; length].into(), left == 0).is_err() {
                break;
            }
        }
        assert_eq!(answer.await.unwrap().status(), status, "{count}");
    }
    server.until_logged(&["client intended to send too large chunked body", "POST /echo HTTP/2.0"]);
}

#[tokio::test]
async fn subscribers_of_all_modes_share_a_connection() {
    let server = start();
    let mut sender = connect(&server).await;
    let mut stream = ask(&mut sender, request("GET", "/stream/a"), &[]).await;
    let mut events = ask(&mut sender, request("GET", "/events/a"), &[]).await;
    assert_eq!(events.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(next(&mut events).await, ": \n");
    let (poll, _) = sender.send_request(request("GET", "/poll/a"), true).unwrap();
    let subscribers = |server: &Pushgate, count: usize| {
        let told = support::http::get(server.port(), "/publisher?id=a").body;
        told.contains(&format!("\"subscribers\": {count}}}"))
    };
    let until = async |count| {
        while !subscribers(&server, count) {
            tokio::task::yield_now().await;
        }
    };
    until(3).await;
    for number in 0..3 {
        let published = ask(&mut sender, request("POST", "/publisher?id=a"), &["one"]).await;
        assert_eq!(published.status(), 200, "{number}");
    }
    assert_eq!(text(poll.await.unwrap()).await, "one");
    let (mut streamed, mut told) = (String::new(), String::new());
    while streamed != "one\none\none\n" {
        streamed.push_str(&next(&mut stream).await);
    }
    while told != "data: one\n\n".repeat(3) {
        told.push_str(&next(&mut events).await);
    }
    // Leaving is seen.
    until(2).await;
    drop(stream);
    until(1).await;
}

#[tokio::test]
async fn a_websocket_in_a_stream() {
    let server = start();
    let mut sender = connect(&server).await;
    // A subscriber's, and one behind the proxy.
    for path in ["/ws/a", "/through/b"] {
        websocket(&mut sender, path).await;
    }
}

async fn websocket(sender: &mut SendRequest<Bytes>, path: &str) {
    while !sender.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let mut open = request("CONNECT", path);
    open.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    open.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    let (answer, mut stream): (_, SendStream<Bytes>) = sender.send_request(open, false).unwrap();
    let mut answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    // A masked text frame, with a mask that changes nothing.
    stream.send_data(Bytes::from_static(b"\x81\x85\0\0\0\0hello"), false).unwrap();
    let frame = answer.body_mut().data().await.unwrap().unwrap();
    assert_eq!(&frame[..], b"\x81\x05hello");
}

#[tokio::test]
async fn a_reset_stream_ends_its_upstream_request() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let server = Pushgate::start(CONFIG, &[("SILENT", &port)]);
    let mut sender = connect(&server).await;
    let (answer, mut stream) = sender.send_request(request("GET", "/silent"), true).unwrap();
    let (mut upstream, _) = tokio::task::spawn_blocking(move || silent.accept().unwrap()).await.unwrap();
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    let read = tokio::task::spawn_blocking(move || upstream.read_to_end(&mut Vec::new()).unwrap());
    assert!(read.await.unwrap() > 0, "the request came, and then the end");
    wait::until("the log says 499", || server.read("logs/access.log").contains("GET /silent HTTP/2.0 499 0 h2c"));
    assert_eq!(ask(&mut sender, request("GET", "/text"), &[]).await.status(), 200, "the others go on");
}

#[tokio::test]
async fn the_last_request_of_a_connection_and_the_end_of_the_server() {
    let few = CONFIG.replace("http2 on;", "http2 on; keepalive_requests 2;");
    let mut server = Pushgate::start(&few, &[("SILENT", "9")]);
    let (mut sender, driving) = connect_to_end(&server).await;
    assert_eq!(ask(&mut sender, request("GET", "/text"), &[]).await.status(), 200);
    assert_eq!(ask(&mut sender, request("GET", "/text"), &[]).await.status(), 200);
    assert!(driving.await.unwrap().is_ok(), "it ends after the second request, in order");
    // One under way is answered before the server goes.
    let mut sender = connect(&server).await;
    let mut stream = ask(&mut sender, request("GET", "/stream/a"), &[]).await;
    server.signal("QUIT");
    assert!(stream.body_mut().data().await.is_none_or(|data| data.is_ok()), "the stream ends in order");
    assert!(server.wait(wait::PATIENCE).is_some_and(|status| status.success()));
}

#[tokio::test]
async fn no_answer_at_all_resets_the_stream() {
    let server = start();
    let mut sender = connect(&server).await;
    let (answer, _) = sender.send_request(request("GET", "/nothing"), true).unwrap();
    assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    assert_eq!(ask(&mut sender, request("GET", "/text"), &[]).await.status(), 200);
}

#[tokio::test]
async fn too_large_heads_end_the_connection() {
    let server = start();
    for (count, length, words) in [
        (1, 9000, "client exceeded http2_max_field_size limit"),
        (6, 7000, "client exceeded http2_max_header_size limit"),
    ] {
        let (mut sender, driving) = connect_to_end(&server).await;
        let mut large = request("GET", "/text");
        for number in 0..count {
            let name = format!("x-{number}").parse::<hyper::header::HeaderName>().unwrap();
            large.headers_mut().insert(name, "a".repeat(length).parse().unwrap());
        }
        let (answer, _) = sender.send_request(large, true).unwrap();
        assert!(answer.await.is_err());
        assert_eq!(driving.await.unwrap().unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
        server.until_logged(&[words]);
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Says something after the preface, until the server hangs up.
fn say(server: &Pushgate, bytes: &[u8], times: usize) {
    let mut stream = support::http::connect(server.port());
    let mut reading = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || drop(reading.read_to_end(&mut Vec::new())));
    // A server that has hung up takes no more.
    drop(stream.write_all(PREFACE));
    for _ in 0..times {
        if stream.write_all(bytes).is_err() {
            break;
        }
    }
    reader.join().unwrap();
}

#[test]
fn frames_that_are_wrong_end_the_connection() {
    let server = start();
    for (what, bytes) in [
        ("data without a stream", &b"\0\0\x01\0\0\0\0\0\x01x"[..]),
        ("a head on stream 0", b"\0\0\x01\x01\x05\0\0\0\0\x82"),
        ("a head on an even stream", b"\0\0\x01\x01\x05\0\0\0\x02\x82"),
        ("an index that is not there", b"\0\0\x02\x01\x05\0\0\0\x01\xff\x7f"),
        ("a frame too long", b"\xff\xff\xff\0\0\0\0\0\x01"),
        ("settings of five bytes", b"\0\0\x05\x04\0\0\0\0\0abcde"),
        ("a window of zero", b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0"),
        ("a window too large", b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff"),
        ("a continuation of nothing", b"\0\0\x01\x09\x04\0\0\0\x01\x82"),
        ("a push", b"\0\0\x05\x05\x04\0\0\0\x01\0\0\0\x02\x82"),
    ] {
        say(&server, bytes, 1);
        let answer = support::http::get(server.port(), "/text");
        assert_eq!(answer.status, 200, "after {what}");
    }
}

#[test]
fn floods_end_the_connection() {
    let server = start();
    let before = server.resident_kb();
    // Pings, settings and empty frames.
    for flood in [&b"\0\0\x08\x06\0\0\0\0\0abcdefgh"[..], b"\0\0\0\x04\0\0\0\0\0"] {
        say(&server, &flood.repeat(1000), 2000);
    }
    server.until_logged(&["http2 flood detected, client: 127.0.0.1"]);
    // A head that does not end.
    let mut endless = b"\0\0\x01\x01\x01\0\0\0\x01\x82".to_vec();
    endless.extend(b"\0\0\x04\x09\0\0\0\0\x01\x00\x01a\x00".repeat(100_000));
    say(&server, &endless, 1);
    // A head of a long field, which is said again by one byte each time.
    let mut bomb = b"\x82\x86\x41\x01a\x44\x01/\x40\x03x-a\x7f\xbd\x1d".to_vec();
    bomb.resize(bomb.len() + 3900, b'v');
    bomb.resize(16_000, 0xbe);
    let length = u32::try_from(bomb.len()).unwrap().to_be_bytes();
    let frame = [&length[1..], &b"\x01\x05\0\0\0\x01"[..], &bomb[..]].concat();
    say(&server, &frame, 1);
    assert!(server.resident_kb() < before + 20_000, "memory grew from {before} to {} KB", server.resident_kb());
    assert_eq!(support::http::get(server.port(), "/text").status, 200);
}

#[tokio::test]
async fn streams_that_are_reset_as_fast_as_they_are_opened() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let server = Pushgate::start(CONFIG, &[("SILENT", &port)]);
    let before = server.resident_kb();
    let mut sender = connect(&server).await;
    for _ in 0..20_000 {
        if std::future::poll_fn(|cx| sender.poll_ready(cx)).await.is_err() {
            break;
        }
        let Ok((_, mut stream)) = sender.send_request(request("GET", "/silent"), true) else { break };
        stream.send_reset(Reason::CANCEL);
        tokio::task::yield_now().await;
    }
    drop(silent);
    assert!(server.resident_kb() < before + 20_000, "memory grew from {before} to {} KB", server.resident_kb());
    let mut sender = connect(&server).await;
    assert_eq!(ask(&mut sender, request("GET", "/text"), &[]).await.status(), 200);
}

#[test]
fn where_http2_is_off_its_preface_is_a_bad_request() {
    let server = Pushgate::start(&CONFIG.replace("http2 on;", ""), &[("SILENT", "9")]);
    let answer = support::http::raw(server.port(), PREFACE);
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
}
