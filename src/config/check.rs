//! The walk over the tree: finds each directive's row, checks what the row says, and carries it out.
//!
//! The order of the checks and the wording are nginx's; unlike nginx the walk goes on after a fault.

use std::path::{Path, PathBuf};

use pushgate_parser as ast;

use super::builder::{Applied, Builder, Cx, ScopeId};
use super::call::Call;
use super::diagnostic::{Diagnostic, Fault, Severity};
use super::directive::{Body, Contexts, Directive};
use super::source::{Position, SourceId};
use super::value::{Flag, Msec, Number, Offset, Sec, Size, Value, parse_number, parse_size};
use super::{catalogue, suggest};

/// nginx has no limit of its own; a file that includes itself would end by the open-file limit there.
const MAX_INCLUDE_DEPTH: usize = 64;

/// Walks the items of a block that is made of directives.
pub(super) fn walk(builder: &mut Builder, scope: ScopeId, source: SourceId, items: &[ast::Item]) {
    each(builder, scope, source, items, &mut |cx, call| {
        directive(cx, call);
        Ok(())
    });
}

/// Walks the items of a block that is made of data.
pub(super) fn entries(
    builder: &mut Builder,
    scope: ScopeId,
    source: SourceId,
    items: &[ast::Item],
    entry: &mut dyn FnMut(&mut Cx<'_>, &Call<'_>) -> Result<(), Fault>,
) {
    each(builder, scope, source, items, entry);
}

type Visit<'v> = &'v mut dyn FnMut(&mut Cx<'_>, &Call<'_>) -> Result<(), Fault>;

fn each(builder: &mut Builder, scope: ScopeId, source: SourceId, items: &[ast::Item], visit: Visit<'_>) {
    for item in items {
        match item {
            ast::Item::Comment(_) => {}
            ast::Item::Error(error) => {
                let span = ast::Span { start: error.offset, end: error.offset };
                let at = Position { source, span, end: error.offset };
                builder.diagnostics.push(Diagnostic::emerg("syntax", error.to_string()).at(at));
            }
            ast::Item::Directive(written) => {
                let call = Call { directive: written, source };
                if call.name_bytes() == b"include" {
                    include(builder, scope, &call, visit);
                    continue;
                }
                let mut cx = Cx { builder, scope };
                if let Err(fault) = visit(&mut cx, &call) {
                    report(&mut cx, &call, fault);
                }
            }
        }
    }
}

/// Checks one directive against its row and carries it out.
fn directive(cx: &mut Cx<'_>, call: &Call<'_>) {
    let name = call.name();
    let context = cx.context();
    let Some(rows) = cx.builder.registry.named(&name) else {
        let diagnostic = suggest::unknown(cx.builder.registry, &name, context, call);
        cx.report(diagnostic);
        return;
    };
    let Some(row) = rows.iter().copied().find(|row| row.contexts.intersects(context)) else {
        let allowed = rows.iter().fold(Contexts::empty(), |all, row| all | row.contexts).names().join(", ");
        cx.report(
            Diagnostic::emerg("context", format!("\"{name}\" directive is not allowed here"))
                .at(call.at())
                .help(format!("it is allowed in: {allowed}")),
        );
        return;
    };
    if let Err(fault) = shape(call, row).and_then(|()| once(cx, call, row)).and_then(|()| unused(cx, call, row)) {
        report(cx, call, fault);
        return;
    }
    if let super::directive::Status::Ignored(reason) = row.status {
        cx.report(
            Diagnostic::new(Severity::Info, "ignored", format!("\"{name}\" has no effect here: {reason}"))
                .near(Some(call.at())),
        );
    }
    let index = cx.builder.scope(cx.scope).applied.len();
    if let Err(fault) = (row.apply)(cx, call) {
        report(cx, call, fault);
    }
    let scope = cx.scope;
    let applied = Applied { row, at: call.at() };
    cx.builder.scope_mut(scope).applied.insert(index, applied);
}

fn shape(call: &Call<'_>, row: &Directive) -> Result<(), Fault> {
    let name = row.name;
    match (row.body, call.has_block()) {
        (Body::None, true) => {
            Err(Fault::new(format!("directive \"{name}\" is not terminated by \";\"")).code("missing-semicolon"))
        }
        (Body::Block, false) => {
            Err(Fault::new(format!("directive \"{name}\" has no opening \"{{\"")).code("missing-block"))
        }
        _ if !row.args.allow(call.len()) => {
            let fault = Fault::new(format!("invalid number of arguments in \"{name}\" directive")).code("arity");
            Err(if row.syntax.is_empty() { fault } else { fault.help(format!("syntax: {name} {};", row.syntax)) })
        }
        _ => Ok(()),
    }
}

fn once(cx: &Cx<'_>, call: &Call<'_>, row: &'static Directive) -> Result<(), Fault> {
    if row.once && cx.has(row.name) { Err(call.duplicate()) } else { Ok(()) }
}

/// A value without effect must still be one: checks what has a kind that is common to many directives.
fn unused(cx: &mut Cx<'_>, call: &Call<'_>, row: &'static Directive) -> Result<(), Fault> {
    if !matches!(row.status, super::directive::Status::Ignored(_)) {
        return Ok(());
    }
    let kind = catalogue::named(row.name).iter().map(|known| known.value).find(|kind| !kind.is_empty());
    let Some(kind) = kind else { return Ok(()) };
    let check = match kind {
        "on|off" => |cx: &mut Cx<'_>, call: &Call<'_>| Flag::parse(call, cx).map(drop),
        "number" => |cx: &mut Cx<'_>, call: &Call<'_>| Number::parse(call, cx).map(drop),
        "size" => |cx: &mut Cx<'_>, call: &Call<'_>| Size::parse(call, cx).map(drop),
        "size (64-bit)" => |cx: &mut Cx<'_>, call: &Call<'_>| Offset::parse(call, cx).map(drop),
        "time (ms precision)" => |cx: &mut Cx<'_>, call: &Call<'_>| Msec::parse(call, cx).map(drop),
        "time (s precision)" => |cx: &mut Cx<'_>, call: &Call<'_>| Sec::parse(call, cx).map(drop),
        "number size" => |_: &mut Cx<'_>, call: &Call<'_>| {
            let is_some = |value: Option<u64>| value.is_some_and(|value| value > 0);
            let is_right = is_some(parse_number(call.bytes(0))) && is_some(parse_size(call.bytes(1)));
            is_right.then_some(()).ok_or_else(|| call.invalid_value())
        },
        _ => return Ok(()),
    };
    if cx.has(row.name) {
        return Err(call.duplicate());
    }
    check(cx, call)
}

/// Turns a setter's fault into a finding at its place.
pub(super) fn report(cx: &mut Cx<'_>, call: &Call<'_>, fault: Fault) {
    let at = fault.word.map_or_else(|| call.at(), |index| call.word_at(index));
    let mut diagnostic = Diagnostic::new(fault.severity, fault.code, fault.message).at(at);
    diagnostic.names_place = fault.names_place;
    diagnostic.help = fault.help;
    diagnostic.refuses = fault.refuses.unwrap_or(diagnostic.refuses);
    if fault.code == "duplicate" {
        diagnostic = diagnostic.note("first set here", cx.first(&call.name()));
    }
    cx.report(diagnostic);
}

/// Reads what an `include` names and walks it in the same block.
fn include(builder: &mut Builder, scope: ScopeId, call: &Call<'_>, visit: Visit<'_>) {
    if call.len() != 1 || call.has_block() {
        let fault = if call.has_block() {
            "directive \"include\" is not terminated by \";\""
        } else {
            "invalid number of arguments in \"include\" directive"
        };
        builder.diagnostics.push(Diagnostic::emerg("arity", fault).at(call.at()));
        return;
    }
    let pattern = builder.options.conf_path(&call.text(0));
    for path in matching(&pattern) {
        read(builder, scope, call, &path, visit);
    }
}

/// The files that an include names: itself where it has no wildcard, else what matches, in order.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let mut text = pattern.to_string_lossy().into_owned();
    if !text.contains(['*', '?', '[']) {
        return vec![pattern.to_owned()];
    }
    // As glob(3): a leading dot is only matched by one, and two stars are no more than one.
    while text.contains("**") {
        text = text.replace("**", "*");
    }
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::default() };
    match glob::glob_with(&text, options) {
        Err(_) => vec![pattern.to_owned()],
        Ok(paths) => {
            let mut paths: Vec<PathBuf> = paths.flatten().collect();
            paths.sort();
            paths
        }
    }
}

fn read(builder: &mut Builder, scope: ScopeId, call: &Call<'_>, path: &Path, visit: Visit<'_>) {
    let cycle = std::iter::once(call.at())
        .chain(builder.sources.include_stack(call.source))
        .any(|at| builder.sources.get(at.source).path.as_deref() == Some(path));
    if cycle || builder.include_depth >= MAX_INCLUDE_DEPTH {
        let why = if cycle { "includes itself" } else { "is included too deeply" };
        let message = format!("\"{}\" {why}", path.display());
        builder.diagnostics.push(Diagnostic::emerg("include-cycle", message).at(call.at()));
        return;
    }
    match builder.sources.read(path, Some(call.at())) {
        Err((operation, error)) => {
            builder.diagnostics.push(cannot_read(operation, path, &error, Some(call.at())));
        }
        Ok((source, tree)) => {
            builder.include_depth += 1;
            each(builder, scope, source, &tree.items, visit);
            builder.include_depth -= 1;
        }
    }
}

/// The finding for a configuration file that can't be read, as nginx words it.
pub(super) fn cannot_read(
    operation: &str,
    path: &Path,
    error: &std::io::Error,
    included: Option<Position>,
) -> Diagnostic {
    let number = error.raw_os_error().unwrap_or(0);
    let text = error.to_string();
    let reason = text.split(" (os error").next().unwrap_or(&text);
    let message = format!("{operation}() \"{}\" failed ({number}: {reason})", path.display());
    // nginx says the first at [emerg] with the place of the include, and a failed read at [crit] without one.
    match (operation, included) {
        ("open", Some(at)) => Diagnostic::emerg("unreadable-file", message).at(at),
        ("open", None) => Diagnostic::emerg("unreadable-file", message),
        (_, at) => Diagnostic::new(Severity::Crit, "unreadable-file", message).near(at),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn values_without_effect_are_values() {
        let check = |directives: &str, expected: &[&str]| assert_eq!(findings(directives), expected, "{directives}");
        check("types_hash_max_size 1k;", &["\"types_hash_max_size\" directive invalid number"]);
        check("send_lowat x;", &["\"send_lowat\" directive invalid value"]);
        check("output_buffers 0 1k;", &["\"output_buffers\" directive invalid value"]);
        check("output_buffers 1 1k; output_buffers 1 1k;", &["\"output_buffers\" directive is duplicate"]);
        check("connection_pool_size 256; large_client_header_buffers 2 256; server { }", &[]);
        check("connection_pool_size 256; server { large_client_header_buffers 2 256; }", &[]);
    }
}
