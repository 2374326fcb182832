//! The findings as SARIF 2.1.0, which code hosts and editors show beside the lines.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::{Class, Place, Report};
use crate::config::{Diagnostic, Position, Sources};

/// A log with one run.
pub(super) fn render(report: &Report) -> String {
    let codes: BTreeSet<&str> = report.findings.iter().map(|finding| finding.code).collect();
    let rules: Vec<Value> = codes.iter().map(|code| json!({ "id": code })).collect();
    let results: Vec<Value> = report.findings.iter().map(|finding| result(report.sources(), finding)).collect();
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "pushgate check",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{document:#}\n")
}

fn result(sources: &Sources, finding: &Diagnostic) -> Value {
    let text = match &finding.help {
        None => finding.message.clone(),
        Some(help) => format!("{}; {help}", finding.message),
    };
    let location = finding.at.and_then(|at| location(sources, at, None));
    let notes = finding.notes.iter().map(|note| (note.at, note.text.clone()));
    let included = finding.at.map(|at| sources.include_stack(at.source)).unwrap_or_default();
    let included = included.into_iter().map(|at| (at, "included from here".to_owned()));
    let related: Vec<Value> =
        notes.chain(included).filter_map(|(at, text)| location_with(sources, at, &text)).collect();
    let mut result = json!({
        "ruleId": finding.code,
        "level": Class::of(finding.severity).word(),
        "message": { "text": text },
        "locations": location.into_iter().collect::<Vec<Value>>(),
    });
    if !related.is_empty() {
        result["relatedLocations"] = related.into();
    }
    result
}

fn location_with(sources: &Sources, at: Position, text: &str) -> Option<Value> {
    location(sources, at, Some(text))
}

/// A place in a file; the command line is none.
fn location(sources: &Sources, at: Position, text: Option<&str>) -> Option<Value> {
    let place = Place::of(sources, at);
    let mut location = json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(place.path.as_deref()?) },
            "region": {
                "startLine": place.line,
                "startColumn": place.column,
                "endLine": place.end_line,
                "endColumn": place.end_column,
            },
        },
    });
    if let Some(text) = text {
        location["message"] = json!({ "text": text });
    }
    Some(location)
}

/// A path as a URI reference.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len() + 7);
    if Path::new(path).is_absolute() {
        uri.push_str("file://");
    }
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("/a/b c.conf"), "file:///a/b%20c.conf");
        assert_eq!(uri("conf/ü%.conf"), "conf/%C3%BC%25.conf");
    }
}
