//! An explanation for programs.

use serde_json::{Value, json};

use super::locations::Chosen;
use super::{Ask, Explanation};
use crate::compile::Compiled;
use crate::config::Position;
use crate::http::access::Internal;

/// One document.
pub(super) fn render(compiled: &Compiled, ask: &Ask, explanation: &Explanation) -> String {
    let place = |at: Option<Position>| match at.and_then(|at| compiled.config.built.sources.place(at)) {
        Some((file, line)) => json!({ "file": file.to_string(), "line": line }),
        None => Value::Null,
    };
    let chosen = &explanation.server;
    let listener = &compiled.listeners[chosen.listener];
    let server = &compiled.config.built.model.servers[chosen.server.0 as usize];
    let candidates: Vec<Value> = explanation
        .candidates
        .iter()
        .map(|candidate| {
            json!({
                "name": candidate.name,
                "depth": candidate.depth,
                "taken": candidate.taken,
                "reason": candidate.reason,
                "at": place(candidate.at),
            })
        })
        .collect();
    let directives: Vec<Value> = explanation
        .blocks
        .iter()
        .flat_map(|block| block.directives.iter().map(move |held| (block, held)))
        .map(|(block, held)| {
            json!({
                "name": held.name,
                "text": held.text,
                "block": block.name,
                "at": place(Some(held.at)),
                "replaced_by": place(held.replaced_by),
            })
        })
        .collect();
    let defaults: Vec<Value> =
        explanation.defaults.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let path = String::from_utf8_lossy(&explanation.path);
    let location = explanation.candidates.iter().rfind(|candidate| candidate.taken);
    let id = explanation.location_id(compiled);
    let document = json!({
        "method": ask.method,
        "host": ask.host,
        "path": path,
        "args": String::from_utf8_lossy(&explanation.args),
        "address": listener.address.to_string(),
        "server": {
            "name": String::from_utf8_lossy(&compiled.server(chosen.server).name),
            "reason": chosen.reason,
            "at": place(compiled.config.built.scope(server.scope).at),
        },
        "before": explanation.before.as_ref().map(|before| json!({
            "text": before.text,
            "at": place(Some(before.at)),
            "answers": before.answers,
        })),
        "location": location.map(|location| json!({
            "name": location.name,
            "reason": location.reason,
            "at": place(location.at),
            "internal": compiled.settings(id).get::<Internal>().is_internal,
        })),
        "redirect": match explanation.location {
            Chosen::Redirect(_) => format!("{path}/").into(),
            Chosen::Location(_) | Chosen::Nothing => Value::Null,
        },
        "candidates": candidates,
        "directives": directives,
        "defaults": defaults,
    });
    format!("{document:#}\n")
}
