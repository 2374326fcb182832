//! TLS by rustls, for whoever talks to clients: certificates and keys from files, what OpenSSL's words mean for rustls, who
//! a client is by its certificate, sessions that are taken up again, and a connection's state without its socket.
//!
//! It knows neither HTTP nor the configuration: it takes and gives plain values. Faults are worded as nginx words those of
//! OpenSSL, as far as the causes are the same.

pub mod channel;
pub mod clients;
pub mod config;
mod der;
mod direct;
pub mod files;
mod locked;
mod names;
pub mod ocsp;
pub mod sessions;
mod signed;
pub mod stapling;
pub mod suites;
pub mod x509;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// The cryptography that all of the program uses.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    &PROVIDER
}
