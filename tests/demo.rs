//! `pushgate demo` as a user meets it: one command, a page in a real browser, Ctrl-C.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use support::browser::Browser;
use support::postgres::Session;
use support::{http, process, pushgate, wait};

/// A running demo, and what it printed.
struct Demo {
    process: Child,
    url: String,
    psql: String,
    _temporary: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// Two that start at once would both take the port that people expect.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Demo {
    fn start() -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let temporary = tempfile::tempdir().unwrap();
        std::fs::set_permissions(temporary.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut process = Command::new(pushgate::binary())
            .arg("demo")
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut told = |name: &str| {
            let line =
                lines.find_map(|line| line.unwrap().trim().strip_prefix(name).map(|rest| rest.trim().to_owned()));
            line.unwrap_or_else(|| panic!("the demo tells its {name}"))
        };
        let url = told("page");
        let psql = told("psql");
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, url, psql, _temporary: temporary, _alone: alone }
    }

    fn port(&self) -> u16 {
        self.url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap()
    }

    /// A session with its PostgreSQL, by the line that it prints.
    fn session(&self) -> Session {
        let port = self.psql.split("-p ").nth(1).unwrap().split(' ').next().unwrap();
        Session::connect(&format!("host=127.0.0.1 port={port} user=test dbname=test")).unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            process::signal(self.process.id(), "INT");
            self.process.wait().unwrap();
        }
    }
}

#[test]
fn the_page_shows_what_is_notified_published_and_sent() {
    let demo = Demo::start();
    wait::until("the demo answers", || std::net::TcpStream::connect(("127.0.0.1", demo.port())).is_ok());
    let session = demo.session();
    let mut browser = Browser::start();
    browser.resize(1280, 800);
    browser.open(&demo.url);
    browser.until("document.getElementById('psql').textContent.includes('-p ')");
    assert!(
        browser.eval("document.getElementById('curl').textContent").as_str().unwrap().contains("/publisher?id=news")
    );
    picture(&mut browser, "page");

    browser.eval("document.getElementById('toggle').click()");
    browser.until("document.getElementById('state').textContent === 'on news'");
    let says = |text: &str| format!("document.getElementById('messages').innerText.includes({text:?})");
    wait::until("the channel is listened to", || {
        session.notify("news", "from PostgreSQL");
        browser.eval(&says("from PostgreSQL")) == true
    });
    assert_eq!(http::post(demo.port(), "/publisher?id=news", "from HTTP").status, 200);
    browser.until(&says("from HTTP"));
    browser.eval("document.getElementById('text').value = 'hi'; document.getElementById('submit').click()");
    // What /publish answers is a time. A notification that was sent once more may come before it.
    let times =
        "[...document.querySelectorAll('#messages li')].filter(li => /[+:]/.test(li.lastChild.textContent)).length";
    browser.until(&format!("{times} === 1"));
    picture(&mut browser, "joined");

    browser.resize(390, 844);
    let width = browser.eval("document.documentElement.scrollWidth").as_u64().unwrap();
    assert!(width <= 390, "the page is {width} wide at a phone's 390");
    picture(&mut browser, "phone");

    browser.eval("document.getElementById('toggle').click()");
    browser.until("document.getElementById('state').textContent === 'not joined'");
}

#[test]
fn ctrl_c_leaves_nothing_running() {
    let mut demo = Demo::start();
    let folder = demo._temporary.path().join(format!("pushgate-demo-{}", demo.process.id()));
    wait::until("the demo answers", || std::net::TcpStream::connect(("127.0.0.1", demo.port())).is_ok());
    let postmaster = postmaster(&folder);
    process::signal(demo.process.id(), "INT");
    assert!(demo.process.wait().unwrap().success());
    wait::until("PostgreSQL has ended", || !process::runs(postmaster));
    assert!(!folder.exists(), "its folder is gone");
}

fn postmaster(folder: &Path) -> u32 {
    let text = std::fs::read_to_string(folder.join("postgres/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

/// Keeps a picture where `PUSHGATE_PICTURES` says, for people to look at.
fn picture(browser: &mut Browser, name: &str) {
    let png = browser.screenshot();
    assert!(png.starts_with(b"\x89PNG"));
    if let Some(folder) = std::env::var_os("PUSHGATE_PICTURES") {
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), png).unwrap();
    }
}
