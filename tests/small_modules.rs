//! nginx's smaller modules beyond the recorded cases.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

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
        log_format mirrored '$request_method $uri $args $request_body';
        map $round $trip { default got-$arg_x; '' ''; ~. $trip; }
        map $trip $round { default [$trip]; }
        server {
            listen 127.0.0.1:%%PORT%%;
            location /status { stub_status; }
            location /cycle { return 200 \"<$round>\"; }
            location /tcp { return 200 $tcpinfo_rtt/$tcpinfo_rttvar/$tcpinfo_snd_cwnd/$tcpinfo_rcv_space/$arg_$http_; }
            location /numbers { return 200 $connections_active/$connections_writing; }
            location /sub { push_stream_subscriber; push_stream_channels_path $arg_id; }
            location /user {
                userid on;
                userid_domain example.com;
                userid_expires max;
                userid_flags httponly;
                userid_mark m;
                userid_p3p 'CP=\"x\"';
                set $uid_reset $arg_reset;
                return 200 [$uid_got][$uid_set];
            }
            location /random/ { alias %%ROOT%%/; random_index on; }
            location /link {
                secure_link $arg_md5,$arg_expires;
                secure_link_md5 \"$secure_link_expires$uri secret\";
                return 200 [$secure_link][$secure_link_expires];
            }
            location /private {
                auth_basic closed;
                auth_basic_user_file users-$arg_file;
                location /private/slow { auth_delay 300ms; satisfy any; deny all; try_files /none /numbers; }
                location /private/slower { auth_delay 1h; try_files /none /numbers; }
                try_files /none /numbers;
            }
            default_type text/html;
            location /page {
                alias %%ROOT%%/page;
                sub_filter <Title> '<title>$arg_name ';
                sub_filter one two;
                sub_filter_once off;
                add_before_body /before;
                add_after_body /after;
            }
            location = /before { return 200 \"one before\\n\"; }
            location = /after { return 200 \"one after\\n\"; }
            location /mirrored {
                mirror /copy;
                mirror /copy2;
                client_body_buffer_size 8;
                proxy_pass http://127.0.0.1:%%PORT%%/echo;
            }
            location /copy {
                internal;
                proxy_pass http://127.0.0.1:%%PORT%%/echo;
            }
            location /echo {
                access_log logs/echo.log mirrored;
                proxy_pass http://127.0.0.1:%%PORT%%/status;
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
fn variables_that_are_made_of_one_another_come_to_an_end() {
    let (server, _root) = start();
    let answer = http::get(server.port(), "/cycle");
    assert_eq!((answer.status, answer.body.starts_with('<')), (200, true));
    let message = ["[error]", "cycle while evaluating variable \"", "request: \"GET /cycle HTTP/1.1\""];
    server.until_logged(&message);
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

#[test]
fn texts_are_replaced_and_added_while_an_answer_is_sent() {
    let (server, root) = start();
    let page = format!("<title>a</title>{}one", "x".repeat(70_000));
    std::fs::write(root.path().join("page"), &page).unwrap();
    let answer = http::get(server.port(), "/page?name=n");
    let expected = format!("<title>n a</title>{}two", "x".repeat(70_000));
    let body: String =
        answer.body.split("\r\n").filter(|line| !line.bytes().all(|byte| byte.is_ascii_hexdigit())).collect();
    assert!(body == format!("one before\n{expected}one after\n"), "{} ... {}", &body[..40], &body[body.len() - 40..]);
    assert_eq!(answer.header("Content-Length"), None);
    assert_eq!(answer.header("Last-Modified"), None);
    assert_eq!(answer.header("ETag"), None);
}

#[test]
fn copies_of_requests_go_elsewhere() {
    let (server, _root) = start();
    assert_eq!(http::post(server.port(), "/mirrored?a=1", "a longer body").status, 405);
    wait::until("the copies have arrived", || server.read("logs/echo.log").lines().count() == 3);
    let log = server.read("logs/echo.log");
    let mut lines: Vec<_> = log.lines().collect();
    lines.sort_unstable();
    let (echo, echo2) = ("POST /echo a=1 a longer body", "POST /echo2 a=1 a longer body");
    assert_eq!(lines, [echo, echo, echo2]);
}

#[test]
fn a_client_is_known_again_by_its_cookie() {
    let (server, _root) = start();
    let first = http::get(server.port(), "/user");
    let cookie = first.header("Set-Cookie").unwrap();
    let attributes = "m=; expires=Thu, 31-Dec-37 23:55:55 GMT; domain=example.com; path=/; httponly";
    let id = cookie.strip_prefix("uid=").unwrap().strip_suffix(attributes).unwrap();
    assert_eq!(id.len(), 22);
    assert_eq!(first.header("P3P"), Some("CP=\"x\""));
    let shown = first.body.strip_prefix("[][").unwrap().strip_suffix("]").unwrap();
    let again = |cookie: &str| http::request(server.port(), "GET", "/user", &format!("Cookie: a=b; {cookie}\r\n"), "");
    let known = again(&format!("uid={id}m="));
    assert_eq!((known.header("Set-Cookie"), known.body.as_str()), (None, format!("[{shown}][]").as_str()));
    let unmarked = again(&format!("uid={id}=="));
    assert_eq!(unmarked.header("Set-Cookie"), Some(cookie), "the same number, with the mark");
    let bad = again("uid=short");
    assert!(bad.body.starts_with("[][uid="), "{}", bad.body);
    server.until_logged(&["[error]", "client sent too short userid cookie \"a=b; uid=short\""]);
    assert_eq!(server.logged(&["client sent too short userid cookie"]), 1, "once for a request");
    let header = format!("Cookie: uid={id}m=\r\n");
    let reset = |how: &str| http::request(server.port(), "GET", &format!("/user?reset={how}"), &header, "");
    assert_eq!(reset("0").header("Set-Cookie"), None);
    for how in ["1", "log"] {
        let answer = reset(how);
        assert!(answer.header("Set-Cookie").is_some_and(|other| other != cookie), "another number");
        assert!(answer.body.starts_with(&format!("[{shown}][uid=")), "{}", answer.body);
    }
    server.until_logged(&["[notice]", &format!("userid cookie \"{shown}\" was reset, client: ")]);
    assert_eq!(server.logged(&["was reset"]), 1);
}

#[test]
fn who_gave_no_password_waits_for_the_401() {
    let (server, _root) = start();
    server.write("conf/users-a", "ann:{PLAIN}pw\n");
    let get = |path: &str, header: &str| {
        let begun = Instant::now();
        let status = http::request(server.port(), "GET", &format!("{path}?file=a"), header, "").status;
        (status, begun.elapsed() >= Duration::from_millis(300))
    };
    let right = "Authorization: Basic YW5uOnB3\r\n";
    assert_eq!(get("/private/slow", ""), (401, true));
    server.until_logged(&["[info]", "delaying unauthorized request, client: 127.0.0.1"]);
    assert_eq!(get("/private/slow", right).0, 200);
    assert_eq!(get("/private/slower", right).0, 200);
    // One without a file of users is forbidden, and need not wait.
    assert_eq!(http::request(server.port(), "GET", "/private/slower?file=none", right, "").status, 403);
    let mut client = http::connect(server.port());
    client.write_all(b"GET /private/slower?file=a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait::until("it waits", || server.logged(&["delaying unauthorized request", "/private/slower"]) == 1);
    drop(client);
    server.until_logged(&["[info]", "client prematurely closed connection", "/private/slower"]);
}

#[test]
fn what_the_kernel_knows_of_a_connection_can_be_read() {
    let (server, _root) = start();
    let body = http::get(server.port(), "/tcp?=x").body;
    let numbers: Vec<_> = body.strip_suffix('/').unwrap().split('/').map(|number| number.parse::<u32>()).collect();
    assert!(numbers.len() == 4 && numbers.iter().all(|number| matches!(number, Ok(1..))), "{body}");
}
