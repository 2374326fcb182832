//! `proxy_ssl_...`: what nginx finds wrong with it when it reads a configuration, and what is made ready at a start.

use super::Tls;
use super::pass::{Pass, RawPass};
use crate::compile::Compiled;
use crate::config::{Args, Builder, Contexts, Diagnostic, Directive};
use crate::http::upstream::{family, tls};
use crate::server::live::Live;

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    syntax: "name value",
    ..Directive::ignored(
        "proxy_ssl_conf_command",
        Contexts::HTTP_ALL,
        Args::exactly(2),
        "it is for OpenSSL",
        "A command of OpenSSL's configuration.",
    )
}];

/// Certificates without a key, files that can't be used, and certificates that are to be held against nothing. As in
/// nginx it matters only where requests may go to a URL with `https`.
pub(super) fn finish(builder: &mut Builder) {
    let mut findings = if builder.options.offline { Vec::new() } else { passwords(builder) };
    for number in 0..builder.scopes.len() {
        if !builder.peek_number::<Pass>(number).is_some_and(RawPass::may_be_tls) {
            continue;
        }
        let tls = merged(builder, number);
        if let Err(message) = if builder.options.offline { tls.check_words() } else { tls.prepare() } {
            findings.push(Diagnostic::emerg("certificate", message));
        }
    }
    builder.diagnostics.extend(findings);
}

/// Files of passwords that can't be read, whether or not anybody needs them.
fn passwords(builder: &Builder) -> Vec<Diagnostic> {
    let said = (0..builder.scopes.len()).filter_map(|number| {
        let file = builder.peek_number::<Tls>(number)?.passwords.as_ref()?.as_deref()?;
        let applied = &builder.scopes[number].applied;
        let at = applied.iter().find(|applied| applied.row.name == "proxy_ssl_password_file")?.at;
        Some(Diagnostic::emerg("password-file", tls::passwords(file).err()?).at(at))
    });
    said.collect()
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
        drop(settings.get::<Tls>().0.prepare());
    }
}
