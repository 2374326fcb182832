//! `pushgate directives`: the reference, from the rows that the program itself works with.
//!
//! `docs/directives.md` is made of it; a test keeps the two alike.

mod markdown;
#[cfg(test)]
mod tests;
mod text;

use std::process::ExitCode;

use serde_json::{Value, json};

use super::options::{Word, Words, Wrong, superfluous, unknown};
use super::{Command, output};
use crate::config::{Body, Directive, Registry, Status, catalogue};

pub(super) const COMMAND: Command = Command {
    name: "directives",
    summary: "list the directives, or describe one",
    usage: "[name] [--format text|json|markdown]

  name             : describe this directive (default: list all)
  --format format  : text (default), json, or markdown

Exit code: 0 described, 1 there is no such directive, 2 wrong use.",
    run,
};

fn run(words: &[String]) -> Result<ExitCode, Wrong> {
    let (mut name, mut format) = (None, "text");
    let mut words = Words::new(words);
    while let Some(word) = words.next()? {
        match word {
            Word::Flag(flag @ "--format") => format = words.value(flag)?,
            Word::Flag(flag) => return Err(unknown(flag)),
            Word::Operand(word) if name.is_some() => return Err(superfluous(word)),
            Word::Operand(word) => name = Some(word),
        }
    }
    let mut entries = entries();
    if let Some(name) = name {
        let meant = nearest(&entries, name);
        entries.retain(|entry| entry.name == name);
        if entries.is_empty() {
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean \"{meant}\"?"));
            output::error(&format!("pushgate directives: there is no directive \"{name}\"{meant}\n"));
            return Ok(ExitCode::FAILURE);
        }
    }
    output::print(match (format, name) {
        ("text", None) => text::list(&entries),
        ("text", Some(_)) => text::describe(&entries),
        ("json", _) => format!("{:#}\n", entries.iter().map(Entry::json).collect::<Value>()),
        ("markdown", None) => markdown::render(&entries),
        ("markdown", Some(_)) => entries.iter().map(markdown::section).collect(),
        _ => return Err(Wrong(format!("there is no format \"{format}\"; there are: text json markdown"))),
    });
    Ok(ExitCode::SUCCESS)
}

/// A directive of the reference: one of ours, or one that is only known.
#[derive(Clone, Debug)]
struct Entry {
    name: &'static str,
    module: &'static str,
    contexts: String,
    support: Support,
}

/// How far it goes here.
#[derive(Clone, Copy, Debug)]
enum Support {
    Ours(&'static Directive),
    Unsupported,
}

impl Entry {
    /// `works`, `partly`, `ignored` or `unsupported`, and why.
    fn status(&self) -> (&'static str, &'static str) {
        match self.support {
            Support::Unsupported => ("unsupported", ""),
            Support::Ours(row) => match row.status {
                Status::Works => ("works", ""),
                Status::Partly(why) => ("partly", why),
                Status::Ignored(why) => ("ignored", why),
            },
        }
    }

    fn is_ours(&self) -> bool {
        matches!(self.support, Support::Ours(_))
    }

    fn json(&self) -> Value {
        let (status, why) = self.status();
        let mut object = json!({
            "name": self.name,
            "module": self.module,
            "contexts": self.contexts.split(", ").collect::<Vec<_>>(),
            "status": status,
            "why": why,
        });
        if let Support::Ours(row) = self.support {
            object["syntax"] = syntax(row).into();
            object["default"] = row.default.into();
            object["doc"] = doc(row).into();
            object["file"] = row.file.into();
        }
        object
    }
}

/// All of them: ours in the order of the modules, then what is only known, by the order of the catalogue.
fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for module in Registry::get().modules() {
        entries.extend(module.directives().map(|row| Entry {
            name: row.name,
            module: module.module,
            contexts: row.contexts.names().join(", "),
            support: Support::Ours(row),
        }));
    }
    for known in catalogue::all() {
        // `include` has no row, as it belongs to no block but to the text. What several generations of a module have is one
        // entry.
        let is_ours = Registry::get().named(known.name).is_some() || known.name == "include";
        if !is_ours && !entries.iter().any(|entry| entry.name == known.name && entry.module == known.module) {
            entries.push(Entry {
                name: known.name,
                module: known.module,
                contexts: known.contexts.to_owned(),
                support: Support::Unsupported,
            });
        }
    }
    entries
}

/// How a directive is written.
fn syntax(row: &Directive) -> String {
    let space = if row.syntax.is_empty() { "" } else { " " };
    let end = if row.body == Body::Block { " { ... }" } else { ";" };
    format!("{}{space}{}{end}", row.name, row.syntax)
}

/// The manual's text, without the indentation of doc comments.
fn doc(row: &Directive) -> String {
    let lines: Vec<&str> = row.doc.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n").trim().to_owned()
}

/// The name that is most like a misspelled one.
fn nearest(entries: &[Entry], name: &str) -> Option<&'static str> {
    let near = entries.iter().map(|entry| (strsim::damerau_levenshtein(entry.name, name), entry.name));
    near.filter(|(distance, _)| *distance <= name.len().div_ceil(4).clamp(1, 4)).min().map(|(_, name)| name)
}
