//! Logs beyond the recorded cases: buffers, compressed files, syslog, reopening under load.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::pushgate::Pushgate;
use support::{http, wait};

fn start(http: &str) -> Pushgate {
    let config = format!(
        "daemon off; worker_processes 2; pid logs/nginx.pid; error_log logs/error.log notice; events {{}}
         http {{
             log_format uri '$uri';
             server {{ listen 127.0.0.1:%%PORT%%; {http} location / {{ return 200 ok; }} }}
         }}"
    );
    Pushgate::start(&config, &[])
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("/line")).collect()
}

#[test]
fn buffered_lines_come_in_time_on_usr1_and_at_the_end() {
    let mut server = start(
        "access_log logs/room.log uri buffer=30; access_log logs/time.log uri buffer=32k flush=100ms;
         access_log logs/end.log uri gzip=9 flush=1h; access_log logs/some.log uri buffer=32k if=$arg_some;",
    );
    http::get(server.port(), "/line1");
    http::get(server.port(), "/line2?some=1");
    wait::until("the time is over", || lines(&server.read("logs/time.log")) == ["/line1", "/line2"]);
    assert_eq!(server.read("logs/some.log"), "");
    server.signal("USR1");
    wait::until("the buffer is written", || lines(&server.read("logs/some.log")) == ["/line2"]);
    for number in 3..=9 {
        http::get(server.port(), &format!("/line{number}"));
    }
    wait::until("there is no more room", || lines(&server.read("logs/room.log")).len() >= 6);
    server.signal("QUIT");
    assert!(server.wait(wait::PATIENCE).unwrap().success());
    assert_eq!(lines(&server.read("logs/room.log")).len(), 9);
    let file = std::fs::File::open(server.path("logs/end.log")).unwrap();
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    assert_eq!(lines(&text).len(), 9);
}

#[test]
fn no_line_is_lost_when_logs_are_reopened() {
    let server = start("access_log logs/direct.log uri; access_log logs/buffered.log uri buffer=200;");
    let (is_done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let logs = ["direct", "buffered"];
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    http::get(server.port(), "/line");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..5 {
            for log in logs {
                server.rename(&format!("logs/{log}.log"), &format!("logs/{log}.{round}"));
            }
            server.signal("USR1");
            wait::until("the files are there", || {
                logs.iter().all(|log| server.path(&format!("logs/{log}.log")).exists())
            });
            let reached = count.load(Ordering::Relaxed) + 20;
            wait::until("more requests", || count.load(Ordering::Relaxed) >= reached);
        }
        is_done.store(true, Ordering::Relaxed);
    });
    server.signal("USR1");
    let count = count.into_inner();
    for log in logs {
        let names: Vec<_> =
            (0..5).map(|round| format!("logs/{log}.{round}")).chain([format!("logs/{log}.log")]).collect();
        let written = || names.iter().map(|name| lines(&server.read(name)).len()).sum::<usize>();
        wait::until(&format!("all lines of {log}"), || written() >= count);
        assert_eq!(written(), count);
    }
}

#[test]
fn a_path_with_variables_is_kept_open_and_reopened() {
    let server = start("root .; open_log_file_cache max=2; access_log logs/$arg_to.log uri;");
    // The workers make the files, and may run as `nobody`.
    std::fs::set_permissions(server.path("logs"), PermissionsExt::from_mode(0o777)).unwrap();
    for to in ["a", "b", "c", "a"] {
        http::get(server.port(), &format!("/line?to={to}"));
    }
    wait::until("all are written", || server.read("logs/a.log") == "/line\n/line\n");
    server.rename("logs/a.log", "logs/a.old");
    http::get(server.port(), "/line?to=a");
    wait::until("it is open still", || server.read("logs/a.old") == "/line\n/line\n/line\n");
    server.signal("USR1");
    wait::until("it is opened anew", || server.path("logs/a.log").exists());
    http::get(server.port(), "/line?to=a");
    wait::until("the new file is written", || server.read("logs/a.log") == "/line\n");
}

#[test]
fn lines_go_to_syslog() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let unix = UnixDatagram::bind(&path).unwrap();
    for path in [folder.path(), &path] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    }
    unix.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let server = start(&format!(
        "access_log syslog:server={},facility=local1,severity=warn,tag=site,nohostname uri if=$arg_log;
         error_log syslog:server=unix:{},nohostname; location /missing {{ access_log off; root /nowhere; }}",
        udp.local_addr().unwrap(),
        path.display(),
    ));
    let mut buffer = [0; 4096];
    http::get(server.port(), "/line?log=1");
    let length = udp.recv(&mut buffer).unwrap();
    let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
    // 17 * 8 + 4, the time, and nothing at the end.
    assert!(line.starts_with("<140>") && line.ends_with(" site: /line"), "{line}");
    assert_eq!(line.len(), "<140>Jan 01 00:00:00 site: /line".len(), "{line}");
    assert_eq!(http::get(server.port(), "/missing").status, 404);
    let length = unix.recv(&mut buffer).unwrap();
    let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(line.starts_with("<187>") && line.contains(" nginx: ") && line.contains("[error]"), "{line}");
    assert!(line.contains("open() \"/nowhere/missing\" failed (2: No such file or directory)"), "{line}");

    // A server that is gone is told of, and comes back.
    let address = udp.local_addr().unwrap();
    drop(udp);
    let refused = "send() failed (111: Connection refused) while logging to syslog, server: 127.0.0.1:";
    wait::until("it is told", || {
        http::get(server.port(), "/line?log=2");
        server.log().lines().any(|line| line.contains("[alert]") && line.contains(refused))
    });
    let udp = UdpSocket::bind(address).unwrap();
    udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    wait::until("it is sent again", || {
        http::get(server.port(), "/line?log=3");
        udp.recv(&mut buffer).is_ok()
    });
}

#[test]
fn what_follows_an_answer_is_done_before_the_log_is_written() {
    // That of the last location, as in nginx.
    let server = start(
        "access_log off;
         location /named { post_action @action; return 201 named; }
         location /path { post_action /action; return 202 path; }
         location /missing { post_action @nowhere; return 203 missing; }
         location @action { rewrite ^(.*)$ /action$1; access_log logs/action.log uri; set $done 1; }
         location /action { internal; access_log logs/action.log uri; return 500 never; }",
    );
    for (path, status, body) in [("/named", 201, "named"), ("/path", 202, "path"), ("/missing", 203, "missing")] {
        let answer = http::get(server.port(), path);
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{path}");
    }
    wait::until("both are done", || server.read("logs/action.log").lines().count() == 2);
    assert_eq!(server.read("logs/action.log"), "/action/named\n/action\n");
    assert!(server.logged(&["could not find named location \"@nowhere\""]) == 1, "{}", server.log());
}
