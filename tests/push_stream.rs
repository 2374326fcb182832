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
                location /stats {{
                    push_stream_channels_statistics;
                    push_stream_channels_path $arg_id;
                }}
                location /dropped {{
                    return 200 \"$push_stream_dropped_overflow $push_stream_dropped_expired $push_stream_dropped_evicted
                        $push_stream_dropped_refused $push_stream_dropped_slow_clients $push_stream_dropped_unsent\";
                }}
            }}
        }}"
    )
}

fn publish(server: &Pushgate, id: &str, text: &str) {
    assert_eq!(http::post(server.port(), &format!("/pub?id={id}"), text).status, 200);
}

/// Reads from an endless answer until a text has come; says what came.
fn until_read(stream: &mut std::net::TcpStream, text: &str) -> String {
    let (mut got, mut buffer) = (String::new(), [0; 4096]);
    while !got.contains(text) {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the answer ended: {got:?}");
        got.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    got
}

#[test]
fn pipelined_answers_come_in_order_and_do_not_wait_for_a_later_one_that_does() {
    let server = Pushgate::start(&config("", ""), &[]);
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut stream = http::connect(server.port());
    let requests = [get("/none/1"), get("/dropped"), get("/poll/?id=pipe")].concat();
    stream.write_all(requests.as_bytes()).unwrap();
    let seen = until_read(&mut stream, "0 0");
    assert!(seen.find("404 Not Found").unwrap() < seen.find("200 OK").unwrap(), "{seen}");
    publish(&server, "pipe", "to the poll");
    until_read(&mut stream, "to the poll");
    // The last of them gives the connection away.
    let requests = [get("/none/2"), get("/dropped"), get("/sub/?id=pipe")].concat();
    stream.write_all(requests.as_bytes()).unwrap();
    wait::until("the event source is there", || {
        http::get(server.port(), "/stats?id=pipe").body.contains("\"subscribers\": 1")
    });
    publish(&server, "pipe", "to the event source");
    let seen = until_read(&mut stream, "to the event source");
    assert!(seen.find("404 Not Found").unwrap() < seen.find("200 OK").unwrap(), "{seen}");
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

#[test]
fn a_client_that_comes_back_polling_an_event_source_gets_events() {
    let server = Pushgate::start(
        &config("", "push_stream_header_template top; push_stream_padding_by_user_agent '.*,500,500';"),
        &[],
    );
    let port = server.port();
    let event = "Event-Id: e1\r\nEvent-Type: kind\r\n";
    assert_eq!(http::request(port, "POST", "/pub?id=p", event, "text").status, 200);
    let polling = "X-Nginx-PushStream-Mode: polling\r\nUser-Agent: any\r\n";
    let answer = http::request(port, "GET", "/sub/?id=p.b1", polling, "");
    assert!(answer.body.contains(": top\nid: e1\nevent: kind\ndata: text\n\n\r\n"), "{}", answer.body);
    assert_eq!(answer.header("Content-Type"), Some("text/plain"));
    // A call in JavaScript has the header too, and its type even where nothing is called.
    let answer = http::request(port, "GET", "/poll/?id=p.b1&callback=", "", "");
    assert!(answer.body.contains("top([text]);"), "{}", answer.body);
    let none = http::request(port, "GET", "/sub/?id=none&callback=f", polling, "");
    assert_eq!((none.status, none.header("Content-Type")), (304, Some("application/javascript")));
}

#[test]
fn the_events_channel_is_always_there_and_counts_apart() {
    let events = "push_stream_events_channel_id events; push_stream_channel_inactivity_time 1s;";
    let server = Pushgate::start(&config(events, "push_stream_allow_connections_to_events_channel on;"), &[]);
    let port = server.port();
    let mut stream = http::connect(port);
    stream.write_all(b"GET /sub/?id=events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    until_read(&mut stream, ": \n");
    let mut client = Client::connect(port, "/ws/?id=one/two");
    until_read(
        &mut stream,
        "event: client_subscribed\ndata: {\"type\": \"client_subscribed\", \"channel\": \"two\"}\n",
    );
    assert_eq!(http::request(port, "DELETE", "/pub?id=one", "", "").status, 200);
    // The client has another channel, and left this one before it was gone.
    until_read(&mut stream, "\"client_unsubscribed\", \"channel\": \"one\"");
    until_read(&mut stream, "\"channel_destroyed\", \"channel\": \"one\"");
    assert_eq!(client.text(), "Channel deleted");
    client.leave();
    let sums = http::get(port, "/stats").body;
    assert!(sums.contains("\"published_messages\": 0, \"stored_messages\": 0,"), "{sums}");
}

#[test]
fn statistics_tell_of_many_channels_by_one_word() {
    let server = Pushgate::start(&config("push_stream_max_channel_id_length 8;", ""), &[]);
    let port = server.port();
    // A channel that is refused does not unmake the one before it.
    assert_eq!(http::post(port, "/pub?id=before/ALL", "x").status, 403);
    publish(&server, "news1/news2/", "x");
    for (path, names) in [
        ("news*x", &["news1", "news2"][..]),
        ("none/n*", &["news1", "news2"]),
        ("none/ALL", &["before", "news1", "news2"]),
        ("before/none", &["before"]),
    ] {
        let body = http::get(port, &format!("/stats?id={path}")).body;
        let told: Vec<_> = body.split("\"channel\": \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(told, names, "{path}");
    }
    // The sums name two workers, and lists may be empty: each format divides them in its way.
    let told = |path, accept| http::request(port, "GET", path, &format!("Accept: text/{accept}\r\n"), "").body;
    assert_eq!(told("/stats", "plain").matches("\r\n  uptime: ").count(), 2);
    assert_eq!(told("/stats", "plain").matches(",\r\n  pid: ").count(), 1);
    assert!(told("/stats?id=none*", "x-yaml").ends_with("infos: \r\n\r\n"));
    let long = http::get(port, "/stats?id=123456789");
    assert_eq!((long.status, long.header("X-Nginx-PushStream-Explain")), (400, Some("Channel id is too large.")));
}

#[test]
fn what_is_dropped_is_counted_by_reason() {
    let limits = "push_stream_max_messages_stored_per_channel 2; push_stream_wildcard_channel_prefix w_;
        push_stream_max_number_of_wildcard_channels 1;";
    let server = Pushgate::start(&config(limits, ""), &[]);
    let port = server.port();
    (0..5).for_each(|_| publish(&server, "a", "x"));
    // Unless something else is said, a subscriber may have as many wildcard channels as there may be, but no others alone.
    for path in ["/poll/?id=w_1", "/poll/?id=a.b1/w_1/w_2"] {
        let answer = http::get(port, path);
        assert_eq!(answer.status, 403);
        assert_eq!(answer.header("X-Nginx-PushStream-Explain"), Some("Subscribed too much wildcard channels."));
    }
    let dropped = http::get(port, "/dropped").body;
    assert_eq!(dropped.split_whitespace().collect::<Vec<_>>(), ["3", "0", "0", "2", "0", "0"]);
}

#[test]
fn a_long_polling_location_waits_whatever_a_client_asks_for() {
    let server = Pushgate::start(&config("", ""), &[]);
    let mut stream = http::connect(server.port());
    stream
        .write_all(b"GET /poll/?id=w HTTP/1.1\r\nHost: localhost\r\nX-Nginx-PushStream-Mode: polling\r\n\r\n")
        .unwrap();
    let waits = || http::get(server.port(), "/pub?id=w").body.contains("\"subscribers\": 1");
    wait::until("the client waits", waits);
    publish(&server, "w", "at last");
    until_read(&mut stream, "at last");
}

#[test]
fn refusals_are_in_the_log_in_the_originals_words() {
    let limits = "push_stream_max_channel_id_length 8; push_stream_max_number_of_channels 1;
        push_stream_events_channel_id e;";
    let server = Pushgate::start(&config(limits, ""), &[]);
    for (path, status) in [("/sub/", 400), ("/sub/?id=123456789", 400), ("/sub/?id=e", 403), ("/sub/?id=x", 403)] {
        assert_eq!(http::get(server.port(), path).status, status, "{path}");
    }
    assert_eq!(http::post(server.port(), "/pub?id=e", "x").status, 403);
    for (level, text) in [
        ("[warn]", "push stream module: the push_stream_channels_path is required but is not set"),
        ("[warn]", "push stream module: channel id is larger than allowed"),
        ("[error]", "push stream module: subscription to events channel is not allowed"),
        ("[error]", "push stream module: number of channels were exceeded"),
        ("[error]", "push stream module: only internal routines can change events channel"),
    ] {
        server.until_logged(&[level, text]);
    }
}
