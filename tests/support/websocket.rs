//! A websocket client made with tungstenite, so that both ends of the protocol are not our own.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, WebSocket, client};

use super::http;
use super::postgres::Session;
use super::wait::PATIENCE;

/// How long nothing must come to call it silence.
const SILENCE: Duration = Duration::from_millis(250);

/// The headers of a handshake, with the key of the RFC's example.
pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// One connected client.
pub(crate) struct Client {
    socket: WebSocket<TcpStream>,
}

impl Client {
    /// Connects; `target` is sent byte by byte as it is, which libraries refuse to do with odd characters.
    #[track_caller]
    pub(crate) fn connect(port: u16, target: &str) -> Self {
        let mut stream = http::connect(port);
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            let read = stream.read(&mut byte);
            let shown = String::from_utf8_lossy(&head);
            assert!(matches!(read, Ok(1)), "{target}: no whole answer to the handshake: {shown:?}");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101 "), "{target}: {head}");
        Self { socket: WebSocket::from_raw_socket(stream, Role::Client, None) }
    }

    /// Connects with the library's own handshake, which checks the answer; the status when the server refuses.
    #[track_caller]
    pub(crate) fn try_connect(port: u16, target: &str, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let mut request = format!("ws://127.0.0.1:{port}{target}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match client(request, http::connect(port)) {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
            Err(e) => panic!("{target}: no websocket handshake: {e}"),
        }
    }

    /// The next text message; pings and pongs on the way are passed over.
    #[track_caller]
    pub(crate) fn text(&mut self) -> String {
        match self.message(PATIENCE) {
            Some(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("expected a text message, got {other:?}"),
        }
    }

    /// The next message within `time`, pings and pongs passed over.
    #[track_caller]
    pub(crate) fn message(&mut self, time: Duration) -> Option<Message> {
        let deadline = Instant::now() + time;
        loop {
            match self.any_message(deadline) {
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => return other,
            }
        }
    }

    /// Whether the server answers a ping: it has then read everything that we sent before.
    #[track_caller]
    pub(crate) fn ping(&mut self, data: &str) {
        self.socket.send(Message::Ping(data.to_owned().into())).unwrap();
        let deadline = Instant::now() + PATIENCE;
        match self.any_message(deadline) {
            Some(Message::Pong(answer)) => assert_eq!(answer.as_ref(), data.as_bytes()),
            other => panic!("expected a pong, got {other:?}"),
        }
    }

    #[track_caller]
    fn any_message(&mut self, deadline: Instant) -> Option<Message> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.get_ref().set_read_timeout(Some(left)).unwrap();
        match self.socket.read() {
            Ok(message) => Some(message),
            Err(Error::Io(e)) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            // A machine that is frozen and goes on interrupts whoever waits.
            Err(Error::Io(e)) if e.kind() == ErrorKind::Interrupted => self.any_message(deadline),
            Err(e) => panic!("the websocket is broken: {e}"),
        }
    }

    /// Nothing comes (for a quarter of a second).
    #[track_caller]
    pub(crate) fn silent(&mut self) {
        let got = self.message(SILENCE);
        assert!(got.is_none(), "expected nothing, got {got:?}");
    }

    /// The code and reason with which the server closes; 1005 stands for none, as in the RFC.
    #[track_caller]
    pub(crate) fn closed(&mut self) -> (u16, String) {
        match self.message(PATIENCE) {
            Some(Message::Close(Some(CloseFrame { code, reason }))) => (code.into(), reason.as_str().to_owned()),
            Some(Message::Close(None)) => (1005, String::new()),
            other => panic!("expected a close frame, got {other:?}"),
        }
    }

    /// Sends bytes past the library, which would refuse to.
    #[track_caller]
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).unwrap();
    }

    /// The connection itself.
    pub(crate) fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    #[track_caller]
    pub(crate) fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Says good-bye, and waits for the server's.
    #[track_caller]
    pub(crate) fn leave(mut self) {
        self.socket.close(None).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.socket.read() {
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => return,
                Err(e) => panic!("no closing handshake: {e}"),
            }
        }
        panic!("the server does not close");
    }

    /// Waits until PostgreSQL's notifications on `channel` reach this client.
    ///
    /// The handshake doesn't wait for LISTEN, so a notification sent right after it may be too early; nothing that is
    /// sent afterwards is lost, and nothing of the waiting is left to read.
    #[track_caller]
    pub(crate) fn until_listening(&mut self, session: &Session, channel: &str) {
        // Unlike any other, also those of other clients on the same channel.
        static PROBES: AtomicUsize = AtomicUsize::new(0);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let probe = format!("probe {}", PROBES.fetch_add(1, Ordering::Relaxed));
            session.notify(channel, &probe);
            while let Some(message) = self.message(Duration::from_millis(50)) {
                if message == Message::text(probe.as_str()) {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "channel {channel:?} is never listened to");
        }
    }
}
