//! FastCGI with PHP, in the configuration that Debian's packages come with.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::process::{Command, Stdio};

use support::http;
use support::process::Process;
use support::pushgate::Pushgate;
use support::wait;

const CONFIG: &str = "daemon off; worker_processes 1; error_log logs/error.log info; pid logs/nginx.pid;
    events { }
    http {
        access_log off;
        client_max_body_size 8m;
        chunked_transfer_encoding off;
        client_body_temp_path bodies;
        fastcgi_temp_path answers 1 2;
        upstream php { server unix:%%PREFIX%%/php; keepalive 2; }
        server {
            listen 127.0.0.1:%%PORT%%;
            server_name example.org;
            root %%PREFIX%%/html;
            index index.php;
            location / { try_files $uri $uri/ /index.php$is_args$args; }
            location /private/ { internal; }
            location ~ \\.php(/|$) {
                fastcgi_split_path_info ^(.+?\\.php)(/.*)$;
                try_files $fastcgi_script_name =404;
                set $path_info $fastcgi_path_info;
                fastcgi_param PATH_INFO $path_info;
                fastcgi_index index.php;
                include %%FILES%%/fastcgi.conf;
                fastcgi_pass php;
                %%SETTINGS%%
            }
            location ^~ /unchecked/ { include %%FILES%%/fastcgi.conf; fastcgi_pass php; }
            location = /page.html {
                include %%FILES%%/fastcgi.conf;
                fastcgi_param SCRIPT_FILENAME $document_root/page.php;
                fastcgi_store on;
                fastcgi_pass php;
            }
        }
    }";

/// As nginx's package has it.
const PARAMS: &str = "fastcgi_param  SCRIPT_FILENAME    $document_root$fastcgi_script_name;
fastcgi_param  QUERY_STRING       $query_string;
fastcgi_param  REQUEST_METHOD     $request_method;
fastcgi_param  CONTENT_TYPE       $content_type;
fastcgi_param  CONTENT_LENGTH     $content_length;

fastcgi_param  SCRIPT_NAME        $fastcgi_script_name;
fastcgi_param  REQUEST_URI        $request_uri;
fastcgi_param  DOCUMENT_URI       $document_uri;
fastcgi_param  DOCUMENT_ROOT      $document_root;
fastcgi_param  SERVER_PROTOCOL    $server_protocol;
fastcgi_param  REQUEST_SCHEME     $scheme;
fastcgi_param  HTTPS              $https if_not_empty;

fastcgi_param  GATEWAY_INTERFACE  CGI/1.1;
fastcgi_param  SERVER_SOFTWARE    nginx/$nginx_version;

fastcgi_param  REMOTE_ADDR        $remote_addr;
fastcgi_param  REMOTE_PORT        $remote_port;
fastcgi_param  SERVER_ADDR        $server_addr;
fastcgi_param  SERVER_PORT        $server_port;
fastcgi_param  SERVER_NAME        $server_name;

fastcgi_param  REDIRECT_STATUS    200;
";

const SCRIPTS: &[(&str, &str)] = &[
    (
        "index.php",
        "<?php foreach (explode(' ', 'SCRIPT_NAME PATH_INFO PHP_SELF QUERY_STRING REQUEST_METHOD REQUEST_URI DOCUMENT_ROOT \
         SERVER_PROTOCOL REMOTE_ADDR SERVER_NAME HTTP_X_OWN HTTPS') as $name) echo $name, '=', $_SERVER[$name] ?? 'none', \"\\n\";",
    ),
    (
        "body.php",
        "<?php $body = file_get_contents('php://input'); echo strlen($body), ' ', md5($body), ' ', $_POST['a'] ?? '-', ' ', \
         $_FILES['f']['name'] ?? '-', ' ', $_FILES['f']['size'] ?? '-';",
    ),
    (
        "head.php",
        "<?php http_response_code(418); header('X-One: 1'); header('Set-Cookie: a=b'); header('Set-Cookie: c=d', false); \
         header('Content-Type: text/plain; charset=utf-8'); echo 'a teapot';",
    ),
    ("complain.php", "<?php error_log('oh dear'); echo 'all is well';"),
    ("throw.php", "<?php throw new Exception('no way');"),
    ("long.php", "<?php for ($i = 0; $i < 20000; $i++) printf(\"%0100d\", $i);"),
    ("hand-over.php", "<?php header('X-Accel-Redirect: /private/file.txt');"),
    ("page.php", "<?php header('Last-Modified: Mon, 28 Sep 1970 06:00:00 GMT'); echo 'made once';"),
];

/// The server, and PHP behind it.
struct World {
    server: Pushgate,
    _php: Process,
}

fn start(settings: &str) -> World {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("fastcgi.conf"), PARAMS).unwrap();
    let server = Pushgate::start(CONFIG, &[("SETTINGS", settings), ("FILES", files.path().to_str().unwrap())]);
    for (name, script) in SCRIPTS {
        server.write(&format!("html/{name}"), script);
    }
    std::fs::create_dir(server.path("html/private")).unwrap();
    server.write("html/private/file.txt", "a file of the server's");
    // The worker may be `nobody`, and stores a page there.
    std::fs::set_permissions(server.path("html"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut command = Command::new("php-cgi");
    command.args(["-n", "-d", "display_errors=0", "-d", "log_errors=1", "-d", "upload_tmp_dir=/tmp", "-b"]);
    command.arg(server.path("php")).stdout(Stdio::null()).stderr(Stdio::null());
    let php = Process::start(&mut command, "TERM", &server.path("html"));
    wait::until("PHP listens", || std::os::unix::net::UnixStream::connect(server.path("php")).is_ok());
    World { server, _php: php }
}

#[test]
fn a_script_is_told_of_the_request() {
    let world = start("");
    let port = world.server.port();
    let root = world.server.path("html");
    let root = root.display();
    let check = |target: &str, uri: &str, path_info: &str, query: &str| {
        let expected = format!(
            "SCRIPT_NAME=/index.php\nPATH_INFO={path_info}\nPHP_SELF=/index.php{path_info}\nQUERY_STRING={query}\n\
             REQUEST_METHOD=GET\nREQUEST_URI={uri}\nDOCUMENT_ROOT={root}\nSERVER_PROTOCOL=HTTP/1.1\n\
             REMOTE_ADDR=127.0.0.1\nSERVER_NAME=example.org\nHTTP_X_OWN=own\nHTTPS=none\n"
        );
        let answer = http::request(port, "GET", target, "X-Own: own\r\n", "");
        assert_eq!((answer.status, answer.body.as_str()), (200, expected.as_str()), "{target}");
        assert_eq!(answer.header("Content-Type"), Some("text/html; charset=UTF-8"));
        assert!(answer.header("X-Powered-By").is_some_and(|by| by.starts_with("PHP/")));
    };
    check("/index.php?a=b&c=%20", "/index.php?a=b&c=%20", "", "a=b&c=%20");
    check("/index.php/more/of%20it?x", "/index.php/more/of%20it?x", "/more/of it", "x");
    check("/", "/", "", "");
    check("/no/such/page?q=1", "/no/such/page?q=1", "", "q=1");
}

#[test]
fn bodies_come_through() {
    let world = start("client_body_buffer_size 16k;");
    let port = world.server.port();
    let form = |body: &str| {
        http::request(port, "POST", "/body.php", "Content-Type: application/x-www-form-urlencoded\r\n", body).body
    };
    assert_eq!(form("a=1&b=2"), "7 ed04c91cf6f6ab5a01a31c0295c5da34 1 - -");
    let long = format!("a={}", "x".repeat(1_000_000));
    assert!(form(&long).starts_with("1000002 "), "by a temporary file");
    world.server.until_logged(&["a client request body is buffered to a temporary file ", "/bodies/"]);
    let file = "y".repeat(200_000);
    let parts = format!(
        "--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--X\r\nContent-Disposition: form-data; name=\"f\"; \
         filename=\"f.txt\"\r\nContent-Type: text/plain\r\n\r\n{file}\r\n--X--\r\n"
    );
    let answer = http::request(port, "POST", "/body.php", "Content-Type: multipart/form-data; boundary=X\r\n", &parts);
    assert!(answer.body.ends_with(" 1 f.txt 200000"), "{}", answer.body);
    let chunks = b"POST /body.php HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let answer = String::from_utf8(http::raw(port, chunks)).unwrap();
    assert!(answer.contains("11 5eb63bbbe01eeed093cb22bb8f5acdc3 - - -"), "{answer}");
}

#[test]
fn heads_and_long_answers() {
    let world = start("fastcgi_buffers 4 4k;");
    let port = world.server.port();
    let answer = http::get(port, "/head.php");
    assert!(answer.head.starts_with("HTTP/1.1 418\r\n"), "{}", answer.head);
    assert_eq!((answer.header("Content-Type"), answer.header("X-One")), (Some("text/plain; charset=utf-8"), Some("1")));
    assert_eq!(answer.head.matches("Set-Cookie: ").count(), 2);
    assert_eq!(answer.body, "a teapot");
    let head = http::request(port, "HEAD", "/head.php", "", "");
    assert_eq!((head.status, head.body.as_str()), (418, ""));
    assert_eq!(http::get(port, "/long.php").body.len(), 2_000_000);
    let file = http::get(port, "/hand-over.php");
    assert_eq!((file.status, file.body.as_str()), (200, "a file of the server's"));
    assert_eq!(http::get(port, "/private/file.txt").status, 404);
}

#[test]
fn what_goes_wrong() {
    let world = start("");
    let port = world.server.port();
    assert_eq!(http::get(port, "/complain.php").body, "all is well");
    world.server.until_logged(&["[error]", "FastCGI sent in stderr: \"oh dear\" while reading", "GET /complain.php"]);
    assert_eq!(http::get(port, "/throw.php").status, 500);
    world
        .server
        .until_logged(&["[error]", "FastCGI sent in stderr: \"PHP Fatal error:  Uncaught Exception: no way in "]);
    assert!(http::get(port, "/missing.php").body.contains("<h1>404 Not Found</h1>"), "the server's own page");
    let answer = http::get(port, "/unchecked/missing.php");
    assert_eq!((answer.status, answer.body.trim()), (404, "No input file specified."), "PHP's");
}

#[test]
fn a_page_is_made_once() {
    let world = start("");
    assert_eq!(http::get(world.server.port(), "/page.html").body, "made once");
    wait::until("it is stored", || world.server.path("html/page.html").exists());
    assert_eq!(world.server.read("html/page.html"), "made once");
}

/// The connections that PHP has accepted.
fn connections(world: &World) -> Vec<String> {
    let path = world.server.path("php");
    let all = std::fs::read_to_string("/proc/net/unix").unwrap();
    let own = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = own.filter(|words| words.get(7).is_some_and(|word| *word == path.to_str().unwrap()) && words[5] == "03");
    own.map(|words| words[6].to_owned()).collect()
}

#[test]
fn connections_are_kept() {
    let world = start("fastcgi_keep_conn on;");
    wait::until("PHP has left the first", || connections(&world).is_empty());
    assert_eq!(http::get(world.server.port(), "/").status, 200);
    let first = connections(&world);
    assert_eq!(first.len(), 1);
    for _ in 0..3 {
        assert_eq!(http::get(world.server.port(), "/").status, 200);
        assert_eq!(connections(&world), first);
    }
    let closing = start("");
    assert_eq!(http::get(closing.server.port(), "/").status, 200);
    wait::until("it is closed", || connections(&closing).is_empty());
}
