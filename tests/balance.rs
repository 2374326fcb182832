//! Which server of an upstream a request goes to.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;

use support::http;
use support::pushgate::Pushgate;

/// Nobody listens at these ports, so that each request goes through all servers.
const CONFIG: &str = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid;
events { worker_connections 64; }
http {
    upstream hash {
        hash $arg_k;
        server 127.0.0.1:1 weight=2 max_fails=0; server 127.0.0.1:2 max_fails=0; server 127.0.0.1:3 down;
        server 127.0.0.1:4 weight=3 max_fails=0; server 127.0.0.1:5 max_fails=0;
    }
    upstream consistent {
        hash $arg_k consistent;
        server 127.0.0.1:1 weight=2 max_fails=0; server 127.0.0.1:2 max_fails=0; server 127.0.0.1:3 down;
        server 127.0.0.1:4 weight=3 max_fails=0; server unix:/nowhere max_fails=0;
    }
    upstream ip_hash {
        ip_hash;
        server 127.0.0.1:1 weight=2 max_fails=0; server 127.0.0.1:2 max_fails=0; server 127.0.0.1:3 down;
        server 127.0.0.1:4 weight=3 max_fails=0; server 127.0.0.1:6 max_fails=0;
    }
    upstream random { random; server 127.0.0.1:1; server 127.0.0.1:2 max_fails=0; server 127.0.0.1:3 down; }
    upstream two { random two; server 127.0.0.1:1; server 127.0.0.1:2 max_fails=0; server 127.0.0.1:3 down; }
    server {
        listen 127.0.0.1:%%PORT%%;
        set_real_ip_from 127.0.0.1;
        real_ip_header X-IP;
        add_header Tried \"$upstream_addr\" always;
        location / { return 404; }
        location /hash { proxy_pass http://hash; }
        location /consistent { proxy_pass http://consistent; }
        location /ip_hash { proxy_pass http://ip_hash; }
        location /random { proxy_pass http://random; }
        location /two { proxy_pass http://two; }
    }
}";

/// The servers that a request went to, by the last figure of their ports; `u` is the socket.
fn tried(server: &Pushgate, target: &str, ip: &str) -> String {
    let answer = http::request(server.port(), "GET", target, &format!("X-IP: {ip}\r\n"), "");
    let tried = answer.header("Tried").unwrap_or_default();
    tried.replace("127.0.0.1:", "").replace("unix:/nowhere", "u").replace(", ", "")
}

#[test]
fn hashes_lead_to_the_servers_that_nginx_chooses() {
    // Recorded from nginx with this configuration.
    const KEYS: [(&str, &str, &str); 11] = [
        ("a", "5142", "u124"),
        ("b", "4152", "u412"),
        ("c", "1245", "14u2"),
        ("d", "4152", "421u"),
        ("e", "2451", "214u"),
        ("f", "1425", "142u"),
        ("g", "4152", "124u"),
        ("key1", "4521", "u412"),
        ("key2", "4512", "42u1"),
        ("12345", "4152", "4u12"),
        ("/some/path", "1452", "412u"),
    ];
    const CLIENTS: [(&str, &str); 8] = [
        ("1.2.3.4", "6412"),
        ("1.2.3.5", "6412"),
        ("10.0.0.1", "4162"),
        ("192.168.7.9", "1642"),
        ("8.8.8.8", "6214"),
        ("2001:db8::1", "1426"),
        ("2001:db8::2", "1264"),
        ("::1", "1462"),
    ];
    let server = Pushgate::start(CONFIG, &[]);
    for (key, plain, consistent) in KEYS {
        assert_eq!(tried(&server, &format!("/hash?k={key}"), ""), plain, "{key}");
        assert_eq!(tried(&server, &format!("/consistent?k={key}"), ""), consistent, "{key}");
    }
    for (client, expected) in CLIENTS {
        assert_eq!(tried(&server, "/ip_hash", client), expected, "{client}");
    }
}

#[test]
fn an_empty_key_goes_to_the_servers_in_turn() {
    let server = Pushgate::start(CONFIG, &[]);
    let firsts: String = (0..7).map(|_| tried(&server, "/hash", "").remove(0)).collect();
    for one in ["1", "2", "4", "5"] {
        assert!(firsts.contains(one), "{firsts}");
    }
}

#[test]
fn chance_finds_each_server_that_is_there() {
    let server = Pushgate::start(CONFIG, &[]);
    for way in ["/random", "/two"] {
        let both = tried(&server, way, "");
        assert!(both == "12" || both == "21", "{both}");
        // The first has failed and rests.
        assert!(tried(&server, way, "").starts_with('2'), "{way}");
    }
}

#[test]
fn a_kept_connection_that_is_closed_takes_none_of_the_tries() {
    let answers = |count: usize| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                for _ in 0..count {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                        head.push(byte[0]);
                    }
                    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
                }
                // It closes when the next request begins.
                let _request = stream.read(&mut [0; 4096]);
            }
        });
        port
    };
    let [kept, broken, good] = [answers(1), answers(0), answers(1)];
    let config = format!(
        "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid;
        events {{ worker_connections 64; }}
        http {{
            upstream u {{
                server 127.0.0.1:{kept} weight=100; server 127.0.0.1:{broken}; server 127.0.0.1:{good}; keepalive 4;
            }}
            server {{
                listen 127.0.0.1:%%PORT%%;
                proxy_http_version 1.1;
                proxy_set_header Connection \"\";
                proxy_next_upstream_tries 2;
                add_header Tried $upstream_addr always;
                location / {{ proxy_pass http://u; }}
            }}
        }}"
    );
    let server = Pushgate::start(&config, &[]);
    assert_eq!(tried(&server, "/", ""), kept.to_string());
    assert_eq!(tried(&server, "/", ""), format!("{kept}{broken}{good}"));
}
