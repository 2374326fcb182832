//! TLS to upstreams, by rustls.

use std::sync::{Arc, OnceLock};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName};

use super::family::Tls;
use crate::config::value::Value;
use crate::config::{Args, Call, Cx, Fault};
use crate::pg::stream::Verifier;
use crate::tls;
use crate::tls::files::{self, Source};

/// What rustls needs, made once for a block.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<OnceLock<Result<Arc<ClientConfig>, String>>>);

/// The versions of TLS.
#[derive(Clone, Copy, Debug)]
pub struct Protocols {
    v12: bool,
    v13: bool,
}

impl Value for Protocols {
    const ARGS: Args = Args::SOME;
    const SYNTAX: &'static str = "[SSLv2] [SSLv3] [TLSv1] [TLSv1.1] [TLSv1.2] [TLSv1.3]";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        let mut protocols = Self { v12: false, v13: false };
        for index in 0..call.len() {
            match call.bytes(index) {
                b"TLSv1.2" => protocols.v12 = true,
                b"TLSv1.3" => protocols.v13 = true,
                b"SSLv2" | b"SSLv3" | b"TLSv1" | b"TLSv1.1" => {}
                _ => return Err(Fault::new(format!("invalid value \"{}\"", call.text(index))).word(index)),
            }
        }
        Ok(protocols)
    }

    fn from_default(_: &'static str) -> Self {
        Self { v12: true, v13: true }
    }
}

/// How one request's connection is made safe.
#[derive(Clone, Debug)]
pub struct Securing {
    /// What rustls needs.
    pub config: Arc<ClientConfig>,
    /// Whom the certificate must name.
    pub name: ServerName<'static>,
}

impl Securing {
    /// A number for the settings: a kept connection that was made with others is not used.
    pub(super) fn number(&self) -> usize {
        Arc::as_ptr(&self.config).addr()
    }
}

impl Tls {
    /// What rustls needs, made when it is asked for the first time: on the process's own thread, which can read keys. An
    /// error is why it can't be made.
    pub fn config(&self) -> Result<Arc<ClientConfig>, String> {
        self.ready.0.get_or_init(|| self.make().map(Arc::new)).clone()
    }

    /// Whom the certificate must name; a name that is none is as good as any where nobody looks at it.
    pub fn name(&self, name: &[u8]) -> Result<ServerName<'static>, String> {
        let text = String::from_utf8_lossy(name);
        // A port is no part of the name.
        let host = match text.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.contains(':') => host,
            _ => &text,
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match ServerName::try_from(bare.to_owned()) {
            Ok(name) => Ok(name),
            Err(_) if !*self.verify => ServerName::try_from("upstream.invalid").map_err(|error| error.to_string()),
            Err(error) => Err(format!("{error}: \"{bare}\"")),
        }
    }

    fn make(&self) -> Result<ClientConfig, String> {
        let provider = Arc::clone(tls::provider());
        let mut versions: Vec<&'static SupportedProtocolVersion> = Vec::new();
        versions.extend(self.protocols.v12.then_some(&rustls::version::TLS12));
        versions.extend(self.protocols.v13.then_some(&rustls::version::TLS13));
        let pinned = match &self.trusted {
            Some(file) if *self.verify => certificates(file)?,
            _ => Vec::new(),
        };
        let chain = match *self.verify {
            false => None,
            true => {
                let builder =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots(&pinned)?), Arc::clone(&provider));
                let builder = match &self.crl {
                    None => builder,
                    Some(file) => builder.with_crls(lists(file)?).only_check_end_entity_revocation(),
                };
                Some(builder.build().map_err(|error| error.to_string())?)
            }
        };
        let verifier = Verifier { chain, check_name: true, pinned, provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let passwords = self.passwords.as_ref().map_or(Ok(Vec::new()), |file| {
                    let failed = |error| {
                        format!("open() \"{}\" failed ({})", file.display(), crate::server::sockets::reason(&error))
                    };
                    files::passwords(file).map_err(failed)
                })?;
                let parsed = files::key(&Source::File(key.to_path_buf()), &passwords)?;
                builder
                    .with_client_auth_cert(certificates(certificate)?, parsed)
                    .map_err(|error| format!("cannot use certificate \"{}\": {error}", certificate.display()))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.enable_sni = *self.server_name;
        if !*self.session_reuse {
            config.resumption = Resumption::disabled();
        }
        Ok(config)
    }

    fn roots(&self, trusted: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let Some(file) = &self.trusted else { return Err("no ssl_trusted_certificate for ssl_verify".to_owned()) };
        for certificate in trusted.iter().cloned() {
            roots
                .add(certificate)
                .map_err(|error| format!("cannot load certificate \"{}\": {error}", file.display()))?;
        }
        Ok(roots)
    }
}

fn certificates(file: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(&read(file, "certificate")?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("cannot load certificate \"{}\": {error}", file.display()))
}

fn lists(file: &std::path::Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    CertificateRevocationListDer::pem_slice_iter(&read(file, "certificate revocation list")?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("cannot load \"{}\": {error}", file.display()))
}

fn read(file: &std::path::Path, what: &str) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| {
        format!("cannot load {what} \"{}\": {}", file.display(), crate::server::sockets::reason(&error))
    })
}
