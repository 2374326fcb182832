//! Certificates, keys and lists of revoked certificates, from files or from `data:`.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::x509::Certificate;
use super::{locked, provider};

/// Something to be read: a file, or the text itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// What stood behind `data:`.
    Data(Vec<u8>),
}

impl Source {
    /// What a directive names; `complete` makes a relative path absolute.
    pub fn new(text: &[u8], complete: impl FnOnce(&str) -> PathBuf) -> Self {
        match text.strip_prefix(b"data:") {
            Some(data) => Self::Data(data.to_vec()),
            None => Self::File(complete(&String::from_utf8_lossy(text))),
        }
    }

    fn read(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::File(path) => std::fs::read(path).map(Cow::Owned),
            Self::Data(data) => Ok(Cow::Borrowed(data)),
        }
    }

    /// As messages name it: never the text itself, which may be a key.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::File(path) => path.to_string_lossy(),
            Self::Data(_) => Cow::Borrowed("data:"),
        }
    }
}

/// Reads a certificate and those that lead from it to a trusted one.
pub fn chain(source: &Source) -> Result<Vec<CertificateDer<'static>>, String> {
    let refused = |reason: String| format!("cannot load certificate \"{}\": {reason}", source.name());
    let bytes =
        source.read().map_err(|error| refused(format!("BIO_new_file() failed ({})", unopened(&error, source, "r"))))?;
    let no_start = "PEM_read_bio_X509_AUX() failed (SSL: error:0480006C:PEM routines::no start line:Expecting: TRUSTED \
                    CERTIFICATE)";
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|error| refused(format!("PEM_read_bio_X509_AUX() failed (SSL: {error})")))?;
    if all.is_empty() { Err(refused(no_start.to_owned())) } else { Ok(all) }
}

/// Reads a private key. One that is locked is opened by the first password that fits.
pub fn key(source: &Source, passwords: &[Vec<u8>]) -> Result<PrivateKeyDer<'static>, String> {
    let refused = |reason: String| format!("cannot load certificate key \"{}\": {reason}", source.name());
    let bytes =
        source.read().map_err(|error| refused(format!("BIO_new_file() failed ({})", unopened(&error, source, "r"))))?;
    let failed = |reason: &str| refused(format!("PEM_read_bio_PrivateKey() failed (SSL: {reason})"));
    if let Some(unlocked) = locked::unlock(&bytes, passwords) {
        return unlocked.map_err(failed);
    }
    let reason = match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => return Ok(key),
        Err(pem::Error::NoItemsFound) => {
            "error:1E08010C:DECODER routines::unsupported:No supported data to decode. Input type: PEM".to_owned()
        }
        Err(error) => error.to_string(),
    };
    Err(failed(&reason))
}

/// The passwords in a file: one in each line.
pub fn passwords(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let text = std::fs::read(path)?;
    let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

/// A certificate with its key, fit to be shown to clients.
pub fn certified(certificate: &Source, key_source: &Source, passwords: &[Vec<u8>]) -> Result<CertifiedKey, String> {
    let chain = chain(certificate)?;
    let refused = |reason: &str| format!("SSL_CTX_use_PrivateKey(\"{}\") failed (SSL: {reason})", key_source.name());
    let key = provider().key_provider.load_private_key(key(key_source, passwords)?);
    let key = key.map_err(|error| refused(&error.to_string()))?;
    // rustls's own comparison refuses certificates of the first version, which OpenSSL makes unless it is told otherwise.
    let Some(leaf) = chain.first().and_then(|leaf| Certificate::new(leaf)) else {
        let reason = "error:068000A8:asn1 encoding routines::wrong tag";
        return Err(format!("SSL_CTX_use_certificate(\"{}\") failed (SSL: {reason})", certificate.name()));
    };
    if key.public_key().is_some_and(|key| key.as_ref() != leaf.key.der()) {
        return Err(refused("error:05800074:x509 certificate routines::key values mismatch"));
    }
    Ok(CertifiedKey::new(chain, key))
}

/// Reads certificates to trust.
pub fn trusted(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |reason: String| format!("SSL_CTX_load_verify_locations(\"{}\") failed ({reason})", path.display());
    let all = blocks::<CertificateDer<'static>>(path).map_err(failed)?;
    // One that is no certificate makes the file unfit, as for OpenSSL.
    let is_good = |certificate: &CertificateDer<'_>| webpki::anchor_from_trusted_cert(certificate).is_ok();
    match all.iter().all(is_good) {
        true => Ok(all),
        false => Err(failed("SSL: error:068000A8:asn1 encoding routines::wrong tag".to_owned())),
    }
}

/// Reads lists of revoked certificates.
pub fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    blocks(path).map_err(|reason| format!("X509_LOOKUP_load_file(\"{}\") failed ({reason})", path.display()))
}

fn blocks<T: PemObject>(path: &Path) -> Result<Vec<T>, String> {
    let source = Source::File(path.to_owned());
    let bytes = std::fs::read(path).map_err(|error| {
        format!("{} error:05880002:x509 certificate routines::system lib", unopened(&error, &source, "r"))
    })?;
    let all = T::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>().map_err(|error| format!("SSL: {error}"))?;
    match all.is_empty() {
        true => Err("SSL: error:05800088:x509 certificate routines::no certificate or crl found".to_owned()),
        false => Ok(all),
    }
}

/// Reads an answer of an OCSP responder, in DER.
pub fn stapled(path: &Path) -> Result<Vec<u8>, String> {
    let source = Source::File(path.to_owned());
    let bytes = std::fs::read(path).map_err(|error| {
        format!("BIO_new_file(\"{}\") failed ({})", path.display(), unopened(&error, &source, "rb"))
    })?;
    match super::der::Reader::new(&bytes).element() {
        Some(element) if element.tag == super::der::SEQUENCE => Ok(bytes),
        found => {
            let reason = match found {
                None if bytes.first() == Some(&super::der::SEQUENCE) => {
                    "error:0680008E:asn1 encoding routines::not enough data"
                }
                _ => {
                    "error:068000A8:asn1 encoding routines::wrong tag error:0688010A:asn1 encoding routines::nested asn1 \
                     error:Type=OCSP_RESPONSE"
                }
            };
            Err(format!("d2i_OCSP_RESPONSE_bio(\"{}\") failed (SSL: {reason})", path.display()))
        }
    }
}

/// Looks whether parameters for DHE can be read. Nothing is done with them.
pub fn dh_parameters(path: &Path) -> Result<(), String> {
    let source = Source::File(path.to_owned());
    let bytes = std::fs::read(path)
        .map_err(|error| format!("BIO_new_file(\"{}\") failed ({})", path.display(), unopened(&error, &source, "r")))?;
    let begins = [b"-----BEGIN DH PARAMETERS-----".as_slice(), b"-----BEGIN X9.42 DH PARAMETERS-----"];
    match begins.iter().any(|begin| memchr::memmem::find(&bytes, begin).is_some()) {
        true => Ok(()),
        false => Err(format!(
            "PEM_read_bio_DHparams(\"{}\") failed (SSL: error:0480006C:PEM routines::no start line:Expecting: DH \
             PARAMETERS)",
            path.display()
        )),
    }
}

/// A certificate with its key, shared.
pub type Identity = Arc<CertifiedKey>;

/// What OpenSSL says of a file that can't be opened.
fn unopened(error: &io::Error, source: &Source, mode: &str) -> String {
    let number = error.raw_os_error().unwrap_or_default();
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let library = match number {
        libc::ENOENT => "error:10000080:BIO routines::no such file",
        _ => "error:10080002:BIO routines::system lib",
    };
    let code = 0x8000_0000u32 | number.unsigned_abs();
    format!("SSL: error:{code:08X}:system library::{text}:calling fopen({}, {mode}) {library}", source.name())
}
