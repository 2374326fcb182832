//! push_stream beyond the recorded cases: what the original does not do, or not so.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::time::Duration;

use support::pushgate::Pushgate;
use support::websocket::Client;
use support::{http, wait};

/// A server with subscribers of some kinds, whose messages follow a template.
fn config(http: &str, subscriber: &str) -> String {
    format!(
        "daemon off;
        worker_processes 2;
        pid logs/nginx.pid;
        error_log logs/error.log info;
        events {{ }}
        http {{
            push_stream_shared_memory_size 16m;
            {http}
            server {{
                listen 127.0.0.1:%%PORT%%;
                location /pub {{
                    push_stream_publisher admin;
                    push_stream_channels_path $arg_id;
                    push_stream_store_messages on;
                }}
                location /ws/ {{
                    push_stream_subscriber websocket;
                    push_stream_channels_path $arg_id;
                    {subscriber}
                }}
                location /sub/ {{
                    push_stream_subscriber eventsource;
                    push_stream_channels_path $arg_id;
                    {subscriber}
                }}
                location /poll/ {{
                    push_stream_subscriber long-polling;
                    push_stream_channels_path $arg_id;
                    {subscriber}
                }}
            }}
        }}"
    )
}

fn publish(server: &Pushgate, id: &str, text: &str) {
    assert_eq!(http::post(server.port(), &format!("/pub?id={id}"), text).status, 200);
}

/// Reads from an endless answer until a text has come.
fn until_read(stream: &mut std::net::TcpStream, text: &str) {
    let (mut got, mut buffer) = (String::new(), [0; 4096]);
    while !got.contains(text) {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the answer ended: {got:?}");
        got.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

#[test]
fn subscribers_follow_a_new_configuration() {
    let server = Pushgate::start(&config("", "push_stream_message_template 'old ~text~';"), &[]);
    let mut websockets: Vec<_> =
        (0..20).map(|n| Client::connect(server.port(), &format!("/ws/?id=a{}", n % 3))).collect();
    let mut several = Client::connect(server.port(), "/ws/?id=a0/a1");
    let mut stream = http::connect(server.port());
    stream.write_all(b"GET /sub/?id=a0 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    until_read(&mut stream, ": \n");
    publish(&server, "a0", "one");
    until_read(&mut stream, "data: old one\n");
    assert_eq!(websockets[0].text(), "old one");
    assert_eq!(several.text(), "old one");

    server.configure(&config("", "push_stream_message_template 'new ~text~';"));
    server.signal("HUP");
    server.until_logged(&["the new configuration holds"]);
    // Each worker follows when it comes to it.
    std::thread::park_timeout(Duration::from_millis(200));
    publish(&server, "a0", "two");
    publish(&server, "a1", "three");
    until_read(&mut stream, "data: new two\n");
    for (number, client) in websockets.iter_mut().enumerate() {
        match number % 3 {
            0 if number == 0 => assert_eq!(client.text(), "new two"),
            0 => assert_eq!([client.text(), client.text()], ["old one", "new two"]),
            1 => assert_eq!(client.text(), "new three"),
            _ => {}
        }
    }
    assert_eq!([several.text(), several.text()], ["new two", "new three"]);
    for client in websockets {
        client.leave();
    }
    several.leave();
    drop(stream);
    let gone = || http::get(server.port(), "/pub?id=a0").body.contains("\"subscribers\": 0");
    wait::until("all have left", gone);
}

#[test]
fn pages_of_other_origins_are_refused() {
    let server =
        Pushgate::start(&config("", "push_stream_allowed_origins 'https://a.example, https://b.example';"), &[]);
    let status = |origin| Client::try_connect(server.port(), "/ws/?id=x", &[("Origin", origin)]).err();
    assert_eq!(status("https://b.example"), None);
    assert_eq!(status("https://c.example"), Some(403));
    assert_eq!(status("null"), Some(403));
    Client::connect(server.port(), "/ws/?id=x").leave();
}

#[test]
fn a_server_that_quits_says_so_to_one_after_the_other() {
    let mut server = Pushgate::start(&config("push_stream_farewell_time 500ms;", ""), &[]);
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(server.port(), "/ws/?id=x")).collect();
    server.signal("QUIT");
    for client in &mut clients {
        assert_eq!(client.closed(), (1012, "service restart".to_owned()));
    }
    drop(clients);
    assert!(server.wait(Duration::from_secs(20)).unwrap().success());
}

#[test]
fn memory_has_a_bound_and_publishing_goes_on() {
    let server = Pushgate::start(&config("", "").replace("16m", "128k"), &[]);
    let text = "x".repeat(1000);
    for number in 0..500 {
        publish(&server, &format!("c{}", number % 5), &text);
    }
    let statistics = http::get(server.port(), "/pub?id=c4").body;
    assert!(statistics.contains("\"published_messages\": 100, \"stored_messages\": "), "{statistics}");
    assert!(!statistics.contains("\"stored_messages\": 100"), "{statistics}");
}

#[test]
fn a_long_polling_client_of_several_channels_misses_nothing() {
    const EACH: usize = 100;
    let server = Pushgate::start(&config("", "push_stream_message_template '~channel~=~text~\n';"), &[]);
    let port = server.port();
    std::thread::scope(|scope| {
        for channel in ["a", "b", "c"] {
            let server = &server;
            scope.spawn(move || (0..EACH).for_each(|number| publish(server, channel, &number.to_string())));
        }
        let (mut got, mut known) = (Vec::new(), "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n".to_owned());
        while got.len() < 3 * EACH {
            let answer = http::request(port, "GET", "/poll/?id=a/b/c", &known, "");
            assert_eq!(answer.status, 200, "{}", answer.body);
            let (time, tag) = (answer.header("Last-Modified").unwrap(), answer.header("Etag").unwrap());
            known = format!("If-Modified-Since: {time}\r\nIf-None-Match: {tag}\r\n");
            // Lines without a name are the lengths of chunks.
            got.extend(answer.body.lines().filter(|line| line.contains('=')).map(str::to_owned));
        }
        for channel in ["a", "b", "c"] {
            let prefix = format!("{channel}=");
            let of_channel: Vec<_> = got.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
            let expected: Vec<_> = (0..EACH).map(|number| number.to_string()).collect();
            assert_eq!(of_channel, expected);
        }
    });
}
