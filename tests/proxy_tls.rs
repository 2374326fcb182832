//! TLS to upstreams: whom the proxy believes, whom it asks for, and what it shows.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::path::Path;
use std::process::Stdio;

use support::http;
use support::pushgate::{self, Pushgate};
use support::tls::{Authority, Identity};
use support::wait;

/// The proxy, and the server behind it, which tells what it saw.
const CONFIG: &str = "daemon off; worker_processes 1; pid logs/nginx.pid; error_log logs/error.log info;
    events { }
    http {
        access_log off;
        proxy_ssl_trusted_certificate %%FILES%%/root.pem;
        proxy_ssl_name localhost;
        upstream kept { server unix:%%PREFIX%%/upstream; keepalive 8; }
        server {
            listen unix:%%PREFIX%%/upstream ssl;
            ssl_certificate %%FILES%%/%%SHOWN%%.pem;
            ssl_certificate_key %%FILES%%/%%SHOWN%%.key;
            ssl_client_certificate %%FILES%%/root.pem;
            ssl_verify_client optional;
            return 200 'name=$ssl_server_name reused=$ssl_session_reused client=$ssl_client_s_dn requests=$connection_requests protocol=$ssl_protocol cipher=$ssl_cipher';
        }
        server {
            listen 127.0.0.1:%%PORT%%;
            %%SERVER%%
        }
    }";

struct World {
    server: Pushgate,
    files: tempfile::TempDir,
    root: Authority,
}

/// A server that `shown` is the certificate of; `server` is what stands in the proxy.
fn start(shown: impl FnOnce(&Authority) -> Identity, server: &str) -> World {
    let (files, root) = (tempfile::tempdir().unwrap(), Authority::new("Root"));
    std::fs::set_permissions(files.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(files.path().join("root.pem"), &root.pem).unwrap();
    shown(&root).write(files.path(), "shown");
    root.identity("anna", 2).write(files.path(), "anna");
    root.identity("bert", 3).write(files.path(), "bert");
    open_to_all(files.path());
    let folder = files.path().to_str().unwrap().to_owned();
    let server = Pushgate::start(&CONFIG.replace("%%SERVER%%", server), &[("FILES", &folder), ("SHOWN", "shown")]);
    World { server, files, root }
}

/// Keys that variables name are read by the worker, which may be `nobody`.
fn open_to_all(folder: &Path) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    }
}

impl World {
    fn get(&self, target: &str) -> String {
        let answer = http::get(self.server.port(), target);
        if answer.status == 200 { answer.body } else { answer.status.to_string() }
    }

    /// A part of what the server behind the proxy saw.
    fn seen(&self, target: &str, part: &str) -> String {
        let answer = self.get(target);
        let found = answer.split(' ').find_map(|word| word.strip_prefix(part)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{target}: no {part} in {answer}")).to_owned()
    }
}

const VERIFIED: &str = "proxy_ssl_verify on;
    location / { proxy_pass https://kept; }
    location /another { proxy_ssl_name another.example; proxy_pass https://kept; }
    location /deep { proxy_ssl_verify_depth 2; proxy_pass https://kept; }
    location /flat { proxy_ssl_verify_depth 0; proxy_pass https://kept; }
    location /believing { proxy_ssl_verify off; proxy_pass https://kept; }";

#[track_caller]
fn refused(world: &World, target: &str, why: &str) {
    assert_eq!(world.get(target), "502");
    world.server.until_logged(&[
        "[error]",
        &format!("{why} while SSL handshaking to upstream"),
        &format!("GET {target} "),
    ]);
}

#[test]
fn a_good_certificate_is_believed_under_its_name() {
    let world = start(|root| root.identity("localhost", 1), VERIFIED);
    assert!(world.get("/").starts_with("name= "));
    refused(&world, "/another", "upstream SSL certificate does not match \"another.example\"");
}

#[test]
fn a_strangers_certificate_is_not() {
    let world = start(|_| Authority::new("Stranger").identity("localhost", 1), VERIFIED);
    refused(&world, "/", "upstream SSL certificate verify error: (21:unable to verify the first certificate)");
    assert!(world.get("/believing").starts_with("name= "));
}

#[test]
fn one_that_is_over_is_not() {
    let world = start(|root| root.expired("localhost"), VERIFIED);
    refused(&world, "/", "upstream SSL certificate verify error: (10:certificate has expired)");
}

#[test]
fn a_chain_is_as_long_as_it_may_be() {
    let world = start(
        |root| {
            let first = root.deputy("First");
            let second = first.deputy("Second");
            let own = second.identity("localhost", 1);
            Identity { certificate: format!("{}{}{}", own.certificate, second.pem, first.pem), key: own.key }
        },
        VERIFIED,
    );
    let too_long = "upstream SSL certificate verify error: (20:unable to get local issuer certificate)";
    refused(&world, "/", too_long);
    refused(&world, "/flat", too_long);
    assert!(world.get("/deep").starts_with("name= "));
}

#[test]
fn a_server_is_asked_for_by_name_where_it_is_wanted() {
    let named = "proxy_ssl_server_name on;
        location / { proxy_pass https://kept; }
        location /own { proxy_ssl_name $arg_name; proxy_pass https://kept; }
        location /silent { proxy_ssl_server_name off; proxy_pass https://kept; }";
    let world = start(|root| root.identity("localhost", 1), named);
    assert_eq!(world.seen("/", "name"), "localhost");
    assert_eq!(world.seen("/silent", "name"), "");
    let fresh = start(|root| root.identity("localhost", 1), named);
    assert_eq!(fresh.seen("/own?name=app.example:8443", "name"), "app.example");
}

#[test]
fn sessions_are_gone_on_with() {
    let server = "location / { proxy_pass https://unix:%%PREFIX%%/upstream; }
        location /anew { proxy_ssl_session_reuse off; proxy_pass https://unix:%%PREFIX%%/upstream; }";
    let world = start(|root| root.identity("localhost", 1), server);
    assert_eq!(world.seen("/", "reused"), ".");
    // What a session is gone on with comes behind the answer.
    wait::until("a session is gone on with", || world.seen("/", "reused") == "r");
    assert_eq!((world.seen("/anew", "reused"), world.seen("/anew", "reused")), (".".into(), ".".into()));
}

const SHOWING: &str = "proxy_http_version 1.1; proxy_set_header Connection '';
    location / { proxy_pass https://kept; }
    location /fixed {
        proxy_ssl_certificate %%FILES%%/anna.pem; proxy_ssl_certificate_key %%FILES%%/anna.key; proxy_pass https://kept;
    }
    location /named {
        proxy_ssl_certificate $file; proxy_ssl_certificate_key %%FILES%%/$arg_who.key; proxy_pass https://kept;
        set $file ''; if ($arg_who) { set $file %%FILES%%/$arg_who.pem; }
    }
    location /cached {
        proxy_ssl_certificate %%FILES%%/$arg_who.pem; proxy_ssl_certificate_key %%FILES%%/$arg_who.key;
        proxy_ssl_certificate_cache max=2 valid=1h; proxy_set_header Connection close;
        proxy_pass https://unix:%%PREFIX%%/upstream;
    }
    location /read {
        proxy_ssl_certificate %%FILES%%/$arg_who.pem; proxy_ssl_certificate_key %%FILES%%/$arg_who.key;
        proxy_set_header Connection close; proxy_pass https://unix:%%PREFIX%%/upstream;
    }";

#[test]
fn certificates_are_shown_to_the_upstream() {
    let world = start(|root| root.identity("localhost", 1), SHOWING);
    let client = |target: &str| world.seen(target, "client");
    assert_eq!(client("/"), "");
    assert!(client("/fixed").starts_with("CN=anna"));
    for who in ["anna", "bert", "anna"] {
        assert!(
            client(&format!("/named?who={who}")).starts_with(&format!("CN={who}")),
            "a kept connection is {who}'s own"
        );
    }
    assert_eq!(client("/named"), "", "an empty name is none");
    assert_eq!(world.get("/named?who=nobody"), "500");
    world.server.until_logged(&["[error]", "cannot load certificate \"", "/nobody.pem\": BIO_new_file() failed"]);
    world.server.until_logged(&["/nobody.pem", " while connecting to upstream, client: "]);

    // The second request of one is on the connection of the first.
    wait::until("a connection is kept", || world.seen("/named?who=bert", "requests") != "1");
}

#[test]
fn certificates_that_variables_name_are_kept_where_that_is_wanted() {
    let world = start(|root| root.identity("localhost", 1), SHOWING);
    let client = |target: &str| world.seen(target, "client");
    assert!(client("/cached?who=anna").starts_with("CN=anna") && client("/read?who=anna").starts_with("CN=anna"));
    world.root.identity("carl", 4).write(world.files.path(), "anna");
    assert!(client("/cached?who=anna").starts_with("CN=anna"));
    assert!(client("/read?who=anna").starts_with("CN=carl"));
}

#[test]
fn versions_and_ciphers_are_those_that_are_wanted() {
    let server = "location /old {
            proxy_ssl_protocols TLSv1 TLSv1.2; proxy_ssl_ciphers RC4:ECDHE-ECDSA-AES128-GCM-SHA256:HIGH;
            proxy_pass https://unix:%%PREFIX%%/upstream;
        }
        location /new {
            proxy_ssl_conf_command MinProtocol TLSv1.3; proxy_ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256;
            proxy_pass https://unix:%%PREFIX%%/upstream;
        }";
    let world = start(|root| root.identity("localhost", 1), server);
    let seen = |target: &str| (world.seen(target, "protocol"), world.seen(target, "cipher"));
    assert_eq!(seen("/old"), ("TLSv1.2".to_owned(), "ECDHE-ECDSA-AES128-GCM-SHA256".to_owned()));
    assert_eq!(seen("/new"), ("TLSv1.3".to_owned(), "TLS_CHACHA20_POLY1305_SHA256".to_owned()));
}

#[test]
fn what_can_not_be_read_is_told_at_a_start() {
    let world = start(|root| root.identity("localhost", 1), "location / { return 204; }");
    let folder = world.files.path().display();
    let check = |directives: &str, expected: &str| {
        world.server.configure(&CONFIG.replace("%%SERVER%%", directives));
        let test = pushgate::command(&world.server.path("")).arg("-t").stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&test.stderr);
        assert!(!test.status.success() && said.contains(expected), "{directives}: {said}");
    };
    check(
        "proxy_ssl_password_file /no/where;",
        "[emerg] open() \"/no/where\" failed (2: No such file or directory) in ",
    );
    check(
        "location / { proxy_pass https://kept; proxy_ssl_certificate %%FILES%%/anna.pem; }",
        &format!("[emerg] no \"proxy_ssl_certificate_key\" is defined for certificate \"{folder}/anna.pem\""),
    );
    check(
        "location / { proxy_pass https://kept; proxy_ssl_certificate %%FILES%%/anna.pem;
            proxy_ssl_certificate_key %%FILES%%/bert.key; }",
        &format!("[emerg] SSL_CTX_use_PrivateKey(\"{folder}/bert.key\") failed (SSL: error:05800074:x509"),
    );
    check(
        "location / { proxy_pass https://kept; proxy_ssl_verify on; proxy_ssl_trusted_certificate %%FILES%%/no.pem; }",
        &format!("[emerg] SSL_CTX_load_verify_locations(\"{folder}/no.pem\") failed (SSL: error:80000002:system"),
    );
    check(
        "location / { proxy_pass https://kept; proxy_ssl_ciphers NOPE; }",
        "[emerg] SSL_CTX_set_cipher_list(\"NOPE\") failed (SSL: error:0A0000B9:SSL routines::no cipher match)",
    );
    check(
        "location / { proxy_pass https://kept; proxy_ssl_conf_command Color red; }",
        "[emerg] SSL_CONF_cmd(\"Color\", \"red\") failed (SSL: error:0A000182:SSL routines::unknown cmd name:cmd=Color)",
    );
    check("proxy_limit_rate fast;", "[emerg] \"proxy_limit_rate\" directive invalid value in ");
    check(
        "proxy_ssl_certificate_cache valid=1h;",
        "[emerg] \"proxy_ssl_certificate_cache\" must have the \"max\" parameter",
    );
}
