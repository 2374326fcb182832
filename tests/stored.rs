//! Answers of upstreams that become files of the site: `proxy_store`.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use support::http;
use support::pushgate::Pushgate;
use support::wait;

const CONFIG: &str = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid;\n\
    events { worker_connections 64; }\n\
    http { proxy_temp_path %%PREFIX%%/temporary 1; proxy_buffers 4 4k;\n\
    server { listen 127.0.0.1:%%PORT%%;\n\
    location / { root %%PREFIX%%/site; error_page 404 = @fetch; log_not_found off; }\n\
    location @fetch { internal; root %%PREFIX%%/site; proxy_store on; proxy_store_access user:rw group:rw all:r;\n\
    proxy_pass http://127.0.0.1:%%BACK%%; }\n\
    location /named/ { proxy_store %%PREFIX%%/site/by-name/$arg_n; proxy_pass http://127.0.0.1:%%BACK%%; }\n\
    location /unbuffered/ { proxy_buffering off; root %%PREFIX%%/site; proxy_store on;\n\
    proxy_pass http://127.0.0.1:%%BACK%%; }\n\
    } }";

const LONG: usize = 3_000_000;

fn long() -> Vec<u8> {
    (0..LONG).map(|at| b'a' + (at % 23) as u8).collect()
}

/// A server behind the proxy, which counts what it is asked, and tells when it stops half-way until it is told to go on.
struct Backend {
    port: u16,
    asked: Arc<AtomicUsize>,
    halves: Receiver<()>,
    go_on: Sender<()>,
}

fn backend() -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let ((tell, halves), (go_on, wait)) = (channel(), channel());
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let (tell, wait) = (Arc::new(Mutex::new(tell)), Arc::new(Mutex::new(wait)));
        for mut stream in listener.incoming().flatten() {
            let (tell, wait, count) = (Arc::clone(&tell), Arc::clone(&wait), Arc::clone(&count));
            std::thread::spawn(move || {
                if let Some(path) = asked_for(&mut stream) {
                    count.fetch_add(1, Ordering::Relaxed);
                    // Who has gone gets no more.
                    drop(answer(&mut stream, &path, &tell, &wait));
                }
            });
        }
    });
    Backend { port, asked, halves, go_on }
}

fn asked_for(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned())
}

fn answer(
    stream: &mut TcpStream,
    path: &str,
    tell: &Mutex<Sender<()>>,
    go_on: &Mutex<Receiver<()>>,
) -> std::io::Result<()> {
    let pause = || {
        tell.lock().unwrap().send(()).unwrap();
        go_on.lock().unwrap().recv().unwrap();
    };
    match path.rsplit('/').next().unwrap() {
        "long" => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n")?;
            stream.write_all(&long())
        }
        "half" => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n")?;
            stream.write_all(&long()[..LONG / 2])?;
            pause();
            stream.write_all(&long()[LONG / 2..])
        }
        "late" => {
            pause();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        }
        "short" => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n")?;
            stream.write_all(&long()[..LONG / 2])
        }
        "empty" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        "missing" => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"),
        _ => stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nLast-Modified: Mon, 28 Sep 1970 06:00:00 GMT\r\n\r\nhello",
        ),
    }
}

fn start() -> (Backend, Pushgate) {
    let backend = backend();
    let server = Pushgate::start(CONFIG, &[("BACK", &backend.port.to_string())]);
    let site = server.path("site");
    std::fs::create_dir(&site).unwrap();
    // The worker may be `nobody`.
    std::fs::set_permissions(&site, PermissionsExt::from_mode(0o777)).unwrap();
    (backend, server)
}

/// How many files are in a folder and the folders in it.
fn files(folder: &Path) -> usize {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[test]
fn an_answer_becomes_the_file_that_was_missing() {
    let (backend, server) = start();
    let file = server.path("site/a/b/file");
    assert_eq!(http::get(server.port(), "/a/b/file").body, "hello");
    wait::until("it is stored", || file.exists());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello");
    let found = file.metadata().unwrap();
    assert_eq!((found.mode() & 0o777, found.mtime()), (0o664, 23_349_600));
    let asked = backend.asked.load(Ordering::Relaxed);
    let answer = http::get(server.port(), "/a/b/file");
    assert_eq!(
        (answer.body.as_str(), answer.header("Last-Modified")),
        ("hello", Some("Mon, 28 Sep 1970 06:00:00 GMT"))
    );
    assert_eq!(backend.asked.load(Ordering::Relaxed), asked, "the file answers");

    assert_eq!(http::get(server.port(), "/named/x?n=y/z").body, "hello");
    wait::until("it is stored by its name", || server.path("site/by-name/y/z").exists());
    assert_eq!(server.path("site/by-name/y/z").metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(http::get(server.port(), "/empty").body, "");
    wait::until("it is stored, too", || server.path("site/empty").exists());
    assert_eq!(files(&server.path("temporary")), 0);
}

#[test]
fn a_long_answer_is_stored_and_sent() {
    let (_backend, server) = start();
    assert_eq!(http::get(server.port(), "/long").body.as_bytes(), long());
    wait::until("it is stored", || server.path("site/long").exists());
    assert_eq!(std::fs::read(server.path("site/long")).unwrap(), long());
    assert_eq!(http::get(server.port(), "/long").body.as_bytes(), long());
}

#[test]
fn what_is_not_whole_or_not_good_is_not_stored() {
    let (_backend, server) = start();
    assert!(http::get(server.port(), "/short").body.len() < LONG);
    server.until_logged(&["upstream prematurely closed connection while reading upstream"]);
    assert_eq!(http::get(server.port(), "/missing").status, 404);
    assert_eq!(http::request(server.port(), "HEAD", "/head", "", "").status, 200);
    assert_eq!(http::get(server.port(), "/unbuffered/x").body, "hello");
    wait::until("temporary files are gone", || files(&server.path("temporary")) == 0);
    assert_eq!(files(&server.path("site")), 0);
}

#[test]
fn an_answer_is_stored_though_its_client_has_gone() {
    let (backend, server) = start();
    for path in ["/late", "/half"] {
        let mut client = http::connect(server.port());
        write!(client, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        backend.halves.recv_timeout(wait::PATIENCE).unwrap();
        client.shutdown(Shutdown::Both).unwrap();
        drop(client);
        // The next request is answered when the first one's end was seen.
        assert_eq!(http::get(server.port(), "/other").body, "hello");
        backend.go_on.send(()).unwrap();
        wait::until("it is stored", || server.path(&format!("site{path}")).exists());
    }
    assert_eq!(std::fs::read(server.path("site/half")).unwrap(), long());
    assert_eq!(std::fs::read(server.path("site/late")).unwrap(), b"late");
    assert_eq!(files(&server.path("temporary")), 0);
}

#[test]
fn a_place_that_can_not_be_written_to_is_logged() {
    let (_backend, server) = start();
    std::fs::write(server.path("site/taken"), "a file").unwrap();
    assert_eq!(http::get(server.port(), "/taken/file").body, "hello");
    server.until_logged(&["[crit]", "rename() \"", "/site/taken/file\" failed (20: Not a directory)"]);
    wait::until("temporary files are gone", || files(&server.path("temporary")) == 0);
}
