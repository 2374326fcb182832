//! Whether certificates are revoked: OpenSSL's responder, and OpenSSL's client.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use support::dnsmasq::Dnsmasq;
use support::ocsp::Responder;
use support::pushgate::Pushgate;
use support::tls::{Authority, Identity};

/// `%%SERVER%%` is the test's own.
const CONFIG: &str = "daemon off;
    worker_processes 1;
    pid logs/nginx.pid;
    error_log logs/error.log info;
    events { }
    http {
        access_log off;
        resolver_timeout 2s;
        server {
            listen 127.0.0.1:%%PORT%% ssl;
            ssl_certificate %%FILES%%/localhost.pem;
            ssl_certificate_key %%FILES%%/localhost.key;
            %%SERVER%%
            return 200 '$ssl_client_verify';
        }
    }";

/// A folder with a server's certificate and that of who vouches for it.
fn folder(authority: &Authority, identity: &Identity) -> tempfile::TempDir {
    let files = tempfile::tempdir().unwrap();
    std::fs::set_permissions(files.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(files.path().join("root.pem"), &authority.pem).unwrap();
    identity.write(files.path(), "localhost");
    files
}

fn start(files: &Path, server: &str) -> Pushgate {
    let files = files.to_str().unwrap();
    Pushgate::start(&CONFIG.replace("%%SERVER%%", server), &[("FILES", files)])
}

/// What OpenSSL's client sees of the responder's answer.
fn stapled(server: &Pushgate) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-status", "-connect", &format!("127.0.0.1:{}", server.port())]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.contains("OCSP response:"), "no handshake: {output}");
    output
}

fn until_stapled(server: &Pushgate) {
    support::wait::until("there is an answer", || stapled(server).contains("OCSP Response Status: successful"));
    let shown = stapled(server);
    assert!(shown.contains("Cert Status: good") && shown.contains("Serial Number: 07"), "{shown}");
}

#[test]
fn a_responder_is_asked_about_the_servers_certificate() {
    let authority = Authority::new("Root");
    let responder = Responder::start(&authority, &[7], &[]);
    let dns = Dnsmasq::start(60, &[("ocsp.test", "127.0.0.1")]);
    // The certificate's own responder, by a name server; and the configuration's.
    let url = format!("http://ocsp.test:{}", responder.port);
    let named = authority.identity_of_responder("localhost", 7, &url);
    let plain = authority.identity("localhost", 7);
    let trusted = "ssl_stapling on; ssl_trusted_certificate %%FILES%%/root.pem;";
    let own = format!("ssl_stapling_responder http://127.0.0.1:{}/;", responder.port);
    let by_name = format!("resolver 127.0.0.1:{};", dns.port());
    for (identity, settings) in [(&named, by_name), (&plain, format!("{own} ssl_stapling_verify on;"))] {
        let files = folder(&authority, identity);
        let server = start(files.path(), &format!("{trusted} {settings}"));
        assert!(stapled(&server).contains("OCSP response: no response sent"), "the first handshake does not wait");
        until_stapled(&server);
    }
}

#[test]
fn a_bad_answer_is_not_shown() {
    let authority = Authority::new("Root");
    let revoking = Responder::start(&authority, &[], &[7]);
    let stranger = Responder::start(&Authority::new("Root"), &[7], &[]);
    let files = folder(&authority, &authority.identity("localhost", 7));
    let gone = support::ports::Port::free();
    for (port, words) in [
        (revoking.port, "certificate status \"revoked\" in the OCSP response while requesting certificate status"),
        (stranger.port, "OCSP_basic_verify() failed while requesting certificate status"),
        (gone.number, "connect() failed (111: Connection refused) while requesting certificate status"),
    ] {
        let settings = "ssl_stapling on; ssl_stapling_verify on; ssl_trusted_certificate %%FILES%%/root.pem;";
        let server = start(files.path(), &format!("{settings} ssl_stapling_responder http://127.0.0.1:{port};"));
        stapled(&server);
        let certificate = format!("certificate: \"{}\"", files.path().join("localhost.pem").display());
        server.until_logged(&["[error]", words, "responder: 127.0.0.1", &certificate]);
        assert!(stapled(&server).contains("OCSP response: no response sent"));
    }
}

#[test]
fn a_start_says_why_nobody_is_asked() {
    let authority = Authority::new("Root");
    let ask = "ssl_stapling on;";
    let trusted = "ssl_stapling on; ssl_trusted_certificate %%FILES%%/root.pem;";
    let plain = authority.identity("localhost", 7);
    let secure = authority.identity_of_responder("localhost", 7, "https://ocsp.example/");
    for (identity, settings, words) in [
        (&plain, ask, "issuer certificate not found for certificate \"%%FILES%%/localhost.pem\""),
        (&plain, trusted, "no OCSP responder URL in the certificate \"%%FILES%%/localhost.pem\""),
        (
            &secure,
            trusted,
            "invalid URL prefix in OCSP responder \"https://ocsp.example/\" in the certificate \"%%FILES%%/localhost.pem\"",
        ),
    ] {
        let files = folder(&authority, identity);
        let server = start(files.path(), settings);
        let words = words.replace("%%FILES%%", files.path().to_str().unwrap());
        let said = server.read("logs/startup.txt");
        assert!(said.contains(&format!("[warn] \"ssl_stapling\" ignored, {words}")), "{words}: {said}");
    }
}
