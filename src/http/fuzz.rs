//! For the fuzzer: blocks of rewriting and variables of any form, and whatever a client sends them.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use super::idle::Idle;
use super::wire::date::DateCache;
use super::{Connection, Peer, Site, serve};
use crate::compile::Compiled;
use crate::config::{Config, LoadOptions, Severity, load_text};

/// An exchange that is not over by then hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Directives of `http`, directives of a `server` in it, and what a client sends. Whatever loads answers, and comes to an end.
pub fn fuzz_site(http: &[u8], server: &[u8], sent: &[u8]) {
    let text = [
        b"error_log /dev/null crit; events {} http { access_log off; lingering_close off; keepalive_timeout 1s; "
            .as_slice(),
        http,
        b"\n server { listen 127.0.0.1:80; server_name a ~^(?<name>.)b$;",
        server,
        b"\n } }",
    ];
    let options = LoadOptions { prefix: "/nonexistent".into(), offline: true, ..LoadOptions::default() };
    let config = load_text(options, &text.concat());
    if is_wrong(&config) {
        return;
    }
    let compiled = Compiled::new(config);
    if !is_wrong(&compiled.config) {
        RUNTIME.with(|runtime| runtime.block_on(LocalSet::new().run_until(exchange(Arc::new(compiled), sent))));
    }
}

fn is_wrong(config: &Config) -> bool {
    config.built.diagnostics.iter().any(|finding| finding.severity >= Severity::Error)
}

/// Sends, and reads answers until the connection ends.
async fn exchange(compiled: Arc<Compiled>, sent: &[u8]) {
    let Ok((mut client, stream)) = UnixStream::pair() else { return };
    let address = Arc::new(compiled.listeners[0].address.clone());
    let site = Rc::new(Site {
        compiled: {
            let compiled = Arc::clone(&compiled);
            Box::new(move || Arc::clone(&compiled))
        },
        idle: Idle::default(),
        is_closing: Box::new(|| false),
        date: RefCell::new(DateCache::default()),
        scratch: RefCell::default(),
    });
    let peer = Peer::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let connection = Rc::new(Connection::new(1, stream.into(), peer, None, 0));
    let server = spawn_local(serve(site, connection, address, compiled));
    let (mut from, mut to) = client.split();
    let talk = async {
        let send = async {
            // It may have been closed, with good reason.
            drop(to.write_all(sent).await);
            drop(to.shutdown().await);
        };
        let mut answers = Vec::new();
        let (_, read) = tokio::join!(send, from.read_to_end(&mut answers));
        read
    };
    // A reset is an end too.
    let _read = timeout(PATIENCE, talk).await.expect("an exchange that hangs");
    server.await.expect("a panic");
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
}
