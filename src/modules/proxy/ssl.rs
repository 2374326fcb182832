//! `proxy_ssl_...`: what nginx finds wrong with it when it reads a configuration, and what is made ready at a start.

use super::Tls;
use crate::compile::Compiled;
use crate::config::{Args, Builder, Contexts, Diagnostic, Directive};
use crate::http::upstream::family;
use crate::server::live::Live;

/// The rows that this file brings.
pub(super) const COMMANDS: [Directive; 2] = [
    Directive {
        syntax: "name value",
        ..Directive::ignored(
            "proxy_ssl_conf_command",
            Contexts::HTTP_ALL,
            Args::exactly(2),
            "it is for OpenSSL",
            "A command of OpenSSL's configuration.",
        )
    },
    Directive {
        syntax: "off | max=n [inactive=time] [valid=time]",
        ..Directive::ignored(
            "proxy_ssl_certificate_cache",
            Contexts::HTTP_ALL,
            Args::between(1, 3),
            "certificates are read at a start and a reload",
            "How long certificates that are named by variables are kept.",
        )
    },
];

/// Certificates without a key, and files that can't be used.
pub(super) fn finish(builder: &mut Builder) {
    let mut findings = Vec::new();
    for number in 0..builder.scopes.len() {
        let Some(raw) = builder.peek_number::<Tls>(number) else { continue };
        let at = builder.scopes[number]
            .applied
            .iter()
            .find(|applied| applied.row.name == "proxy_ssl_certificate")
            .map(|applied| applied.at);
        if let (Some(Some(certificate)), None) = (&raw.certificate, &raw.key) {
            let message =
                format!("no \"proxy_ssl_certificate_key\" is defined for certificate \"{}\"", certificate.display());
            findings.push(Diagnostic::emerg("no-certificate-key", message).near(at));
        } else if !builder.options.offline
            && let Err(message) = family::Tls::merge(raw, None).config()
            && raw.certificate.is_some()
        {
            findings.push(Diagnostic::emerg("certificate", message).near(at));
        }
    }
    builder.diagnostics.extend(findings);
}

/// Reads certificates and keys while the rights are there to do it.
pub(super) fn apply(compiled: &Compiled, _: &'static Live) {
    for settings in &compiled.config.settings {
        // What can't be made is said by the request that would need it.
        drop(settings.get::<Tls>().0.config());
    }
}
