//! Signals: a reload keeps what clients have, a broken configuration changes nothing, logs are reopened, and the end is
//! in order.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use support::ports::Port;
use support::postgres::Postgres;
use support::pushgate::Pushgate;
use support::websocket::Client;
use support::{http, recipe, wait};

/// The recipe with one more location, `/version`, that tells which configuration answers.
fn version(number: u32) -> String {
    recipe::with("location =/admin {", &format!("location =/version {{ return 200 {number}; }}\nlocation =/admin {{"))
}

#[track_caller]
fn until_version(server: &Pushgate, number: u32) {
    wait::until("the new configuration answers", || http::get(server.port(), "/version").body == number.to_string());
}

#[test]
fn websockets_stay_over_reloads() {
    let server = recipe::start_with(Postgres::shared(), &version(0));
    let session = Postgres::shared().session();
    let id = |number: usize| format!("reload{}", number % 10);
    let mut clients: Vec<Client> = (0..50).map(|number| recipe::client(&server, &id(number))).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.until_listening(&session, &id(number));
    }
    for number in 1..=5 {
        server.configure(&version(number));
        server.signal("HUP");
        until_version(&server, number);
        for channel in 0..10 {
            session.notify(&id(channel), "by NOTIFY");
            assert_eq!(http::post(server.port(), &format!("/publisher?id={}", id(channel)), "by HTTP").status, 200);
        }
        for client in &mut clients {
            let mut came = Vec::new();
            while came.len() < 2 {
                // Probes of clients on the same channel may still be on their way.
                came.extend(Some(client.text()).filter(|text| text.starts_with("by ")));
            }
            came.sort();
            assert_eq!(came, ["by HTTP", "by NOTIFY"]);
        }
    }
    for mut client in clients {
        client.ping("still here");
        client.leave();
    }
}

#[test]
fn no_request_fails_during_reloads() {
    let server = recipe::start_with(Postgres::shared(), &version(0));
    let mut websocket = recipe::client(&server, "load");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(http::get(server.port(), "/version").status, 200);
                }
            });
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // A connection carries a thousand (`keepalive_requests`).
                    let mut kept = KeptAlive::connect(server.port());
                    (0..500).for_each(|_| drop(kept.version()));
                }
            });
        }
        for number in 1..=10 {
            server.configure(&version(number));
            server.signal("HUP");
            until_version(&server, number);
        }
        done.store(true, Ordering::Relaxed);
    });
    websocket.ping("still here");
}

#[test]
fn a_kept_connection_has_the_new_configuration_at_once() {
    let server = recipe::start_with(Postgres::shared(), &version(1));
    let mut kept = KeptAlive::connect(server.port());
    assert_eq!(kept.version(), "1");
    server.configure(&version(2));
    server.signal("HUP");
    until_version(&server, 2);
    assert_eq!(kept.version(), "2");
}

/// A connection that carries one request after another for `/version`.
struct KeptAlive(BufReader<TcpStream>);

impl KeptAlive {
    fn connect(port: u16) -> Self {
        Self(BufReader::new(http::connect(port)))
    }

    fn version(&mut self) -> String {
        self.0.get_mut().write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            assert!(!line.is_empty(), "the connection was closed");
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }
}

#[test]
fn who_has_connected_is_served_when_a_reload_gives_the_port_up() {
    let second = Port::free();
    let listen = format!("listen 127.0.0.1:{};", second.number);
    let config = |listen: &str| {
        format!(
            "daemon off; pid logs/nginx.pid; error_log logs/error.log info; events {{}}
             http {{ access_log off; server {{ listen 127.0.0.1:%%PORT%%; {listen} return 200 served; }} }}"
        )
    };
    let server = Pushgate::start(&config(&listen), &[]);
    for _ in 0..5 {
        server.configure(&config(""));
        // Some of them the worker has accepted by the time of the reload, some wait in the socket's queue.
        let connected: Vec<_> = (0..100).map(|_| http::connect(second.number)).collect();
        server.signal("HUP");
        wait::until("the port is closed", || TcpStream::connect(("127.0.0.1", second.number)).is_err());
        for mut stream in connected {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with("served"), "{answer:?}");
        }
        server.configure(&config(&listen));
        server.signal("HUP");
        wait::until("the port is open", || TcpStream::connect(("127.0.0.1", second.number)).is_ok());
    }
}

#[test]
fn messages_that_are_published_during_reloads_arrive_in_order() {
    let server = recipe::start(Postgres::shared());
    let mut client = recipe::client(&server, "busy");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..500 {
                let answer = http::post(server.port(), "/publisher?id=busy", &number.to_string());
                assert_eq!(answer.status, 200, "message {number}");
            }
            done.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                server.signal("HUP");
            }
        });
        for number in 0..500 {
            assert_eq!(client.text(), number.to_string());
        }
    });
}

#[test]
fn stored_messages_stay_over_a_reload() {
    let publisher = "push_stream_channel_info_on_publish off;";
    let config = recipe::with(publisher, "push_stream_store_messages on;");
    let server = recipe::start_with(Postgres::shared(), &config);
    for number in 1..=3 {
        http::post(server.port(), "/publisher?id=stored", &format!("message {number}"));
    }
    server.configure(&config.replace("location =/admin {", "location =/version { return 200 1; } location =/admin {"));
    server.signal("HUP");
    until_version(&server, 1);
    let told = http::get(server.port(), "/publisher?id=stored").body;
    assert!(told.contains("\"stored_messages\": 3"), "{told}");
    let mut client = recipe::client(&server, "stored.b3");
    for number in 1..=3 {
        assert_eq!(client.text(), format!("message {number}"));
    }
}

#[test]
fn a_reload_opens_new_ports_and_closes_old_ones() {
    let (second, third) = (Port::free(), Port::free());
    let config = |port: &str| {
        format!(
            "daemon off; pid logs/nginx.pid; error_log logs/error.log info; events {{}}
             http {{ access_log off;
                 server {{ listen 127.0.0.1:%%PORT%%; return 200 first; }}
                 server {{ listen 127.0.0.1:{port}; return 200 other; }}
             }}"
        )
    };
    let server = Pushgate::start(&config(&second.number.to_string()), &[]);
    assert_eq!(http::get(second.number, "/").body, "other");
    server.configure(&config(&third.number.to_string()));
    server.signal("HUP");
    let open = |port: &Port| TcpStream::connect(("127.0.0.1", port.number)).is_ok();
    wait::until("the new port is open", || open(&third));
    assert_eq!(http::get(third.number, "/").body, "other");
    wait::until("the old port is closed", || !open(&second));
    assert_eq!(http::get(server.port(), "/").body, "first");
}

#[test]
fn a_broken_configuration_changes_nothing() {
    let mut server = recipe::start_with(Postgres::shared(), &version(1));
    let session = Postgres::shared().session();
    let mut client = recipe::client(&server, "broken");
    client.until_listening(&session, "broken");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen_taken = format!("listen {}; listen 127.0.0.1:%%PORT%%", taken.local_addr().unwrap());
    let broken = [
        ("unknown directive", version(2).replace("push_stream_channels_path", "push_stream_chanels_path")),
        ("unexpected end of file", version(2).trim_end().trim_end_matches('}').to_owned()),
        ("invalid port", version(2).replace("listen 127.0.0.1:", "listen 127.0.0.1:99999; listen 127.0.0.1:")),
        ("No such file or directory", version(2).replace("http {", "include missing.conf; http {")),
        ("nginx.conf", version(2).replace("http {", "include nginx.conf; http {")),
        ("missing/error.log", format!("error_log missing/error.log;\n{}", version(2))),
        ("Address already in use", version(2).replace("listen 127.0.0.1:%%PORT%%", &listen_taken)),
    ];
    for (message, config) in broken {
        server.configure(&config);
        server.signal("HUP");
        server.until_logged(&["[emerg]", message]);
        assert!(server.runs());
        assert_eq!(http::get(server.port(), "/version").body, "1", "after: {message}");
        session.notify("broken", message);
        assert_eq!(client.text(), message);
    }
    server.configure(&version(3));
    server.signal("HUP");
    until_version(&server, 3);
}

#[test]
fn logs_are_reopened() {
    let server = recipe::start_with(Postgres::shared(), &version(1));
    http::get(server.port(), "/version?before");
    wait::until("the request is logged", || server.read("logs/access.log").contains("?before"));
    server.rename("logs/access.log", "logs/access.log.1");
    server.rename("logs/error.log", "logs/error.log.1");
    server.signal("USR1");
    wait::until("the logs are there again", || {
        http::get(server.port(), "/version?after");
        server.read("logs/access.log").contains("?after")
    });
    assert!(!server.read("logs/access.log").contains("?before"));
    assert!(server.read("logs/access.log.1").contains("?before"));
    let old = server.read("logs/error.log.1");
    server.configure("nonsense;");
    server.signal("HUP");
    server.until_logged(&["[emerg]", "nonsense"]);
    assert_eq!(server.read("logs/error.log.1"), old);
}

#[test]
fn quit_lets_a_request_end() {
    let mut server = recipe::start(Postgres::shared());
    let pid = server.read("logs/nginx.pid");
    assert_eq!(pid.trim(), server.pid().to_string());

    let mut request = http::connect(server.port());
    // The server asks for the body: it has begun with the request.
    request
        .write_all(
            b"POST /publisher?id=quit HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
              Expect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        )
        .unwrap();
    let mut interim = [0; 25];
    request.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");

    server.signal("QUIT");
    wait::until("new connections are refused", || TcpStream::connect(("127.0.0.1", server.port())).is_err());
    assert!(server.runs());
    request.write_all(b"body").unwrap();
    let mut answer = String::new();
    request.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let status = server.wait(wait::PATIENCE).expect("it ends after the last request");
    assert_eq!(status.code(), Some(0));
    assert_eq!(server.read("logs/nginx.pid"), "", "the pid file is removed");
}

#[test]
fn term_and_int_end_at_once() {
    for signal in ["TERM", "INT"] {
        let mut server = recipe::start(Postgres::shared());
        let clients: Vec<Client> = (0..10).map(|_| recipe::client(&server, "term")).collect();
        server.signal(signal);
        let status = server.wait(wait::PATIENCE).unwrap_or_else(|| panic!("it does not end on SIG{signal}"));
        assert_eq!(status.code(), Some(0));
        assert_eq!(server.read("logs/nginx.pid"), "", "the pid file is removed");
        drop(clients);
    }
}
