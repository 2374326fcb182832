//! The PROXY protocol's header, before anything else of a connection.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::wire::proxy_protocol::{self, Proxied, Step};
use crate::compile::{Compiled, Listener};
use crate::server::clock;
use crate::server::log::{Level, LogSettings, shown};

impl Connection {
    /// What a balancer said of the connection.
    pub fn proxied(&self) -> Option<&Proxied> {
        self.proxied.get().map(Rc::as_ref)
    }
}

/// Reads the header, and says how much of the time is left; `None`: there is no connection any more.
// Differs from nginx: the header may come in pieces.
pub(super) async fn accept(
    connection: &Connection,
    compiled: &Arc<Compiled>,
    listener: &Listener,
    patience: Duration,
) -> Option<Duration> {
    let until = clock::now().after(patience);
    let mut is_all = false;
    loop {
        let step = proxy_protocol::read(&connection.buffered(), is_all);
        match step {
            Step::More => is_all = connection.fill(until.since(clock::now())).await.ok()? == 0,
            Step::Header(length, proxied) => {
                connection.consume(length);
                if let Some(proxied) = proxied {
                    // The header comes first and once.
                    drop(connection.proxied.set(Rc::new(proxied)));
                }
                return Some(until.since(clock::now()));
            }
            Step::Bad(_) if connection.buffered().is_empty() => return None,
            Step::Bad(reason) => {
                let settings =
                    compiled.settings(compiled.server_location(listener.default_server)).get::<LogSettings>();
                let (reason, client, address) = (shown(reason.as_bytes()), connection.peer.text(), &listener.address);
                let message = format!("{reason} while reading PROXY protocol, client: {client}, server: {address}");
                settings.write(Level::Error, connection.number, &message);
                return None;
            }
        }
    }
}
