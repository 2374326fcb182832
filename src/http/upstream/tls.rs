//! TLS to upstreams, by rustls.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::ServerName;

use super::family::Tls;
use crate::config::value::{Template, Value};
use crate::config::{Call, Cx, Fault};
use crate::http::Request;
use crate::http::tls::cache::Cache;
use crate::http::tls::settings::Protocols;
use crate::server::log::Level;
use crate::server::sockets::failed_on;
use crate::tls::choice::Choice;
use crate::tls::files::{self, Source};
use crate::tls::servers::Judge;
use crate::tls::trust::{Role, Trust};

/// What rustls needs, made once for a block. It tells blocks apart, too.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<OnceLock<Result<Base, String>>>);

/// What all connections of a block have in common.
#[derive(Debug)]
struct Base {
    /// How one is made with the certificate that has a fixed name, or without any.
    fixed: Arc<ClientConfig>,
    judge: Arc<Judge>,
    choice: Choice,
    passwords: Vec<Vec<u8>>,
    cache: Option<Cache<Pair, ClientConfig>>,
}

/// A certificate and its key.
type Pair = (Source, Source);

/// A certificate, or a key: a file, or the text itself behind `data:`. It may have variables.
#[derive(Clone, Debug)]
pub struct Written {
    text: Template,
    /// As it stands in the configuration.
    word: String,
    /// The folder of the configuration.
    folder: PathBuf,
}

impl Value for Written {
    const SYNTAX: &'static str = "file | data:text";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let text = Template::word(call, 0, cx)?;
        Ok(Self { text, word: call.text(0).into_owned(), folder: cx.options().conf_path("") })
    }

    fn from_default(text: &'static str) -> Self {
        Self { text: Template::literal(text), word: text.into(), folder: PathBuf::new() }
    }
}

impl Written {
    fn is_fixed(&self) -> bool {
        self.text.constant().is_some()
    }

    fn source(&self, text: &[u8]) -> Source {
        Source::new(text, |path| self.folder.join(path))
    }

    fn fixed(&self) -> Option<Source> {
        Some(self.source(self.text.constant()?))
    }
}

/// How one request's connection is made safe.
#[derive(Clone, Debug)]
pub struct Securing<'p> {
    tls: &'p Tls,
    /// `proxy` and its like.
    prefix: &'static str,
    terms: Terms,
    /// Whom the certificate must name.
    pub(super) name: ServerName<'static>,
    /// The same, as it was given.
    pub(super) host: String,
}

/// What a connection was made with: one that was made with others is not used.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    block: Option<Ready>,
    /// The certificate that variables named.
    pair: Option<Pair>,
}

impl PartialEq for Terms {
    fn eq(&self, other: &Self) -> bool {
        let is_same_block = match (&self.block, &other.block) {
            (Some(own), Some(other)) => Arc::ptr_eq(&own.0, &other.0),
            (own, other) => own.is_none() && other.is_none(),
        };
        is_same_block && self.pair == other.pair
    }
}

impl Securing<'_> {
    /// What the connection is made with.
    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What rustls needs for it. Files whose names have variables are read now, unless they are kept.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let base = self.tls.base(self.prefix)?;
        let Some(pair) = &self.terms.pair else { return Ok(Arc::clone(&base.fixed)) };
        let load = |(certificate, key): &Pair| {
            let shown = files::certified(certificate, key, &base.passwords)?;
            self.tls.client(&base.judge, &base.choice, Some(shown)).map(Arc::new)
        };
        match &base.cache {
            Some(cache) => cache.get(pair.clone(), load),
            None => load(pair),
        }
    }
}

impl Tls {
    /// Makes ready what needs no request: on the process's own thread, which can read keys. An error is why that can't be
    /// done, in nginx's words; `prefix` is `proxy` and its like.
    pub fn prepare(&self, prefix: &str) -> Result<(), String> {
        self.base(prefix).map(drop)
    }

    fn base(&self, prefix: &str) -> Result<&Base, String> {
        self.ready.0.get_or_init(|| self.make(prefix)).as_ref().map_err(Clone::clone)
    }

    /// How a request's connection is made safe, to a host that may have a port with it. An error is the status for the
    /// client.
    pub fn securing(&self, prefix: &'static str, request: &Request, host: &[u8]) -> Result<Securing<'_>, u16> {
        let text = self.name.as_ref().map(|name| request.eval(name));
        let host = bare(&String::from_utf8_lossy(text.as_deref().unwrap_or(host))).to_owned();
        let name = self.name(&host).map_err(|message| {
            request.log(Level::Error, &format!("{message} while SSL handshaking to upstream"));
            502u16
        })?;
        let pair = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) if !(certificate.is_fixed() && key.is_fixed()) => {
                let shown = request.eval(&certificate.text);
                // As in nginx, an empty one is none.
                (!shown.is_empty()).then(|| (certificate.source(&shown), key.source(&request.eval(&key.text))))
            }
            _ => None,
        };
        Ok(Securing { tls: self, prefix, terms: Terms { block: Some(self.ready.clone()), pair }, name, host })
    }

    /// Whom the certificate must name; a name that is none is as good as any where nobody looks at it.
    fn name(&self, bare: &str) -> Result<ServerName<'static>, String> {
        match ServerName::try_from(bare.to_owned()) {
            Ok(name) => Ok(name),
            Err(_) if !*self.verify => ServerName::try_from("upstream.invalid").map_err(|error| error.to_string()),
            Err(error) => Err(format!("{error}: \"{bare}\"")),
        }
    }

    /// Looks at what needs no file.
    pub fn check_words(&self, prefix: &str) -> Result<(), String> {
        let mut choice = self.choice()?;
        self.pair(prefix)?;
        if *self.verify {
            self.trusted_file(prefix)?;
        }
        self.run_commands(&mut choice)
    }

    fn choice(&self) -> Result<Choice, String> {
        let Protocols { tls12, tls13 } = self.protocols;
        let mut choice = Choice { tls12, tls13, ..Choice::default() };
        choice.ciphers(&String::from_utf8_lossy(&self.ciphers))?;
        Ok(choice)
    }

    fn run_commands(&self, choice: &mut Choice) -> Result<(), String> {
        self.commands.0.iter().try_for_each(|(name, value)| choice.command(name, value))
    }

    /// The certificate and key that are shown, where there are any.
    fn pair(&self, prefix: &str) -> Result<Option<(&Written, &Written)>, String> {
        match (self.certificate.as_ref().filter(|certificate| !certificate.word.is_empty()), &self.key) {
            (None, _) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (Some(certificate), None) => {
                let word = &certificate.word;
                Err(format!("no \"{prefix}_ssl_certificate_key\" is defined for certificate \"{word}\""))
            }
        }
    }

    fn trusted_file(&self, prefix: &str) -> Result<&Path, String> {
        let file = self.trusted.as_deref();
        file.ok_or_else(|| format!("no {prefix}_ssl_trusted_certificate for {prefix}_ssl_verify"))
    }

    /// In the order in which nginx finds faults.
    fn make(&self, prefix: &str) -> Result<Base, String> {
        let mut choice = self.choice()?;
        let pair = self.pair(prefix)?.and_then(|(certificate, key)| certificate.fixed().zip(key.fixed()));
        let passwords = self.passwords.as_ref().map_or(Ok(Vec::new()), |file| passwords(file))?;
        let shown = pair.map(|(certificate, key)| files::certified(&certificate, &key, &passwords)).transpose()?;
        let trust = if *self.verify { Some(self.trust(prefix)?) } else { None };
        self.run_commands(&mut choice)?;
        let judge = Arc::new(Judge { trust });
        let fixed = Arc::new(self.client(&judge, &choice, shown)?);
        Ok(Base { fixed, judge, choice, passwords, cache: self.certificate_cache.0.map(Cache::new) })
    }

    fn trust(&self, prefix: &str) -> Result<Trust, String> {
        let trusted = files::trusted(self.trusted_file(prefix)?)?;
        let revoked = self.crl.as_ref().map_or(Ok(Vec::new()), |file| files::revoked(file))?;
        let depth = usize::try_from(*self.verify_depth).unwrap_or(usize::MAX);
        Trust::new(&trusted, &revoked, depth, Role::Server).map_err(|error| error.to_string())
    }

    fn client(&self, judge: &Arc<Judge>, choice: &Choice, shown: Option<CertifiedKey>) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::new(choice.provider()))
            .with_protocol_versions(&choice.versions())
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Judge>::clone(judge));
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(shown) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown))),
        };
        config.enable_sni = *self.server_name;
        if !*self.session_reuse {
            config.resumption = Resumption::disabled();
        }
        Ok(config)
    }
}

/// The passwords in a file, or nginx's words for why it can't be opened.
pub fn passwords(file: &Path) -> Result<Vec<Vec<u8>>, String> {
    files::passwords(file).map_err(|error| failed_on("open", file, &error))
}

/// A host without its port, and an IPv6 address without its brackets.
fn bare(text: &str) -> &str {
    let host = match text.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => text,
    };
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let all = [("a.b:443", "a.b"), ("a.b", "a.b"), ("[::1]:443", "::1"), ("::1", "::1"), ("[::1]", "::1")];
        assert_eq!(all.map(|(written, _)| bare(written)), all.map(|(_, expected)| expected));
    }
}
