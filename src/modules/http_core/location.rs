//! `location` and `limit_except`.

use std::collections::HashMap;

use crate::config::value::Regex;
use crate::config::{Args, Body, Builder, Call, Contexts, Cx, Diagnostic, Directive, Fault, LocationDef, LocationKind};
use crate::http::access::{Limit, LimitExcept};
use crate::http::wire::method::Method;

/// The rows that this file brings.
pub(super) const COMMANDS: &[Directive] = &[
    Directive {
        name: "location",
        contexts: Contexts::SERVER.union(Contexts::LOCATION),
        args: Args::between(1, 2),
        body: Body::Block,
        syntax: "[= | ~ | ~* | ^~] uri | @name",
        doc: "What holds for some paths: `= path` for one path, `path` for those that begin with it (the longest wins), \
              `^~ path` likewise and before any expression, `~ expression` (`~*` in any case; the first of the file \
              that matches wins over prefixes), `@name` for jumps inside the server.",
        file: file!(),
        apply: location,
        ..Directive::BASE
    },
    Directive {
        name: "limit_except",
        contexts: Contexts::LOCATION,
        args: Args::SOME,
        body: Body::Block,
        once: true,
        syntax: "method ...",
        doc: "What holds in a location for all methods but those named; GET includes HEAD.",
        file: file!(),
        apply: limit_except,
        ..Directive::BASE
    },
];

fn location(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let (kind, name) = read(cx, call)?;
    let server = cx.model().servers.len() - 1;
    let parent = cx.location_number();
    if let Some(parent) = parent {
        nest(cx, parent, &kind, &name)?;
    }
    let scope = cx.open(Contexts::LOCATION, call);
    let number = cx.model().locations.len();
    let model = cx.model();
    model.locations.push(LocationDef { scope, server, kind, name, parent, children: Vec::new() });
    match parent {
        None => model.servers[server].locations.push(number),
        Some(parent) => model.locations[parent].children.push(number),
    }
    cx.walk(scope, call);
    Ok(())
}

fn read(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(LocationKind, String), Fault> {
    let last = call.len() - 1;
    let word = call.text(last).into_owned();
    let (modifier, name) = match call.len() {
        2 => (call.text(0).into_owned(), word),
        // The modifier may stand right before the name.
        _ => ["=", "^~", "~*", "~"]
            .into_iter()
            .find_map(|modifier| Some((modifier.to_owned(), word.strip_prefix(modifier)?.to_owned())))
            .unwrap_or((String::new(), word)),
    };
    let path = || name.clone().into_bytes();
    let kind = match modifier.as_str() {
        "" if name.starts_with('@') => LocationKind::Named(path()),
        "" => LocationKind::Prefix { path: path(), no_regex: false },
        "=" => LocationKind::Exact(path()),
        "^~" => LocationKind::Prefix { path: path(), no_regex: true },
        "~" | "~*" => {
            LocationKind::Regex(Regex::compile(&name, modifier == "~*", cx).map_err(|fault| fault.word(last))?)
        }
        _ => {
            return Err(Fault::new(format!("invalid location modifier \"{modifier}\""))
                .word(0)
                .help("a modifier is one of: = ~ ~* ^~"));
        }
    };
    Ok((kind, name))
}

/// Whether a location may stand in another one.
fn nest(cx: &mut Cx<'_>, parent: usize, kind: &LocationKind, name: &str) -> Result<(), Fault> {
    let outer = &cx.model().locations[parent];
    let outer_name = &outer.name;
    match &outer.kind {
        LocationKind::Exact(_) => {
            return Err(Fault::new(format!(
                "location \"{name}\" cannot be inside the exact location \"{outer_name}\""
            )));
        }
        LocationKind::Named(_) => {
            return Err(Fault::new(format!(
                "location \"{name}\" cannot be inside the named location \"{outer_name}\""
            )));
        }
        LocationKind::Prefix { .. } | LocationKind::Regex(_) | LocationKind::Nameless => {}
    }
    match kind {
        LocationKind::Named(_) => Err(Fault::new(format!("named location \"{name}\" can be on the server level only"))),
        LocationKind::Exact(_) | LocationKind::Prefix { .. } if !name.starts_with(outer_name.as_str()) => {
            Err(Fault::new(format!("location \"{name}\" is outside location \"{outer_name}\"")))
        }
        _ => Ok(()),
    }
}

fn limit_except(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    const METHODS: [&str; 14] = [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "MKCOL",
        "COPY",
        "MOVE",
        "OPTIONS",
        "PROPFIND",
        "PROPPATCH",
        "LOCK",
        "UNLOCK",
        "PATCH",
    ];
    let mut except = Vec::new();
    for (index, word) in call.words().enumerate() {
        let name = word.to_ascii_uppercase();
        if !METHODS.iter().any(|method| method.as_bytes() == name) {
            return Err(Fault::new(format!("invalid method \"{}\"", call.text(index))).word(index));
        }
        except.push(Method::from_name(&name));
    }
    if except.contains(&Method::Get) {
        except.push(Method::Head);
    }
    let location = cx.model().locations.len();
    *cx.edit::<LimitExcept>() = Some(Limit { except, location });
    let scope = cx.open(Contexts::LIMIT_EXCEPT, call);
    let server = cx.model().servers.len() - 1;
    let parent = cx.location_number();
    let name = parent.map(|parent| cx.model().locations[parent].name.clone()).unwrap_or_default();
    cx.model().locations.push(LocationDef {
        scope,
        server,
        kind: LocationKind::Nameless,
        name,
        parent,
        children: Vec::new(),
    });
    cx.walk(scope, call);
    Ok(())
}

/// Finds locations of one name on one level.
pub(super) fn finish(builder: &mut Builder) {
    let model = &builder.model;
    let levels = model.servers.iter().map(|server| &server.locations);
    let levels = levels.chain(model.locations.iter().map(|location| &location.children));
    let mut findings = Vec::new();
    for level in levels {
        let mut seen = HashMap::new();
        for location in level.iter().map(|number| &model.locations[*number]) {
            let key = match &location.kind {
                LocationKind::Exact(path) => (0, path),
                LocationKind::Prefix { path, .. } => (1, path),
                LocationKind::Named(path) => (2, path),
                LocationKind::Regex(_) | LocationKind::Nameless => continue,
            };
            let at = builder.scope(location.scope).at;
            if let Some(first) = seen.insert(key, at) {
                let kind = if key.0 == 2 { "named location" } else { "location" };
                let finding =
                    Diagnostic::emerg("duplicate-location", format!("duplicate {kind} \"{}\"", location.name));
                let finding = finding.note("first defined here", first);
                findings.push(match at {
                    Some(at) => finding.at(at),
                    None => finding,
                });
            }
        }
    }
    builder.diagnostics.extend(findings);
}
