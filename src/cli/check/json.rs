//! The findings as JSON, for programs of one's own.

use serde_json::{Value, json};

use super::{Class, Place, Report};
use crate::config::{Diagnostic, Position, Sources};

/// One document: the counts, and an object for each finding.
pub(super) fn render(report: &Report) -> String {
    let findings: Vec<Value> = report.findings.iter().map(|found| finding(report.sources(), found)).collect();
    let document = json!({
        "file": report.file().to_string(),
        "errors": report.errors(),
        "warnings": report.warnings(),
        "notes": report.notes(),
        "findings": findings,
    });
    format!("{document:#}\n")
}

fn finding(sources: &Sources, finding: &Diagnostic) -> Value {
    let notes: Vec<Value> =
        finding.notes.iter().map(|note| with_place(sources, Some(note.at), note.text.as_str())).collect();
    let included = finding.at.map(|at| sources.include_stack(at.source)).unwrap_or_default();
    let included: Vec<Value> = included.into_iter().map(|at| included_from(sources, at)).collect();
    let mut object = with_place(sources, finding.at, finding.message.as_str());
    object["severity"] = Class::of(finding.severity).word().into();
    object["code"] = finding.code.into();
    object["nginx"] = match finding.refuses {
        true => finding.nginx_line(sources).to_string().into(),
        false => Value::Null,
    };
    object["help"] = finding.help.as_deref().into();
    object["notes"] = notes.into();
    object["included_from"] = included.into();
    object
}

fn with_place(sources: &Sources, at: Option<Position>, message: &str) -> Value {
    let place = at.map(|at| Place::of(sources, at));
    let place = place.as_ref();
    json!({
        "message": message,
        "file": place.and_then(|place| place.path.as_deref()),
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
        "end_line": place.map(|place| place.end_line),
        "end_column": place.map(|place| place.end_column),
    })
}

fn included_from(sources: &Sources, at: Position) -> Value {
    let place = Place::of(sources, at);
    json!({ "file": place.path, "line": place.line })
}
