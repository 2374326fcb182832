//! A real headless Chromium, spoken to by its DevTools protocol.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::stream::MaybeTlsStream;
use tokio_tungstenite::tungstenite::{Message, WebSocket, connect};

use super::wait;

/// A browser with one page.
pub(crate) struct Browser {
    _process: Process,
    page: WebSocket<MaybeTlsStream<TcpStream>>,
    next: u64,
    _profile: tempfile::TempDir,
}

/// Ends with whoever holds it, also when starting goes wrong half-way.
struct Process(Child);

impl Browser {
    /// Starts it, with an empty profile.
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let process = Command::new(program())
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut process = Process(process);
        let mut lines = BufReader::new(process.0.stderr.take().unwrap()).lines();
        let browser = lines
            .find_map(|line| Some(line.ok()?.strip_prefix("DevTools listening on ")?.to_owned()))
            .expect("chromium tells its address");
        // It goes on talking; a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let open = |url: &str| connect(url).unwrap().0;
        let mut this = Self { _process: process, page: open(&browser), next: 0, _profile: profile };
        let targets = this.call("Target.getTargets", &json!({}));
        let page = targets["targetInfos"].as_array().unwrap().iter().find(|target| target["type"] == "page").unwrap();
        let (address, _) = browser.split_once("/devtools/").unwrap();
        this.page = open(&format!("{address}/devtools/page/{}", page["targetId"].as_str().unwrap()));
        this
    }

    /// Opens a page and waits until it is there.
    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": url }));
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The window's size.
    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What an expression is in the page.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let answer = self.call(
            "Runtime.evaluate",
            &json!({ "expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true }),
        );
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str) {
        wait::until(expression, || self.eval(expression) == true);
    }

    /// A picture of the page, as PNG.
    pub(crate) fn screenshot(&mut self) -> Vec<u8> {
        let answer = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let data = answer["data"].as_str().unwrap();
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap()
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.next += 1;
        let id = self.next;
        let text = json!({ "id": id, "method": method, "params": params }).to_string();
        self.page.send(Message::text(text)).unwrap();
        loop {
            let Message::Text(text) = self.page.read().unwrap() else { continue };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.exists())
        .expect("chromium is installed: ./dev test installs it")
}
