//! The variables of a client's TLS.

use bytes::Bytes;
use rustls::ProtocolVersion;

use crate::config::{Value, VariableRow};
use crate::http::Request;
use crate::http::tls::{Agreed, Facts};
use crate::http::wire::date::http_date;
use crate::http::wire::escape::{Escape, escape};
use crate::server::clock;
use crate::tls::suites::{cipher_name, group_name};
use crate::tls::x509::{self, Certificate};

/// The rows that this file brings.
pub(super) const VARIABLES: &[VariableRow] = &[
    VariableRow::new("ssl_protocol", |r, _| agreed(r, protocol), "The version of TLS: `TLSv1.2` or `TLSv1.3`."),
    VariableRow::new("ssl_cipher", |r, _| agreed(r, |a| a.cipher.map(cipher_name)), "The cipher, by OpenSSL's name."),
    VariableRow::new(
        "ssl_ciphers",
        |r, _| offered(r, |offered| offered.0.iter().map(|cipher| cipher_name(*cipher)).collect()),
        "The ciphers that the client offered.",
    ),
    VariableRow::new("ssl_curve", |r, _| agreed(r, |a| a.group.map(group_name)), "The curve of the exchange of keys."),
    VariableRow::new(
        "ssl_curves",
        |r, _| offered(r, |offered| offered.1.iter().map(|group| group_name(*group)).collect()),
        "The curves that the client offered.",
    ),
    VariableRow::new("ssl_session_id", |_, _| None, "The session's id. Differs from nginx: it is not known here."),
    VariableRow::new(
        "ssl_session_reused",
        |r, _| agreed(r, |a| Some(if a.is_resumed { "r" } else { "." }.to_owned())),
        "`r` if a session was taken up again, otherwise `.`.",
    ),
    VariableRow::new(
        "ssl_early_data",
        |_, _| None,
        "Always empty, as no request is answered before the handshake is done: it can't be a repeated one.",
    ),
    VariableRow::new(
        "ssl_server_name",
        |r, _| facts(r)?.server_name.as_deref().map(|name| Bytes::copy_from_slice(name.as_bytes())),
        "The server that the client asked for in the handshake.",
    ),
    VariableRow::new(
        "ssl_alpn_protocol",
        |r, _| agreed(r, |a| a.protocol_inside.as_deref().map(|name| String::from_utf8_lossy(name).into_owned())),
        "The protocol that was agreed upon by ALPN.",
    ),
    VariableRow::new(
        "ssl_client_cert",
        |r, _| {
            let pem = x509::pem(leaf(r)?);
            Some(pem.trim_end().replace('\n', "\n\t").into())
        },
        "The client's certificate in PEM, each line but the first with a tab in front.",
    ),
    VariableRow::new(
        "ssl_client_raw_cert",
        |r, _| Some(x509::pem(leaf(r)?).into()),
        "The client's certificate in PEM.",
    ),
    VariableRow::new(
        "ssl_client_escaped_cert",
        |r, _| Some(escape(x509::pem(leaf(r)?).as_bytes(), Escape::UriComponent).into_owned().into()),
        "The client's certificate in PEM, escaped as in a URL.",
    ),
    VariableRow::new("ssl_client_s_dn", |r, _| client(r, |c| c.subject()), "Its subject, as RFC 2253 writes it."),
    VariableRow::new("ssl_client_i_dn", |r, _| client(r, |c| c.issuer()), "Its issuer, as RFC 2253 writes it."),
    VariableRow::new("ssl_client_s_dn_legacy", |r, _| client(r, |c| c.subject_line()), "Its subject as `/CN=...`."),
    VariableRow::new("ssl_client_i_dn_legacy", |r, _| client(r, |c| c.issuer_line()), "Its issuer as `/CN=...`."),
    VariableRow::new("ssl_client_serial", |r, _| client(r, |c| c.serial()), "Its serial number."),
    VariableRow::new(
        "ssl_client_fingerprint",
        |r, _| Some(x509::fingerprint(leaf(r)?).into()),
        "The SHA-1 of the client's certificate.",
    ),
    VariableRow::new("ssl_client_verify", verified, "`SUCCESS`, `FAILED:reason`, or `NONE` without a certificate."),
    VariableRow::new("ssl_client_v_start", |r, _| client(r, |c| time(c.begins)), "From when on it holds."),
    VariableRow::new("ssl_client_v_end", |r, _| client(r, |c| time(c.ends)), "Until when it holds."),
    VariableRow::new(
        "ssl_client_v_remain",
        |r, _| client(r, |c| ((c.ends - clock::unix_seconds()).max(0) / 86_400).to_string()),
        "For how many days it still holds.",
    )
    .volatile(),
];

fn facts(request: &Request) -> Option<&Facts> {
    request.connection.tls()
}

fn agreed(request: &Request, read: impl FnOnce(&Agreed) -> Option<String>) -> Value {
    read(facts(request)?.agreed.get()?).filter(|text| !text.is_empty()).map(Bytes::from)
}

fn offered(
    request: &Request,
    names: impl FnOnce(&(Vec<rustls::CipherSuite>, Vec<rustls::NamedGroup>)) -> Vec<String>,
) -> Value {
    let names = names(facts(request)?.offered.as_deref()?);
    (!names.is_empty()).then(|| names.join(":").into())
}

fn protocol(agreed: &Agreed) -> Option<String> {
    let name = match agreed.protocol? {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => return None,
    };
    Some(name.to_owned())
}

/// The client's own certificate.
fn leaf(request: &Request) -> Option<&[u8]> {
    facts(request)?.agreed.get()?.chain.first().map(AsRef::as_ref)
}

fn client(request: &Request, read: impl FnOnce(&Certificate<'_>) -> String) -> Value {
    Certificate::new(leaf(request)?).map(|certificate| read(&certificate).into())
}

/// `Nov  6 08:49:37 1994 GMT`
fn time(seconds: i64) -> String {
    let date = String::from_utf8_lossy(&http_date(seconds)).into_owned();
    let part = |range| date.get(range).unwrap_or_default();
    let day = part(5..7).trim_start_matches('0');
    format!("{} {day:>2} {} {} GMT", part(8..11), part(17..25), part(12..16))
}

fn verified(request: &Request, _: &str) -> Value {
    let agreed = facts(request)?.agreed.get()?;
    Some(match agreed.verdict {
        _ if agreed.chain.is_empty() => Bytes::from_static(b"NONE"),
        Ok(()) => Bytes::from_static(b"SUCCESS"),
        Err(refusal) => format!("FAILED:{}", refusal.reason).into(),
    })
}
