//! The fuzzing client of Autobahn's test suite for websockets, against a location that echoes.
//!
//! Not among the tests that `cargo test` runs, as it needs Python 2.7, which Debian no longer has, and its sections on compression
//! take minutes: `./dev autobahn` runs it. `AUTOBAHN` names the cases (`1.* 12.1.3`), `PYTHON2` the interpreter.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::foreign;
use support::pushgate::Pushgate;

/// A channel for each connection, so that what a client publishes comes back to it alone.
const CONFIG: &str = r#"
daemon off;
error_log logs/error.log info;
pid logs/nginx.pid;
events { }
http {
    push_stream_shared_memory_size 256m;
    server {
        listen 127.0.0.1:%%PORT%%;
        client_max_body_size 16m;
        location / {
            push_stream_subscriber websocket;
            push_stream_channels_path $connection;
            push_stream_websocket_allow_publish on;
            push_stream_message_template "~text~";
            push_stream_subscriber_buffer_size 64m;
        }
    }
}
"#;

/// Cases that cannot pass.
const NOT_HERE: &[&str] = &[
    // They want an empty text back. In push_stream, and so here, an empty text publishes nothing.
    "1.1.1", "6.1.1", "6.1.2", "9.7.1",
    // They want the server to compress with a small window. It declines, as it may: all get the same bytes.
    "13.3.*", "13.5.*",
];

#[test]
fn the_fuzzing_client_finds_nothing() {
    let server = Pushgate::start(CONFIG, &[]);
    let python = python();
    let packages = foreign::pypi(&python, &["autobahntestsuite==0.8.2"]);
    let folder = tempfile::tempdir().unwrap();
    let cases = std::env::var("AUTOBAHN").unwrap_or_default();
    let cases = if cases.trim().is_empty() { "*" } else { &cases };
    let specification = json!({
        "outdir": folder.path(),
        "servers": [{ "agent": "pushgate", "url": format!("ws://127.0.0.1:{}/", server.port()) }],
        "cases": cases.split_whitespace().collect::<Vec<_>>(),
        "exclude-cases": NOT_HERE,
        "exclude-agent-cases": {},
    });
    let file = folder.path().join("specification.json");
    std::fs::write(&file, specification.to_string()).unwrap();
    // Its packages share a namespace by a `.pth` file, which `PYTHONPATH` would not read.
    let program = "import site, sys; site.addsitedir(sys.argv.pop(1))
from autobahntestsuite.wstest import run; run()";
    let status = Command::new(python)
        .args(["-c", program])
        .arg(packages)
        .args(["-m", "fuzzingclient", "-s"])
        .arg(file)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");

    let report = std::fs::read(folder.path().join("index.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let results = report["pushgate"].as_object().unwrap();
    assert!(!results.is_empty(), "{cases}: there are no such cases");
    let (passed, failed): (Vec<_>, Vec<_>) = results.iter().partition(|(_, result)| {
        let is_fine = |key: &str| ["OK", "NON-STRICT", "INFORMATIONAL"].contains(&result[key].as_str().unwrap());
        is_fine("behavior") && is_fine("behaviorClose")
    });
    assert!(failed.is_empty(), "{failed:#?}");
    println!("{} cases passed", passed.len());
}

/// A Python 2.7: what `PYTHON2` says, one of the path, or one of pyenv.
fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("PYTHON2") {
        return python.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let versions = std::fs::read_dir(home.join(".pyenv/versions")).into_iter().flatten().flatten();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join("python2.7")).collect::<Vec<_>>();
    candidates.extend(versions.map(|version| version.path().join("bin/python2.7")));
    let works = |python: &PathBuf| {
        Command::new(python).args(["-m", "pip", "--version"]).output().is_ok_and(|output| output.status.success())
    };
    let found = candidates.into_iter().find(works);
    found.expect("Autobahn's test suite needs a Python 2.7 with pip: name it by PYTHON2")
}
