//! TLS to clients: real certificates, real sockets, rustls and OpenSSL's library as clients.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use support::http;
use support::pushgate::Pushgate;
use support::tls::{Authority, Client, Identity};
use tokio_tungstenite::tungstenite::{self, Message};

/// What all servers here have in common; `%%HTTP%%` and `%%SERVER%%` are the test's own.
const CONFIG: &str = "daemon off;
    worker_processes 1;
    pid logs/nginx.pid;
    error_log logs/error.log info;
    events { }
    http {
        access_log off;
        push_stream_shared_memory_size 16m;
        %%HTTP%%
        server {
            listen 127.0.0.1:%%PORT%% ssl;
            server_name localhost;
            ssl_certificate %%FILES%%/localhost.pem;
            ssl_certificate_key %%FILES%%/localhost.key;
            client_max_body_size 8m;
            %%SERVER%%
            location /facts {
                return 200 '$scheme,$https,$ssl_protocol,$ssl_server_name,$ssl_session_reused,$ssl_alpn_protocol,$ssl_cipher,$ssl_curve';
            }
            location /client {
                return 200 '$ssl_client_verify|$ssl_client_s_dn|$ssl_client_i_dn|$ssl_client_s_dn_legacy|$ssl_client_serial|$ssl_client_v_start|$ssl_client_v_end';
            }
            location /pub { push_stream_publisher admin; push_stream_channels_path $arg_id; push_stream_store_messages on; }
            location /ws/ {
                push_stream_subscriber websocket;
                push_stream_websocket_allow_publish on;
                push_stream_channels_path $arg_id;
                push_stream_message_template ~text~;
            }
            location /events/ {
                push_stream_subscriber eventsource;
                push_stream_channels_path $arg_id;
            }
            location /files/ { alias %%FILES%%/; }
            location /folder { alias %%FILES%%/; }
        }
    }";

/// A server, its files, and who vouches for it.
struct World {
    server: Pushgate,
    files: tempfile::TempDir,
    authority: Authority,
}

impl World {
    fn start(http: &str, server: &str, prepare: impl FnOnce(&std::path::Path, &Authority)) -> Self {
        let (files, authority) = (tempfile::tempdir().unwrap(), Authority::new("Root"));
        std::fs::set_permissions(files.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        authority.identity("localhost", 1).write(files.path(), "localhost");
        prepare(files.path(), &authority);
        let folder = files.path().to_str().unwrap();
        let own = |text: &str| text.replace("%%FILES%%", folder);
        let replace = [("HTTP", own(http)), ("SERVER", own(server)), ("FILES", folder.to_owned())];
        let replace: Vec<(&str, &str)> = replace.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // What is put in may hold names of its own.
        let server =
            Pushgate::start(&CONFIG.replace("%%HTTP%%", &own(http)).replace("%%SERVER%%", &own(server)), &replace);
        Self { server, files, authority }
    }

    fn plain() -> Self {
        Self::start("", "", |_, _| {})
    }

    fn port(&self) -> u16 {
        self.server.port()
    }

    fn client(&self) -> Client {
        Client::new(&self.authority)
    }
}

#[test]
fn requests_and_redirects() {
    let world = World::plain();
    let client = world.client();
    let expected = "https,on,TLSv1.3,localhost,.,,TLS_AES_256_GCM_SHA384,X25519";
    assert_eq!(client.get(world.port(), "localhost", "/facts"), expected);
    let older = Client::with(&world.authority, None, &[&TLS12]);
    let expected = "https,on,TLSv1.2,localhost,.,,ECDHE-ECDSA-AES256-GCM-SHA384,X25519";
    assert_eq!(older.get(world.port(), "localhost", "/facts"), expected);
    let request = "GET /folder HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = client.try_ask(world.port(), "localhost", request).unwrap();
    let expected = format!("Location: https://localhost:{}/folder/\r\n", world.port());
    assert!(answer.contains(&expected), "{answer}");
}

#[test]
fn long_bodies_and_kept_connections() {
    let long: String = (0..400_000).map(|number| format!("{number} ")).collect();
    let world = World::start("", "", |files, _| std::fs::write(files.join("long"), &long).unwrap());
    let mut stream = BufReader::new(world.client().connect(world.port(), "localhost"));
    for _ in 0..2 {
        stream.get_mut().write_all(b"GET /files/long HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        while !next_line(&mut stream).is_empty() {}
        let mut body = vec![0; long.len()];
        stream.read_exact(&mut body).unwrap();
        assert!(body == long.as_bytes(), "the file came otherwise");
        let head = format!("POST /pub?id=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", long.len());
        stream.get_mut().write_all(head.as_bytes()).unwrap();
        stream.get_mut().write_all(long.as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let line = next_line(&mut stream);
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        assert!(String::from_utf8_lossy(&body).contains("stored_messages"), "{body:?}");
    }
}

fn next_line(stream: &mut impl BufRead) -> String {
    let mut line = String::new();
    assert!(stream.read_line(&mut line).unwrap() > 0, "the answer ended");
    line.trim_end().to_owned()
}

#[test]
fn names_choose_certificates() {
    let other = "server {
            listen 127.0.0.1:%%PORT%% ssl default_server;
            ssl_reject_handshake on;
        }
        server {
            listen 127.0.0.1:%%PORT%% ssl;
            server_name other.example;
            ssl_certificate %%FILES%%/other.pem;
            ssl_certificate_key %%FILES%%/other.key;
            return 200 other;
        }";
    let prepare = |files: &std::path::Path, root: &Authority| root.identity("other.example", 2).write(files, "other");
    let world = World::start(other, "", prepare);
    let client = world.client();
    assert_eq!(client.get(world.port(), "other.example", "/"), "other");
    assert!(client.get(world.port(), "localhost", "/facts").starts_with("https,on"));
    let refused = client.try_ask(world.port(), "nobody.example", "GET / HTTP/1.0\r\n\r\n").unwrap_err();
    assert!(
        refused.to_string().contains("UnrecognisedName") || refused.to_string().contains("UnrecognizedName"),
        "{refused}"
    );
    world.server.until_logged(&["handshake rejected while SSL handshaking, client: 127.0.0.1"]);
    // The connection is one server's, the request another's.
    let request = "GET /facts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = client.try_ask(world.port(), "other.example", request).unwrap();
    assert!(answer.contains("https,on,TLSv1.3,other.example"), "{answer}");
    // Without a host the server of the handshake answers.
    let answer = client.try_ask(world.port(), "other.example", "GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(answer.ends_with("other"), "{answer}");
}

#[test]
fn plain_http_is_told_so() {
    let world = World::plain();
    let answer = http::get(world.port(), "/facts");
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("The plain HTTP request was sent to HTTPS port"));
    let world = World::start("", "error_page 497 =301 https://$host/moved$request_uri;", |_, _| {});
    let answer = http::get(world.port(), "/facts");
    assert_eq!((answer.status, answer.header("Location")), (301, Some("https://localhost/moved/facts")));
    let world = World::start("", "error_page 497 = /plain; location /plain { return 200 'plain $scheme'; }", |_, _| {});
    assert_eq!(http::get(world.port(), "/facts").body, "plain http");
}

fn ask_client(world: &World, identity: Option<&Identity>, name: &str) -> String {
    let client = Client::with(&world.authority, identity, &[&TLS13, &TLS12]);
    let request = format!("GET /client HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    let answer = client.try_ask(world.port(), "localhost", &request).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let title = body.split("<center>").nth(2).and_then(|rest| rest.split('<').next());
    format!("{} {}", &head[9..12], title.unwrap_or(body))
}

#[test]
fn clients_show_certificates() {
    let lists = |files: &std::path::Path, root: &Authority| {
        std::fs::write(files.join("root.pem"), &root.pem).unwrap();
        std::fs::write(files.join("revoked.pem"), root.revoke(0xbad)).unwrap();
    };
    let verify = |how: &str| {
        let settings = "ssl_client_certificate %%FILES%%/root.pem; ssl_crl %%FILES%%/revoked.pem;";
        World::start("", &format!("{settings} ssl_verify_client {how};"), lists)
    };
    let stranger = Authority::new("Stranger").identity("nobody", 7);
    let on = verify("on");
    let (good, revoked) = (on.authority.identity("client", 0x0a_bcde), on.authority.identity("client", 0xbad));
    let expected = "200 SUCCESS|CN=client,O=A\\, B|CN=Root|/O=A, B/CN=client|0ABCDE|Feb  3 00:00:00 2020 GMT|Dec 31 00:00:00 2120 GMT";
    assert_eq!(ask_client(&on, Some(&good), "localhost"), expected);
    assert_eq!(ask_client(&on, None, "localhost"), "400 No required SSL certificate was sent");
    assert_eq!(ask_client(&on, Some(&stranger), "localhost"), "400 The SSL certificate error");
    assert_eq!(ask_client(&on, Some(&revoked), "localhost"), "400 The SSL certificate error");
    on.server.until_logged(&["client SSL certificate verify error: (23:certificate revoked) while reading"]);
    on.server.until_logged(&["client sent no required SSL certificate while reading"]);
    assert!(ask_client(&on, Some(&good), "another").starts_with("421 "), "another server of the same connection");
    on.server.until_logged(&["the server name different from the one that was negotiated", ", server: localhost, "]);

    let optional = verify("optional");
    assert_eq!(ask_client(&optional, None, "localhost"), "200 NONE||||||");
    assert_eq!(ask_client(&optional, Some(&stranger), "localhost"), "400 The SSL certificate error");
    let any = verify("optional_no_ca");
    let expected = "200 FAILED:unable to verify the first certificate|CN=nobody,O=A\\, B|CN=Stranger";
    assert!(ask_client(&any, Some(&stranger), "localhost").starts_with(expected));
}

#[test]
fn sessions_are_taken_up_again() {
    let reused = |facts: &str| facts.split(',').nth(4).map(str::to_owned);
    for settings in
        ["", "ssl_session_tickets off; ssl_session_cache shared:S:1m;", "ssl_session_ticket_key %%FILES%%/key;"]
    {
        let world = World::start("", settings, |files, _| std::fs::write(files.join("key"), [7; 80]).unwrap());
        for version in [&TLS12, &TLS13] {
            let client = Client::with(&world.authority, None, &[version]);
            let ask = || reused(&client.get(world.port(), "localhost", "/facts"));
            assert_eq!((ask().as_deref(), ask().as_deref()), (Some("."), Some("r")), "{settings} {version:?}");
            world.server.signal("HUP");
            let reloads = if version.version == rustls::ProtocolVersion::TLSv1_2 { 1 } else { 2 };
            support::wait::until("the reload", || world.server.logged(&["the new configuration holds"]) == reloads);
            assert_eq!(ask().as_deref(), Some("r"), "after a reload: {settings} {version:?}");
        }
    }
    let world = World::start("", "ssl_session_tickets off;", |_, _| {});
    let client = world.client();
    let ask = || reused(&client.get(world.port(), "localhost", "/facts"));
    assert_eq!((ask().as_deref(), ask().as_deref()), (Some("."), Some(".")));
}

#[test]
fn certificates_from_variables_and_of_a_reload() {
    let named = "server {
            listen 127.0.0.1:%%PORT%% ssl;
            server_name ~^.+\\.example$;
            ssl_certificate %%FILES%%/$ssl_server_name.pem;
            ssl_certificate_key %%FILES%%/$ssl_server_name.key;
            return 200 $ssl_server_name;
        }";
    let world = World::start(named, "", |files, root| root.identity("a.example", 2).write(files, "a.example"));
    let client = world.client();
    assert_eq!(client.get(world.port(), "a.example", "/"), "a.example");
    assert!(client.try_ask(world.port(), "b.example", "GET / HTTP/1.0\r\n\r\n").is_err());
    world.server.until_logged(&["[error]", "cannot load certificate", "b.example.pem", "while SSL handshaking"]);
    world.authority.identity("b.example", 3).write(world.files.path(), "b.example");
    assert_eq!(client.get(world.port(), "b.example", "/"), "b.example");

    let other = Authority::new("Other");
    other.identity("localhost", 9).write(world.files.path(), "localhost");
    let other = Client::new(&other);
    assert!(other.try_ask(world.port(), "localhost", "GET / HTTP/1.0\r\n\r\n").is_err(), "before the reload");
    world.server.signal("HUP");
    world.server.until_logged(&["the new configuration holds"]);
    assert!(other.get(world.port(), "localhost", "/facts").starts_with("https"));
    // A reload with a certificate that is none changes nothing.
    std::fs::write(world.files.path().join("localhost.pem"), "nothing").unwrap();
    world.server.signal("HUP");
    world.server.until_logged(&["[emerg]", "cannot load certificate", "PEM_read_bio_X509_AUX() failed"]);
    assert!(other.get(world.port(), "localhost", "/facts").starts_with("https"));
}

#[test]
fn certificates_from_variables_are_kept() {
    let named = "server {
            listen 127.0.0.1:%%PORT%% ssl;
            server_name ~^.+\\.example$;
            ssl_certificate %%FILES%%/$ssl_server_name.pem;
            ssl_certificate_key %%FILES%%/$ssl_server_name.key;
            ssl_certificate_cache max=1 inactive=1h valid=1h;
            return 200 $ssl_server_name;
        }";
    let names = ["a.example", "b.example"];
    let world = World::start(named, "", |files, root| {
        names.iter().for_each(|name| root.identity(name, 2).write(files, name));
    });
    // A new client each time: one that takes a session up again sees no certificate.
    let get = |name: &str| world.client().get(world.port(), name, "/");
    assert_eq!(get("a.example"), "a.example");
    let other = Authority::new("Other");
    other.identity("a.example", 9).write(world.files.path(), "a.example");
    assert_eq!(get("a.example"), "a.example", "it is kept");
    // Another one takes its place.
    assert_eq!(get("b.example"), "b.example");
    assert!(world.client().try_ask(world.port(), "a.example", "GET / HTTP/1.0\r\n\r\n").is_err());
    assert_eq!(Client::new(&other).get(world.port(), "a.example", "/"), "a.example");
}

#[test]
fn bad_clients_do_no_harm() {
    let world = World::start("", "client_header_timeout 4s;", |_, _| {});
    // A beginning, and silence.
    let mut silent = http::connect(world.port());
    silent.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1]).unwrap();
    // A handshake record of anything.
    let mut garbage = http::connect(world.port());
    garbage.write_all(&[0x16, 3, 1, 0, 5, 9, 0, 0, 1, 7]).unwrap();
    let mut answer = Vec::new();
    garbage.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:?}");
    world
        .server
        .until_logged(&["SSL_do_handshake() failed", "while SSL handshaking, client: 127.0.0.1, server: 127.0.0.1"]);
    // One that is gone in the middle, and one that resets a connection that is made.
    drop(http::connect(world.port()).write_all(&[0x16, 3, 1]));
    let mut made = world.client().connect(world.port(), "localhost");
    made.write_all(b"GET /facts HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    made.read_exact(&mut [0; 9]).unwrap();
    socket2::SockRef::from(&made.sock).set_linger(Some(Duration::ZERO)).unwrap();
    drop(made);
    // What is no record, behind a good handshake.
    let mut broken = world.client().connect(world.port(), "localhost");
    broken.write_all(b"GET /facts HTTP/1.1\r\n").unwrap();
    broken.flush().unwrap();
    broken.sock.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(broken.read(&mut [0; 1]).map_err(|_| ()), Err(()));

    assert!(world.client().get(world.port(), "localhost", "/facts").starts_with("https"));
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0, "client_header_timeout ends it");
    assert_eq!(world.server.logged(&["[alert]"]), 0, "{}", world.server.log());
}

#[test]
fn the_end_is_told() {
    let world = World::plain();
    let mut stream = world.client().connect(world.port(), "localhost");
    stream.write_all(b"GET /facts HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // rustls's client makes an error of an end without a goodbye.
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"X25519"));
}

#[test]
fn a_goodbye_that_comes_with_the_end_of_the_handshake_is_heard() {
    let world = World::plain();
    let mut stream = world.client().connect(world.port(), "localhost");
    stream.conn.write_tls(&mut stream.sock).unwrap();
    while stream.conn.is_handshaking() {
        stream.conn.read_tls(&mut stream.sock).unwrap();
        stream.conn.process_new_packets().unwrap();
    }
    stream.conn.send_close_notify();
    let mut last = Vec::new();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut last).unwrap();
    }
    stream.sock.write_all(&last).unwrap();
    // Sooner than a request would be waited for.
    stream.sock.read_to_end(&mut Vec::new()).unwrap();
}

type Websocket = tungstenite::WebSocket<support::tls::Stream>;

fn subscribe(world: &World, id: &str) -> Websocket {
    let stream = world.client().connect(world.port(), "localhost");
    tungstenite::client(format!("wss://localhost/ws/?id={id}"), stream).unwrap().0
}

fn publish(world: &World, id: &str, text: &str) {
    let length = text.len();
    let request = format!(
        "POST /pub?id={id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
    );
    let answer = world.client().try_ask(world.port(), "localhost", &request).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn subscribers_by_websocket() {
    let mut world = World::plain();
    let mut clients: Vec<Websocket> = (0..3).map(|_| subscribe(&world, "a")).collect();
    let texts = ["one".to_owned(), "two".repeat(30_000), "three".to_owned()];
    for text in &texts {
        publish(&world, "a", text);
    }
    for client in &mut clients {
        for text in &texts {
            assert_eq!(client.read().unwrap(), Message::text(text.clone()));
        }
    }
    // What a client sends is one message, whole; all get it.
    let long = "x".repeat(100_000);
    clients[0].send(Message::text(long.clone())).unwrap();
    for client in &mut clients {
        assert_eq!(client.read().unwrap(), Message::text(long.clone()));
    }
    clients[1].send(Message::Ping("are you there".into())).unwrap();
    assert_eq!(clients[1].read().unwrap(), Message::Pong("are you there".into()));
    world.server.signal("QUIT");
    for client in &mut clients {
        let Message::Close(Some(frame)) = client.read().unwrap() else { panic!("a goodbye") };
        assert_eq!(u16::from(frame.code), 1012);
        while client.read().is_ok() {}
    }
    assert!(world.server.wait(Duration::from_secs(20)).is_some(), "it ends: {}", world.server.log());
}

#[test]
fn subscribers_that_read_late() {
    let world = World::plain();
    let mut late = subscribe(&world, "late");
    let text = "y".repeat(60_000);
    // More than the socket's buffers take.
    for number in 0..12 {
        publish(&world, "late", &format!("{number} {text}"));
    }
    for number in 0..12 {
        assert_eq!(late.read().unwrap(), Message::text(format!("{number} {text}")));
    }
    publish(&world, "late", "end");
    assert_eq!(late.read().unwrap(), Message::text("end"));
}

#[test]
fn subscribers_by_eventsource() {
    let world = World::plain();
    let mut stream = world.client().connect(world.port(), "localhost");
    stream.write_all(b"GET /events/?id=e HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut stream = BufReader::new(stream);
    while !next_line(&mut stream).is_empty() {}
    publish(&world, "e", "hello");
    loop {
        let line = next_line(&mut stream);
        if line == "data: hello" {
            break;
        }
    }
}

#[test]
fn curves_are_those_that_are_named() {
    for (list, curve) in [("auto", "X25519"), ("secp384r1", "secp384r1"), ("X25519MLKEM768", "X25519MLKEM768")] {
        let world = World::start("", &format!("ssl_ecdh_curve {list};"), |_, _| {});
        let facts = world.client().get(world.port(), "localhost", "/facts");
        assert_eq!(facts.rsplit(',').next(), Some(curve), "{facts}");
    }
}

#[test]
fn check_says_what_is_never_spoken() {
    let folder = support::pushgate::prefix();
    let file = folder.path().join("old.conf");
    let config = "events { } http { server { listen 443 ssl; ssl_certificate no.pem; ssl_certificate_key no.key;
        ssl_protocols TLSv1 TLSv1.1; ssl_ciphers RC4-SHA:AES128-SHA; ssl_ecdh_curve secp521r1; } }";
    std::fs::write(&file, config).unwrap();
    let output = std::process::Command::new(support::pushgate::binary()).arg("check").arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for words in [
        "TLSv1.1 is not spoken here",
        "none of these protocols is spoken here",
        "none of these ciphers exists here",
        "none of these curves exists here",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
}
