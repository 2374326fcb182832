//! The process as its own directives want it: threads, limits, who it is, where its number stands, how long it takes to end.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::daemon::Daemon;
use support::pushgate::Pushgate;
use support::websocket::Client;
use support::{http, process, wait};

fn config(main: &str, http: &str, server: &str) -> String {
    format!(
        "{main} pid logs/nginx.pid; error_log logs/error.log info; events {{}}
         http {{ access_log off; push_stream_shared_memory_size 8m; {http}
             server {{
                 listen 127.0.0.1:%%PORT%%;
                 {server}
                 location /ws/ {{
                     push_stream_subscriber websocket;
                     push_stream_channels_path $arg_id;
                     push_stream_websocket_allow_publish on;
                     push_stream_message_template ~text~;
                 }}
                 location / {{ return 200 ok; }}
             }}
         }}"
    )
}

/// A line of a file in /proc.
fn line(file: &Path, beginning: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(beginning));
    line.unwrap_or_else(|| panic!("{beginning:?} is not in {text}")).trim().to_owned()
}

#[test]
fn workers_are_as_the_configuration_wants_them() {
    let folder = support::pushgate::prefix();
    let main = format!(
        "worker_processes 2; worker_cpu_affinity 1 1; worker_priority 5; worker_rlimit_nofile 1000; \
         worker_rlimit_core 1m; working_directory {};",
        folder.path().display()
    );
    let server = Daemon::start(&config(&main, "", ""), &[]);
    let pid = server.pid();
    let own = Path::new("/proc").join(pid.to_string());
    let is_there = |task: &PathBuf| std::fs::read_link(task.join("cwd")).is_ok_and(|cwd| cwd == folder.path());
    // The working folder is the last that a worker sees to.
    wait::until("the workers have begun", || {
        let workers = Daemon::threads(pid, "worker");
        workers.len() == 2 && workers.iter().all(is_there)
    });
    let workers = Daemon::threads(pid, "worker");
    assert_eq!(workers.len(), 2);
    assert!(line(&own.join("limits"), "Max open files").starts_with("1000 "));
    assert!(line(&own.join("limits"), "Max core file size").starts_with("1048576 "));
    let nice = |task: &Path| {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap();
        // The nineteenth field; the second is a name in parentheses.
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().to_owned()
    };
    for task in &workers {
        assert_eq!(line(&task.join("status"), "Cpus_allowed:").trim_start_matches(['0', ',']), "1");
        assert_eq!(nice(task), "5");
    }
    let first = own.join("task").join(pid.to_string());
    assert_eq!(nice(&first), "0");
    assert_eq!(std::fs::read_link(first.join("cwd")).unwrap(), Path::new("/"));
    // A session of its own, without a terminal, and nobody's child.
    let stat = std::fs::read_to_string(own.join("stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!((fields[3], fields[4]), (pid.to_string().as_str(), "0"));
    assert_ne!(fields[1], std::process::id().to_string());
}

#[test]
fn without_a_master_there_is_one_worker() {
    let server = Daemon::start(&config("worker_processes 4; master_process off; user nobody;", "", ""), &[]);
    assert_eq!(server.get("/"), "ok");
    let workers = Daemon::threads(server.pid(), "worker");
    assert_eq!(workers.len(), 1);
    let own = line(&Path::new("/proc/self").join("status"), "Uid:");
    assert_eq!(line(&workers[0].join("status"), "Uid:"), own, "it stays who started it");
    server.order(&["-s", "stop"]);
}

#[test]
fn the_number_moves_with_the_file() {
    let server = Daemon::start(&config("", "", ""), &[]);
    let pid = server.pid();
    server.configure(&config("", "", "").replace("logs/nginx.pid", "logs/other.pid"));
    process::signal(pid, "HUP");
    wait::until("the number has moved", || server.read("logs/other.pid").trim() == pid.to_string());
    wait::until("the old file is gone", || server.read("logs/nginx.pid").is_empty());
    // A place that there is not.
    server.configure(&config("", "", "").replace("logs/nginx.pid", "none/other.pid"));
    process::signal(pid, "HUP");
    server.until_logged(&["[emerg]", "none/other.pid"]);
    assert_eq!(server.get("/"), "ok");
    server.configure(&config("", "", ""));
    process::signal(pid, "HUP");
    wait::until("the number is back", || server.read("logs/nginx.pid").trim() == pid.to_string());
}

#[test]
fn quitting_takes_no_longer_than_it_may() {
    let mut server = Pushgate::start(&config("daemon off; worker_shutdown_timeout 200ms;", "", ""), &[]);
    let mut slow = http::connect(server.port());
    slow.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    server.signal("QUIT");
    assert!(server.wait(wait::PATIENCE).unwrap().success());
    server.until_logged(&["worker_shutdown_timeout is over"]);
    assert_eq!(slow.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn workers_come_and_go_with_reloads() {
    let with = |count: usize| config(&format!("worker_processes {count};"), "", "");
    let server = Daemon::start(&with(2), &[]);
    let pid = server.pid();
    let mut websockets: Vec<_> = (0..20).map(|_| Client::connect(server.port(), "/ws/?id=x")).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end = wait::Done(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(http::get(server.port(), "/").status, 200);
                }
            });
        }
        for count in [4, 1, 3, 1, 2] {
            server.configure(&with(count));
            process::signal(pid, "HUP");
            // Those that are too many stay as long as their websockets.
            wait::until("there are as many as wanted", || {
                let workers = Daemon::threads(pid, "worker").len();
                workers >= count && workers <= count + 2
            });
            (0..20).for_each(|_| assert_eq!(server.get("/"), "ok"));
            for websocket in &mut websockets {
                websocket.ping("still here");
            }
        }
        drop(end);
    });
    websockets[0].send("to all");
    for websocket in &mut websockets {
        assert_eq!(websocket.text(), "to all");
    }
    websockets.into_iter().for_each(Client::leave);
    wait::until("nobody keeps a worker that is too much", || Daemon::threads(pid, "worker").len() == 2);
}

#[test]
fn upstream_connections_and_zones_outlive_a_reload() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    let with = |number: usize| {
        config(
            "worker_processes 1;",
            &format!(
                "upstream u {{ server {address}; keepalive 4; }}
                 limit_req_zone $remote_addr zone=once:64k rate=1r/m;"
            ),
            &format!(
                "location /number {{ return 200 {number}; }}
                 location /once {{ limit_req zone=once; error_page 404 =200 @ok; }}
                 location @ok {{ return 200 ok; }}
                 location /u {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}"
            ),
        )
    };
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in upstream.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            counted.fetch_add(1, Ordering::Relaxed);
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|length| length > 0) {
                if line == "\r\n" {
                    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup").unwrap();
                }
                line.clear();
            }
        }
    });
    let server = Daemon::start(&with(0), &[]);
    assert_eq!(http::get(server.port(), "/once").status, 200);
    for number in 1..=5 {
        assert_eq!(server.get("/u"), "up");
        server.configure(&with(number));
        process::signal(server.pid(), "HUP");
        wait::until("the new configuration answers", || server.get("/number") == number.to_string());
        assert_eq!(http::get(server.port(), "/once").status, 503, "the zone forgot");
    }
    assert_eq!(server.get("/u"), "up");
    assert_eq!(connections.load(Ordering::Relaxed), 1, "the connection was made anew");
}

#[test]
fn a_reload_that_fails_says_why_and_changes_nothing() {
    let good = config("", "", "");
    let server = Daemon::start(&good, &[]);
    let pid = server.pid();
    let certificate = "listen 127.0.0.1:1 ssl; ssl_certificate none.pem; ssl_certificate_key none.key;";
    for (message, config) in [
        ("unknown \"nonsense\" variable", config("", "", "location /x { return 200 $nonsense; }")),
        ("cannot load certificate", config("", "", certificate)),
        ("none/access.log", config("", "", "access_log none/access.log;")),
        ("host not found in upstream", config("", "", "location /x { proxy_pass http://none.invalid; }")),
    ] {
        server.configure(&config);
        process::signal(pid, "HUP");
        server.until_logged(&["[emerg]", message]);
        assert_eq!(server.get("/"), "ok", "after: {message}");
    }
    assert_eq!(server.pid(), pid);
}
