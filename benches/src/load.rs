//! The load: thousands of connections in one epoll loop of one thread, with one read buffer for all.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memchr::memmem;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::net;

use crate::frames::{Faults, Kind, Verifier};

/// Without any progress for so long, what is missing is lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Handshakes under way at a time: fewer than any server's listen queue holds.
const HANDSHAKES: usize = 256;

/// The header of a handshake.
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// What RFC 6455 says that a server makes of that key.
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// A masked close frame with code 1000.
const CLOSE: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

/// An epoll, and the buffer that everything is read into.
pub(crate) struct Reactor {
    poll: Poll,
    /// What happened last.
    pub(crate) events: Events,
    /// For whoever reads.
    pub(crate) buffer: Vec<u8>,
}

impl Reactor {
    /// Without any connection.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(1024), buffer: vec![0; 256 * 1024] })
    }

    /// Connects (on the loopback that does not wait), sends `request`, and from then on watches for answers.
    fn connect(&self, server: SocketAddr, request: &[u8], token: usize) -> io::Result<TcpStream> {
        let mut stream = std::net::TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.write_all(request)?;
        self.watch(stream, token)
    }

    /// Watches a connection for what comes.
    pub(crate) fn watch(&self, stream: std::net::TcpStream, token: usize) -> io::Result<TcpStream> {
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(token), Interest::READABLE)?;
        Ok(stream)
    }

    /// Waits until something happens, a tenth of a second at most.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(Duration::from_millis(100))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }
}

/// Hands all that the socket has to `take`; `false` at its end. A read that did not fill the buffer emptied the socket.
pub(crate) fn drain(stream: &mut TcpStream, buffer: &mut [u8], mut take: impl FnMut(&[u8])) -> bool {
    loop {
        match stream.read(buffer) {
            Ok(0) => return false,
            Ok(n) => {
                take(&buffer[..n]);
                if n < buffer.len() {
                    return true;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// The channel of each subscriber, by its number.
pub(crate) type Naming = fn(usize) -> String;

/// The request of a subscriber.
fn subscription(kind: Kind, channel: &str) -> Vec<u8> {
    let (folder, header) = match kind {
        Kind::Websocket => ("ws", UPGRADE),
        Kind::EventSource => ("es", "Accept: text/event-stream\r\n"),
        // Only who asks for chunks gets them from nchan.
        Kind::Streaming => ("st", "TE: chunked\r\n"),
    };
    format!("GET /{folder}/{channel} HTTP/1.1\r\nHost: bench\r\n{header}\r\n").into_bytes()
}

/// Many connections, each subscribed to a channel.
pub(crate) struct Subscribers {
    server: SocketAddr,
    kind: Kind,
    naming: Naming,
    reactor: Reactor,
    connections: Vec<Subscriber>,
    progress: Progress,
    /// Messages asked for until now, over all connections.
    expected: u64,
    watch: Option<Watch>,
}

/// How long messages take from one moment on.
struct Watch {
    since: Instant,
    taken: Vec<Duration>,
}

struct Subscriber {
    stream: TcpStream,
    state: State,
    verifier: Verifier,
}

enum State {
    /// Asked for the upgrade; what came of the answer so far.
    Handshake(Vec<u8>),
    Open,
    /// The server is gone, or has said good-bye.
    Ended,
}

/// Sums over the connections.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    open: usize,
    ended: usize,
    messages: u64,
    /// Bytes of handshakes, so that a slow one is progress too.
    handshake_bytes: usize,
}

impl Subscribers {
    /// None yet.
    pub(crate) fn new(server: SocketAddr, kind: Kind, naming: Naming) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            server,
            kind,
            naming,
            reactor: Reactor::new()?,
            connections: Vec::new(),
            progress: Progress::default(),
            expected: 0,
            watch: None,
        })
    }

    /// The same for nobody, in exchange for the present ones.
    pub(crate) fn replace(&mut self) -> Result<Self, Box<dyn Error>> {
        let fresh = Self::new(self.server, self.kind, self.naming)?;
        Ok(std::mem::replace(self, fresh))
    }

    /// Adds `count` subscribers, for whom message `next` is the first.
    pub(crate) fn open(&mut self, count: usize, next: u64) -> Result<(), Box<dyn Error>> {
        for _ in 0..count {
            let token = self.connections.len();
            let request = subscription(self.kind, &(self.naming)(token));
            let stream = self.reactor.connect(self.server, &request, token)?;
            let verifier = Verifier::starting_at(self.kind, next);
            self.connections.push(Subscriber { stream, state: State::Handshake(Vec::new()), verifier });
            let wanted = self.connections.len().saturating_sub(HANDSHAKES);
            self.run(|progress| progress.open >= wanted)?;
        }
        let all = self.connections.len();
        self.run(|progress| progress.open >= all)?;
        if self.progress.open < all {
            return Err(format!("{} of {all} handshakes without an answer", all - self.progress.open).into());
        }
        Ok(())
    }

    /// From now on notes how long messages take.
    pub(crate) fn start_watch(&mut self) {
        let taken = self.watch.take().map_or_else(Vec::new, |watch| watch.taken);
        self.watch = Some(Watch { since: Instant::now(), taken });
    }

    /// How long each message to each subscriber took.
    pub(crate) fn stop_watch(&mut self) -> Vec<Duration> {
        self.watch.take().map_or_else(Vec::new, |watch| watch.taken)
    }

    /// Waits for so many messages more, over all subscribers; `false` if they don't come.
    pub(crate) fn receive(&mut self, count: u64) -> Result<bool, Box<dyn Error>> {
        self.expected += count;
        let wanted = self.expected;
        self.run(|progress| progress.messages >= wanted || progress.ended > 0)?;
        Ok(self.progress.messages >= wanted)
    }

    /// Says good-bye on all connections and waits for the server to do so; then they are closed.
    pub(crate) fn close(mut self) -> Result<(), Box<dyn Error>> {
        for subscriber in &mut self.connections {
            subscriber.stream.write_all(CLOSE)?;
        }
        let all = self.connections.len();
        self.run(|progress| progress.ended >= all)?;
        if self.progress.ended < all {
            return Err(format!("{} of {all} connections not closed by the server", all - self.progress.ended).into());
        }
        Ok(())
    }

    /// The faults of all, given that messages up to (and without) `end` were published.
    pub(crate) fn finish(mut self, end: u64) -> Result<Faults, Box<dyn Error>> {
        // What comes too often comes late: look once more.
        self.turn()?;
        let mut faults = Faults::default();
        for subscriber in self.connections {
            let mut verifier = subscriber.verifier;
            if matches!(subscriber.state, State::Ended) {
                verifier.disconnected();
            }
            faults += verifier.finish(end);
        }
        Ok(faults)
    }

    /// Reads until `done`, or until nothing has come for a long time.
    fn run(&mut self, done: impl Fn(&Progress) -> bool) -> Result<(), Box<dyn Error>> {
        let mut last = Instant::now();
        while !done(&self.progress) {
            let before = self.progress;
            self.turn()?;
            if self.progress != before {
                last = Instant::now();
            } else if last.elapsed() > PATIENCE {
                break;
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Box<dyn Error>> {
        self.reactor.wait()?;
        for event in &self.reactor.events {
            let Some(subscriber) = self.connections.get_mut(event.token().0) else {
                continue;
            };
            let before = self.progress.messages;
            subscriber.read(&mut self.reactor.buffer, &mut self.progress)?;
            if let Some(watch) = &mut self.watch {
                let taken = watch.since.elapsed();
                watch.taken.extend((before..self.progress.messages).map(|_| taken));
            }
        }
        Ok(())
    }
}

impl Subscriber {
    fn read(&mut self, buffer: &mut [u8], progress: &mut Progress) -> Result<(), Box<dyn Error>> {
        if matches!(self.state, State::Ended) {
            return Ok(());
        }
        let Self { stream, state, verifier } = self;
        let mut refusal = None;
        let alive = drain(stream, buffer, |bytes| match state {
            State::Open | State::Ended => progress.messages += verifier.read(bytes),
            State::Handshake(head) => {
                head.extend_from_slice(bytes);
                progress.handshake_bytes += bytes.len();
                match begun(verifier.kind(), head) {
                    Ok(None) => {}
                    Ok(Some(len)) => {
                        // The first frames may come with the head.
                        progress.messages += verifier.read(&head[len..]);
                        progress.open += 1;
                        *state = State::Open;
                    }
                    Err(error) => refusal = Some(error),
                }
            }
        });
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if !alive || verifier.is_closed() {
            if matches!(state, State::Handshake(_)) {
                return Err("the server closed a connection before it answered".into());
            }
            *state = State::Ended;
            progress.ended += 1;
        }
        Ok(())
    }
}

/// The length of the head of an answer that makes its client a subscriber; `None` if it is not whole.
fn begun(kind: Kind, bytes: &[u8]) -> Result<Option<usize>, Box<dyn Error>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &bytes[..end];
    let is_right = match kind {
        Kind::Websocket => head.starts_with(b"HTTP/1.1 101 ") && memmem::find(head, ACCEPT).is_some(),
        Kind::EventSource | Kind::Streaming => head.starts_with(b"HTTP/1.1 200 "),
    };
    if !is_right {
        let first = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        return Err(format!("the subscriber was answered {:?}", String::from_utf8_lossy(first)).into());
    }
    Ok(Some(end + 4))
}

/// A websocket subscriber that reads nothing until the end, and whose kernel takes next to nothing for it.
pub(crate) struct SlowReader {
    stream: std::net::TcpStream,
    verifier: Verifier,
}

impl SlowReader {
    /// Subscribes to a channel in which message `next` is the first for it.
    pub(crate) fn subscribe(server: SocketAddr, channel: &str, next: u64) -> Result<Self, Box<dyn Error>> {
        let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None)?;
        net::sockopt::set_socket_recv_buffer_size(&socket, 1)?;
        net::connect(&socket, &server)?;
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&subscription(Kind::Websocket, channel))?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        while begun(Kind::Websocket, &head)?.is_none() {
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        Ok(Self { stream, verifier: Verifier::starting_at(Kind::Websocket, next) })
    }

    /// Reads all at last; the faults, given that messages up to (and without) `end` were published.
    pub(crate) fn finish(mut self, end: u64) -> Result<Faults, Box<dyn Error>> {
        let mut buffer = vec![0; 64 * 1024];
        while self.verifier.next() < end {
            match self.stream.read(&mut buffer)? {
                0 => {
                    self.verifier.disconnected();
                    break;
                }
                n => self.verifier.read(&buffer[..n]),
            };
        }
        Ok(self.verifier.finish(end))
    }
}

/// Fetches an answer of any length, which ends with the connection; how often `mark` is in it.
pub(crate) fn fetch(server: SocketAddr, path: &str, mark: u8) -> Result<u64, Box<dyn Error>> {
    let mut stream = std::net::TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut buffer = vec![0; 256 * 1024];
    let mut head = Vec::new();
    let rest = loop {
        let n = stream.read(&mut buffer)?;
        head.extend_from_slice(&buffer[..n]);
        match memmem::find(&head, b"\r\n\r\n") {
            Some(end) => break head.split_off(end + 4),
            None if n == 0 => return Err(format!("no answer to {path}").into()),
            None => {}
        }
    };
    if !head.starts_with(b"HTTP/1.1 200 ") {
        let first = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        return Err(format!("{path} was answered {:?}", String::from_utf8_lossy(first)).into());
    }
    let mut marks = memchr::memchr_iter(mark, &rest).count();
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(marks as u64),
            n => marks += memchr::memchr_iter(mark, &buffer[..n]).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;
    use crate::frames::payload;

    fn check(answer: &str, expected: &str) {
        let seen = match begun(Kind::Websocket, answer.as_bytes()) {
            Ok(Some(len)) => answer[len..].to_owned(),
            Ok(None) => "more".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(seen, expected, "{answer:?}");
    }

    /// Upgrades a connection for each entry of `frames`, and sends it that.
    fn serve(frames: Vec<Vec<u8>>) -> (SocketAddr, std::thread::JoinHandle<Vec<std::net::TcpStream>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = move |frames: Vec<u8>| {
            let (mut stream, _) = listener.accept().unwrap();
            let expected = subscription(Kind::Websocket, "bench");
            let mut request = vec![0; expected.len()];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(request, expected);
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: ").unwrap();
            stream.write_all(&[ACCEPT, b"\r\n\r\n", &frames].concat()).unwrap();
            stream
        };
        (address, std::thread::spawn(|| frames.into_iter().map(serve).collect()))
    }

    fn text(number: u64) -> Vec<u8> {
        [&[0x81, 100], payload(number, 100).as_slice()].concat()
    }

    #[test]
    fn every_subscriber_is_checked() {
        let right = [text(0), text(1)].concat();
        let twice = [text(0), text(0), text(1)].concat();
        let (server, thread) = serve(vec![right.clone(), twice, right]);
        let mut subscribers = Subscribers::new(server, Kind::Websocket, |_| "bench".to_owned()).unwrap();
        subscribers.open(3, 0).unwrap();
        assert!(subscribers.receive(6).unwrap());
        let expected = Faults { duplicated: 1, ..Faults::default() };
        assert_eq!(subscribers.finish(2).unwrap(), expected);
        drop(thread.join());
    }

    #[test]
    fn a_server_that_goes_away_loses_messages() {
        let (server, thread) = serve(vec![text(0), text(0)]);
        let mut subscribers = Subscribers::new(server, Kind::Websocket, |_| "bench".to_owned()).unwrap();
        subscribers.open(2, 0).unwrap();
        drop(thread.join());
        assert!(!subscribers.receive(4).unwrap());
        let Faults { lost, duplicated, disordered, malformed, disconnected } = subscribers.finish(2).unwrap();
        assert_eq!((lost, duplicated, disordered, malformed), (2, 0, 0, 0));
        assert!(disconnected > 0);
    }

    #[test]
    fn an_upgrade_is_a_101_with_our_key() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        check(head, "more");
        check(&format!("{head}\r\nframes"), "frames");
        check(
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            r#"the subscriber was answered "HTTP/1.1 101 Switching Protocols""#,
        );
        check("HTTP/1.1 403 Forbidden\r\n\r\n", r#"the subscriber was answered "HTTP/1.1 403 Forbidden""#);
    }
}
