//! A server's side of TLS: made of its settings when a configuration is compiled, by the first thread with its rights.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::ServerConfig;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::cache::Cache;
use super::ocsp::Revocation;
use super::responder::Responder;
use super::settings::{Ocsp, Protocols, Tls, VerifyClient};
use super::stapling::{Staple, Wishes};
use crate::config::value::Template;
use crate::config::{Config, Diagnostic, Position, ScopeId, Severity};
use crate::http::resolver::Resolving;
use crate::http::v2::settings::Http2;
use crate::server::sockets::failed_on;
use crate::tls::choice::Choice;
use crate::tls::clients::Asking;
use crate::tls::config::{self, Offer, Shown};
use crate::tls::files::{self, Identity, Source};
use crate::tls::sessions::{TicketKey, Zone};
use crate::tls::suites;
use crate::tls::trust::{Role, Trust};

/// What is spoken inside of TLS, the best first; HTTP/2 stands before them where it is on.
const PROTOCOLS: &[&[u8]] = &[b"http/1.1", b"http/1.0", b"http/0.9"];

/// How a server speaks TLS.
pub struct ServerSide {
    /// How it is spoken with certificates that are known beforehand.
    pub(super) config: Option<Arc<ServerConfig>>,
    /// The certificates and keys whose names have variables.
    pub(super) variable: Vec<(Template, Template)>,
    /// What is offered with them.
    pub(super) offer: Offer,
    /// Whether no handshake is made.
    pub(super) rejects: bool,
    /// Whom clients' certificates must come from.
    pub(super) trust: Trust,
    /// The certificates that a responder is asked about.
    pub(super) staples: Vec<Staple>,
    /// How it is found out whether clients' certificates are revoked.
    pub(super) revocation: Option<Revocation>,
    passwords: Arc<Vec<Vec<u8>>>,
    cache: Option<Cache<Named, ServerConfig>>,
    conf: PathBuf,
}

/// Names of certificates and keys.
type Named = Vec<(Vec<u8>, Vec<u8>)>;

impl std::fmt::Debug for ServerSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerSide")
    }
}

/// What is read for several servers is read once.
#[derive(Debug, Default)]
pub struct Loader {
    identities: HashMap<Names, Result<Identity, String>>,
}

/// A certificate, its key, and the passwords that may open it.
type Names = (Source, Source, Arc<Vec<Vec<u8>>>);

impl Loader {
    fn identity(&mut self, names: Names) -> Result<Identity, String> {
        let load = |(certificate, key, passwords): &Names| files::certified(certificate, key, passwords).map(Arc::new);
        match self.identities.get(&names) {
            Some(known) => known.clone(),
            None => {
                let loaded = load(&names);
                self.identities.insert(names, loaded.clone());
                loaded
            }
        }
    }
}

/// A setting that can't be carried out: nginx's words, and the directive that is shown.
struct Wrong {
    message: String,
    directive: &'static str,
    at: Option<Position>,
}

impl Wrong {
    fn of(directive: &'static str) -> impl FnOnce(String) -> Self {
        move |message| Self { message, directive, at: None }
    }
}

impl ServerSide {
    /// Makes a server's side of its settings. `None`: it has none, or (then a finding says so) none can be made.
    pub fn new(config: &Config, scope: ScopeId, loader: &mut Loader, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let settings = config.settings(scope).get::<Tls>();
        if settings.certificates.0.is_empty() && !*settings.reject_handshake {
            return None;
        }
        let build = Build { config, scope, settings, findings };
        let built =
            if config.built.options.offline { build.words().map(|()| None) } else { build.run(loader).map(Some) };
        match built {
            Ok(side) => side,
            Err(Wrong { message, directive, at }) => {
                let finding = Diagnostic::emerg("tls", message);
                let finding = match at {
                    Some(at) => finding.at(at),
                    None => finding.near(place(config, scope, directive)),
                };
                let locked = finding.message.contains("bad password read");
                let help = "the key is locked: ssl_password_file names a file with its password";
                findings.push(if locked { finding.help(help) } else { finding });
                None
            }
        }
    }

    /// The configuration with certificates whose names are known by now, kept or read anew.
    pub(super) fn with(&self, names: Named) -> Result<Arc<ServerConfig>, String> {
        match &self.cache {
            Some(cache) => cache.get(names, |names| self.load(names)),
            None => self.load(&names),
        }
    }

    fn load(&self, names: &Named) -> Result<Arc<ServerConfig>, String> {
        let source = |name: &[u8]| Source::new(name, |path| self.conf.join(path));
        let load = |(certificate, key): &(Vec<u8>, Vec<u8>)| {
            let loaded = files::certified(&source(certificate), &source(key), &self.passwords);
            loaded.map(|loaded| Shown::Plain(Arc::new(loaded)))
        };
        let identities = names.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        config::build(&self.offer, identities).map(Arc::new).map_err(|error| error.to_string())
    }
}

/// Where a block, or one around it, says something.
fn place(config: &Config, scope: ScopeId, directive: &str) -> Option<Position> {
    let mut next = Some(scope);
    while let Some(id) = next {
        let scope = config.built.scope(id);
        if let Some(applied) = scope.applied.iter().find(|applied| applied.row.name == directive) {
            return Some(applied.at);
        }
        next = scope.parent;
    }
    None
}

struct Build<'b> {
    config: &'b Config,
    scope: ScopeId,
    settings: &'b Tls,
    findings: &'b mut Vec<Diagnostic>,
}

impl Build<'_> {
    /// Looks at what needs no file.
    fn words(mut self) -> Result<(), Wrong> {
        let Protocols { tls12, tls13 } = self.settings.protocols;
        let mut offer = Offer { choice: Choice { tls12, tls13, ..Choice::default() }, ..Offer::default() };
        self.pairs()?;
        self.ciphers(&mut offer)?;
        self.groups(&mut offer)?;
        self.commands(&mut offer)
    }

    /// What is offered inside.
    fn protocols(&self) -> Vec<Vec<u8>> {
        let server = self.config.built.model.servers.iter().find(|server| server.scope == self.scope);
        let is_on = *self.config.settings(self.scope).get::<Http2>().on
            || server.is_some_and(|server| server.listens.iter().any(|listen| listen.http2));
        let http2 = is_on.then_some(super::HTTP2);
        http2.into_iter().chain(PROTOCOLS.iter().copied()).map(<[u8]>::to_vec).collect()
    }

    /// In the order in which nginx finds faults.
    fn run(mut self, loader: &mut Loader) -> Result<ServerSide, Wrong> {
        let settings = self.settings;
        let pairs = self.pairs()?;
        let mut offer = Offer {
            choice: Choice {
                tls12: settings.protocols.tls12,
                tls13: settings.protocols.tls13,
                prefers_own: *settings.prefer_server_ciphers,
                ..Choice::default()
            },
            record: usize::try_from(*settings.buffer_size).unwrap_or(usize::MAX),
            session_timeout: *settings.session_timeout,
            early_data: *settings.early_data,
            protocols: self.protocols(),
            ..Offer::default()
        };
        self.ciphers(&mut offer)?;
        let variable =
            pairs.iter().any(|(certificate, key)| certificate.constant().is_none() || key.constant().is_none());
        let passwords = Arc::new(self.passwords()?);
        let identities = match variable {
            true => Vec::new(),
            false => self.identities(&pairs, &passwords, loader)?,
        };
        let (trust, trusted) = self.clients(&mut offer, &identities)?;
        let revocation = self.revocation()?;
        if let Some(file) = &settings.dh_parameters {
            files::dh_parameters(&self.file(file)).map_err(Wrong::of("ssl_dhparam"))?;
        }
        self.groups(&mut offer)?;
        self.sessions(&mut offer)?;
        let (identities, staples) = self.stapled(identities, &pairs, &trusted)?;
        self.commands(&mut offer)?;
        let config = match variable {
            true => None,
            false => Some(Arc::new(config::build(&offer, identities).map_err(|error| Wrong {
                message: error.to_string(),
                directive: "ssl_certificate",
                at: None,
            })?)),
        };
        Ok(ServerSide {
            config,
            variable: if variable { pairs } else { Vec::new() },
            offer,
            rejects: *settings.reject_handshake,
            trust,
            staples,
            revocation,
            passwords,
            cache: settings.certificate_cache.0.map(Cache::new),
            conf: self.config.built.options.conf_path(""),
        })
    }

    fn file(&self, name: &[u8]) -> PathBuf {
        self.config.built.options.conf_path(&String::from_utf8_lossy(name))
    }

    /// What a name without variables stands for.
    fn source(&self, name: &Template) -> Source {
        Source::new(name.constant().unwrap_or_default(), |path| self.config.built.options.conf_path(path))
    }

    fn lint(&mut self, code: &'static str, directive: &'static str, message: impl Into<String>, help: &'static str) {
        let at = place(self.config, self.scope, directive);
        self.findings.push(Diagnostic::new(Severity::Lint, code, message).near(at).help(help));
    }

    /// The certificates with their keys.
    fn pairs(&self) -> Result<Vec<(Template, Template)>, Wrong> {
        let (certificates, keys) = (&self.settings.certificates.0, &self.settings.keys.0);
        if let Some(last) = certificates.last().filter(|_| keys.len() < certificates.len()) {
            let name = String::from_utf8_lossy(last.constant().unwrap_or_default()).into_owned();
            let message = format!("no \"ssl_certificate_key\" is defined for certificate \"{name}\"");
            return Err(Wrong::of("ssl_certificate")(message));
        }
        Ok(certificates.iter().cloned().zip(keys.iter().cloned()).collect())
    }

    fn ciphers(&mut self, offer: &mut Offer) -> Result<(), Wrong> {
        let list = String::from_utf8_lossy(&self.settings.ciphers);
        let choice = &mut offer.choice;
        choice.ciphers(&list).map_err(Wrong::of("ssl_ciphers"))?;
        if choice.tls12_ciphers.is_empty() {
            let message = "none of these ciphers exists here: all that do are offered";
            self.lint("no-cipher", "ssl_ciphers", message, "those of TLS 1.2 are ECDHE with AES-GCM or ChaCha20");
        }
        if !offer.choice.tls12 && !offer.choice.tls13 {
            let message = "none of these protocols is spoken here: TLSv1.2 and TLSv1.3 are";
            self.lint("no-protocol", "ssl_protocols", message, "name TLSv1.2 or TLSv1.3");
        }
        Ok(())
    }

    fn passwords(&self) -> Result<Vec<Vec<u8>>, Wrong> {
        let Some(file) = &self.settings.passwords else { return Ok(Vec::new()) };
        let path = self.file(file);
        files::passwords(&path).map_err(|error| Wrong {
            message: failed_on("open", &path, &error),
            directive: "ssl_password_file",
            at: place(self.config, self.scope, "ssl_password_file"),
        })
    }

    fn identities(
        &self,
        pairs: &[(Template, Template)],
        passwords: &Arc<Vec<Vec<u8>>>,
        loader: &mut Loader,
    ) -> Result<Vec<Identity>, Wrong> {
        let load = |(certificate, key): &(Template, Template)| {
            loader.identity((self.source(certificate), self.source(key), Arc::clone(passwords)))
        };
        pairs.iter().map(load).collect::<Result<_, _>>().map_err(Wrong::of("ssl_certificate"))
    }

    /// Whom clients' certificates must come from.
    fn clients(
        &self,
        offer: &mut Offer,
        identities: &[Identity],
    ) -> Result<(Trust, Vec<CertificateDer<'static>>), Wrong> {
        let settings = self.settings;
        let read = |directive, file: &Option<crate::config::value::Text>| match file {
            Some(file) if !file.is_empty() => files::trusted(&self.file(file)).map_err(Wrong::of(directive)),
            _ => Ok(Vec::new()),
        };
        let is_named = |file: &Option<crate::config::value::Text>| file.as_ref().is_some_and(|file| !file.is_empty());
        let verify = settings.verify_client;
        let mut hinted: Vec<CertificateDer<'static>> = Vec::new();
        if verify != VerifyClient::Off {
            let names_any = is_named(&settings.client_certificate) || is_named(&settings.trusted_certificate);
            if verify != VerifyClient::OptionalNoCa && !names_any {
                let message = "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client";
                return Err(Wrong::of("ssl_verify_client")(message.to_owned()));
            }
            hinted = read("ssl_client_certificate", &settings.client_certificate)?;
        }
        let mut trusted = read("ssl_trusted_certificate", &settings.trusted_certificate)?;
        let revoked = match &settings.crl {
            Some(file) if !file.is_empty() => files::revoked(&self.file(file)).map_err(Wrong::of("ssl_crl"))?,
            _ => Vec::new(),
        };
        let mut context = Sha256::new();
        let own = identities.iter().flat_map(|identity| identity.cert.first());
        for certificate in own.chain(&hinted).chain(&trusted) {
            context.update(Sha256::digest(certificate));
        }
        self.settings.certificates.0.iter().for_each(|name| context.update(format!("{name:?}")));
        context.update([verify as u8]);
        offer.context = context.finalize().into();
        if verify == VerifyClient::Off {
            return Ok((Trust::default(), trusted));
        }
        offer.asking = Some(Asking::new(&hinted));
        trusted.extend(hinted);
        let depth = usize::try_from(*settings.verify_depth).unwrap_or(usize::MAX);
        let trust = Trust::new(&trusted, &revoked, depth, Role::Client)
            .map_err(|error| Wrong::of("ssl_crl")(error.to_string()))?;
        Ok((trust, trusted))
    }

    /// How it is found out whether clients' certificates are revoked.
    fn revocation(&self) -> Result<Option<Revocation>, Wrong> {
        let settings = self.settings;
        match (settings.ocsp, settings.verify_client) {
            (Ocsp::Off, _) => return Ok(None),
            (_, VerifyClient::OptionalNoCa) => {
                let message = "\"ssl_ocsp\" is incompatible with \"ssl_verify_client optional_no_ca\"";
                return Err(Wrong::of("ssl_ocsp")(message.to_owned()));
            }
            (_, VerifyClient::Off) => return Ok(None),
            (_, VerifyClient::On | VerifyClient::Optional) => {}
        }
        let url = settings.ocsp_responder.as_ref().filter(|url| !url.is_empty());
        let url = url.map(|url| String::from_utf8_lossy(url).into_owned());
        let responder = url.map(|url| {
            let wrong = |why| format!("{why} in OCSP responder \"{url}\" in \"ssl_ocsp_responder\"");
            Responder::new(&url, self.looks_up()).map_err(wrong).map_err(Wrong::of("ssl_ocsp_responder"))
        });
        let zone = settings.ocsp_cache.0.as_ref().map(|(name, size)| Zone::named(&format!("ocsp {name}"), *size));
        Ok(Some(Revocation { about: settings.ocsp, responder: responder.transpose()?, zone }))
    }

    /// Whether responders' names are looked up now: not if a resolver will.
    fn looks_up(&self) -> bool {
        !self.config.built.options.offline && self.config.settings(self.scope).get::<Resolving>().resolver.0.is_none()
    }

    fn groups(&mut self, offer: &mut Offer) -> Result<(), Wrong> {
        let list = String::from_utf8_lossy(&self.settings.curves).into_owned();
        if list != "auto" {
            offer.choice.groups = self.known_groups(&list, "ssl_ecdh_curve")?;
        }
        Ok(())
    }

    fn known_groups(
        &mut self,
        list: &str,
        directive: &'static str,
    ) -> Result<Vec<&'static dyn rustls::crypto::SupportedKxGroup>, Wrong> {
        let failed = |name: String| {
            format!(
                "SSL_CTX_set1_curves_list(\"{list}\") failed (SSL: error:0A080106:SSL routines::passed invalid \
                 argument:group '{name}' cannot be set)"
            )
        };
        let groups = suites::groups(list).map_err(failed).map_err(Wrong::of(directive))?;
        if groups.is_empty() {
            let message = "none of these curves exists here: the usual ones are offered";
            self.lint(
                "no-curve",
                directive,
                message,
                "they are X25519, prime256v1 and secp384r1; X25519MLKEM768 is there too",
            );
        }
        Ok(groups)
    }

    fn sessions(&self, offer: &mut Offer) -> Result<(), Wrong> {
        offer.zone = self.settings.session_cache.zone.as_ref().map(|(name, size)| Zone::named(name, *size));
        let mut keys = Vec::new();
        for name in &self.settings.ticket_keys.0 {
            let path = self.file(name);
            let at = self.config.built.model.http_end;
            let wrong = |message| Wrong { message, directive: "ssl_session_ticket_key", at };
            let content = std::fs::read(&path).map_err(|error| wrong(failed_on("open", &path, &error)))?;
            if !matches!(content.len(), 48 | 80) {
                return Err(wrong(format!("\"{}\" must be 48 or 80 bytes", path.display())));
            }
            keys.extend(TicketKey::new(&content));
        }
        if *self.settings.session_tickets {
            offer.tickets = Some(Arc::new(keys));
        }
        Ok(())
    }

    /// The certificates as they are shown, and those that a responder is asked about.
    fn stapled(
        &mut self,
        identities: Vec<Identity>,
        pairs: &[(Template, Template)],
        trusted: &[CertificateDer<'static>],
    ) -> Result<(Vec<Shown>, Vec<Staple>), Wrong> {
        if !*self.settings.stapling {
            return Ok((identities.into_iter().map(Shown::Plain).collect(), Vec::new()));
        }
        if let Some(file) = self.settings.stapling_file.as_ref().filter(|file| !file.is_empty()) {
            let answer = files::stapled(&self.file(file)).map_err(Wrong::of("ssl_stapling_file"))?;
            let staple = |identity: Identity| {
                let mut stapled = rustls::sign::CertifiedKey::clone(&identity);
                stapled.ocsp = Some(answer.clone());
                Shown::Plain(Arc::new(stapled))
            };
            return Ok((identities.into_iter().map(staple).collect(), Vec::new()));
        }
        let responder = self.settings.stapling_responder.as_ref().filter(|url| !url.is_empty());
        let responder = responder.map(|url| String::from_utf8_lossy(url).into_owned());
        let wishes = Wishes {
            trusted,
            responder: responder.as_deref(),
            strictly: *self.settings.stapling_verify,
            looks_up: self.looks_up(),
        };
        let (mut shown, mut staples) = (Vec::new(), Vec::new());
        for (identity, (certificate, _)) in identities.into_iter().zip(pairs) {
            match Staple::new(&identity, &self.source(certificate).name(), &wishes) {
                Ok(staple) => {
                    shown.push(Shown::Stapled(Arc::clone(&staple.stapling)));
                    staples.push(staple);
                }
                Err(finding) => {
                    let at = place(self.config, self.scope, "ssl_stapling");
                    self.findings.push(finding.near(at));
                    shown.push(Shown::Plain(identity));
                }
            }
        }
        Ok((shown, staples))
    }

    /// Carries out what OpenSSL would be told.
    fn commands(&mut self, offer: &mut Offer) -> Result<(), Wrong> {
        for (name, value) in &self.settings.commands.0 {
            offer.choice.command(name, value).map_err(Wrong::of("ssl_conf_command"))?;
        }
        Ok(())
    }
}
