//! uwsgi and SCGI servers behind Pushgate: real ones with an application in Python, and such as answer oddly.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::process::Process;
use support::pushgate::Pushgate;
use support::tls::Authority;
use support::{foreign, http, wait};

/// Tells what it was asked: by uWSGI, or by flup's SCGI server if it is the program.
const APPLICATION: &str = r#"
def application(environ, start_response):
    body = environ['wsgi.input'].read(int(environ.get('CONTENT_LENGTH') or 0))
    names = ('REQUEST_METHOD', 'PATH_INFO', 'QUERY_STRING', 'HTTP_X_A', 'HTTP_COOKIE', 'REMOTE_ADDR')
    lines = ['%s=%s' % (name, environ.get(name)) for name in names]
    lines.append('%d bytes %s' % (len(body), (body[-3:] or b'').decode()))
    start_response('299 Odd One', [('Content-Type', 'text/plain; charset=utf-8'), ('X-App', 'python')])
    return ['\n'.join(lines).encode()]

if __name__ == '__main__':
    import sys
    from flup.server.scgi import WSGIServer
    WSGIServer(application, bindAddress=sys.argv[1], umask=0).run()
"#;

/// An application server, with its socket in a folder of its own.
struct Application {
    // Before the folder, so that the server has ended when that is removed.
    _process: Process,
    folder: tempfile::TempDir,
}

impl Application {
    fn start(command: impl FnOnce(&Path) -> Command) -> Self {
        let folder = support::pushgate::prefix();
        std::fs::write(folder.path().join("app.py"), APPLICATION).unwrap();
        let mut command = command(folder.path());
        let log = std::fs::File::create(folder.path().join("logs/server.log")).unwrap();
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = Process::start(&mut command, "TERM", folder.path());
        let this = Self { _process: process, folder };
        wait::until("the application listens", || std::os::unix::net::UnixStream::connect(this.socket()).is_ok());
        this
    }

    /// uWSGI, with more of its options.
    fn uwsgi(more: &[String]) -> Self {
        Self::start(|folder| {
            let mut command = Command::new("uwsgi");
            command.args(["--plugin", "python3", "--wsgi-file", "app.py", "--chmod-socket=666", "--socket"]);
            command.arg(socket(folder)).args(more);
            command
        })
    }

    /// flup's server for SCGI.
    fn scgi() -> Self {
        Self::start(|folder| {
            let mut command = Command::new("python3");
            command.arg("app.py").arg(socket(folder));
            command.env("PYTHONPATH", foreign::pypi(Path::new("python3"), &["flup"]));
            command
        })
    }

    fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("app.sock")
}

/// A server with these directives in `server`.
#[track_caller]
fn server(directives: &str, replace: &[(&str, &str)]) -> Pushgate {
    let config = format!(
        "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid;\n\
         events {{ worker_connections 64; }}\n\
         http {{ server {{ listen 127.0.0.1:%%PORT%%; client_max_body_size 8m; {directives} }} }}"
    );
    Pushgate::start(&config, replace)
}

/// What an application wants to know, as nginx's file `uwsgi_params` has it.
fn params(protocol: &str) -> String {
    ["REQUEST_METHOD $request_method", "REQUEST_URI $request_uri", "PATH_INFO $document_uri"]
        .iter()
        .chain(&["QUERY_STRING $query_string", "CONTENT_TYPE $content_type", "CONTENT_LENGTH $content_length"])
        .chain(&["SERVER_PROTOCOL $server_protocol", "REMOTE_ADDR $remote_addr", "REMOTE_PORT $remote_port"])
        .chain(&["SERVER_PORT $server_port", "SERVER_NAME $server_name"])
        .map(|param| format!("{protocol}_param {param};\n"))
        .collect()
}

/// Asks an application for all that it tells.
#[track_caller]
fn check_application(server: &Pushgate) {
    let headers = "X-A: 1\r\nX-A: 2\r\nCookie: a=b\r\nCookie: c=d\r\n";
    let answer = http::request(server.port(), "GET", "/some%20path?q=1", headers, "");
    assert!(answer.head.starts_with("HTTP/1.1 299 Odd One\r\n"), "{answer:?}\n{}", server.log());
    assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!((answer.header("X-App"), answer.header("Status")), (Some("python"), None));
    let told = "REQUEST_METHOD=GET\nPATH_INFO=/some path\nQUERY_STRING=q=1\nHTTP_X_A=1, 2\nHTTP_COOKIE=a=b; c=d\n\
                REMOTE_ADDR=127.0.0.1\n0 bytes ";
    assert!(answer.body.contains(told), "{answer:?}");
    let body = format!("{}end", "x".repeat(300_000));
    let answer = http::post(server.port(), "/", &body);
    assert!(answer.body.contains("REQUEST_METHOD=POST\n") && answer.body.contains("300003 bytes end"), "{answer:?}");
}

#[test]
fn an_application_behind_uwsgi() {
    let application = Application::uwsgi(&[]);
    let socket = application.socket().display().to_string();
    let fixed = format!("location / {{ uwsgi_pass unix:%%SOCKET%%; {} }}", params("uwsgi"));
    check_application(&server(&fixed, &[("SOCKET", &socket)]));
    let unbuffered = format!("{fixed} uwsgi_request_buffering off; uwsgi_buffering off;");
    check_application(&server(&unbuffered, &[("SOCKET", &socket)]));
    let variable = format!("{} set $app unix:%%SOCKET%%; location / {{ uwsgi_pass uwsgi://$app; }}", params("uwsgi"));
    check_application(&server(&variable, &[("SOCKET", &socket)]));
}

#[test]
fn an_application_behind_scgi() {
    let application = Application::scgi();
    let socket = application.socket().display().to_string();
    let scgi = params("scgi").replace("scgi_param CONTENT_LENGTH $content_length;", "scgi_param SCGI 1;");
    let fixed = format!("location / {{ scgi_pass unix:%%SOCKET%%; {scgi} }}");
    check_application(&server(&fixed, &[("SOCKET", &socket)]));
    let unbuffered = format!("{fixed} scgi_request_buffering off; scgi_buffering off;");
    check_application(&server(&unbuffered, &[("SOCKET", &socket)]));
}

#[test]
fn uwsgi_over_tls() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let files = tempfile::tempdir().unwrap();
    let folder = files.path().display().to_string();
    authority.identity("app.test", 1).write(files.path(), "app");
    std::fs::write(files.path().join("ca.pem"), &authority.pem).unwrap();
    std::fs::write(files.path().join("other.pem"), &other.pem).unwrap();
    let port = support::ports::Port::free();
    let address = format!("127.0.0.1:{}", port.number);
    let option = ["--suwsgi-socket".to_owned(), format!("{address},{folder}/app.pem,{folder}/app.key")];
    let _application = Application::uwsgi(&option);
    let directives = format!(
        "{} uwsgi_ssl_verify on; uwsgi_ssl_name app.test; uwsgi_ssl_trusted_certificate %%FILES%%/ca.pem;\n\
         location / {{ uwsgi_pass suwsgi://%%APP%%; }}\n\
         location /other {{ uwsgi_pass suwsgi://%%APP%%; uwsgi_ssl_trusted_certificate %%FILES%%/other.pem; }}",
        params("uwsgi")
    );
    let server = server(&directives, &[("APP", &address), ("FILES", &folder)]);
    check_application(&server);
    assert_eq!(http::get(server.port(), "/other").status, 502);
    server.until_logged(&["upstream SSL certificate verify error", "while SSL handshaking to upstream", "suwsgi://"]);
}

/// What came before a body: all of it, and the names and values in it.
struct Packet {
    bytes: Vec<u8>,
    params: Vec<(String, String)>,
}

/// Reads a packet of either protocol: one that begins with a digit is SCGI's.
fn read_packet(stream: &mut TcpStream) -> Option<Packet> {
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).ok()?;
    if !bytes[0].is_ascii_digit() {
        let mut content = vec![0; u16::from_le_bytes([bytes[1], bytes[2]]).into()];
        stream.read_exact(&mut content).ok()?;
        bytes.extend(&content);
        let mut texts = Vec::new();
        let mut rest = &content[..];
        while let [low, high, more @ ..] = rest {
            let (text, behind) = more.split_at(u16::from_le_bytes([*low, *high]).into());
            texts.push(String::from_utf8_lossy(text).into_owned());
            rest = behind;
        }
        return Some(Packet { bytes, params: pairs(texts) });
    }
    while bytes.last() != Some(&b',') {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        bytes.extend(byte);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (length, content) = text.split_once(':').unwrap();
    assert_eq!(length.parse(), Ok(content.len() - 1), "{content:?}");
    let texts = content.split('\0').map(str::to_owned).collect();
    Some(Packet { bytes, params: pairs(texts) })
}

fn pairs(texts: Vec<String>) -> Vec<(String, String)> {
    texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// Answers as the request's query says.
fn serve(mut stream: TcpStream) {
    let Some(packet) = read_packet(&mut stream) else { return };
    let query = packet.params.iter().find(|(name, _)| name == "QUERY_STRING").map_or("", |(_, value)| value);
    let answer: &[u8] = match query {
        "packet" => {
            &[b"Content-Type: text/plain\r\n\r\n", &packet.bytes.escape_ascii().collect::<Vec<_>>()[..]].concat()
        }
        "upgrade" => {
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n").unwrap();
            let _ended = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
            return;
        }
        "line" => b"HTTP/1.1 404 Not Here\r\nContent-Type: text/plain\r\nStatus: 200 OK\r\n\r\ngone",
        "status" => b"Status: 404 Not Here\nContent-Type: text/plain\n\ngone",
        "location" => b"Location: http://a/b\r\nContent-Length: 0\r\n\r\n",
        "plain" => b"HTTPS: on\r\n\r\nbody",
        "chunks" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "none" => b"Status: 204 No\r\nContent-Length: 3\r\n\r\nabc",
        "error" => b"Status: 503 Busy\r\nX-Accel-Expires: 1\r\nX-Own: 1\r\n\r\nbusy",
        "long" => b"Content-Length: 5\r\n\r\nhello world",
        "short" => b"Content-Length: 50\r\n\r\nhello",
        "badstatus" => b"Status: oops\r\n\r\n",
        "badheader" => b"Status: 200\r\nno colon\r\n\r\n",
        "nothing" => b"",
        "endless" => &[&b"A: "[..], &[b'x'; 60_000]].concat(),
        query => panic!("{query}"),
    };
    // Whoever has seen enough may have gone.
    let _sent = stream.write_all(answer).and_then(|()| stream.shutdown(Shutdown::Write));
    // To close with a body that nobody has read would lose the answer.
    let _ended = std::io::copy(&mut stream, &mut std::io::sink());
}

/// A server that passes `/uwsgi` and `/scgi` on to one of ours, with more directives in each of these locations.
#[track_caller]
fn odd(uwsgi: &str, scgi: &str) -> Pushgate {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(|| serve(stream));
        }
    });
    let directives = format!(
        "uwsgi_param QUERY_STRING $query_string; scgi_param QUERY_STRING $query_string;\n\
         location /uwsgi {{ uwsgi_pass 127.0.0.1:%%BACK%%; {uwsgi} }}\n\
         location /scgi {{ scgi_pass 127.0.0.1:%%BACK%%; {scgi} }}"
    );
    server(&directives, &[("BACK", &port)])
}

#[test]
fn answers_of_scripts() {
    let server = odd("", "");
    for place in ["uwsgi", "scgi"] {
        let get = |query: &str| http::get(server.port(), &format!("/{place}?{query}"));
        let is_uwsgi = place == "uwsgi";
        let answer = get("line");
        assert!(answer.head.starts_with("HTTP/1.1 404 Not Here\r\n") && answer.body.contains("gone"), "{answer:?}");
        // Only nginx's module for uwsgi passes it on.
        assert_eq!(answer.header("Status"), is_uwsgi.then_some("200 OK"));
        let answer = get("status");
        assert!(answer.head.starts_with("HTTP/1.1 404 Not Here\r\n") && answer.body.contains("gone"), "{answer:?}");
        assert_eq!(answer.header("Status"), is_uwsgi.then_some("404 Not Here"));
        let answer = get("location");
        assert_eq!((answer.status, answer.header("Location")), (302, Some("http://a/b")));
        let answer = get("plain");
        assert_eq!((answer.status, answer.header("HTTPS")), (200, Some("on")));
        assert!(answer.body.contains("body"), "{answer:?}");
        // They are not taken for such.
        assert!(get("chunks").body.contains("3\r\nabc\r\n0\r\n\r\n"));
        let answer = get("none");
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        let answer = get("error");
        assert_eq!((answer.status, answer.header("X-Accel-Expires"), answer.header("X-Own")), (503, None, Some("1")));
        let answer = http::request(server.port(), "HEAD", &format!("/{place}?long"), "", "");
        assert_eq!((answer.status, answer.header("Content-Length"), answer.body.as_str()), (200, Some("5"), ""));
    }
}

#[test]
fn a_connection_becomes_another_ones() {
    let server = odd("", "");
    for place in ["uwsgi", "scgi"] {
        let mut stream = http::connect(server.port());
        let head = "HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
        stream.write_all(format!("GET /{place}?upgrade {head}").as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"), "{:?}", String::from_utf8_lossy(&answer));
        for text in [b"hello", b"again"] {
            stream.write_all(text).unwrap();
            let mut echo = [0; 5];
            stream.read_exact(&mut echo).unwrap();
            assert_eq!(&echo, text);
        }
    }
}

#[test]
fn answers_that_are_no_good() {
    let server = odd("", "");
    let check = |query: &str, status: u16, logged: &str| {
        for place in ["uwsgi", "scgi"] {
            let target = format!("/{place}?{query}");
            assert_eq!(http::get(server.port(), &target).status, status, "{target}");
            server.until_logged(&[logged, &target, &format!("{place}://127.0.0.1:")]);
        }
    };
    check("long", 200, "upstream sent more data than specified in \"Content-Length\" header while reading upstream");
    check("short", 200, "upstream prematurely closed connection while reading upstream");
    check("badstatus", 502, "upstream sent invalid status \"oops\" while reading response header from upstream");
    check("badheader", 502, "upstream sent invalid header: \"no\\x20...\" while reading response header from upstream");
    check("nothing", 502, "upstream prematurely closed connection while reading response header from upstream");
    check("endless", 502, "upstream sent too big header while reading response header from upstream");
}

#[test]
fn packets() {
    let packet = |server: &Pushgate, place: &str, body: &str| {
        let headers = "X-A: 1\r\nX-B: 2\r\n";
        let answer = http::request(server.port(), "POST", &format!("/{place}?packet"), headers, body);
        answer.body.split("\r\n").nth(1).unwrap_or_default().to_owned()
    };
    let server = odd("", "");
    let uwsgi = "\\x00x\\x00\\x00\\x0c\\x00QUERY_STRING\\x06\\x00packet\\t\\x00HTTP_HOST\\t\\x00localhost\
                 \\x0f\\x00HTTP_CONNECTION\\x05\\x00close\\x08\\x00HTTP_X_A\\x01\\x001\\x08\\x00HTTP_X_B\\x01\\x002\
                 \\x13\\x00HTTP_CONTENT_LENGTH\\x03\\x00100";
    assert_eq!(packet(&server, "uwsgi", &"x".repeat(100)), uwsgi);
    let scgi = "127:CONTENT_LENGTH\\x00100\\x00QUERY_STRING\\x00packet\\x00HTTP_HOST\\x00localhost\\x00HTTP_CONNECTION\\x00\
                close\\x00HTTP_X_A\\x001\\x00HTTP_X_B\\x002\\x00HTTP_CONTENT_LENGTH\\x00100\\x00,";
    assert_eq!(packet(&server, "scgi", &"x".repeat(100)), scgi);

    // A block that has parameters has none of those around it; an empty one keeps a header away.
    let own = |protocol: &str| {
        format!(
            "{protocol}_param Q 1; {protocol}_param EMPTY \"\"; {protocol}_param NONE $arg_none if_not_empty;\n\
             {protocol}_param HTTP_X_B \"\"; {protocol}_param HTTP_X_A own; {protocol}_param HTTP_HOST $arg_none;\n\
             {protocol}_param HTTP_CONNECTION \"\"; {protocol}_param HTTP_CONTENT_LENGTH \"\";\n\
             {protocol}_param QUERY_STRING $query_string;"
        )
    };
    let server = odd(&format!("{} uwsgi_modifier1 7; uwsgi_modifier2 9; uwsgi_string !;", own("uwsgi")), &own("scgi"));
    let uwsgi = "\\x07B\\x00\\t\\x01\\x00Q\\x01\\x001\\x05\\x00EMPTY\\x00\\x00\\x08\\x00HTTP_X_A\\x03\\x00own\
                 \\t\\x00HTTP_HOST\\x00\\x00\\x0c\\x00QUERY_STRING\\x06\\x00packet!";
    assert_eq!(packet(&server, "uwsgi", ""), uwsgi);
    let scgi = "72:CONTENT_LENGTH\\x000\\x00Q\\x001\\x00EMPTY\\x00\\x00HTTP_X_A\\x00own\\x00HTTP_HOST\\x00\\x00QUERY_STRING\
                \\x00packet\\x00,";
    assert_eq!(packet(&server, "scgi", ""), scgi);

    let none = |protocol: &str| format!("{protocol}_pass_request_headers off; {protocol}_pass_request_body off;");
    let server = odd(&none("uwsgi"), &none("scgi"));
    assert_eq!(packet(&server, "uwsgi", "abc"), "\\x00\\x16\\x00\\x00\\x0c\\x00QUERY_STRING\\x06\\x00packet");
    assert_eq!(packet(&server, "scgi", "abc"), "37:CONTENT_LENGTH\\x003\\x00QUERY_STRING\\x00packet\\x00,");
}

#[test]
fn a_packet_that_is_too_big() {
    let server = odd("uwsgi_param BIG $uri$uri$uri$uri$uri$uri$uri$uri$uri$uri;", "");
    assert_eq!(http::get(server.port(), &format!("/uwsgi{}", "x".repeat(7000))).status, 500);
    server.until_logged(&["[alert]", "uwsgi request is too big: 70", "client: 127.0.0.1"]);
}

#[test]
fn errors_are_intercepted_and_servers_that_are_gone_left_out() {
    let gone = support::ports::Port::free();
    let more = |protocol: &str| {
        format!("{protocol}_intercept_errors on; {protocol}_next_upstream error http_503; error_page 503 /page;")
    };
    let server = odd(&more("uwsgi"), &more("scgi"));
    for place in ["uwsgi", "scgi"] {
        server.write("html/page", "our page");
        let answer = http::get(server.port(), &format!("/{place}?error"));
        assert_eq!((answer.status, answer.body.as_str()), (503, "our page"));
    }
    let application = Application::uwsgi(&[]);
    let directives = format!(
        "location / {{ uwsgi_pass app; {} }} }} upstream app {{ server 127.0.0.1:{}; server unix:%%SOCKET%% backup;",
        params("uwsgi"),
        gone.number
    );
    check_application(&self::server(&directives, &[("SOCKET", &application.socket().display().to_string())]));
}
