//! An explanation for people.

use super::locations::Chosen;
use super::{Ask, Explanation};
use crate::compile::Compiled;
use crate::config::Position;
use crate::http::access::Internal;

/// Spaces before a reason.
const INDENT: &str = "            ";

/// The whole text.
pub(super) fn render(compiled: &Compiled, ask: &Ask, explanation: &Explanation) -> String {
    let mut out = Text { compiled, text: String::new() };
    out.head(ask, explanation);
    out.others(explanation);
    out.holds(explanation);
    out.text
}

struct Text<'c> {
    compiled: &'c Compiled,
    text: String,
}

impl Text<'_> {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.text.push_str(&line.to_string());
        self.text.push('\n');
    }

    /// ` (FILE:LINE)`
    fn place(&self, at: Option<Position>) -> String {
        at.map_or_else(String::new, |at| format!(" ({})", self.compiled.config.built.sources.label(at)))
    }

    fn head(&mut self, ask: &Ask, explanation: &Explanation) {
        let chosen = &explanation.server;
        let listener = &self.compiled.listeners[chosen.listener];
        let server = self.compiled.server(chosen.server);
        let definition = &self.compiled.config.built.model.servers[chosen.server.0 as usize];
        let name = String::from_utf8_lossy(&server.name).into_owned();
        let name = if name.is_empty() { "without a name".to_owned() } else { name };
        let path = String::from_utf8_lossy(&explanation.path).into_owned();
        let server_at = self.place(self.compiled.config.built.scope(definition.scope).at);
        let listen_at = self.place(chosen.listen_at);

        self.line(format_args!("{:<12}{} {path}", "request", ask.method));
        self.line(format_args!("{:<12}{}{listen_at}", "address", listener.address));
        self.line(format_args!("{:<12}{name}{server_at}", "server"));
        self.line(format_args!("{INDENT}{}", chosen.reason));
        if let Some(before) = &explanation.before {
            let at = self.place(Some(before.at));
            let what = if before.answers {
                "answers, so that no location is looked for"
            } else {
                "may change the path, or answer"
            };
            self.line(format_args!("{:<12}{}{at}", "at first", before.text));
            self.line(format_args!("{INDENT}{what}"));
        }
        for candidate in explanation.candidates.iter().filter(|candidate| candidate.taken) {
            let at = self.place(candidate.at);
            self.line(format_args!("{:<12}{}{at}", "location", candidate.name));
            self.line(format_args!("{INDENT}{}", candidate.reason));
        }
        match explanation.location {
            Chosen::Nothing => {
                self.line(format_args!("{:<12}none; what the server says holds", "location"));
            }
            Chosen::Redirect(_) => {
                let args = String::from_utf8_lossy(&explanation.args);
                let args = if args.is_empty() { String::new() } else { format!("?{args}") };
                self.line(format_args!("{:<12}301 to {path}/{args}", "answer"));
            }
            Chosen::Location(_) => {
                let id = explanation.location_id(self.compiled);
                if self.compiled.settings(id).get::<Internal>().is_internal {
                    self.line(format_args!("{:<12}404: the location is internal, and closed to clients", "answer"));
                }
            }
        }
    }

    fn others(&mut self, explanation: &Explanation) {
        let others: Vec<_> = explanation.candidates.iter().filter(|candidate| !candidate.taken).collect();
        if others.is_empty() {
            return;
        }
        self.line(format_args!("\nOther locations:"));
        let width = others.iter().map(|other| other.name.chars().count() + 2 * other.depth).max().unwrap_or(0).min(40);
        for other in others {
            let indented = format!("{:indent$}{}", "", other.name, indent = 2 * other.depth);
            let at = self.place(other.at);
            self.line(format_args!("  {indented:<width$}  {}{at}", other.reason));
        }
    }

    fn holds(&mut self, explanation: &Explanation) {
        self.line(format_args!("\nWhat holds there:"));
        for block in explanation.blocks.iter().filter(|block| !block.directives.is_empty()) {
            let at = self.place(block.at);
            self.line(format_args!("  {}{at}", block.name));
            for held in &block.directives {
                let at = self.place(Some(held.at));
                match held.replaced_by {
                    None => self.line(format_args!("    {}{at}", held.text)),
                    Some(by) => {
                        let by = self.compiled.config.built.sources.label(by);
                        self.line(format_args!("    - {}{at}: replaced by {by}", held.text));
                    }
                }
            }
        }
        if !explanation.defaults.is_empty() {
            self.line(format_args!("  by default"));
            for (name, default) in &explanation.defaults {
                self.line(format_args!("    {name} {default};"));
            }
        }
    }
}
