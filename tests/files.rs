//! Files, beyond the recorded cases: long ones, which the kernel sends by itself.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};

use support::http;
use support::pushgate::Pushgate;

/// A file of 5 MB, longer than what a socket takes at once, with every byte telling its place.
fn content() -> String {
    (0..500_000).map(|number| format!("{number:09}\n")).collect()
}

fn start(settings: &str) -> Pushgate {
    let server = Pushgate::start(
        &format!(
            "daemon off;
            pid logs/nginx.pid;
            error_log logs/error.log info;
            events {{ }}
            http {{
                {settings}
                server {{ listen 127.0.0.1:%%PORT%%; root .; }}
            }}"
        ),
        &[],
    );
    server.write("long", &content());
    server
}

#[test]
fn a_long_file_is_whole_however_it_is_sent() {
    for settings in
        ["sendfile off;", "sendfile on;", "sendfile on; sendfile_max_chunk 10k;", "sendfile on; limit_rate 100m;"]
    {
        let server = start(settings);
        let answer = http::get(server.port(), "/long");
        assert_eq!(answer.header("Content-Length"), Some("5000000"), "{settings}");
        assert!(answer.body == content(), "{settings}: {} bytes that are not the file's", answer.body.len());
        let answer = http::request(server.port(), "GET", "/long", "Range: bytes=4000000-4999999\r\n", "");
        assert_eq!(answer.status, 206, "{settings}");
        assert!(answer.body == content()[4_000_000..], "{settings}: another part");
        let answer = http::request(server.port(), "GET", "/long", "Range: bytes=0-9,4999990-\r\n", "");
        assert!(answer.body.contains("\r\n\r\n000000000\n\r\n"), "{settings}");
        assert!(answer.body.contains("\r\n\r\n000499999\n\r\n"), "{settings}");
    }
}

#[test]
fn a_file_that_is_cut_short_while_it_is_sent_ends_the_connection() {
    let server = start("sendfile on; sendfile_max_chunk 10k;");
    let mut stream = http::connect(server.port());
    stream.write_all(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // The head is there: the file is open, and more of it is to come than the socket has room for.
    let mut some = [0; 1000];
    stream.read_exact(&mut some).unwrap();
    server.write("long", "000000000\n");
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.len() < 5_000_000, "{} bytes", answer.len());
    assert_eq!(http::get(server.port(), "/long").body, "000000000\n");
}

#[test]
fn a_cache_of_open_files_is_believed_until_the_reload() {
    let server = start(
        "open_file_cache max=10; open_file_cache_valid 1h; open_file_cache_errors on; gzip_static on; index start;",
    );
    let replace = |name: &str, text: &str| {
        server.write("new", text);
        server.rename("new", name);
    };
    let body = |target: &str| http::get(server.port(), target).body;
    let status = |target: &str| http::get(server.port(), target).status;
    for name in ["short", "start"] {
        replace(name, "one");
    }
    assert_eq!([body("/short"), body("/"), body("/long")], ["one".to_owned(), "one".to_owned(), content()]);
    assert_eq!(status("/later"), 404);
    for name in ["short", "start", "long", "later"] {
        replace(name, "two");
    }
    std::fs::remove_file(server.path("start")).unwrap();
    assert_eq!([body("/short"), body("/"), body("/long")], ["one".to_owned(), "one".to_owned(), content()]);
    assert_eq!(http::request(server.port(), "GET", "/short", "Range: bytes=1-\r\n", "").body, "ne");
    assert_eq!(status("/later"), 404);
    server.signal("HUP");
    while body("/short") != "two" {
        std::thread::yield_now();
    }
    assert_eq!([body("/long"), body("/later")], ["two", "two"]);
    assert_eq!(status("/"), 403);
}

#[test]
fn links_are_not_followed_where_that_is_said() {
    let config = "daemon off;
        pid logs/nginx.pid;
        error_log logs/error.log info;
        events { }
        http {
        open_file_cache max=10;
        open_file_cache_errors on;
        disable_symlinks on;
        server {
            listen 127.0.0.1:%%PORT%%;
            root %%PREFIX%%/html;
            location /try/ { alias %%PREFIX%%/html/; try_files $uri =404; }
            location /if { if (-f $document_root/link) { return 200 file; } return 200 none; }
            location /from/ { alias %%PREFIX%%/html/; disable_symlinks on from=%%PREFIX%%/html/folder-$arg_from; }
            location /all/ { alias %%PREFIX%%/html/; disable_symlinks off; }
            location /owner/ { alias %%PREFIX%%/html/; disable_symlinks if_not_owner; }
        }
        }";
    let server = Pushgate::start(config, &[]);
    std::fs::create_dir(server.path("html/real")).unwrap();
    server.write("html/real/a", "text");
    server.write("html/real/index.html", "index");
    std::os::unix::fs::symlink("real/a", server.path("html/link")).unwrap();
    std::os::unix::fs::symlink("real", server.path("html/folder-x")).unwrap();
    // Twice, so that the second answers come from the cache.
    for _ in 0..2 {
        for (target, status) in [
            ("/real/a", 200),
            ("/real/", 200),
            ("/link", 403),
            ("/folder-x/a", 404),
            ("/folder-x/", 404),
            ("/try/link", 404),
            ("/from/folder-x/a?from=x", 200),
            ("/from/folder-x/a?from=y", 404),
            ("/all/link", 200),
            ("/all/folder-x/a", 200),
            ("/owner/link", 200),
            ("/owner/folder-x/a", 200),
        ] {
            assert_eq!(http::get(server.port(), target).status, status, "{target}");
        }
        assert_eq!(http::get(server.port(), "/if").body, "none");
    }
    server.until_logged(&["[error]", "openat() \"", "/html/link\" failed (40: Too many levels of symbolic links)"]);
    server.until_logged(&["[error]", "openat() \"", "/html/folder-x/a\" failed (20: Not a directory)"]);
}
