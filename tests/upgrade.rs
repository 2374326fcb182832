//! Another program takes over from a running one: USR2, WINCH, QUIT, and the way back.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};

use support::daemon::Daemon;
use support::pushgate::Pushgate;
use support::websocket::Client;
use support::{http, process, wait};

const CONFIG: &str = "worker_processes 2; pid logs/nginx.pid; error_log logs/error.log info; events {}
    http {
        access_log off;
        push_stream_shared_memory_size 8m;
        server {
            listen 127.0.0.1:%%PORT%%;
            listen unix:%%PREFIX%%/socket;
            location / { return 200 $pid; }
            location /ws/ {
                push_stream_subscriber websocket;
                push_stream_channels_path $arg_id;
                push_stream_websocket_allow_publish on;
                push_stream_message_template ~text~;
            }
        }
    }";

/// Has a program take over; its number.
#[track_caller]
fn upgrade(server: &Daemon) -> u32 {
    let old = server.pid();
    wait::until("another program has started", || {
        // It does not listen to it while its own predecessor is not wholly gone.
        if server.old_pid().is_none() {
            process::signal(old, "USR2");
        }
        server.old_pid() == Some(old) && server.read("logs/nginx.pid").trim().parse().is_ok_and(|pid: u32| pid != old)
    });
    let new = server.pid();
    wait::until("the new program serves", || server.get("/") == new.to_string());
    new
}

#[track_caller]
fn until_gone(pid: u32) {
    wait::until("a process has ended", || !process::runs(pid));
}

#[test]
fn no_request_fails_while_another_program_takes_over() {
    let server = Daemon::start(CONFIG, &[]);
    let first = server.pid();
    let mut websocket = Client::connect(server.port(), "/ws/?id=x");
    let done = AtomicBool::new(false);
    let served = std::thread::scope(|scope| {
        let end = wait::Done(&done);
        let load = || {
            let mut served = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                let answer = http::get(server.port(), "/");
                assert_eq!(answer.status, 200);
                served.insert(answer.body.parse::<u32>().unwrap());
            }
            served
        };
        let loads = [scope.spawn(load), scope.spawn(load)];
        let second = upgrade(&server);
        websocket.send("still the old one's");
        assert_eq!(websocket.text(), "still the old one's");
        assert!(process::runs(first));
        process::signal(first, "QUIT");
        assert_eq!(websocket.closed(), (1012, "service restart".to_owned()));
        until_gone(first);
        assert_eq!((server.pid(), server.old_pid()), (second, None));
        // And once more: the second one has nobody before it any more.
        let third = upgrade(&server);
        process::signal(second, "QUIT");
        until_gone(second);
        assert_eq!(server.get("/"), third.to_string());
        drop(end);
        let served: BTreeSet<u32> = loads.into_iter().flat_map(|load| load.join().unwrap()).collect();
        assert_eq!(served, BTreeSet::from([first, second, third]));
        served
    });
    assert_eq!(served.len(), 3);
    // The socket in the file system has outlived those who listened on it.
    assert!(std::os::unix::net::UnixStream::connect(server.path("socket")).is_ok());
    server.order(&["-s", "quit"]);
    until_gone(*served.last().unwrap());
    assert!(!server.path("socket").exists() && !server.path("logs/nginx.pid").exists());
}

#[test]
fn a_program_that_does_not_start_changes_nothing() {
    let server = Daemon::start(CONFIG, &[]);
    let pid = server.pid();
    let mut websocket = Client::connect(server.port(), "/ws/?id=x");
    server.configure(&CONFIG.replace("return 200", "retrun 200"));
    for _ in 0..2 {
        process::signal(pid, "USR2");
        server.until_logged(&["[notice]", "new binary process", "exited with code 1"]);
        wait::until("the pid file is back", || server.old_pid().is_none() && server.pid() == pid);
        assert_eq!(server.get("/"), pid.to_string());
        std::fs::write(server.path("logs/error.log"), "").unwrap();
    }
    // One that ends later: its own number must not stay.
    server.configure(CONFIG);
    let other = upgrade(&server);
    process::signal(pid, "USR2");
    server.until_logged(&["SIGUSR2", "ignoring"]);
    process::signal(other, "USR2");
    process::signal(other, "TERM");
    wait::until("the pid file is back", || server.old_pid().is_none() && server.pid() == pid);
    assert_eq!(server.get("/"), pid.to_string());
    assert!(server.path("socket").exists());
    websocket.ping("still here");
}

#[test]
fn a_program_that_is_not_there_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("pushgate");
    std::os::unix::fs::symlink(support::pushgate::binary(), &link).unwrap();
    let server = Daemon::start_program(&link, CONFIG, &[]);
    let pid = server.pid();
    std::fs::remove_file(&link).unwrap();
    process::signal(pid, "USR2");
    server.until_logged(&["[alert]", "execve() failed while executing new binary process", "No such file"]);
    assert_eq!((server.pid(), server.old_pid()), (pid, None));
    assert_eq!(server.get("/"), pid.to_string());
}

#[test]
fn workers_may_rest_and_come_back() {
    let server = Daemon::start(CONFIG, &[]);
    let old = server.pid();
    let new = upgrade(&server);
    process::signal(old, "WINCH");
    wait::until("the old program's workers have ended", || Daemon::threads(old, "worker").is_empty());
    assert!(process::runs(old));
    (0..20).for_each(|_| assert_eq!(server.get("/"), new.to_string()));
    // The way back.
    process::signal(old, "HUP");
    wait::until("the old program serves again", || server.get("/") == old.to_string());
    process::signal(new, "QUIT");
    until_gone(new);
    wait::until("the pid file is back", || server.old_pid().is_none());
    assert_eq!(server.pid(), old);
    (0..20).for_each(|_| assert_eq!(server.get("/"), old.to_string()));
    // The new program fails while the old one rests.
    let new = upgrade(&server);
    process::signal(old, "WINCH");
    wait::until("the old program's workers have ended", || Daemon::threads(old, "worker").is_empty());
    process::signal(new, "KILL");
    server.until_logged(&["[alert]", &format!("new binary process {new} exited on signal 9")]);
    wait::until("the old program serves again", || server.get("/") == old.to_string());
    assert_eq!(server.pid(), old);
    // Resting without another program, clients wait.
    process::signal(old, "WINCH");
    wait::until("the workers have ended", || Daemon::threads(old, "worker").is_empty());
    let waiting = http::connect(server.port());
    process::signal(old, "HUP");
    wait::until("there are workers again", || Daemon::threads(old, "worker").len() == 2);
    assert_eq!(server.get("/"), old.to_string());
    drop(waiting);
}

#[test]
fn a_terminal_that_changes_its_size_changes_nothing() {
    let mut server = Pushgate::start(&format!("daemon off; {CONFIG}"), &[]);
    server.signal("WINCH");
    server.until_logged(&["SIGWINCH", "ignoring"]);
    assert_eq!(http::get(server.port(), "/").status, 200);
    assert!(server.runs());
}

#[test]
fn more_and_fewer_workers_take_over() {
    let server = Daemon::start(CONFIG, &[]);
    for count in [4, 1, 2] {
        server.configure(&CONFIG.replace("worker_processes 2", &format!("worker_processes {count}")));
        let old = server.pid();
        let new = upgrade(&server);
        process::signal(old, "QUIT");
        until_gone(old);
        assert_eq!(Daemon::threads(new, "worker").len(), count);
        (0..40).for_each(|_| assert_eq!(server.get("/"), new.to_string()));
    }
}

#[test]
fn only_the_environment_that_is_named_is_handed_on() {
    let config = format!("env KEPT; env SET=to=this; env MISSING; {CONFIG}");
    let server = Daemon::start(&config, &[("KEPT", "1"), ("OTHER", "2"), ("SET", "3")]);
    let old = server.pid();
    let new = upgrade(&server);
    let environment = std::fs::read_to_string(format!("/proc/{new}/environ")).unwrap();
    let names: BTreeSet<_> = environment.split_terminator('\0').map(|pair| pair.split_once('=').unwrap().0).collect();
    assert_eq!(names, BTreeSet::from(["KEPT", "NGINX", "SET", "TZ"]));
    assert!(environment.contains("KEPT=1\0") && environment.contains("SET=to=this\0"));
    process::signal(old, "QUIT");
    until_gone(old);
}

#[test]
fn systemd_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let told = || {
        let mut message = [0; 100];
        let length = socket.recv(&mut message).expect("systemd is told");
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let server = Daemon::start(CONFIG, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let ready = |pid: u32| format!("MAINPID={pid}\nREADY=1");
    let old = server.pid();
    assert_eq!(told(), ready(old));
    for config in [CONFIG, "nonsense"] {
        server.configure(config);
        process::signal(old, "HUP");
        let reloading = told();
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("it reloads");
        assert!(time.parse::<u64>().is_ok_and(|time| time > 0), "{reloading}");
        assert_eq!(told(), ready(old));
    }
    // A program that fails.
    process::signal(old, "USR2");
    assert_eq!(told(), ready(old));
    server.configure(CONFIG);
    let new = upgrade(&server);
    assert_eq!(told(), ready(new));
    // The old one's end is not the service's.
    process::signal(old, "QUIT");
    until_gone(old);
    process::signal(new, "TERM");
    assert_eq!(told(), "STOPPING=1");
    until_gone(new);
}
