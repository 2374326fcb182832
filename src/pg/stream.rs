//! The socket to a PostgreSQL: TCP, a unix socket, or TLS over TCP.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::conninfo::{Address, ConnectOptions, Host, SslMode};
use super::error::Error;
use crate::tls;

/// The packet that asks for TLS: its length, and a version that does not exist.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Bytes to and from a PostgreSQL.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// How one attempt at a host treats TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Plain,
    TlsIfOffered,
    Tls,
}

impl Attempt {
    /// The attempts that libpq makes for a mode, in its order. A unix socket never has TLS.
    pub(crate) fn all(host: &Host, mode: SslMode) -> &'static [Self] {
        match (&host.address, mode) {
            (Address::Unix(_), _) | (_, SslMode::Disable) => &[Self::Plain],
            (_, SslMode::Allow) => &[Self::Plain, Self::Tls],
            (_, SslMode::Prefer) => &[Self::TlsIfOffered, Self::Plain],
            (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => &[Self::Tls],
        }
    }
}

impl Stream {
    /// Connects, and agrees on TLS.
    pub(crate) async fn open(host: &Host, options: &ConnectOptions, attempt: Attempt) -> Result<Self, Error> {
        let refused = |source| Error::Refused { address: host.to_string(), source };
        let (name, mut tcp) = match &host.address {
            Address::Unix(dir) => {
                let path = dir.join(format!(".s.PGSQL.{}", host.port));
                return UnixStream::connect(path).await.map(Self::Unix).map_err(refused);
            }
            Address::Tcp { name, ip: Some(ip) } => (name, TcpStream::connect((*ip, host.port)).await),
            Address::Tcp { name, ip: None } => (name, connect_by_name(name, host.port).await),
        };
        if let Ok(tcp) = &tcp {
            tune(tcp).map_err(refused)?;
        }
        if attempt == Attempt::Plain {
            return tcp.map(Self::Tcp).map_err(refused);
        }
        let fault = |reason: String| Error::Tls { address: host.to_string(), reason };
        let socket = tcp.as_mut().map_err(|error| refused(io::Error::new(error.kind(), error.to_string())))?;
        let lost = |error: io::Error| Error::lost(&error);
        socket.write_all(&SSL_REQUEST).await.map_err(lost)?;
        // One byte and not more: what a server sends before the handshake must not be taken for its word after it.
        let answer = socket.read_u8().await.map_err(lost)?;
        let tcp = tcp.map_err(refused)?;
        match answer {
            b'S' => {
                let config = client_config(options).await.map_err(fault)?;
                let server = ServerName::try_from(name.clone()).map_err(|error| fault(error.to_string()))?;
                let connector = TlsConnector::from(Arc::new(config));
                let tls = connector.connect(server, tcp).await.map_err(|error| fault(error.to_string()))?;
                Ok(Self::Tls(Box::new(tls)))
            }
            b'N' if attempt == Attempt::TlsIfOffered => Ok(Self::Tcp(tcp)),
            b'N' => Err(fault("server does not support SSL, but SSL was required".to_owned())),
            other => Err(Error::Protocol(format!("answer {other:#04x} to the request for SSL"))),
        }
    }

    /// Whether the kernel has something unread, the end of the stream included. Asked of the kernel itself: tokio knows
    /// of it only once its driver has had a turn.
    pub(crate) fn has_news(&self) -> bool {
        let socket = match self {
            Self::Tcp(stream) => socket2::SockRef::from(stream),
            Self::Unix(stream) => socket2::SockRef::from(stream),
            Self::Tls(stream) => socket2::SockRef::from(stream.get_ref().0),
        };
        let peeked = socket.peek(&mut [MaybeUninit::uninit()]);
        !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the bytes are encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// Makes the attempts that the mode asks for, until one leads to a login or none is left that could.
pub(crate) async fn connect_with<T, F: Future<Output = Result<T, Error>>>(
    host: &Host,
    options: &ConnectOptions,
    login: impl Fn(Stream) -> F,
) -> Result<T, Error> {
    let mut result = Err(Error::NoServers);
    for attempt in Attempt::all(host, options.sslmode) {
        let stream = Stream::open(host, options, *attempt).await;
        let was_tls = stream.as_ref().is_ok_and(Stream::is_tls);
        result = match stream {
            Ok(stream) => login(stream).await,
            Err(error) => Err(error),
        };
        // Only another kind of stream may help: TLS could not be agreed upon, or pg_hba.conf wants it so.
        let try_other = match &result {
            Err(Error::Tls { .. }) => true,
            Err(error @ Error::Login(_)) => {
                error.sqlstate() == Some("28000") && (was_tls || *attempt == Attempt::Plain)
            }
            _ => false,
        };
        if !try_other {
            break;
        }
    }
    result
}

async fn connect_by_name(name: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "host not found");
    for address in lookup_host((name, port)).await? {
        match TcpStream::connect(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// No delay, and the kernel asks after a silent peer before half a minute is over.
fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let socket = socket2::SockRef::from(tcp);
    socket.set_tcp_keepalive(&keepalive)?;
    // Keepalive asks only while nothing is under way.
    socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))
}

async fn client_config(options: &ConnectOptions) -> Result<ClientConfig, String> {
    let provider = Arc::clone(tls::provider());
    let (chain, pinned) = match roots(options).await? {
        Some((roots, pinned)) => {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            (Some(builder.build().map_err(|error| error.to_string())?), pinned)
        }
        None => (None, Vec::new()),
    };
    let check_name = options.sslmode == SslMode::VerifyFull;
    let verifier = Verifier { chain, check_name, pinned, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match (&options.sslcert, &options.sslkey) {
        (Some(certificate), Some(key)) => {
            let certificates = certificates(certificate).await?;
            let key = PrivateKeyDer::from_pem_slice(&read(key).await?)
                .map_err(|error| format!("could not load private key file {key:?}: {error}"))?;
            builder.with_client_auth_cert(certificates, key).map_err(|error| error.to_string())
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// The certificates to trust, and those of them that may be the server's own: PostgreSQL's manual has one sign itself.
/// None if the server's need not be checked.
async fn roots(options: &ConnectOptions) -> Result<Option<(RootCertStore, Vec<CertificateDer<'static>>)>, String> {
    let verify = matches!(options.sslmode, SslMode::VerifyCa | SslMode::VerifyFull);
    let (mut roots, mut pinned) = (RootCertStore::empty(), Vec::new());
    match &options.sslrootcert {
        Some(file) if file.as_os_str() == "system" => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(file) if verify || options.sslmode == SslMode::Require => {
            pinned = certificates(file).await?;
            for certificate in pinned.iter().cloned() {
                roots.add(certificate).map_err(|error| format!("root certificate file {file:?}: {error}"))?;
            }
        }
        None if verify => {
            return Err("sslmode wants the server's certificate checked: sslrootcert is missing".to_owned());
        }
        _ => return Ok(None),
    }
    Ok(Some((roots, pinned)))
}

async fn certificates(file: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(&read(file).await?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("could not read certificate file {file:?}: {error}"))
}

async fn read(file: &std::path::Path) -> Result<Vec<u8>, String> {
    tokio::fs::read(file).await.map_err(|error| format!("could not read file {file:?}: {error}"))
}

/// Checks as much as the mode asks for; the signature of the handshake always.
#[derive(Debug)]
pub(crate) struct Verifier {
    /// Checks the chain of certificates; `None`: nobody does.
    pub(crate) chain: Option<Arc<WebPkiServerVerifier>>,
    /// Whether the name counts.
    pub(crate) check_name: bool,
    /// Certificates that are trusted as they are, though they could also sign others.
    pub(crate) pinned: Vec<CertificateDer<'static>>,
    /// What signatures are checked with.
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let verdict = chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // The name is looked at after the chain was found good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            // OpenSSL takes a certificate that is itself among the trusted ones; webpki wants another one above it.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(why)))
                if why.to_string() == "CaUsedAsEndEntity" && self.pinned.contains(end_entity) =>
            {
                if self.check_name {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
