//! nginx's smaller modules beyond the recorded cases.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};

use support::pushgate::Pushgate;
use support::{http, wait};

const CONFIG: &str = "daemon off;
    worker_processes 2;
    pid logs/nginx.pid;
    error_log logs/error.log info;
    events { }
    http {
        push_stream_shared_memory_size 16m;
        push_stream_header_template hello;
        server {
            listen 127.0.0.1:%%PORT%%;
            location /status { stub_status; }
            location /numbers { return 200 $connections_active/$connections_writing; }
            location /sub { push_stream_subscriber; push_stream_channels_path $arg_id; }
            location /random/ { alias %%ROOT%%/; random_index on; }
            location /link {
                secure_link $arg_md5,$arg_expires;
                secure_link_md5 \"$secure_link_expires$uri secret\";
                return 200 [$secure_link][$secure_link_expires];
            }
            location /private {
                auth_basic closed;
                auth_basic_user_file users-$arg_file;
                try_files /none /numbers;
            }
        }
    }";

fn start() -> (Pushgate, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    let server = Pushgate::start(CONFIG, &[("ROOT", root.path().to_str().unwrap())]);
    (server, root)
}

#[test]
fn all_workers_count_their_connections_together() {
    let (server, _root) = start();
    let numbers = || http::get(server.port(), "/numbers").body;
    wait::until("only the one who asks is there", || numbers() == "1/1");
    let subscribers: Vec<_> = (0..10)
        .map(|_| {
            let mut client = http::connect(server.port());
            client.write_all(b"GET /sub?id=a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            client.read_exact(&mut [0; 12]).unwrap();
            client
        })
        .collect();
    wait::until("the subscribers are counted", || numbers() == "11/11");
    let _idle = http::connect(server.port());
    wait::until("who says nothing waits", || http::get(server.port(), "/status").body.ends_with("Waiting: 1 \n"));
    drop(subscribers);
    wait::until("the subscribers have gone", || numbers() == "2/1");
}

#[test]
fn any_file_of_a_folder_stands_for_it() {
    let (server, root) = start();
    assert_eq!(http::get(server.port(), "/random/").status, 403, "there is none");
    for name in ["a", "b", ".hidden"] {
        std::fs::write(root.path().join(name), name).unwrap();
    }
    std::fs::create_dir(root.path().join("folder")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    wait::until("both were seen", || {
        seen.insert(http::get(server.port(), "/random/").body);
        seen.len() == 2
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn links_hold_until_they_expire() {
    let (server, _root) = start();
    let get = |arguments: &str| http::get(server.port(), &format!("/link?{arguments}")).body;
    // printf '%s' '2147483647/link secret' | openssl md5 -binary | openssl base64 | tr +/ -_ | tr -d =
    assert_eq!(get("md5=-t0hgaSJG3Pw7b1rjSC5fA&expires=2147483647"), "[1][2147483647]");
    assert_eq!(get("md5=XsEDe6eizYEFVbdfyrdAlQ&expires=10"), "[0][10]");
    assert_eq!(get("md5=XsEDe6eizYEFVbdfyrdAlQ&expires=2147483647"), "[][2147483647]");
    assert_eq!(get("md5=XsEDe6eizYEFVbdfyrdAlQ&expires=soon"), "[][]");
    assert_eq!(get(""), "[][]");
}

#[test]
fn users_are_read_anew_each_time() {
    let (server, _root) = start();
    let get = |file: &str| {
        let header = "Authorization: Basic YW5uOnB3\r\n";
        http::request(server.port(), "GET", &format!("/private?file={file}"), header, "").status
    };
    assert_eq!(get("a"), 403);
    server.until_logged(&["[error]", "open() \"", "/conf/users-a\" failed (2: No such file or directory)"]);
    server.write("conf/users-a", "bob:{PLAIN}pw\n");
    assert_eq!(get("a"), 401);
    server.until_logged(&["[error]", "user \"ann\" was not found in \"", "/conf/users-a\", client: "]);
    server.write("conf/users-a", "bob:{PLAIN}pw\nann:{PLAIN}pq");
    assert_eq!(get("a"), 401);
    server.until_logged(&["[error]", "user \"ann\": password mismatch, client: "]);
    server.write("conf/users-a", "bob:{PLAIN}pw\nann:{PLAIN}pw");
    assert_eq!(get("a"), 200);
}
