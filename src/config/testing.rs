//! What the tests of the rooms share: reading a few directives.

use super::{Config, LoadOptions, Severity, load_text};

/// Reads directives of the `http` block.
pub(crate) fn load_http(directives: &str) -> Config {
    let text = format!("events {{}} http {{ {directives} }}");
    load_text(LoadOptions { prefix: "/prefix".into(), offline: true, ..LoadOptions::default() }, text.as_bytes())
}

/// What is wrong with directives of the `http` block, in nginx's words.
pub(crate) fn findings(directives: &str) -> Vec<String> {
    let config = load_http(directives);
    let findings = config.built.diagnostics.iter().filter(|finding| finding.severity > Severity::Info);
    findings.map(|finding| finding.message.clone()).collect()
}
