//! TLS by rustls: certificates and keys from files, what OpenSSL's words mean for rustls, who a client or a server is by
//! its certificate, sessions that are taken up again, and a connection's state without its socket.
//!
//! It knows neither HTTP nor the configuration: it takes and gives plain values. Faults are worded as nginx words those of
//! OpenSSL, as far as the causes are the same.

pub mod channel;
pub mod choice;
pub mod clients;
pub mod config;
mod der;
mod direct;
pub mod files;
mod locked;
mod names;
pub mod ocsp;
pub mod servers;
pub mod sessions;
mod signed;
pub mod stapling;
pub mod suites;
pub mod trust;
pub mod x509;

use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};

/// The groups that are offered where nobody chooses. With X25519MLKEM768 among them a client's order would decide, and a
/// handshake with a browser cost more; a server of OpenSSL 3.5 would ask for it by one more round trip.
const GROUPS: [&dyn SupportedKxGroup; 3] = [kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];

/// The cryptography that all of the program uses.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(CryptoProvider { kx_groups: GROUPS.to_vec(), ..default_provider() }));
    &PROVIDER
}
