//! What a server says of TLS. `modules/ssl` lists the directives.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::cache::Bounds;
use crate::config::value::{Flag, Number, Sec, Size, Template, Text, Value, parse_number, parse_sec, parse_size};
use crate::config::{Args, Call, Cx, Diagnostic, Fault, Severity, Status};
use crate::http::limit::zone::Zone;
use crate::{choice, settings};

settings! {
    /// TLS to clients.
    pub struct Tls {
        /// A file in PEM with the server's certificate, and those that lead from it to a trusted one behind it. It may be
        /// given several times, for keys of several kinds. With variables it is read at each handshake. `data:` and the
        /// text itself may stand in place of the file.
        "ssl_certificate" HTTP_SERVER = "" => pub certificates: Sources,
        /// The file with the certificate's key, or `data:` and the key itself.
        "ssl_certificate_key" HTTP_SERVER = "" => pub keys: Sources,
        /// How many certificates that variables name are kept for the next handshakes: `max`; those that were not used for
        /// `inactive` (10s) go, and after `valid` (60s) they are read anew. Without it they are read at each handshake.
        "ssl_certificate_cache" HTTP_SERVER = "off" => pub certificate_cache: CertificateCache,
        /// A file with the passwords of locked keys, one in each line; they are tried in turn.
        "ssl_password_file" HTTP_SERVER = "" => pub passwords: Option<Text>,
        /// The protocols that are spoken.
        @Status::Partly("there are TLSv1.2 and TLSv1.3; older ones are accepted here and never spoken"); "ssl_protocols" HTTP_SERVER = "TLSv1.2 TLSv1.3" => pub protocols: Protocols,
        /// The ciphers of TLS 1.2, in OpenSSL's words.
        @Status::Partly("of TLS 1.2 there are ECDHE with AES-GCM and ChaCha20; if a list names none of them, all are offered"); "ssl_ciphers" HTTP_SERVER = "HIGH:!aNULL:!MD5" => pub ciphers: Text,
        /// Whether the server's order of ciphers counts, rather than the client's.
        "ssl_prefer_server_ciphers" HTTP_SERVER = "off" => pub prefer_server_ciphers: Flag,
        /// The curves for the exchange of keys.
        @Status::Partly("there are X25519, prime256v1 and secp384r1, which `auto` stands for, and if they are named X25519MLKEM768, SecP256r1MLKEM768, MLKEM768 and MLKEM1024; a list that names none of them is `auto`"); "ssl_ecdh_curve" HTTP_SERVER = "auto" => pub curves: Text,
        /// A file with parameters for DHE.
        @Status::Ignored("there are no ciphers with DHE"); "ssl_dhparam" HTTP_SERVER = "" => pub dh_parameters: Option<Text>,
        /// Settings of OpenSSL: `MinProtocol`, `MaxProtocol`, `Ciphersuites`, `Groups` and `Curves` have an effect.
        @Status::Partly("commands for what rustls does not have are accepted without effect"); "ssl_conf_command" HTTP_SERVER = "" => pub commands: Commands,
        /// The longest record that is sent: a short one can be read sooner, a long one costs less.
        "ssl_buffer_size" HTTP_SERVER = "16k" => pub buffer_size: Size,
        /// Where sessions are kept that clients may take up again: `shared:name:size`, `builtin`, `none` or `off`.
        "ssl_session_cache" HTTP_SERVER = "none" => pub session_cache: SessionCache,
        /// Whether clients keep their sessions themselves, in tickets.
        "ssl_session_tickets" HTTP_SERVER = "on" => pub session_tickets: Flag,
        /// A file of 48 or 80 random bytes that tickets are sealed with, for servers that are to open each other's. The
        /// first that is given seals, all open.
        @Status::Partly("the tickets are no nginx's: all servers that share a key must be Pushgates"); "ssl_session_ticket_key" HTTP_SERVER = "" => pub ticket_keys: Files,
        /// How long a session can be taken up again.
        "ssl_session_timeout" HTTP_SERVER = "5m" => pub session_timeout: Sec,
        /// Certificates, in PEM, of those who vouch for clients; clients are told their names.
        "ssl_client_certificate" HTTP_SERVER = "" => pub client_certificate: Option<Text>,
        /// The same without telling clients.
        "ssl_trusted_certificate" HTTP_SERVER = "" => pub trusted_certificate: Option<Text>,
        /// Whether clients must show a certificate: `on`; may: `optional`; may show any: `optional_no_ca`.
        "ssl_verify_client" HTTP_SERVER = "off" => pub verify_client: VerifyClient,
        /// How many certificates may stand between a client's and a trusted one.
        "ssl_verify_depth" HTTP_SERVER = "1" => pub verify_depth: Number,
        /// Lists, in PEM, of revoked certificates.
        "ssl_crl" HTTP_SERVER = "" => pub crl: Option<Text>,
        /// Whether a responder is asked if a client's certificate, and those between it and a trusted one, are revoked;
        /// `leaf`: its own alone. The client waits for that. A request of one that is revoked, or of which nothing could be
        /// learned, is answered with 495.
        "ssl_ocsp" HTTP_SERVER = "off" => pub ocsp: Ocsp,
        /// The URL of the responder, `http://...`, instead of those that certificates name.
        "ssl_ocsp_responder" HTTP_SERVER = "" => pub ocsp_responder: Option<Text>,
        /// Where its answers are kept, as long as they say that they hold; `off`: nowhere, and each connection asks.
        "ssl_ocsp_cache" HTTP_SERVER = "off" => pub ocsp_cache: OcspCache,
        /// Whether clients get a responder's answer (OCSP) about the server's certificate. It is asked for when a client
        /// comes, and again about each hour; the client does not wait. It needs the issuer's certificate, behind the
        /// server's own or in ssl_trusted_certificate, and a resolver if the responder's address may change.
        "ssl_stapling" HTTP_SERVER = "off" => pub stapling: Flag,
        /// A file with such an answer, in DER; no responder is asked then.
        "ssl_stapling_file" HTTP_SERVER = "" => pub stapling_file: Option<Text>,
        /// The URL of the responder, `http://...`, instead of the one that the certificate names.
        "ssl_stapling_responder" HTTP_SERVER = "" => pub stapling_responder: Option<Text>,
        /// Whether its answers must be signed by the certificate's issuer or in its name. They must be signed in any case.
        "ssl_stapling_verify" HTTP_SERVER = "off" => pub stapling_verify: Flag,
        /// Whether a request may come with the first bytes of a session that is taken up again.
        @Status::Partly("it is answered once the handshake is done, so that it can't be a repeated one; sessions are then kept by the server"); "ssl_early_data" HTTP_SERVER = "off" => pub early_data: Flag,
        /// Whether handshakes are refused.
        "ssl_reject_handshake" HTTP_SERVER = "off" => pub reject_handshake: Flag,
    }
}

choice! {
    /// Whether clients must show certificates.
    pub enum VerifyClient {
        /// They are not asked.
        "off" => Off,
        /// They must.
        "on" => On,
        /// They may, and a bad one is refused.
        "optional" => Optional,
        /// They may, and nobody need vouch for it.
        "optional_no_ca" => OptionalNoCa,
    }
}

choice! {
    /// Whether a responder is asked about clients.
    pub enum Ocsp {
        /// No.
        "off" => Off,
        /// About all certificates of the chain.
        "on" => On,
        /// About the client's own.
        "leaf" => Leaf,
    }
}

/// Files, or texts in their place, which may have variables.
#[derive(Clone, Debug, Default)]
pub struct Sources(pub Vec<Template>);

impl Value for Sources {
    const ONCE: bool = false;
    const SYNTAX: &'static str = "file | data:text";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(Self(vec![Template::word(call, 0, cx)?]))
    }

    fn from_default(_: &'static str) -> Self {
        Self::default()
    }

    fn store(slot: &mut Option<Self>, value: Self) {
        slot.get_or_insert_default().0.extend(value.0);
    }
}

/// Several files.
#[derive(Clone, Debug, Default)]
pub struct Files(pub Vec<Bytes>);

impl Value for Files {
    const ONCE: bool = false;
    const SYNTAX: &'static str = "file";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(Self(vec![Bytes::copy_from_slice(call.bytes(0))]))
    }

    fn from_default(_: &'static str) -> Self {
        Self::default()
    }

    fn store(slot: &mut Option<Self>, value: Self) {
        slot.get_or_insert_default().0.extend(value.0);
    }
}

/// Which versions are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
}

impl Value for Protocols {
    const ARGS: Args = Args::SOME;
    // A second one adds to the first, as in nginx.
    const ONCE: bool = false;
    const SYNTAX: &'static str = "[SSLv2] [SSLv3] [TLSv1] [TLSv1.1] [TLSv1.2] [TLSv1.3]";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let mut protocols = Self { tls12: false, tls13: false };
        let mut seen: Vec<String> = Vec::new();
        for (index, word) in call.words().enumerate() {
            let word = String::from_utf8_lossy(word).into_owned();
            if seen.iter().any(|other| other.eq_ignore_ascii_case(&word)) {
                cx.warn("duplicate", format!("duplicate value \"{word}\""), call);
                continue;
            }
            match word.to_ascii_lowercase().as_str() {
                "tlsv1.2" => protocols.tls12 = true,
                "tlsv1.3" => protocols.tls13 = true,
                "sslv2" | "sslv3" | "tlsv1" | "tlsv1.1" => cx.report(
                    Diagnostic::new(Severity::Lint, "old-protocol", format!("{word} is not spoken here"))
                        .near(Some(call.word_at(index)))
                        .help("it is unsafe; TLSv1.2 is spoken, and TLSv1.3"),
                ),
                _ => return Err(Fault::new(format!("invalid value \"{word}\"")).word(index)),
            }
            seen.push(word);
        }
        Ok(protocols)
    }

    fn from_default(_: &'static str) -> Self {
        Self { tls12: true, tls13: true }
    }

    fn store(slot: &mut Option<Self>, value: Self) {
        let before = slot.unwrap_or(Self { tls12: false, tls13: false });
        *slot = Some(Self { tls12: before.tls12 || value.tls12, tls13: before.tls13 || value.tls13 });
    }
}

/// Commands for OpenSSL, with their values.
#[derive(Clone, Debug, Default)]
pub struct Commands(pub Vec<(String, String)>);

impl Value for Commands {
    const ARGS: Args = Args::exactly(2);
    const ONCE: bool = false;
    const SYNTAX: &'static str = "name value";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(Self(vec![(call.text(0).into_owned(), call.text(1).into_owned())]))
    }

    fn from_default(_: &'static str) -> Self {
        Self::default()
    }

    fn store(slot: &mut Option<Self>, value: Self) {
        slot.get_or_insert_default().0.extend(value.0);
    }
}

/// Where sessions are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionCache {
    /// Name and size in bytes of a zone; `None`: nowhere.
    pub zone: Option<(Arc<str>, u64)>,
}

/// The smallest zone that nginx makes: eight pages.
const SMALLEST_ZONE: u64 = 8 * 4096;

/// What a zone of so many sessions takes.
const BUILTIN_SESSION: u64 = 256;

impl Value for SessionCache {
    const ARGS: Args = Args::between(1, 2);
    // nginx takes a second one, and the last that is said counts.
    const ONCE: bool = false;
    const SYNTAX: &'static str = "off | none | [builtin[:size]] [shared:name:size]";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let mut zone = None;
        for index in 0..call.len() {
            let word = call.text(index);
            let invalid = || Fault::new(format!("invalid session cache \"{word}\"")).word(index);
            match &*word {
                "off" | "none" => {}
                "builtin" => zone = zone.or_else(|| Some(("builtin".into(), 20_480 * BUILTIN_SESSION))),
                word => {
                    if let Some(number) = word.strip_prefix("builtin:") {
                        let number = parse_number(number.as_bytes()).ok_or_else(invalid)?;
                        let size = number.saturating_mul(BUILTIN_SESSION);
                        zone = zone.or_else(|| Some((format!("builtin:{number}").into(), size)));
                        continue;
                    }
                    let (name, size) = shared(word).ok_or_else(invalid)?;
                    if size < SMALLEST_ZONE {
                        return Err(Fault::new(format!("session cache \"{word}\" is too small")).word(index));
                    }
                    Zone::reserve(cx, name, size, "ssl_session_cache").map_err(|fault| fault.word(index))?;
                    zone = Some((name.into(), size));
                }
            }
        }
        Ok(Self { zone })
    }

    fn from_default(_: &'static str) -> Self {
        Self::default()
    }
}

/// Name and size of `shared:name:size`.
fn shared(word: &str) -> Option<(&str, u64)> {
    let (name, size) = word.strip_prefix("shared:")?.split_once(':')?;
    (!name.is_empty()).then_some(())?;
    Some((name, parse_size(size.as_bytes())?))
}

/// The zone of a responder's answers: its name and size in bytes.
#[derive(Clone, Debug, Default)]
pub struct OcspCache(pub Option<(Arc<str>, u64)>);

impl Value for OcspCache {
    const SYNTAX: &'static str = "off | shared:name:size";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let word = call.text(0);
        match (&*word, shared(&word)) {
            ("off", _) => Ok(Self(None)),
            (_, None) => Err(Fault::new(format!("invalid OCSP cache \"{word}\"")).word(0)),
            (_, Some((_, size))) if size < SMALLEST_ZONE => {
                Err(Fault::new(format!("OCSP cache \"{word}\" is too small")).word(0))
            }
            (_, Some((name, size))) => {
                Zone::reserve(cx, name, size, "ssl_ocsp_cache").map_err(|fault| fault.word(0))?;
                Ok(Self(Some((name.into(), size))))
            }
        }
    }

    fn from_default(_: &'static str) -> Self {
        Self::default()
    }
}

/// The cache of certificates; `None`: there is none.
#[derive(Clone, Debug, Default)]
pub struct CertificateCache(pub Option<Bounds>);

impl Value for CertificateCache {
    const ARGS: Args = Args::between(1, 3);
    const SYNTAX: &'static str = "off | max=N [inactive=time] [valid=time]";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        // The times are nginx's own.
        let mut bounds = Bounds { max: 0, inactive: Duration::from_secs(10), valid: Duration::from_secs(60) };
        let mut is_off = false;
        for index in 0..call.len() {
            let word = call.text(index);
            let seconds = |time: &str| parse_sec(time.as_bytes()).map(Duration::from_secs);
            let read = match word.split_once('=') {
                Some(("max", number)) => parse_number(number.as_bytes())
                    .filter(|number| *number > 0)
                    .map(|number| bounds.max = usize::try_from(number).unwrap_or(usize::MAX)),
                Some(("inactive", time)) => seconds(time).map(|time| bounds.inactive = time),
                Some(("valid", time)) => seconds(time).map(|time| bounds.valid = time),
                None if word == "off" => {
                    is_off = true;
                    Some(())
                }
                _ => None,
            };
            read.ok_or_else(|| Fault::new(format!("invalid parameter \"{word}\"")).word(index))?;
        }
        match (is_off, bounds.max) {
            (true, _) => Ok(Self(None)),
            (false, 0) => Err(Fault::new(format!("\"{}\" must have the \"max\" parameter", call.name()))),
            _ => Ok(Self(Some(bounds))),
        }
    }

    fn from_default(_: &'static str) -> Self {
        Self::default()
    }
}
