//! What the servers of plain requests have inside `http`, and their files.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::server::Side;

/// A body of an answer.
pub(crate) const KILOBYTE: &str = match std::str::from_utf8(&[b'k'; 1024]) {
    Ok(text) => text,
    Err(_) => "",
};

/// Prefixes in [`locations`].
pub(crate) const PREFIXES: u64 = 10_000;

/// Expressions in [`locations`].
pub(crate) const EXPRESSIONS: u64 = 100;

/// Answers with a kilobyte.
pub(crate) fn upstream(listen: SocketAddr) -> String {
    format!("server {{ listen {listen}; location / {{ return 200 {KILOBYTE}; }} }}")
}

/// Passes requests on, over connections that are kept.
pub(crate) fn proxy(upstream: SocketAddr, listen: SocketAddr) -> String {
    format!(
        r#"upstream back {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen {listen};
        location / {{ proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}"#
    )
}

/// Files. nginx 1.22 speaks nothing but HTTP/2 where it does on a plain connection.
pub(crate) fn http2(side: Side, prefix: &Path, listen: SocketAddr) -> String {
    let prefix = prefix.display();
    match side {
        Side::Pushgate => format!("server {{ listen {listen}; http2 on; root {prefix}; }}"),
        Side::Peer => format!("sendfile on; server {{ listen {listen} http2; root {prefix}; }}"),
    }
}

/// Files, sent by the kernel; `/cached/` has them kept open.
pub(crate) fn files(prefix: &Path, listen: SocketAddr) -> String {
    let prefix = prefix.display();
    format!(
        "sendfile on; server {{ listen {listen}; root {prefix}; location = /ok {{ return 200 ok; }}
        location /cached/ {{ alias {prefix}/; open_file_cache max=1000; }} }}"
    )
}

/// The same by TLS, with the [`certificate`].
pub(crate) fn secure(prefix: &Path, listen: SocketAddr) -> String {
    let root = prefix.display();
    format!(
        "sendfile on; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {root}/certificate; ssl_certificate_key {root}/key;
    server {{ listen {listen} ssl; root {root}; location = /ok {{ return 200 ok; }} }}"
    )
}

/// How a [`certificate`]'s key is made.
#[derive(Clone, Copy)]
pub(crate) enum Key {
    /// ECDSA on P-256.
    P256,
    /// RSA of 2048 bits.
    Rsa,
}

/// Puts a certificate of its own making into the folder.
pub(crate) fn certificate(folder: &Path, key: Key) -> Result<(), Box<dyn Error>> {
    let key: &[&str] = match key {
        Key::P256 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        Key::Rsa => &["-newkey", "rsa:2048"],
    };
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=bench"]).args(key);
    command.arg("-keyout").arg(folder.join("key")).arg("-out").arg(folder.join("certificate"));
    let said = command.output().map_err(|error| format!("openssl: {error}"))?;
    match said.status.success() {
        true => Ok(()),
        false => Err(format!("openssl: {}", String::from_utf8_lossy(&said.stderr)).into()),
    }
}

/// A file of a kilobyte and one of a thousand.
pub(crate) fn write_files(folder: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let large = KILOBYTE.repeat(1024).into_bytes();
    fs::write(folder.join("file"), KILOBYTE)?;
    fs::write(folder.join("large"), &large)?;
    Ok(large)
}

/// Many locations, which all say the same but `/generation`, that says which configuration this is.
pub(crate) fn locations(generation: u64, listen: SocketAddr) -> String {
    let mut text = format!("server {{ listen {listen};\n");
    text += &format!("location = /generation {{ return 200 {generation}; }}\nlocation = /ok {{ return 200 ok; }}\n");
    for number in 0..PREFIXES {
        // Writing to a string does not fail.
        writeln!(text, "location {} {{ return 200 ok; }}", prefix(number)).ok();
    }
    for number in 0..EXPRESSIONS {
        let ends = ["php", "jpe?g", "(gif|png)", "[ch]ss"][usize::try_from(number % 4).unwrap_or(0)];
        writeln!(text, r"location ~ ^/.*/app{number}/[^/]+\.{ends}$ {{ return 200 ok; }}").ok();
    }
    text + "}"
}

/// The name of a prefix, of several depths and lengths.
fn prefix(number: u64) -> String {
    match number % 3 {
        0 => format!("/shop/{number}/"),
        1 => format!("/shop/{}/articles/of-a-kind-{number}", number / 7),
        _ => format!("/api/v{}/users/{number}", number % 5),
    }
}

/// A path for each number, spread over all prefixes; one in ten is found by an expression.
pub(crate) fn path(number: u64) -> String {
    let spread = number.wrapping_mul(7919);
    match number % 10 {
        9 => format!("/sites/{}/app{}/index.php", spread % 1000, spread / 10 % (EXPRESSIONS / 4) * 4),
        _ => format!("{}/page", prefix(spread % PREFIXES)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn prefixes_are_different() {
        let names: HashSet<String> = (0..PREFIXES).map(prefix).collect();
        assert_eq!(names.len() as u64, PREFIXES);
    }

    #[test]
    fn a_certificate_is_made() {
        let folder = tempfile::tempdir().unwrap();
        for key in [Key::P256, Key::Rsa] {
            certificate(folder.path(), key).unwrap();
            let text = fs::read_to_string(folder.path().join("certificate")).unwrap();
            assert!(text.starts_with("-----BEGIN CERTIFICATE-----"), "{text}");
        }
    }
}
