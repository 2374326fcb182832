//! How connections end: in the middle of an answer, in a wait, or with a client that still sends something.

use std::io;
use std::time::Duration;

use super::connection::Connection;
use super::request::Request;
use super::settings::{Lingering, Sending};
use crate::compile::{Compiled, Listener, ServerId};
use crate::server::clock;
use crate::server::log::{Level, LogSettings};

/// Logs that a connection ended while it waited for a request.
pub(super) fn left(connection: &Connection, compiled: &Compiled, listener: &Listener) {
    let settings = compiled.settings(compiled.server_location(listener.default_server)).get::<LogSettings>();
    let is_over = connection.has_waited_enough();
    let is_first = connection.requests.get() == 0;
    if !settings.wants(Level::Info) || (is_over && !is_first) || connection.is_given_up.get() {
        return;
    }
    let client = connection.peer.text();
    let message = if is_first {
        let what = if is_over { "client timed out (110: Connection timed out)" } else { "client closed connection" };
        format!("{what} while waiting for request, client: {client}, server: {}", listener.address)
    } else {
        format!("client {client} closed keepalive connection")
    };
    settings.write(Level::Info, connection.number, &message);
}

/// Notes that an answer did not reach its client.
pub(super) fn lost(request: &mut Request, error: &io::Error) {
    request.sent.is_cut = true;
    if error.get_ref().is_some_and(|inner| inner.is::<super::response::AlreadyTold>()) {
        return;
    }
    let told = match error.kind() {
        io::ErrorKind::TimedOut => {
            reset_timed_out(request);
            "client timed out (110: Connection timed out)".to_owned()
        }
        // So the kernel calls a client that had said that it sends no more.
        io::ErrorKind::BrokenPipe => "client prematurely closed connection".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::NotConnected => {
            format!("client prematurely closed connection ({})", crate::server::sockets::reason(error))
        }
        _ => {
            let message = format!("the answer breaks off ({})", crate::server::sockets::reason(error));
            return request.log(Level::Error, &format!("{message} while sending response to client"));
        }
    };
    let doing = if request.upstream_record().is_some() { "sending to client" } else { "sending response to client" };
    request.log(Level::Info, &format!("{told} while {doing}"));
}

/// Has the connection of a client that is too slow, or is to get nothing, end in a reset where the settings say so.
pub(super) fn reset_timed_out(request: &Request) {
    if *request.settings::<Sending>().reset_timed_out {
        request.connection.reset_at_end();
    }
}

/// How the connection ends: without waiting where the client is known to send nothing.
pub(super) fn lingers(request: &Request, has_unread: bool) -> Lingering {
    match request.settings::<Sending>().lingering_close {
        Lingering::On if !has_unread && request.connection.buffered().is_empty() => Lingering::Off,
        lingering => lingering,
    }
}

/// Reads what the client still sends, for a while, so that it gets the answer before the connection is reset: in any case
/// the rest of a body, and then what comes behind it.
pub(super) async fn discard(
    connection: &Connection,
    compiled: &Compiled,
    server: ServerId,
    linger: Lingering,
    body: Option<u64>,
) {
    let settings = compiled.settings(compiled.server_location(server)).get::<Sending>();
    let until = clock::now().after(*settings.lingering_time);
    let more = async || {
        let time = until.since(clock::now()).min(*settings.lingering_timeout);
        time != Duration::ZERO && matches!(connection.fill(time).await, Ok(1..))
    };
    // One that still has to send a body is left in peace, as by nginx; any other is told at once that this is the end.
    if let Some(mut left) = body {
        loop {
            let buffered = connection.buffered().len();
            let length = usize::try_from(left).map_or(buffered, |left| left.min(buffered));
            connection.consume(length);
            left -= length as u64;
            if left == 0 {
                break;
            }
            if !more().await {
                return;
            }
        }
        if linger == Lingering::On && connection.buffered().is_empty() {
            return;
        }
    }
    if linger == Lingering::Off || connection.shutdown_write().is_err() {
        return;
    }
    loop {
        let length = connection.buffered().len();
        connection.consume(length);
        if !more().await {
            return;
        }
    }
}
