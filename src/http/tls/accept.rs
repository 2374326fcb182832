//! The handshake: who is asked for decides how it goes on.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::server::{Accepted, Acceptor, ServerConfig};
use rustls_pki_types::UnixTime;

use super::{Agreed, Facts, Security, ServerSide};
use crate::compile::{Compiled, Listener, ServerId};
use crate::http::connection::Connection;
use crate::http::request::Request;
use crate::http::wire::head::parser::{HeadOptions, HeadParser, Progress};
use crate::server::clock;
use crate::server::log::{Level, LogSettings, shown};
use crate::tls::channel::Channel;

/// A record of a handshake.
const HANDSHAKE: u8 = 0x16;

/// The longest beginning of a handshake that is read.
const MAX_HELLO: usize = 64 * 1024;

/// What is logged of a client that has not said anything.
const CLOSED: &str = "client closed connection";

/// Why a handshake came to nothing.
enum Failure {
    /// The connection ended, or the time did: nobody need know.
    Gone,
    /// The client or the server did not like it.
    Refused(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.into_inner() {
            Some(inner) if inner.is::<rustls::Error>() => {
                Self::Refused(format!("SSL_do_handshake() failed (SSL: {inner})"))
            }
            _ => Self::Gone,
        }
    }
}

/// Makes the handshake; `false`: there is no connection any more. A client that does not begin one is taken for one of
/// plain HTTP, and told so when it has asked for something.
pub(in crate::http) async fn accept(
    connection: &Rc<Connection>,
    compiled: &Arc<Compiled>,
    listener: &Listener,
    patience: Duration,
) -> bool {
    match clock::timeout(patience, shake(connection, compiled, listener)).await {
        Some(Ok(())) => true,
        Some(Err(Failure::Refused(reason))) => {
            let settings = compiled.settings(compiled.server_location(listener.default_server)).get::<LogSettings>();
            if settings.wants(Level::Info) {
                let (peer, address) = (connection.peer.text(), &listener.address);
                let message = format!("{reason} while SSL handshaking, client: {peer}, server: {address}");
                settings.write(Level::Info, connection.number, &message);
            }
            false
        }
        Some(Err(Failure::Gone)) | None => false,
    }
}

async fn shake(connection: &Rc<Connection>, compiled: &Arc<Compiled>, listener: &Listener) -> Result<(), Failure> {
    let Some((begun, accepted)) = hello(connection).await? else {
        set(connection, Security::Missing);
        return Ok(());
    };
    let name = accepted.client_hello().server_name().map(|name| name.to_ascii_lowercase().into_boxed_str());
    let found = name.as_ref().and_then(|name| listener.names.find(&Bytes::copy_from_slice(name.as_bytes())));
    let server = found.as_ref().map_or(listener.default_server, |(server, _)| *server);
    let facts = Rc::new(Facts {
        server_name: name,
        is_known: found.is_some(),
        offered: offered(compiled, &accepted),
        agreed: OnceCell::new(),
    });
    set(connection, Security::Tls(Rc::clone(&facts)));
    drop(accepted);
    // A server without a certificate uses the default one's, as in nginx.
    let side = |server: ServerId| compiled.server(server).tls.as_ref();
    let Some(side) = side(server).or_else(|| side(listener.default_server)) else { return Err(Failure::Gone) };
    if side.rejects {
        refuse(connection, UNRECOGNIZED_NAME).await;
        return Err(Failure::Refused("handshake rejected".to_owned()));
    }
    side.staples.iter().for_each(|staple| staple.refresh(compiled, server));
    let config = match config(side, connection, compiled, server) {
        Ok(config) => config,
        Err(reason) => {
            refuse(connection, INTERNAL_ERROR).await;
            let settings = compiled.settings(compiled.server_location(server)).get::<LogSettings>();
            settings.write(Level::Error, connection.number, &format!("{reason} while SSL handshaking"));
            return Err(Failure::Gone);
        }
    };
    let channel = Channel::new(config, begun).map_err(|error| Failure::from(io::Error::other(error)))?;
    let stream = connection.stream()?;
    stream.borrow_mut().secure(channel);
    let mut early = BytesMut::new();
    poll_fn(|cx| stream.borrow_mut().poll_shake(cx, &mut early)).await?;
    connection.put_back(&early);
    let agreed = stream.borrow().channel().map(|channel| Agreed::of(channel.agreed()));
    if let Some(mut agreed) = agreed {
        let now = UnixTime::since_unix_epoch(clock::unix_time());
        agreed.verdict = match (side.trust.judge(&agreed.chain, now), &side.revocation) {
            (Ok(links), Some(revocation)) => revocation.judge(&links, compiled, server).await,
            (judged, _) => judged.map(|_| ()),
        };
        // Nobody has set it before.
        drop(facts.agreed.set(agreed));
    }
    Ok(())
}

fn set(connection: &Connection, security: Security) {
    // The handshake comes first and once.
    drop(connection.security.set(security));
}

/// Reads the client's first message, with the bytes it came in. `None`: the client does not speak TLS.
async fn hello(connection: &Connection) -> Result<Option<(Vec<u8>, Accepted)>, Failure> {
    let stream = connection.stream()?;
    // What came with the PROXY protocol's header.
    let mut begun = connection.take_buffered();
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        if begun.len() == fed {
            let read = poll_fn(|cx| {
                let mut stream = stream.borrow_mut();
                ready!(stream.poll_readable(cx))?;
                begun.reserve(2048);
                stream.poll_fill(cx, &mut begun)
            });
            if read.await? == 0 {
                return Err(if begun.is_empty() { Failure::Refused(CLOSED.to_owned()) } else { Failure::Gone });
            }
        }
        // The highest bit begins a handshake of SSL 2, which is none that goes on.
        if begun[0] != HANDSHAKE && begun[0] & 0x80 == 0 {
            connection.put_back(&begun);
            return Ok(None);
        }
        let mut news = &begun[fed..];
        while !news.is_empty() {
            match acceptor.read_tls(&mut news) {
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => {
                    return Err(Failure::Refused("SSL_do_handshake() failed (SSL: too long a beginning)".to_owned()));
                }
            }
        }
        fed = begun.len();
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Some((begun.to_vec(), accepted))),
            Ok(None) if fed < MAX_HELLO => {}
            Ok(None) => return Err(Failure::Gone),
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                // Writing into memory does not fail.
                drop(alert.write_all(&mut bytes));
                refuse(connection, if bytes.is_empty() { UNEXPECTED_MESSAGE } else { &bytes }).await;
                return Err(Failure::Refused(format!("SSL_do_handshake() failed (SSL: {error})")));
            }
        }
    }
}

/// The alert for what is no beginning of a handshake.
const UNEXPECTED_MESSAGE: &[u8] = &[0x15, 3, 3, 0, 2, 2, 10];

/// The alert for a name that no server has.
const UNRECOGNIZED_NAME: &[u8] = &[0x15, 3, 3, 0, 2, 2, 112];

/// The alert for a fault of ours.
const INTERNAL_ERROR: &[u8] = &[0x15, 3, 3, 0, 2, 2, 80];

/// Sends an alert in the clear, and reads what the client still has to say: a reset would take the alert away from it.
async fn refuse(connection: &Connection, alert: &[u8]) {
    if connection.try_send(alert).is_ok() && connection.shutdown_write().is_ok() {
        const MOMENT: Duration = Duration::from_secs(1);
        while matches!(connection.fill(MOMENT).await, Ok(1..)) {
            let length = connection.buffered().len();
            connection.consume(length);
        }
    }
}

/// What the client offered, if somebody wants to know.
fn offered(
    compiled: &Compiled,
    accepted: &Accepted,
) -> Option<Box<(Vec<rustls::CipherSuite>, Vec<rustls::NamedGroup>)>> {
    compiled.reads_offers.then(|| {
        let hello = accepted.client_hello();
        Box::new((hello.cipher_suites().to_vec(), hello.named_groups().unwrap_or_default().to_vec()))
    })
}

/// How the handshake goes on: the server's own way, or with certificates that are named by this connection.
fn config(
    side: &ServerSide,
    connection: &Rc<Connection>,
    compiled: &Arc<Compiled>,
    server: ServerId,
) -> Result<Arc<ServerConfig>, String> {
    if let Some(config) = &side.config {
        return Ok(Arc::clone(config));
    }
    // nginx makes a request too, which has nothing but its connection.
    let request = HeadParser::new().parse(b"GET / HTTP/1.0\r\n\r\n", &HeadOptions::of(heads(compiled, server)));
    let Progress::Complete { head, .. } = request else { return Err("no request could be made".to_owned()) };
    let request = Request::new(Rc::clone(connection), Arc::clone(compiled), server, head, clock::now());
    let names =
        side.variable.iter().map(|(certificate, key)| (request.eval(certificate).to_vec(), request.eval(key).to_vec()));
    let names: Vec<_> = names.collect();
    if let Some((name, _)) = names.iter().find(|(name, _)| name.contains(&0)) {
        return Err(format!("cannot load certificate \"{}\"", shown(name)));
    }
    side.with(names)
}

fn heads(compiled: &Compiled, server: ServerId) -> &crate::http::settings::Heads {
    compiled.settings(compiled.server_location(server)).get()
}
