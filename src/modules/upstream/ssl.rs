//! `proxy_ssl_...` and its like: what nginx finds wrong with it when it reads a configuration.

use crate::config::{Builder, Diagnostic, Section};
use crate::http::upstream::family::{RawTls, Tls};
use crate::http::upstream::tls;

/// Finds certificates without a key, files that can't be used, and certificates that are to be held against nothing. As in
/// nginx it matters only where requests may go by TLS: in the blocks of the numbers that `may_be_tls` is true for.
pub fn check_tls<T>(builder: &mut Builder, prefix: &str, may_be_tls: impl Fn(&Builder, usize) -> bool)
where
    T: Section<Raw = RawTls>,
{
    let mut findings = if builder.options.offline { Vec::new() } else { unread_passwords::<T>(builder, prefix) };
    for number in 0..builder.scopes.len() {
        if !may_be_tls(builder, number) {
            continue;
        }
        let tls = merged::<T>(builder, number);
        let checked = if builder.options.offline { tls.check_words(prefix) } else { tls.prepare(prefix) };
        findings.extend(checked.err().map(|message| Diagnostic::emerg("certificate", message)));
    }
    builder.diagnostics.extend(findings);
}

/// Files of passwords that can't be read, whether or not anybody needs them.
fn unread_passwords<T>(builder: &Builder, prefix: &str) -> Vec<Diagnostic>
where
    T: Section<Raw = RawTls>,
{
    let name = format!("{prefix}_ssl_password_file");
    let said = (0..builder.scopes.len()).filter_map(|number| {
        let file = builder.peek_number::<T>(number)?.passwords.as_ref()?.as_deref()?;
        let at = builder.scopes[number].applied.iter().find(|applied| applied.row.name == name)?.at;
        Some(Diagnostic::emerg("password-file", tls::passwords(file).err()?).at(at))
    });
    said.collect()
}

/// What holds in a block.
fn merged<T: Section<Raw = RawTls>>(builder: &Builder, number: usize) -> Tls {
    let parent = builder.scopes[number].parent.map(|parent| merged::<T>(builder, parent.number()));
    let nothing = RawTls::default();
    Tls::merge(builder.peek_number::<T>(number).unwrap_or(&nothing), parent.as_ref())
}
