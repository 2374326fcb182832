//! TLS with OpenSSL's programs on the other side: certificates and keys as it makes them, its client, its responder.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::Write;
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
            return 200 '$ssl_client_verify|$ssl_client_s_dn';
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

/// Runs OpenSSL in a folder.
fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let output = command.args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a client with a certificate is answered: the body, or the title of the page.
fn ask(server: &Pushgate, folder: &Path, name: &str, arguments: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", server.port())]).current_dir(folder);
    command.args(["-cert", &format!("{name}.pem"), "-key", &format!("{name}.key")]).args(arguments.split_whitespace());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let answer = child.wait_with_output().unwrap().stdout;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {name}: {answer:?}"));
    body.split("<center>").nth(2).and_then(|rest| rest.split('<').next()).unwrap_or(body).to_owned()
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

/// Makes a key and a request for a certificate.
fn request(folder: &Path, name: &str) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(folder, &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
}

#[test]
fn keys_of_all_kinds() {
    let authority = Authority::new("Root");
    for key in ["rsa:2048", "ec -pkeyopt ec_paramgen_curve:P-384", "ec -pkeyopt ec_paramgen_curve:P-521", "ed25519"] {
        let files = folder(&authority, &authority.identity("localhost", 7));
        let path = files.path();
        let names = "-keyout localhost.key -out localhost.pem -subj /CN=localhost";
        openssl(path, &format!("req -x509 -newkey {key} -nodes -days 30 {names}"));
        std::fs::copy(path.join("localhost.pem"), path.join("root.pem")).unwrap();
        let server = start(path, "ssl_verify_client on; ssl_client_certificate %%FILES%%/root.pem;");
        for version in ["-tls1_2", "-tls1_3"] {
            assert_eq!(ask(&server, path, "localhost", version), "SUCCESS|CN=localhost", "{key} {version}");
        }
    }
}

#[test]
fn kinds_of_certificates_side_by_side() {
    let authority = Authority::new("Root");
    let files = folder(&authority, &authority.identity("localhost", 7));
    openssl(files.path(), "req -x509 -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.pem -days 2 -subj /CN=localhost");
    let both = start(
        files.path(),
        "ssl_certificate %%FILES%%/rsa.pem; ssl_certificate_key %%FILES%%/rsa.key; ssl_protocols TLSv1.2 TLSv1.3;",
    );
    let one = start(files.path(), "");
    let shake = |server: &Pushgate, arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &format!("127.0.0.1:{}", server.port())]);
        let output = command.args(arguments.split_whitespace()).stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    for (arguments, kind) in [
        ("-tls1_3", "Peer signature type: ECDSA"),
        ("-tls1_3 -sigalgs RSA-PSS+SHA256", "Peer signature type: RSA-PSS"),
        ("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "Peer signature type: RSA"),
    ] {
        let shown = shake(&both, arguments);
        assert!(shown.contains(kind), "{arguments}: {shown}");
    }
    // As OpenSSL's servers say it.
    let shown = shake(&one, "-tls1_3 -sigalgs RSA-PSS+SHA256");
    assert!(shown.contains("alert handshake failure"), "{shown}");
    one.until_logged(&["SSL_do_handshake() failed", "while SSL handshaking"]);
}

#[test]
fn certificates_of_the_first_version_and_those_that_could_sign() {
    let authority = Authority::new("Root");
    let files = folder(&authority, &authority.identity("localhost", 7));
    let path = files.path();
    std::fs::write(path.join("root.key"), &authority.key).unwrap();
    std::fs::write(path.join("signing.ext"), "basicConstraints=critical,CA:TRUE").unwrap();
    std::fs::write(path.join("server.ext"), "extendedKeyUsage=serverAuth\nbasicConstraints=CA:TRUE").unwrap();
    let sign = |name: &str, serial: u32, more: &str| {
        request(path, name);
        let by = format!("-CA root.pem -CAkey root.key -set_serial {serial} -days 30");
        openssl(path, &format!("x509 -req -in {name}.csr -out {name}.pem {by} {more}"));
    };
    sign("first", 5, "");
    sign("revoked", 0xbad, "");
    sign("signing", 6, "-extfile signing.ext");
    sign("unsuited", 8, "-extfile server.ext");
    for name in ["itself", "stranger"] {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30";
        openssl(path, &format!("req -x509 {key} -keyout {name}.key -out {name}.pem -subj /CN={name}"));
    }
    // As a server's own certificate, too.
    for kind in ["pem", "key"] {
        std::fs::copy(path.join(format!("first.{kind}")), path.join(format!("localhost.{kind}"))).unwrap();
    }
    let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
    std::fs::write(path.join("trusted.pem"), read("root.pem") + &read("itself.pem")).unwrap();
    std::fs::write(path.join("crl.pem"), authority.revoke(0xbad)).unwrap();
    let verify = "ssl_verify_client optional_no_ca; ssl_client_certificate %%FILES%%/trusted.pem;";
    let server = start(path, verify);
    for version in ["-tls1_2", "-tls1_3"] {
        assert_eq!(ask(&server, path, "first", version), "SUCCESS|CN=first");
        assert_eq!(ask(&server, path, "signing", version), "SUCCESS|CN=signing");
        assert_eq!(ask(&server, path, "itself", version), "SUCCESS|CN=itself");
        assert_eq!(ask(&server, path, "stranger", version), "FAILED:self-signed certificate|CN=stranger");
    }
    assert_eq!(ask(&server, path, "unsuited", ""), "The SSL certificate error");
    server.until_logged(&["client SSL certificate verify error: (26:unsuitable certificate purpose) while"]);
    let server = start(path, &format!("{verify} ssl_crl %%FILES%%/crl.pem;"));
    assert_eq!(ask(&server, path, "first", ""), "SUCCESS|CN=first");
    assert_eq!(ask(&server, path, "revoked", ""), "The SSL certificate error");
    server.until_logged(&["client SSL certificate verify error: (23:certificate revoked) while"]);
    assert_eq!(ask(&server, path, "itself", ""), "The SSL certificate error", "it has no list");
    server.until_logged(&["client SSL certificate verify error: (3:unable to get certificate CRL) while"]);
}

#[test]
fn locked_keys() {
    let authority = Authority::new("Root");
    let files = folder(&authority, &authority.identity("localhost", 7));
    let path = files.path();
    let fresh = "req -x509 -newkey rsa:2048 -days 30 -passout pass:secret -subj /CN=localhost";
    openssl(path, &format!("{fresh} -keyout pkcs8.key -out localhost.pem"));
    let lock = "-passin pass:secret -passout pass:secret -in pkcs8.key";
    for (name, how) in [("aes128", "rsa -aes128"), ("aes256", "rsa -aes256"), ("des3", "rsa -des3")] {
        openssl(path, &format!("{how} -traditional {lock} -out {name}.key"));
    }
    openssl(path, &format!("pkcs8 -topk8 -v2 des3 -v2prf hmacWithSHA1 {lock} -out oldest.key"));
    std::fs::write(path.join("passwords"), "wrong\n\nsecret\r\nother").unwrap();
    std::fs::write(path.join("wrong"), "wrong\n").unwrap();
    let own = "ssl_certificate_key %%FILES%%/localhost.key;";
    for name in ["pkcs8", "aes128", "aes256", "des3", "oldest"] {
        let key = format!("ssl_certificate_key %%FILES%%/{name}.key;");
        let config = CONFIG.replace(own, &key);
        let file = |name: &str| format!("ssl_password_file {}/{name};", path.display());
        let all = [("FILES", path.to_str().unwrap())];
        let server = Pushgate::start(&config.replace("%%SERVER%%", &file("passwords")), &all);
        assert!(stapled(&server).contains("Verify return code"), "{name}");
        // A key that no password opens.
        server.configure(&config.replace("%%SERVER%%", &file("wrong")));
        server.signal("HUP");
        let words =
            format!("cannot load certificate key \"{}/{name}.key\": PEM_read_bio_PrivateKey() failed", path.display());
        server.until_logged(&["[emerg]", &words, "bad decrypt"]);
        server.configure(&config.replace("%%SERVER%%", ""));
        server.signal("HUP");
        server.until_logged(&["[emerg]", &words, "bad password read"]);
    }
}

#[test]
fn a_responder_is_asked_about_clients() {
    let authority = Authority::new("Root");
    let responder = Responder::start(&authority, &[7, 8], &[9]);
    let files = folder(&authority, &authority.identity("localhost", 7));
    let path = files.path();
    let url = format!("http://127.0.0.1:{}", responder.port);
    authority.identity_of_responder("good", 8, &url).write(path, "good");
    authority.identity_of_responder("revoked", 9, &url).write(path, "revoked");
    authority.identity_of_responder("unknown", 10, &url).write(path, "unknown");
    authority.identity("silent", 7).write(path, "silent");
    let verify = "ssl_verify_client on; ssl_client_certificate %%FILES%%/root.pem; ssl_ocsp on;";
    let server = start(path, &format!("{verify} ssl_ocsp_cache shared:answers:1m;"));
    assert_eq!(ask(&server, path, "good", ""), "SUCCESS|CN=good,O=A\\, B");
    for (name, words) in [
        ("revoked", "certificate revoked"),
        ("unknown", "certificate status unknown"),
        ("silent", "certificate status request failed"),
    ] {
        assert_eq!(ask(&server, path, name, ""), "The SSL certificate error", "{name}");
        server.until_logged(&[&format!("client SSL certificate verify error: {words} while reading client request")]);
    }
    server.until_logged(&["[error]", "no OCSP responder URL in certificate"]);
    let named = start(path, &format!("{verify} ssl_ocsp_responder {url};"));
    assert_eq!(ask(&named, path, "silent", ""), "SUCCESS|CN=silent,O=A\\, B");
    // What is kept needs nobody to be asked.
    drop(responder);
    assert_eq!(ask(&server, path, "good", "-tls1_2"), "SUCCESS|CN=good,O=A\\, B");
    assert_eq!(ask(&server, path, "revoked", ""), "The SSL certificate error");
    assert_eq!(ask(&named, path, "silent", ""), "The SSL certificate error");
    named.until_logged(&["connect() failed (111: Connection refused) while requesting certificate status"]);
}
