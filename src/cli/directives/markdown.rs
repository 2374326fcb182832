//! The reference as a page: `docs/directives.md`.

use std::collections::BTreeMap;

use super::{Entry, Support, doc, syntax};

/// The whole page.
pub(super) fn render(entries: &[Entry]) -> String {
    let count = |status: &str| entries.iter().filter(|entry| entry.status().0 == status).count();
    let mut page = format!(
        "# Directives\n\n\
         Made of the program's own tables (`pushgate directives --format markdown`) by `cargo test`; not to be edited.\n\n\
         Of the directives of nginx 1.28 and of the push-stream, postgres and set-misc modules {} work, {} work with a \
         difference that is named, {} are accepted without effect because they tune something that does not exist here, \
         and {} are known but not supported: a configuration with one of these is refused, with a message that says so.\n",
        count("works"),
        count("partly"),
        count("ignored"),
        count("unsupported"),
    );
    let mut module = "";
    for entry in entries.iter().filter(|entry| entry.is_ours()) {
        if entry.module != module {
            module = entry.module;
            page.push_str(&format!("\n## {module}\n"));
        }
        page.push_str(&section(entry));
    }
    page.push_str(&unsupported(entries));
    page
}

/// One directive.
pub(super) fn section(entry: &Entry) -> String {
    let (status, why) = entry.status();
    let Support::Ours(row) = entry.support else {
        return format!("\n### {}\n\nOf the module {}: known, but not supported.\n", entry.name, entry.module);
    };
    let mut section = format!("\n### {}\n\n`{}`", entry.name, syntax(row));
    if !row.default.is_empty() {
        section.push_str(&format!(" · default `{}`", row.default));
    }
    section.push_str(&format!(" · in {}\n", entry.contexts));
    match status {
        "ignored" => section.push_str(&format!("\n**Accepted without effect:** {why}.\n")),
        "partly" => section.push_str(&format!("\n**Differs:** {why}.\n")),
        _ => {}
    }
    let doc = doc(row);
    if !doc.is_empty() {
        section.push_str(&format!("\n{doc}\n"));
    }
    section
}

fn unsupported(entries: &[Entry]) -> String {
    let mut modules: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.is_ours()) {
        modules.entry(entry.module).or_default().push(format!("`{}`", entry.name));
    }
    let lines = modules.iter().map(|(module, names)| format!("- {module}: {}\n", names.join(", ")));
    format!("\n## Known, but not supported\n\n{}", lines.collect::<String>())
}
