//! The reference for a terminal.

use super::{Entry, Support, doc, syntax};

/// A line for each.
pub(super) fn list(entries: &[Entry]) -> String {
    let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    entries
        .iter()
        .map(|entry| format!("{:<width$}  {:<11}  {}\n", entry.name, entry.status().0, entry.module))
        .collect()
}

/// All that is known of each.
pub(super) fn describe(entries: &[Entry]) -> String {
    let sections: Vec<String> = entries.iter().map(section).collect();
    sections.join("\n")
}

fn section(entry: &Entry) -> String {
    let (status, why) = entry.status();
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let mut text = match entry.support {
        Support::Ours(row) => format!("{}\n\n", syntax(row)),
        Support::Unsupported => format!("{}\n\n", entry.name),
    };
    if let Support::Ours(row) = entry.support
        && !row.default.is_empty()
    {
        text.push_str(&format!("  default  {}\n", row.default));
    }
    text.push_str(&format!("  context  {}\n  module   {}\n  status   {status}{why}\n", entry.contexts, entry.module));
    if let Support::Ours(row) = entry.support {
        if !row.file.is_empty() {
            text.push_str(&format!("  source   {}\n", row.file));
        }
        text.push_str(&format!("\n{}\n", doc(row)));
    }
    text
}
