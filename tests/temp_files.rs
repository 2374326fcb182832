//! Bodies of requests in temporary files, for whoever is given their names.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use support::http;
use support::pushgate::{self, Pushgate};
use support::wait;

const CONFIG: &str = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid;\n\
    events { worker_connections 64; }\n\
    http { client_body_temp_path %%PREFIX%%/bodies 1 2; lingering_time 60s; lingering_timeout 60s;\n\
    server { listen 127.0.0.1:%%PORT%%; \n\
    location / { %%NAMES%% client_body_in_file_only on;\n\
    proxy_pass http://127.0.0.1:%%BACK%%; }\n\
    location /clean { client_body_in_file_only clean; proxy_pass_request_body off;\n\
    %%NAMES%% proxy_set_header Content-Length ''; proxy_pass http://127.0.0.1:%%BACK%%; }\n\
    location /memory { %%NAMES%% client_body_buffer_size 1k;\n\
    proxy_pass http://127.0.0.1:%%BACK%%; }\n\
    location /static { client_body_in_file_only on; return 200 here; }\n\
    %%MORE%% } }";

const NAMES: &str = "proxy_set_header X-File $request_body_file; proxy_set_header X-Body $request_body;";

/// A server that answers with the name of the file that it was told of, what was in that, and the request's head and body.
fn backend() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

fn answer(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let mut body = bytes.split_off(end);
    let begun = body.len();
    body.resize(header("Content-Length: ").parse().unwrap_or(0), 0);
    stream.read_exact(&mut body[begun..]).unwrap();
    let file = header("X-File: ");
    let kept = std::fs::read_to_string(&file).map_or_else(|_| "nothing".to_owned(), |text| brief(text.as_bytes()));
    let answer = format!("{file} has {kept}, {} came, variable: {}", brief(&body), header("X-Body: "));
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).unwrap();
}

fn brief(text: &[u8]) -> String {
    format!("{} bytes {}", text.len(), String::from_utf8_lossy(&text[..text.len().min(5)]))
}

/// The name of the file in an answer, and the rest of it.
fn told(body: &str) -> (&str, &str) {
    body.split_once(" has ").unwrap()
}

fn start() -> Pushgate {
    start_with("")
}

/// The same with more in the server.
fn start_with(more: &str) -> Pushgate {
    Pushgate::start(CONFIG, &[("NAMES", NAMES), ("MORE", more), ("BACK", &backend().to_string())])
}

#[test]
fn every_body_is_a_file_that_stays() {
    let server = start();
    let long = "x".repeat(100_000);
    let chunks =
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nchunk\r\n0\r\n\r\n";
    let chunked = String::from_utf8(http::raw(server.port(), chunks)).unwrap();
    let answers = [
        (http::post(server.port(), "/", "hello").body, "5 bytes hello, 5 bytes hello came, variable: "),
        (http::post(server.port(), "/", &long).body, "100000 bytes xxxxx, 100000 bytes xxxxx came, variable: "),
        (http::post(server.port(), "/", "").body, "0 bytes , 0 bytes  came, variable: "),
        (chunked.split_once("\r\n\r\n").unwrap().1.to_owned(), "5 bytes chunk, 5 bytes chunk came, variable: "),
    ];
    for (answer, expected) in &answers {
        let (file, rest) = told(answer);
        assert_eq!(rest, *expected);
        let number = file.rsplit('/').next().unwrap();
        assert_eq!(number.len(), 10);
        assert_eq!(
            Path::new(file),
            server.path(&format!("bodies/{}/{}/{number}", &number[9..], &number[7..9])),
            "in folders of the levels 1 and 2",
        );
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(Path::new(file)), 0o600);
        assert_eq!(mode(Path::new(file).parent().unwrap()), 0o700);
        server.until_logged(&[
            "[notice]",
            &format!("a client request body is buffered to a temporary file {file}, client"),
        ]);
    }
    assert_eq!(
        told(&http::get(server.port(), "/").body),
        ("", "nothing, 0 bytes  came, variable: "),
        "no body, no file"
    );
    assert_eq!(http::post(server.port(), "/static", "hello").body, "here");
    assert_eq!(server.logged(&["is buffered to a temporary file"]), answers.len(), "nobody has read the last one");
}

#[test]
fn a_file_that_is_cleaned_away_is_there_during_the_request() {
    let server = start();
    let answer = http::post(server.port(), "/clean", "hello").body;
    let (file, rest) = told(&answer);
    assert_eq!(rest, "5 bytes hello, 0 bytes  came, variable: ");
    wait::until("the file is gone", || !Path::new(file).exists());
    assert!(Path::new(file).parent().unwrap().exists(), "its folder stays");
}

#[test]
fn a_handler_that_wants_the_text_reads_the_file() {
    let publisher = "push_stream_publisher admin; push_stream_channels_path a; client_body_in_file_only clean;";
    let server =
        start_with(&format!("location /publish {{ {publisher} }} }} push_stream_shared_memory_size 1m; server {{"));
    assert!(http::post(server.port(), "/publish", "hello").body.contains("\"published_messages\": 1"));
    server.until_logged(&["[notice]", "is buffered to a temporary file", "POST /publish"]);
}

#[test]
fn a_file_for_want_of_memory_has_no_name_any_more() {
    let server = start();
    assert_eq!(
        told(&http::post(server.port(), "/memory", "hello").body),
        ("", "nothing, 5 bytes hello came, variable: hello")
    );
    let answer = http::post(server.port(), "/memory", &"x".repeat(5000)).body;
    let (file, rest) = told(&answer);
    assert!(file.starts_with(server.path("bodies").to_str().unwrap()));
    assert_eq!(rest, "nothing, 5000 bytes xxxxx came, variable: ");
    server.until_logged(&["[warn]", &format!("a client request body is buffered to a temporary file {file}, client")]);
}

#[test]
fn a_folder_that_has_gone_is_the_servers_fault() {
    // Nothing more of the body is waited for: the answers would not end before their time was over.
    let server = start();
    std::fs::remove_dir_all(server.path("bodies")).unwrap();
    assert_eq!(http::post(server.port(), "/", "hello").status, 500);
    let two = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /static HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answers = String::from_utf8(http::raw(server.port(), two)).unwrap();
    assert!(answers.starts_with("HTTP/1.1 500 "), "{answers}");
    assert!(
        answers.contains("Connection: close") || answers.ends_with("\r\n\r\nhere"),
        "the next request is read as one: {answers}"
    );
    server.until_logged(&["[crit]", "mkdir() \"", "failed (2: No such file or directory), client"]);
}

#[test]
fn folders_are_made_at_a_start_and_a_reload_but_not_by_a_test() {
    let server = start();
    assert_eq!(std::fs::metadata(server.path("bodies")).unwrap().permissions().mode() & 0o777, 0o700);

    server.configure(&CONFIG.replace("/bodies", "/others"));
    let test = pushgate::command(&server.path("")).arg("-t").stderr(Stdio::null()).status().unwrap();
    assert!(test.success() && !server.path("others").exists());
    server.signal("HUP");
    server.until_logged(&["the new configuration holds"]);
    assert!(server.path("others").is_dir());

    server.configure(&CONFIG.replace("/bodies", "/no/where"));
    server.signal("HUP");
    server.until_logged(&["[emerg]", "mkdir() \"", "/no/where\" failed (2: No such file or directory)"]);
    let answer = http::post(server.port(), "/", "hello").body;
    assert!(told(&answer).0.starts_with(server.path("others").to_str().unwrap()), "what held before goes on");

    let start = pushgate::command(&server.path("")).stderr(Stdio::piped()).output().unwrap();
    assert!(!start.status.success());
    let said = String::from_utf8_lossy(&start.stderr);
    assert!(said.contains("[emerg] mkdir() \""), "{said}");
}
