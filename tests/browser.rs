//! Chromium as a client: by `pushstream.js`, which the module's users have, and by what browsers bring.
//!
//! `pushstream.js` comes from the Python package django-nginx-push-stream, which ships it as the module's author wrote it.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::fmt::Write;

use serde_json::{Value, json};
use support::browser::Browser;
use support::pushgate::Pushgate;
use support::{foreign, http, wait};

/// A location for each mode under the path that `pushstream.js` takes where nothing is said. Connections end after a second,
/// so that clients come back.
const CONFIG: &str = r#"
daemon off;
worker_processes 2;
error_log logs/error.log info;
pid logs/nginx.pid;
events { }
http {
    push_stream_shared_memory_size 16m;
    push_stream_subscriber_connection_ttl 1s;
    push_stream_longpolling_connection_ttl 1s;
    push_stream_store_messages on;
    push_stream_channel_deleted_message_text "gone";
    push_stream_message_template '{"id":~id~,"channel":"~channel~","text":"~text~","tag":"~tag~","time":"~time~","eventid":"~event-id~"}';
    server {
        listen 127.0.0.1:%%PORT%%;
        location = / {
            default_type text/html;
            return 200 "<!doctype html><title>a page</title><body>";
        }
        location /pub {
            push_stream_publisher admin;
            push_stream_channels_path $arg_id;
        }
        location ~ ^/ws/(.*) {
            push_stream_subscriber websocket;
            push_stream_channels_path $1;
            push_stream_last_received_message_time $arg_time;
            push_stream_last_received_message_tag $arg_tag;
            push_stream_websocket_allow_publish on;
        }
        location ~ ^/ev/(.*) {
            push_stream_subscriber eventsource;
            push_stream_channels_path $1;
            push_stream_last_received_message_time $arg_time;
            push_stream_last_received_message_tag $arg_tag;
        }
        location ~ ^/lp/(.*) {
            push_stream_subscriber long-polling;
            push_stream_channels_path $1;
        }
        location ~ ^/lp-arguments/(.*) {
            push_stream_subscriber long-polling;
            push_stream_channels_path $1;
            push_stream_last_received_message_time $arg_time;
            push_stream_last_received_message_tag $arg_tag;
        }
        location ~ ^/sub/(.*) {
            push_stream_subscriber;
            push_stream_channels_path $1;
            push_stream_last_received_message_time $arg_time;
            push_stream_last_received_message_tag $arg_tag;
            default_type "text/html; charset=utf-8";
            push_stream_header_template "<html><head><script>parent.PushStream.register(this);</script></head><body>";
            push_stream_message_template "<script>p(~id~,'~channel~','~text~','~event-id~','~time~','~tag~');</script>";
            push_stream_footer_template "</body></html>";
        }
        location ~ ^/ev-text/(.*) {
            push_stream_subscriber eventsource;
            push_stream_channels_path $1;
            push_stream_message_template "~text~";
        }
        location ~ ^/text/(.*) {
            push_stream_subscriber;
            push_stream_subscriber_connection_ttl 1h;
            push_stream_channels_path $1;
            push_stream_header_template "begin|";
            push_stream_message_template "~text~|";
            push_stream_padding_by_user_agent "Firefox,8192,0:Chrome,2048,0";
        }
        location ~ ^/only-example/(.*) {
            push_stream_subscriber websocket;
            push_stream_channels_path $1;
            push_stream_allowed_origins "https://example.com";
        }
        location ~ ^/long/(.*) {
            push_stream_subscriber websocket;
            push_stream_subscriber_connection_ttl 1h;
            push_stream_channels_path $1;
            push_stream_message_template "~text~";
            push_stream_websocket_allow_publish on;
        }
    }
}
"#;

/// A page of the server under test.
fn page() -> (Pushgate, Browser) {
    let server = Pushgate::start(CONFIG, &[]);
    let mut browser = Browser::start();
    browser.open(&format!("http://127.0.0.1:{}/", server.port()));
    (server, browser)
}

#[track_caller]
fn publish(server: &Pushgate, id: &str, event: &str, text: &str) {
    let mut headers = String::new();
    if !event.is_empty() {
        write!(headers, "Event-Id: {event}\r\n").unwrap();
    }
    assert_eq!(http::request(server.port(), "POST", &format!("/pub?id={id}"), &headers, text).status, 200);
}

#[test]
fn pushstream_js_in_each_of_its_modes() {
    let (server, mut browser) = page();
    let package = foreign::pypi_alone("django-nginx-push-stream==0.0.1");
    let script = std::fs::read_to_string(package.join("nginx_push_stream/static/nginx_push_stream/js/pushstream.js"));
    let script = script.unwrap();
    let modes = [
        ("websocket", json!({ "modes": "websocket", "messagesControlByArgument": true })),
        ("eventsource", json!({ "modes": "eventsource", "messagesControlByArgument": true })),
        ("stream", json!({ "modes": "stream", "messagesControlByArgument": true })),
        ("longpolling", json!({ "modes": "longpolling", "messagesPublishedAfter": -1 })),
        (
            "arguments",
            json!({ "modes": "longpolling", "messagesControlByArgument": true, "urlPrefixLongpolling": "/lp-arguments" }),
        ),
        ("jsonp", json!({ "modes": "longpolling", "useJSONP": true, "urlPrefixLongpolling": "/lp-arguments" })),
    ];
    for (name, settings) in modes {
        browser.open(&format!("http://127.0.0.1:{}/?{name}", server.port()));
        browser.eval(&script);
        pushstream_js(&server, &mut browser, name, settings);
    }
}

/// One mode: a stored message, live ones without gap or duplicate while connections come and go, one that the page sends,
/// and a deleted channel.
fn pushstream_js(server: &Pushgate, browser: &mut Browser, name: &str, mut settings: Value) {
    let (main, other) = (format!("{name}-main"), format!("{name}-other"));
    publish(server, &other, "", "oldest");
    publish(server, &main, "", "older");
    publish(server, &main, "", "stored");

    // A backtrack in the path goes before what a client's headers say, in the original too: who comes back by itself, by the
    // same path, would get it again.
    let backtrack = u8::from(!["eventsource", "longpolling"].contains(&name));
    settings["port"] = server.port().into();
    settings["reconnectOnTimeoutInterval"] = 50.into();
    settings["reconnectOnChannelUnavailableInterval"] = 50.into();
    browser.eval(&format!(
        "window.got = []; window.opened = 0; window.deleted = [];
        window.client = new PushStream({settings});
        client.onmessage = (text, id, channel, event) => got.push([channel, text, event]);
        client.onstatuschange = state => {{ if (state === PushStream.OPEN) opened++; }};
        client.onchanneldeleted = channel => deleted.push(channel);
        client.addChannel({main:?}, {{ backtrack: {backtrack} }});
        client.addChannel({other:?});
        client.connect();"
    ));
    browser.until("opened > 0");
    let mut expected = match name {
        "eventsource" => Vec::new(),
        "longpolling" => vec![json!([main, "older", ""]), json!([main, "stored", ""]), json!([other, "oldest", ""])],
        _ => vec![json!([main, "stored", ""])],
    };
    browser.until(&format!("got.length >= {}", expected.len()));
    for round in 0..2 {
        let turned = match name {
            "websocket" | "stream" => format!("opened > {round} + 1"),
            // It comes back by itself: so the library keeps the connection, and is not told.
            "eventsource" => "client.wrapper.connection.readyState === EventSource.CONNECTING".into(),
            // One poll or another was not yet there.
            _ => format!("got.length > ({round} + 1) * 20"),
        };
        wait::until(&turned, || {
            let event = expected.len().to_string();
            publish(server, &main, &event, &format!("{event}%20%u20AC"));
            expected.push(json!([main, format!("{event} €"), event]));
            browser.eval(&turned) == true
        });
        browser.until(&format!("got.length >= {}", expected.len()));
    }
    assert_eq!(browser.eval("got"), json!(expected), "{name}");

    if name == "eventsource" {
        // What the page sends has no id to come back by: who is away then misses it, or gets it twice, in the original too.
        browser.until("client.wrapper.connection.readyState === EventSource.OPEN");
    }
    browser.eval("got = []; client.sendMessage('from the page: \"a\" & €')");
    browser.until("got.length >= 2");
    let mut sent = browser.eval("got").as_array().unwrap().clone();
    sent.sort_by_key(ToString::to_string);
    let text = "from the page: \"a\" & €";
    assert_eq!(json!(sent), json!([[main, text, ""], [other, text, ""]]), "{name}");

    // Who polls may be away just then, and makes the channel anew when it is back.
    wait::until("the page knows of the deleted channel", || {
        http::request(server.port(), "DELETE", &format!("/pub?id={other}"), "", "");
        browser.eval("deleted.length > 0") == true
    });
    assert_eq!(browser.eval("deleted[0]"), json!(other), "{name}");
    browser.eval("client.disconnect()");
}

#[test]
fn an_event_source_comes_back_where_it_was() {
    let (server, mut browser) = page();
    browser.eval(
        "window.got = []; window.opened = 0;
        window.source = new EventSource('/ev-text/plain');
        source.onopen = () => opened++;
        for (const type of ['message', 'note'])
            source.addEventListener(type, event => got.push([event.type, event.lastEventId, event.data]));",
    );
    browser.until("opened === 1");
    publish(&server, "plain", "first", "two\nlines");
    browser.until("got.length === 1");
    // The connection ends after a second, the browser waits for three, and only then tells the last id that it has.
    browser.until("source.readyState === EventSource.CONNECTING");
    publish(&server, "plain", "second", "missed");
    let headers = "Event-Id: third\r\nEvent-Type: note\r\n";
    assert_eq!(http::request(server.port(), "POST", "/pub?id=plain", headers, "missed too € ").status, 200);
    browser.until("opened === 2 && got.length >= 3");
    publish(&server, "plain", "fourth", "after");
    browser.until("got.length >= 4");
    let expected = json!([
        ["message", "first", "two\nlines"],
        ["message", "second", "missed"],
        ["note", "third", "missed too € "],
        ["message", "fourth", "after"],
    ]);
    assert_eq!(browser.eval("got"), expected);
}

#[test]
fn fetch_polls_by_the_headers_of_the_last_answer() {
    let (server, mut browser) = page();
    browser.eval(
        "window.got = []; window.answers = [];
        (async () => {
            let headers = { 'If-Modified-Since': new Date(0).toUTCString(), 'If-None-Match': '0' };
            for (;;) {
                const answer = await fetch('/lp/polled', { headers, cache: 'no-store' });
                answers.push(answer.status);
                if (answer.status === 200) got.push(...(await answer.text()).match(/\"text\":\"\\d+\"/g));
                headers = {
                    'If-Modified-Since': answer.headers.get('Last-Modified'),
                    'If-None-Match': answer.headers.get('Etag'),
                };
            }
        })(); null",
    );
    let expected: Vec<_> = (0..50).map(|n| format!("\"text\":\"{n}\"")).collect();
    for n in 0..50 {
        publish(&server, "polled", "", &n.to_string());
    }
    browser.until("got.length >= 50");
    browser.until("answers.includes(304)");
    publish(&server, "polled", "", "50");
    browser.until("got.length >= 51");
    assert_eq!(browser.eval("got.slice(0, 50)"), json!(expected));
    assert_eq!(browser.eval("got.slice(50)"), json!(["\"text\":\"50\""]));
}

#[test]
fn padding_lets_a_request_read_a_stream_while_it_comes() {
    let (server, mut browser) = page();
    publish(&server, "stream", "", "stored");
    browser.eval(
        "window.request = new XMLHttpRequest();
        window.text = () => request.responseText.replace(/\\s{1000,}/g, '');
        request.open('GET', '/text/stream.b1');
        request.send()",
    );
    // Without the padding Chromium would hold so short a text back, to see what it is.
    browser.until("text() === 'begin|stored|'");
    publish(&server, "stream", "", "live €");
    browser.until("text() === 'begin|stored|live €|'");
    server.signal("QUIT");
    browser.until("request.readyState === XMLHttpRequest.DONE && request.status === 200");
}

#[test]
fn a_websocket_without_a_library() {
    let (server, mut browser) = page();
    browser.eval(
        "window.got = []; window.end = null;
        window.socket = new WebSocket(`ws://${location.host}/long/plain`);
        socket.binaryType = 'arraybuffer';
        socket.onmessage = event => got.push(typeof event.data === 'string' ? event.data : [...new Uint8Array(event.data)]);
        socket.onclose = event => end = [event.code, event.reason, event.wasClean];",
    );
    browser.until("socket.readyState === WebSocket.OPEN");
    let extensions = browser.eval("socket.extensions");
    assert!(extensions.as_str().unwrap().starts_with("permessage-deflate"), "{extensions}");
    let long = "x €".repeat(30_000);
    publish(&server, "plain", "", "from HTTP €");
    publish(&server, "plain", "", &long);
    browser.until("got.length === 2");
    browser.eval("socket.send('from the page €'); socket.send(got[1]); socket.send(Uint8Array.of(0, 255))");
    browser.until("got.length === 5");
    let expected = json!(["from HTTP €", long, "from the page €", long, [0, 255]]);
    assert!(browser.eval("got") == expected, "{}", browser.eval("got.map(text => text.slice(0, 20))"));

    browser.eval(
        "window.foreign = '';
        const foreigner = new WebSocket(`ws://${location.host}/only-example/plain`);
        foreigner.onopen = () => foreign = 'open';
        foreigner.onclose = event => foreign = `closed ${event.code}`;",
    );
    browser.until("foreign !== ''");
    assert_eq!(browser.eval("foreign"), "closed 1006", "this page's origin is not allowed there");

    server.signal("QUIT");
    browser.until("end !== null");
    assert_eq!(browser.eval("end"), json!([1012, "service restart", true]));
}
