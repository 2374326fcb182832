//! `proxy_ssl_...`: what nginx finds wrong with it when it reads a configuration, and what is made ready at a start.

use super::Tls;
use super::pass::{Pass, RawPass};
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

/// Certificates without a key, files that can't be used, and certificates that are to be held against nothing. As in
/// nginx it matters only where requests may go to a URL with `https`.
pub(super) fn finish(builder: &mut Builder) {
    let mut findings = Vec::new();
    for number in 0..builder.scopes.len() {
        if !builder.peek_number::<Pass>(number).is_some_and(RawPass::may_be_tls) {
            continue;
        }
        let tls = merged(builder, number);
        if let (Some(certificate), None) = (&tls.certificate, &tls.key) {
            let message =
                format!("no \"proxy_ssl_certificate_key\" is defined for certificate \"{}\"", certificate.display());
            findings.push(Diagnostic::emerg("no-certificate-key", message));
        } else if *tls.verify && tls.trusted.is_none() {
            let message = "no proxy_ssl_trusted_certificate for proxy_ssl_verify";
            findings.push(Diagnostic::emerg("nothing-trusted", message));
        } else if !builder.options.offline
            && let Err(message) = tls.config()
        {
            findings.push(Diagnostic::emerg("certificate", message));
        }
    }
    builder.diagnostics.extend(findings);
}

/// What holds in a block.
fn merged(builder: &Builder, number: usize) -> family::Tls {
    let parent = builder.scopes[number].parent.map(|parent| merged(builder, parent.number()));
    let nothing = family::RawTls::default();
    family::Tls::merge(builder.peek_number::<Tls>(number).unwrap_or(&nothing), parent.as_ref())
}

/// Reads certificates and keys while the rights are there to do it.
pub(super) fn apply(compiled: &Compiled, _: &'static Live) {
    for settings in &compiled.config.settings {
        // What can't be made is said by the request that would need it.
        drop(settings.get::<Tls>().0.config());
    }
}
