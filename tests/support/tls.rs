//! Certificates that a test makes, and a client that speaks TLS.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::http;

/// Somebody who vouches for others.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    /// Its own key, in PEM.
    pub(crate) key: String,
}

/// A certificate with its key, both in PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let key_pem = key.serialize_pem();
        Self { issuer: Issuer::new(params, key), pem, key: key_pem }
    }

    /// Somebody whom this one lets vouch for others. Its certificate goes behind those that it signs.
    pub(crate) fn deputy(&self, name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key_pem = key.serialize_pem();
        Self { issuer: Issuer::new(params, key), pem, key: key_pem }
    }

    /// A certificate whose time is over.
    pub(crate) fn expired(&self, name: &str) -> Identity {
        self.identity_with(name, 1, |params| params.not_after = date_time_ymd(2021, 1, 1))
    }

    /// A certificate for a name, which is both a server's and a client's.
    pub(crate) fn identity(&self, name: &str, serial: u64) -> Identity {
        self.identity_with(name, serial, |_| {})
    }

    /// One that names a responder which knows whether it is revoked.
    pub(crate) fn identity_of_responder(&self, name: &str, serial: u64, url: &str) -> Identity {
        self.identity_with(name, serial, |params| {
            let length = u8::try_from(url.len()).unwrap();
            let access =
                [&[0x30, length + 12, 6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 0x86, length], url.as_bytes()].concat();
            let content = [&[0x30, length + 14][..], &access].concat();
            let authority_information = [1, 3, 6, 1, 5, 5, 7, 1, 1];
            params.custom_extensions.push(CustomExtension::from_oid_content(&authority_information, content));
        })
    }

    fn identity_with(&self, name: &str, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "A, B");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        (params.not_before, params.not_after) = (date_time_ymd(2020, 2, 3), date_time_ymd(2120, 12, 31));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// The list that revokes a serial number.
    pub(crate) fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Identity {
    /// One that signs itself and could sign others, as `openssl req -x509` makes it.
    pub(crate) fn signing_itself(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    /// Writes both files into a folder.
    pub(crate) fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.pem")), &self.certificate).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), &self.key).unwrap();
    }
}

/// A client's connection.
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// How a client speaks TLS; it keeps sessions.
#[derive(Clone)]
pub(crate) struct Client(Arc<ClientConfig>);

impl Client {
    pub(crate) fn new(trusted: &Authority) -> Self {
        Self::with(trusted, None, rustls::ALL_VERSIONS)
    }

    pub(crate) fn with(
        trusted: &Authority,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        Self(Arc::new(config))
    }

    /// Connects, and asks for a server in the handshake, which is done when something is read or written.
    pub(crate) fn connect(&self, port: u16, name: &str) -> Stream {
        self.over(http::connect(port), name)
    }

    /// The same on a connection that there is.
    pub(crate) fn over(&self, stream: TcpStream, name: &str) -> Stream {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::clone(&self.0), name).unwrap(), stream)
    }

    /// The answer to one request on a connection of its own, or why there is none.
    pub(crate) fn try_ask(&self, port: u16, name: &str, request: &str) -> std::io::Result<String> {
        use std::io::{Read, Write};
        let mut stream = self.connect(port, name);
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The body of the answer to a GET.
    #[track_caller]
    pub(crate) fn get(&self, port: u16, name: &str, target: &str) -> String {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        let answer = self.try_ask(port, name, &request).unwrap();
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}")).1.to_owned()
    }
}
