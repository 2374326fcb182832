//! Misbehaving clients: a clear answer, a clear log line, no leak, and nobody else disturbed.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::time::Duration;

use socket2::SockRef;

use support::postgres::Postgres;
use support::pushgate::Pushgate;
use support::websocket::{Client, UPGRADE};
use support::{http, recipe, wait};

/// Another client of the server, which is to notice nothing.
struct Bystander(Client);

impl Bystander {
    fn of(server: &Pushgate) -> Self {
        Self(recipe::client(server, "bystander"))
    }

    /// It is still served, and has got nothing from others.
    #[track_caller]
    fn is_well(&mut self, server: &Pushgate, after: &str) {
        assert_eq!(http::post(server.port(), "/publisher?id=bystander", after).status, 200, "after {after}");
        assert_eq!(self.0.text(), after);
    }
}

// HTTP.

#[test]
fn bad_requests_are_refused() {
    let server = recipe::start(Postgres::shared());
    let mut bystander = Bystander::of(&server);
    let post = |headers: &str, body: &str| format!("POST /publisher?id=x HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}");
    let get = |headers: &str| format!("GET /publisher?id=x HTTP/1.1\r\n{headers}\r\n");
    let requests = [
        ("noise", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), 400),
        ("a method in lower case", "get / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("a version of the future", "GET / HTTP/9.9\r\nHost: a\r\n\r\n".into(), 505),
        ("no host", get(""), 400),
        ("two hosts", get("Host: a\r\nHost: b\r\n"), 400),
        ("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("NUL in a header", get("Host: a\r\nX: a\0b\r\n"), 400),
        ("a target without an end", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000)), 414),
        ("a huge header", get(&format!("Host: a\r\nX: {}\r\n", "x".repeat(100_000))), 400),
        ("many headers", get(&format!("Host: a\r\n{}", "X: yyyyyyyyyyyyyyyy\r\n".repeat(20_000))), 400),
        ("two lengths", post("Content-Length: 1\r\nContent-Length: 2\r\n", "ab"), 400),
        ("a length below zero", post("Content-Length: -1\r\n", ""), 400),
        ("a length beyond all numbers", post("Content-Length: 99999999999999999999999\r\n", ""), 400),
        ("a length and chunks", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("an unknown coding", post("Transfer-Encoding: magic\r\n", ""), 501),
        ("a bad chunk", post("Transfer-Encoding: chunked\r\n", "zz\r\nabc\r\n"), 400),
        ("a body over the limit", post("Content-Length: 2000000\r\n", ""), 413),
    ];
    for (what, request, status) in requests {
        let answer = http::raw(server.port(), request.as_bytes());
        let answer = String::from_utf8_lossy(&answer);
        let line = answer.lines().next().unwrap_or_default();
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: expected {status}, got {line:?}");
        bystander.is_well(&server, what);
    }
}

#[test]
fn bad_handshakes_are_refused() {
    let server = recipe::start(Postgres::shared());
    let mut bystander = Bystander::of(&server);
    for (what, part, replacement) in [
        ("no key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ("no version", "Sec-WebSocket-Version: 13\r\n", ""),
        ("no upgrade", "Upgrade: websocket\r\n", ""),
    ] {
        let upgrade = UPGRADE.replacen(part, replacement, 1);
        let request = format!("GET /websocket?id=x HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n");
        let answer = http::raw(server.port(), request.as_bytes());
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.starts_with("HTTP/1.1 101 "), "{what}: {answer}");
        bystander.is_well(&server, what);
    }
}

// Frames.

/// A frame with a mask of zeros, whose data is therefore as it stands.
fn masked(first: u8, data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).unwrap();
    let head = if length < 126 { vec![first, 0x80 | length] } else { vec![first, 0x80 | 126, 0, length] };
    [head.as_slice(), &[0; 4], data].concat()
}

#[test]
fn bad_frames_close_the_connection_with_a_code() {
    let server = recipe::start(Postgres::shared());
    let mut bystander = Bystander::of(&server);
    let protocol: &[u16] = &[1002];
    // The original gives no code for what comes out of turn.
    let sequence: &[u16] = &[1002, 1005];
    let frames: [(&str, Vec<u8>, &[u16]); 12] = [
        ("not masked", vec![0x81, 1, b'x'], protocol),
        ("reserved bits", masked(0xf1, b"x"), protocol),
        ("a reserved opcode", masked(0x83, b"x"), protocol),
        ("a reserved control opcode", masked(0x8b, b""), protocol),
        ("a ping in fragments", masked(0x09, b"x"), protocol),
        ("a close in fragments", masked(0x08, b""), protocol),
        ("a ping too long", masked(0x89, &[b'x'; 126]), protocol),
        ("a close of one byte", masked(0x88, b"x"), protocol),
        ("text that is not UTF-8", masked(0x81, b"\xff\xfe"), &[1007]),
        ("more than memory holds", vec![0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0], &[1009]),
        ("a continuation of nothing", masked(0x80, b"x"), sequence),
        ("a new message inside another", [masked(0x01, b"a"), masked(0x81, b"b")].concat(), sequence),
    ];
    for (what, bytes, codes) in frames {
        let mut client = recipe::client(&server, "frames");
        client.send_raw(&bytes);
        let (code, _) = client.closed();
        assert!(codes.contains(&code), "{what}: closed with {code}, expected one of {codes:?}");
        bystander.is_well(&server, what);
    }
    wait::until("all of them have left the channel", || !told(&server, "frames").contains("\"subscribers\": 1"));
}

#[test]
fn frames_may_come_byte_by_byte() {
    let config = recipe::with("push_stream_client_publish_request /publish;", "");
    let server = recipe::start_with(Postgres::shared(), &config);
    let mut client = recipe::client(&server, "slowly");
    for byte in [masked(0x01, "при".as_bytes()), masked(0x89, b"?"), masked(0x80, "вет".as_bytes())].concat() {
        client.send_raw(&[byte]);
    }
    assert_eq!(client.text(), "привет");
}

/// What the publisher tells of a channel.
fn told(server: &Pushgate, id: &str) -> String {
    http::get(server.port(), &format!("/publisher?id={id}")).body
}

// Clients that send without end.

#[test]
fn a_long_body_that_nobody_wants_costs_no_memory() {
    let config = "daemon off; pid logs/nginx.pid; error_log logs/error.log; events {}
        http { access_log off; client_max_body_size 0; server { listen 127.0.0.1:%%PORT%%; return 200 answer; } }";
    let server = Pushgate::start(config, &[]);
    let mut stream = http::connect(server.port());
    let before = server.resident_kb();
    let megabyte = vec![b'x'; 1 << 20];
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 100 * megabyte.len());
    let next = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let last = "0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut most = 0;
    let mut send = |bytes: &[u8]| {
        std::io::Write::write_all(&mut stream, bytes).unwrap();
        most = most.max(server.resident_kb());
    };
    send(head.as_bytes());
    (0..100).for_each(|_| send(&megabyte));
    send(next.as_bytes());
    for _ in 0..100 {
        send(b"100000\r\n");
        send(&megabyte);
        send(b"\r\n");
    }
    send(last.as_bytes());
    let mut answers = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answers).unwrap();
    assert_eq!(answers.matches("answer").count(), 3, "{answers}");
    let grown = most.saturating_sub(before);
    assert!(grown < 8 * 1024, "memory grew by {grown} KB");
}

// Clients that take without end, or come and go.

#[test]
fn a_client_that_never_reads_costs_little_and_holds_nobody_back() {
    let server = recipe::start(Postgres::shared());
    let mut reader = recipe::client(&server, "stuck");
    let stuck = recipe::client(&server, "stuck");
    SockRef::from(stuck.stream()).set_recv_buffer_size(4096).unwrap();
    let before = server.resident_kb();
    let message = "m".repeat(500_000);
    // 200 MB in all: far more than any bound on what may wait for one client.
    for _ in 0..400 {
        assert_eq!(http::post(server.port(), "/publisher?id=stuck", &message).status, 200);
        assert_eq!(reader.text().len(), message.len());
    }
    let grown = server.resident_kb().saturating_sub(before);
    assert!(grown < 64 * 1024, "memory grew by {grown} KB");
    wait::until("the stuck client is closed", || told(&server, "stuck").contains("\"subscribers\": 1}"));
    server.until_logged(&["slow"]);
}

#[test]
fn thousands_who_come_and_go_leave_nothing_behind() {
    let server = recipe::start(Postgres::shared());
    let mut bystander = Bystander::of(&server);
    let round = |number: usize| {
        let id = |client: usize| format!("churn{}", (number + client) % 7);
        let clients: Vec<Client> = (0..50).map(|client| recipe::client(&server, &id(client))).collect();
        // A third says good-bye, a third just closes, a third resets the connection.
        for (number, client) in clients.into_iter().enumerate() {
            match number % 3 {
                0 => client.leave(),
                1 => drop(client),
                _ => SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).unwrap(),
            }
        }
        for half in ["", "GET /websocket?id=churn0 HTTP/1.1\r\nHost: a\r\n", "GET"] {
            std::io::Write::write_all(&mut http::connect(server.port()), half.as_bytes()).unwrap();
        }
    };
    // Buffers and pools that grow once are no leak.
    (0..10).for_each(round);
    let settled = || (0..7).all(|id| !told(&server, &format!("churn{id}")).contains("\"subscribers\": 1"));
    wait::until("the first have left", settled);
    let (descriptors, memory) = (server.descriptors(), server.resident_kb());
    (0..50).for_each(round);
    wait::until("all have left", settled);
    wait::until("their descriptors are closed", || server.descriptors() <= descriptors + 4);
    let grown = server.resident_kb().saturating_sub(memory);
    assert!(grown < 8 * 1024, "memory grew by {grown} KB");
    bystander.is_well(&server, "thousands of others");
}

// SQL.

#[test]
fn ids_can_not_inject_sql() {
    let postgres = Postgres::shared();
    let session = postgres.session();
    session.rows("create table victim_of_ids (id int); insert into victim_of_ids values (1)");
    let server = recipe::start(postgres);
    let mut bystander = Bystander::of(&server);
    for id in [
        // Neither a blank nor an asterisk can stand in an id, so the statement does without.
        "x\";truncate\"victim_of_ids\";--",
        "x\\\";truncate\"victim_of_ids\";--",
        "x\\\\\";truncate\"victim_of_ids\";--",
        "x';truncate\"victim_of_ids\";--",
        "x;truncate\"victim_of_ids\";--",
    ] {
        // Each is nothing but the name of a channel.
        let mut client = recipe::client(&server, id);
        client.until_listening(&session, id);
        client.leave();
        bystander.is_well(&server, "an injection");
    }
    assert_eq!(session.rows("select id from victim_of_ids").len(), 1, "the row is still there");
}

#[test]
fn values_in_a_query_can_not_inject_sql() {
    let postgres = Postgres::shared();
    let session = postgres.session();
    session
        .rows("create table victim_of_values (id int, said text); insert into victim_of_values values (1, 'secret')");
    let insert = "insert into victim_of_values values (2, '$request_body') returning said";
    let lookup = r#"location =/lookup { postgres_pass ngx; postgres_query "select said from victim_of_values where id = $arg_n"; }
        location =/admin {"#;
    let config = recipe::with("select now()", insert).replace("location =/admin {", lookup);
    let server = recipe::start_with(postgres, &config);
    let mut client = recipe::client(&server, "values");
    for text in ["x'); drop table victim_of_values; --", "\\'); drop table victim_of_values; --", "''", "\\"] {
        client.send(text);
        assert_eq!(client.text(), text);
    }
    assert!(http::get(server.port(), "/lookup?n=1").body.contains("secret"));
    for number in ["0/**/or/**/true", "1;drop/**/table/**/victim_of_values", "1--", "1'"] {
        let answer = http::get(server.port(), &format!("/lookup?n={number}"));
        assert_eq!(answer.status, 400, "{number}: {}", answer.body);
        server.until_logged(&["[error]", number]);
    }
    session.rows("select from victim_of_values");
}
