//! Websocket clients made with libraries of other languages: `websockets` of Python and `ws` of Node.js.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::pushgate::Pushgate;
use support::{foreign, http};

const CONFIG: &str = r#"
daemon off;
worker_processes 2;
error_log logs/error.log info;
pid logs/nginx.pid;
events { }
http {
    push_stream_shared_memory_size 16m;
    push_stream_message_template "~text~";
    server {
        listen 127.0.0.1:%%PORT%%;
        location /pub {
            push_stream_publisher;
            push_stream_channels_path $arg_id;
        }
        location /echo {
            push_stream_subscriber websocket;
            push_stream_channels_path "echo $connection";
            push_stream_websocket_allow_publish on;
        }
        location ~ ^/ws/(.*) {
            push_stream_subscriber websocket;
            push_stream_channels_path $1;
            push_stream_allowed_origins "https://example.com";
        }
    }
}
"#;

#[test]
fn websockets_of_python() {
    let package = foreign::pypi(Path::new("python3"), &["websockets==16.0"]);
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", package).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/client.py"));
    check(python, &json!(["permessage-deflate"]));
}

#[test]
fn ws_of_node() {
    let mut node = Command::new("node");
    let package = foreign::npm("ws@8.18.3");
    node.env("NODE_PATH", package).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/client.js"));
    check(node, &json!(["permessage-deflate"]));
}

/// Both say the same: an echo of each kind of message, an end by the client, a refusal, an echo without compression, and
/// a channel up to the end by the server.
#[track_caller]
fn check(mut program: Command, extensions: &Value) {
    let server = Pushgate::start(CONFIG, &[]);
    let url = |path: &str| format!("ws://127.0.0.1:{}/{path}", server.port());
    program.args([url("echo"), url("ws/news"), url("ws/news")]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut program = program.spawn().unwrap_or_else(|e| panic!("{program:?}: {e}; ./dev test installs it on Debian"));
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut said = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let beginning: Vec<_> = said.by_ref().take_while(|what| what[0] != "ready").collect();
    let expected = json!([
        ["extensions", extensions],
        ["echo", true],
        ["echo", true],
        ["echo", true],
        ["fragments", "in three fragments"],
        ["pong"],
        ["closed", 4000, ""],
        ["refused", 403],
        ["extensions", []],
        ["echo", true],
    ]);
    assert_eq!(json!(beginning), expected);
    for text in ["one", "two €"] {
        assert_eq!(http::post(server.port(), "/pub?id=news", text).status, 200);
        assert_eq!(said.next(), Some(json!(["got", text])));
    }
    server.signal("QUIT");
    assert_eq!(said.next(), Some(json!(["closed", 1012, "service restart"])));
    assert!(program.wait().unwrap().success());
}
