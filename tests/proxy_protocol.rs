//! The PROXY protocol in front of everything that a connection can carry.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use hyper::Request;
use support::http;
use support::ports::Port;
use support::pushgate::Pushgate;
use support::tls::{Authority, Client};
use tokio_tungstenite::tungstenite::{Message, client};

const CONFIG: &str = "daemon off;
    worker_processes 1;
    pid logs/nginx.pid;
    error_log logs/error.log info;
    events { }
    http {
        client_header_timeout 4s;
        access_log off;
        push_stream_shared_memory_size 16m;
        ssl_certificate %%PREFIX%%/localhost.pem;
        ssl_certificate_key %%PREFIX%%/localhost.key;
        server { listen 127.0.0.1:%%PORT%%; return 200 plain; }
        server {
            listen 127.0.0.1:%%PROXIED%% proxy_protocol;
            listen 127.0.0.1:%%SECURE%% ssl proxy_protocol;
            listen unix:%%PREFIX%%/socket proxy_protocol;
            http2 on;
            set_real_ip_from 127.0.0.1;
            set_real_ip_from unix:;
            real_ip_header proxy_protocol;
            location / {
                return 200 '$proxy_protocol_addr|$proxy_protocol_port|$proxy_protocol_server_addr|$proxy_protocol_server_port|$realip_remote_addr|$scheme|$server_protocol';
            }
            location /fields {
                return 200 '$proxy_protocol_tlv_alpn|$proxy_protocol_tlv_authority|$proxy_protocol_tlv_0xea|$proxy_protocol_tlv_ssl_verify|$proxy_protocol_tlv_ssl_cn|$proxy_protocol_tlv_nonsense';
            }
            location /real { return 200 '$remote_addr|$remote_port|$realip_remote_addr'; }
            location /ws/ {
                push_stream_subscriber websocket;
                push_stream_websocket_allow_publish on;
                push_stream_channels_path $proxy_protocol_addr;
                push_stream_message_template '~channel~ ~text~';
            }
        }
        server {
            listen 127.0.0.1:%%PROXIED%%;
            server_name untrusted;
            set_real_ip_from 10.0.0.0/8;
            real_ip_header proxy_protocol;
            return 200 '$remote_addr|$proxy_protocol_addr';
        }
    }";

const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\r\n";

/// A server that is reached behind a balancer by a port, and by another for TLS.
struct World {
    server: Pushgate,
    proxied: Port,
    secure: Port,
    authority: Authority,
    _files: tempfile::TempDir,
}

fn start() -> World {
    let (files, authority) = (tempfile::tempdir().unwrap(), Authority::new("Root"));
    std::fs::set_permissions(files.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    authority.identity("localhost", 1).write(files.path(), "localhost");
    let config = CONFIG.replace("%%PREFIX%%/localhost", &format!("{}/localhost", files.path().display()));
    let (proxied, secure) = (Port::free(), Port::free());
    let ports = [proxied.number.to_string(), secure.number.to_string()];
    let server = Pushgate::start(&config, &[("PROXIED", &ports[0]), ("SECURE", &ports[1])]);
    World { server, proxied, secure, authority, _files: files }
}

fn request(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The body of the answer to a request after a header.
#[track_caller]
fn ask(port: u16, header: &[u8], target: &str) -> String {
    let answer = http::raw(port, &[header, &request(target)].concat());
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}")).1.to_owned()
}

/// A header of the second version, for TCP over IPv4.
fn binary(fields: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + fields.len()).unwrap().to_be_bytes();
    let addresses = [192, 0, 2, 1, 192, 0, 2, 2, 0xc3, 0x50, 1, 0xbb];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &addresses, fields].concat()
}

#[test]
fn the_client_is_who_the_header_says() {
    let world = start();
    let port = world.proxied.number;
    let expected = "192.0.2.1|50000|192.0.2.2|443|127.0.0.1|http|HTTP/1.1";
    assert_eq!(ask(port, LINE, "/"), expected);
    assert_eq!(ask(port, &binary(b""), "/"), expected);
    assert_eq!(ask(port, b"PROXY UNKNOWN\r\n", "/"), "||||127.0.0.1|http|HTTP/1.1");
    assert_eq!(ask(port, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "/"), "||||127.0.0.1|http|HTTP/1.1");
    assert_eq!(ask(port, b"PROXY TCP6 2001:DB8::1 ::2 1 0\r\n", "/"), "2001:DB8::1|1|::2||127.0.0.1|http|HTTP/1.1");
    assert_eq!(ask(port, LINE, "/real"), "192.0.2.1|50000|127.0.0.1");
    assert_eq!(ask(port, b"PROXY TCP6 2001:DB8::1 ::2 1 0\r\n", "/real"), "2001:db8::1|1|127.0.0.1");
    assert!(ask(port, b"PROXY UNKNOWN\r\n", "/real").starts_with("127.0.0.1|"));
    assert_eq!(ask(port, LINE, "http://untrusted/"), "127.0.0.1|192.0.2.1");
    // A listener without the parameter takes it for a request.
    let refused = http::raw(world.server.port(), LINE);
    assert!(String::from_utf8_lossy(&refused).contains("400 Bad Request"));
}

#[test]
fn a_header_may_come_in_pieces_and_before_several_requests() {
    let world = start();
    let mut stream = http::connect(world.proxied.number);
    for byte in LINE {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream.write_all(&request("/real")).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert!(answers.contains("\r\n\r\n192.0.2.1|50000|192.0.2.2|443|127.0.0.1|http|HTTP/1.1HTTP/1.1 200"), "{answers}");
    assert!(answers.ends_with("192.0.2.1|50000|127.0.0.1"), "{answers}");
}

#[test]
fn a_socket_in_the_file_system() {
    let world = start();
    let mut stream = std::os::unix::net::UnixStream::connect(world.server.path("socket")).unwrap();
    stream.write_all(&[LINE, &request("/real")].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("192.0.2.1|50000|unix:"), "{answer}");
}

#[test]
fn fields_of_the_second_version() {
    let world = start();
    let port = world.proxied.number;
    let ssl = b"\x07\0\0\0\x02\x22\0\x02me";
    let fields = [&b"\x01\0\x02h2\x02\0\x07a.local\xea\0\x03\x01id\x20\0\x0a"[..], ssl].concat();
    assert_eq!(ask(port, &binary(&fields), "/fields"), "h2|a.local|\x01id|2|me|");
    world.server.until_logged(&["[error]", "unknown PROXY protocol TLV \"nonsense\"", "client: 192.0.2.1"]);
    assert_eq!(ask(port, LINE, "/fields"), "|||||");
    ask(port, &binary(b"\x09\xff\xff"), "/fields");
    world.server.until_logged(&["[error]", "broken PROXY protocol TLV"]);
}

#[test]
fn what_is_no_header_ends_the_connection() {
    let world = start();
    let port = world.proxied.number;
    let check = |bytes: &[u8], reason: &str| {
        assert_eq!(http::raw(port, bytes), b"", "{reason}");
        let place = format!("client: 127.0.0.1, server: 127.0.0.1:{port}");
        world.server.until_logged(&["[error]", &format!("{reason} while reading PROXY protocol, {place}")]);
    };
    check(&request("/"), "broken header: \"GET / HTTP/1.1\"");
    check(b"PROXY TCP4 192.0.2.1 192.0.2.2 50000\r\n", "broken header: \"PROXY TCP4 192.0.2.1 192.0.2.2 50000\"");
    check(b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0", "unknown PROXY protocol version: 3");
    check(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "header is too large");
    // It ends in the middle.
    let mut stream = http::connect(port);
    stream.write_all(b"PROXY TCP4 192.0.2.1").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    world.server.until_logged(&["[error]", "broken header: \"PROXY TCP4 192.0.2.1\""]);
    // TLS without it.
    let client = Client::new(&world.authority);
    assert!(client.try_ask(world.secure.number, "localhost", "GET / HTTP/1.1\r\n\r\n").is_err());
    world.server.until_logged(&["[error]", "broken header: \"\\x16\\x03\\x01"]);
}

#[test]
fn who_sends_no_header_in_time_is_disconnected() {
    let world = start();
    for (port, beginning) in [(world.proxied.number, &b""[..]), (world.secure.number, b"PROXY TCP4 192.0.2.1")] {
        let mut stream = http::connect(port);
        stream.write_all(beginning).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn tls_follows_the_header() {
    let world = start();
    let client = Client::new(&world.authority);
    for header in [LINE.to_vec(), binary(b"\x01\0\x02h2")] {
        let mut stream = client.over(connect(world.secure.number, &header), "localhost");
        stream.write_all(&request("/")).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("192.0.2.1|50000|192.0.2.2|443|127.0.0.1|https|HTTP/1.1"), "{answer}");
    }
    // The header and the first message of the handshake arrive together.
    let mut stream = client.over(http::connect(world.secure.number), "localhost");
    let mut together = LINE.to_vec();
    stream.conn.write_tls(&mut together).unwrap();
    stream.sock.write_all(&together).unwrap();
    stream.write_all(&request("/real")).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("192.0.2.1|50000|127.0.0.1"), "{answer}");
    // Plain HTTP after it is told so.
    let answer = http::raw(world.secure.number, &[LINE, &request("/")].concat());
    assert!(String::from_utf8_lossy(&answer).contains("The plain HTTP request was sent to HTTPS port"));
}

/// A connection on which the header was sent.
fn connect(port: u16, header: &[u8]) -> TcpStream {
    let mut stream = http::connect(port);
    stream.write_all(header).unwrap();
    stream
}

#[tokio::test]
async fn http2_follows_the_header() {
    let world = start();
    let stream = connect(world.proxied.number, LINE);
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::task::spawn(connection);
    for (target, expected) in
        [("/", "192.0.2.1|50000|192.0.2.2|443|127.0.0.1|http|HTTP/2.0"), ("/real", "192.0.2.1|50000|127.0.0.1")]
    {
        let request = Request::get(format!("http://localhost{target}")).body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut text = Vec::new();
        while let Some(piece) = body.data().await {
            text.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
    drop(sender);
    driving.abort();
}

#[test]
fn websockets_follow_the_header() {
    let world = start();
    let port = world.proxied.number;
    let (mut socket, _) = client(format!("ws://127.0.0.1:{port}/ws/"), connect(port, LINE)).unwrap();
    socket.send(Message::text("hello")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("192.0.2.1 hello"));
}
