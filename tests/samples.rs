//! The sample configurations of the postgres module's own manuals, run whole.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use support::http::{self, Response};
use support::postgres::Postgres;
use support::pushgate::Pushgate;
use support::site_of_postgres::config;

/// A server on a database of its own, which `sql` has filled.
#[track_caller]
fn start(sql: &str, http: &str, locations: &str) -> Pushgate {
    let postgres = Postgres::shared();
    let database = postgres.new_database();
    let port = postgres.port().to_string();
    postgres.session_of(&database).rows(sql);
    let upstream = "upstream database { postgres_server 127.0.0.1:%%PG_PORT%% dbname=%%DB%% user=test password=test; }";
    let config = config(&format!("{upstream} {http}"), locations);
    Pushgate::start(&config, &[("PG_PORT", &port), ("DB", &database)])
}

#[track_caller]
fn ask(server: &Pushgate, method: &str, target: &str, headers: &str) -> Response {
    http::request(server.port(), method, target, headers, "")
}

#[track_caller]
fn check(server: &Pushgate, method: &str, target: &str, headers: &str, status: u16, body: &str) {
    let answer = ask(server, method, target, headers);
    let text = if status < 300 { whole(&answer) } else { String::new() };
    assert_eq!((answer.status, text.as_str()), (status, body), "{method} {target} {headers}\n{}", server.log());
}

/// The body, which comes as one chunk if it comes in chunks.
fn whole(answer: &Response) -> String {
    if answer.header("Transfer-Encoding").is_none() {
        return answer.body.clone();
    }
    answer.body.split("\r\n").skip(1).step_by(2).collect()
}

/// ann's password is `pw`.
const ANN: &str = "Authorization: Basic YW5uOnB3\r\n";
const USERS: &str = "create table users (login text, pass text, email text); \
                     insert into users values ('ann', 'Basic YW5uOnB3', 'ann@example.org');";
const AUTH: &str = r#"location = /auth {
    internal;
    postgres_escape $user $remote_user;
    postgres_escape $pass $http_authorization;
    postgres_pass database;
    postgres_query "SELECT login, email FROM users WHERE login=$user AND pass=$pass";
    postgres_set $login 0 0 required;
    postgres_set $email 0 email;
    postgres_rewrite no_rows 403;
    postgres_output none;
}"#;

#[test]
fn rows_as_json() {
    let server = start(
        "create table cats (id int, name text); insert into cats values (1, 'Tom'), (2, 'say \"hi\"')",
        "",
        r#"location /cats { postgres_pass database; postgres_query "SELECT * FROM cats ORDER BY id"; postgres_output json;
               default_type application/json; }
           location /rds { postgres_pass database; postgres_query "SELECT * FROM cats ORDER BY id"; postgres_output rds; }
           location = /sites { postgres_pass database; postgres_query "SELECT id FROM cats WHERE name='$http_host'"; postgres_output text; }"#,
    );
    let answer = ask(&server, "GET", "/cats", "");
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    assert_eq!(whole(&answer), "[{\"id\":1,\"name\":\"Tom\"},{\"id\":2,\"name\":\"say \\\"hi\\\"\"}]\0");
    let answer = ask(&server, "GET", "/rds", "");
    assert_eq!(answer.header("Content-Type"), Some("application/x-resty-dbd-stream"));
    check(&server, "GET", "/sites", "", 200, "");
}

#[test]
fn files_for_users_of_a_table() {
    let server = start(
        USERS,
        "",
        &format!(
            r#"{AUTH}
            location / {{
                auth_request /auth;
                auth_request_set $who "$login <$email>";
                add_header X-Who $who;
                root %%PREFIX%%/conf;
            }}
            location /open/ {{ auth_request off; return 200 open; }}"#
        ),
    );
    let answer = ask(&server, "GET", "/nginx.conf", ANN);
    assert_eq!((answer.status, answer.header("X-Who")), (200, Some("ann <ann@example.org>")));
    assert!(answer.body.contains("auth_request /auth"), "{}", answer.body);
    check(&server, "GET", "/nginx.conf", "", 403, "");
    check(&server, "GET", "/nginx.conf", "Authorization: Basic YW5uOngn\r\n", 403, "");
    check(&server, "GET", "/auth", ANN, 404, "");
    check(&server, "GET", "/open/", "", 200, "open");
    // A body that was meant for the location is still there after the question.
    check(&server, "POST", "/nginx.conf", ANN, 405, "");
}

#[test]
fn what_the_question_is_answered_decides() {
    let said: String =
        [200, 204, 401, 403, 404, 500].map(|code| format!("if ($http_x_as = {code}) {{ return {code}; }}\n")).concat();
    let server = start(
        "select 1",
        "",
        &format!(
            r#"location = /as {{ internal; {said} return 302 /; }}
            location /early/ {{ auth_request /as; return 200 unreached; }}
            location /all/ {{
                auth_request /as;
                auth_request_set $said $status;
                add_header X-Said $said always;
                error_page 403 = @login;
                alias %%PREFIX%%/conf/;
            }}
            location @login {{ return 302 /login; }}
            location /any/ {{ satisfy any; deny all; auth_request /as; alias %%PREFIX%%/conf/; }}
            location /body/ {{ auth_request /with; postgres_pass database; postgres_query "select 'came'"; postgres_output value; }}
            location = /with {{ internal; if ($content_length) {{ return 204; }} return 403; }}"#
        ),
    );
    // `return` comes before the access phase.
    check(&server, "GET", "/early/", "X-As: 403\r\n", 200, "unreached");
    for (said, all, any) in [
        (204, 200, 200),
        (200, 200, 200),
        (403, 302, 403),
        (401, 401, 401),
        (404, 500, 500),
        (500, 500, 500),
        (302, 500, 500),
    ] {
        let as_said = format!("X-As: {said}\r\n");
        let answer = ask(&server, "GET", "/all/nginx.conf", &as_said);
        assert_eq!(answer.status, all, "{said}\n{}", server.log());
        if all != 302 {
            assert_eq!(answer.header("X-Said"), Some(said.to_string().as_str()));
        }
        assert_eq!(ask(&server, "GET", "/any/nginx.conf", &as_said).status, any, "{said}\n{}", server.log());
    }
    server.until_logged(&["[error]", "auth request unexpected status: 404", "client: 127.0.0.1"]);
    check(&server, "GET", "/body/", "", 403, "");
    let answer = http::post(server.port(), "/body/", "some text");
    assert_eq!((answer.status, whole(&answer).as_str()), (200, "came"), "{answer:?}\n{}", server.log());
}

#[test]
fn rest_by_method() {
    let server = start(
        &format!("{USERS} create table numbers (n int primary key); insert into numbers values (1), (7)"),
        "",
        &format!(
            r#"{AUTH}
            location = /numbers/ {{
                auth_request /auth;
                postgres_pass database;
                postgres_query HEAD GET "SELECT * FROM numbers ORDER BY n";
                postgres_query POST "INSERT INTO numbers VALUES('$arg_n') RETURNING *";
                postgres_query DELETE "DELETE FROM numbers WHERE n='$arg_n'";
                postgres_rewrite HEAD GET no_rows 410;
                postgres_rewrite POST rows 201;
                postgres_rewrite DELETE no_changes 404;
                postgres_rewrite DELETE changes 204;
                postgres_output text;
            }}
            location ~ ^/numbers/(?<num>\d+)$ {{
                auth_request /auth;
                postgres_pass database;
                postgres_query HEAD GET "SELECT * FROM numbers WHERE n='$num'";
                postgres_query PUT "UPDATE numbers SET n='$arg_n' WHERE n='$num' RETURNING *";
                postgres_query DELETE "DELETE FROM numbers WHERE n='$num'";
                postgres_rewrite HEAD GET no_rows 410;
                postgres_rewrite PUT no_changes 410;
                postgres_rewrite DELETE no_changes 410;
                postgres_rewrite DELETE changes 204;
                postgres_output text;
            }}"#
        ),
    );
    check(&server, "GET", "/numbers/", "", 403, "");
    check(&server, "GET", "/numbers/", ANN, 200, "1\n7");
    check(&server, "HEAD", "/numbers/", ANN, 200, "");
    check(&server, "POST", "/numbers/?n=9", ANN, 201, "9");
    check(&server, "POST", "/numbers/?n=9", ANN, 500, "");
    check(&server, "PUT", "/numbers/", ANN, 405, "");
    check(&server, "GET", "/numbers/9", ANN, 200, "9");
    check(&server, "PUT", "/numbers/9?n=10", ANN, 200, "10");
    check(&server, "PUT", "/numbers/9?n=10", ANN, 410, "");
    check(&server, "DELETE", "/numbers/10", ANN, 204, "");
    check(&server, "DELETE", "/numbers/10", ANN, 410, "");
    check(&server, "DELETE", "/numbers/?n=10", ANN, 404, "");
    check(&server, "GET", "/numbers/10", ANN, 410, "");
}

#[test]
fn an_argument_in_a_query() {
    let server = start(
        "create table quotes (quote text)",
        "",
        r#"location /quotes {
               set_unescape_uri $txt $arg_txt;
               postgres_escape $txt;
               postgres_pass database;
               postgres_query POST "INSERT INTO quotes (quote) VALUES ($txt) RETURNING quote";
               postgres_query GET "SELECT quote FROM quotes";
               postgres_output text;
           }"#,
    );
    check(&server, "POST", "/quotes?txt=it%27s%20so", "", 200, "it's so");
    check(&server, "GET", "/quotes", "", 200, "it's so");
}

#[test]
fn values_in_headers_and_log() {
    let server = start(
        "create table pages (path text, title text, size int); insert into pages values ('/a', 'A \"b\"', 5)",
        r#"log_format database '$uri $title $size rows=$postgres_rows columns=$postgres_columns';"#,
        r#"location /pages {
               access_log logs/database.log database;
               postgres_pass database;
               postgres_query "SELECT title, size FROM pages WHERE path='$arg_path'";
               postgres_set $title 0 title;
               postgres_set $size 0 1;
               add_header X-Title $title;
               postgres_output none;
           }"#,
    );
    let answer = ask(&server, "GET", "/pages?path=/a", "");
    assert_eq!((answer.status, answer.header("X-Title")), (200, Some("A \"b\"")));
    assert_eq!(ask(&server, "GET", "/pages?path=/none", "").header("X-Title"), None);
    let log = server.read("logs/database.log");
    assert_eq!(log, "/pages A \\x22b\\x22 5 rows=1 columns=2\n/pages - - rows=0 columns=2\n");
}

#[test]
fn traffic_routed_by_a_query() {
    let server = start(
        "create table backends (host text, backend text); \
         insert into backends values ('one.example', '127.0.0.1:'), ('two.example', 'second')",
        "upstream second { server 127.0.0.1:%%PORT%%; }",
        r#"location = /route {
               internal;
               postgres_pass database;
               postgres_query "SELECT backend FROM backends WHERE host='$http_x_site'";
               postgres_set $backend 0 0;
               postgres_rewrite no_rows 403;
               postgres_output none;
           }
           location / {
               auth_request /route;
               auth_request_set $to $backend;
               proxy_pass http://$to/served/;
           }
           location /served/ { return 200 "served to $host"; }"#,
    );
    check(&server, "GET", "/", "X-Site: two.example\r\n", 200, "served to second");
    check(&server, "GET", "/", "X-Site: three.example\r\n", 403, "");
}
