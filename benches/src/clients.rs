//! Clients that send one request after the other, in the clear or by TLS 1.3.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use crate::http::Answer;
use crate::load::{PATIENCE, Reactor, drain};

/// What is spoken on a connection.
#[derive(Clone, Copy)]
pub(crate) enum Wire<'a> {
    /// HTTP.
    Plain,
    /// The same over TLS.
    Tls(&'a Arc<ClientConfig>),
}

/// A connection that carries one request at a time.
pub(crate) struct Client {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    answer: Vec<u8>,
}

impl Client {
    /// Connects, shakes hands, and is watched from then on. Neither waits for long on the loopback.
    pub(crate) fn connect(
        server: SocketAddr,
        wire: Wire<'_>,
        reactor: &Reactor,
        token: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let mut stream = std::net::TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let tls = match wire {
            Wire::Plain => None,
            Wire::Tls(config) => Some(Box::new(handshake(&mut stream, config)?)),
        };
        Ok(Self { stream: reactor.watch(stream, token)?, tls, answer: Vec::new() })
    }

    /// Asks for a path. One small request on an idle connection always fits.
    pub(crate) fn ask(&mut self, path: &str) -> io::Result<()> {
        let text = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        let Some(tls) = &mut self.tls else { return self.stream.write_all(text.as_bytes()) };
        tls.writer().write_all(text.as_bytes())?;
        while tls.wants_write() {
            tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    /// Reads what has come; `None`: the server has closed the connection. `Some(true)`: the answer is whole, and is as expected.
    pub(crate) fn read(&mut self, buffer: &mut [u8], body: &[u8]) -> Result<Option<bool>, Box<dyn Error>> {
        let Self { stream, tls, answer } = self;
        let mut failure = None;
        let alive = drain(stream, buffer, |bytes| match tls {
            None => answer.extend_from_slice(bytes),
            Some(tls) => failure = decrypt(tls, bytes, answer).err(),
        });
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        if !alive {
            return Ok(None);
        }
        let Some(Answer { status, head, len }) = Answer::parse(answer)? else { return Ok(Some(false)) };
        if status != 200 || &answer[head..] != body || len != answer.len() {
            let seen = &answer[..answer.len().min(1000)];
            return Err(format!("a request was answered {:?}", String::from_utf8_lossy(seen)).into());
        }
        answer.clear();
        Ok(Some(true))
    }
}

/// Sends `total` requests over `connections` keep-alive connections, one at a time on each, and checks that each is answered
/// with 200 and `body` (as it is on the wire). `path` is given the request's number.
pub(crate) fn request(
    server: SocketAddr,
    wire: Wire<'_>,
    connections: usize,
    total: u64,
    path: impl Fn(u64) -> String,
    body: &[u8],
) -> Result<(), Box<dyn Error>> {
    Requests::open(server, wire, connections)?.send(total, path, body)
}

/// Keep-alive connections.
pub(crate) struct Requests {
    reactor: Reactor,
    clients: Vec<Client>,
}

impl Requests {
    /// Opens so many, on which nothing is sent yet.
    pub(crate) fn open(server: SocketAddr, wire: Wire<'_>, connections: usize) -> Result<Self, Box<dyn Error>> {
        let reactor = Reactor::new()?;
        let connect = |token| Client::connect(server, wire, &reactor, token);
        let clients = (0..connections).map(connect).collect::<Result<_, _>>()?;
        Ok(Self { reactor, clients })
    }

    /// Sends at least one request on each, `total` in all, and waits for the answers.
    pub(crate) fn send(&mut self, total: u64, path: impl Fn(u64) -> String, body: &[u8]) -> Result<(), Box<dyn Error>> {
        let Self { reactor, clients } = self;
        let mut sent = 0;
        for client in clients.iter_mut() {
            client.ask(&path(sent))?;
            sent += 1;
        }
        let mut answered = 0;
        let mut last = Instant::now();
        while answered < sent {
            if last.elapsed() > PATIENCE {
                return Err(format!("{} requests without an answer", sent - answered).into());
            }
            reactor.wait()?;
            for event in &reactor.events {
                let Some(client) = clients.get_mut(event.token().0) else {
                    continue;
                };
                match client.read(&mut reactor.buffer, body)? {
                    None => return Err("the server closed a keep-alive connection".into()),
                    Some(false) => continue,
                    Some(true) => answered += 1,
                }
                last = Instant::now();
                if sent < total {
                    client.ask(&path(sent))?;
                    sent += 1;
                }
            }
        }
        Ok(())
    }
}

/// Full handshakes, `count` at a time; each connection is closed by both sides after it.
pub(crate) fn handshakes(server: SocketAddr, config: &Arc<ClientConfig>, count: usize) -> Result<(), Box<dyn Error>> {
    let begin = |_| {
        let mut stream = std::net::TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut tls = client(config)?;
        tls.write_tls(&mut stream)?;
        Ok::<_, Box<dyn Error>>((stream, tls))
    };
    let begun = (0..count).map(begin).collect::<Result<Vec<_>, _>>()?;
    let mut ending = Vec::new();
    for (mut stream, mut tls) in begun {
        finish(&mut stream, &mut tls)?;
        tls.send_close_notify();
        tls.write_tls(&mut stream)?;
        ending.push(stream);
    }
    for mut stream in ending {
        // Tickets, and the server's goodbye.
        stream.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

/// TLS 1.3 with X25519 and AES-128-GCM, without resumption. Whose certificate it is is not looked at: that is no work of the
/// server's.
pub(crate) fn config() -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn client(config: &Arc<ClientConfig>) -> Result<ClientConnection, Box<dyn Error>> {
    Ok(ClientConnection::new(Arc::clone(config), ServerName::try_from("bench")?)?)
}

fn handshake(stream: &mut std::net::TcpStream, config: &Arc<ClientConfig>) -> Result<ClientConnection, Box<dyn Error>> {
    let mut tls = client(config)?;
    finish(stream, &mut tls)?;
    Ok(tls)
}

fn finish(stream: &mut std::net::TcpStream, tls: &mut ClientConnection) -> Result<(), Box<dyn Error>> {
    while tls.is_handshaking() {
        tls.complete_io(stream)?;
    }
    while tls.wants_write() {
        tls.write_tls(stream)?;
    }
    Ok(())
}

fn decrypt(tls: &mut ClientConnection, mut bytes: &[u8], answer: &mut Vec<u8>) -> io::Result<()> {
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let length = answer.len();
        answer.resize(length + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut answer[length..])?;
    }
    Ok(())
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
