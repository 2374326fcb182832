//! Our own rules about a whole configuration: what loads, but can't be what was meant.
//!
//! Rooms have rules of their own about their directives; here are those about the shape of any configuration. A rule
//! speaks only where it can prove what it says.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::config::{Applied, Config, Contexts, Diagnostic, LocationDef, LocationKind, Position, Scope, Severity};

/// What the rules find.
pub(super) fn run(config: &Config) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for rule in RULES {
        rule(config, &mut findings);
    }
    findings
}

type Rule = fn(&Config, &mut Vec<Diagnostic>);

const RULES: &[Rule] =
    &[decided_access, shadowed_expressions, answered_before, after_return, alias_traversal, dropped_headers, rival_ifs];

fn lint(code: &'static str, message: String, at: Position) -> Diagnostic {
    Diagnostic::new(Severity::Lint, code, message).near(Some(at))
}

/// `allow` or `deny` after `allow all` or `deny all`: the first rule that fits decides, and that one fits everybody.
fn decided_access(config: &Config, findings: &mut Vec<Diagnostic>) {
    for scope in &config.built.scopes {
        let mut rules = named(scope, &["allow", "deny"]);
        let Some(decides) = rules.find(|rule| words(config, rule).get(1).is_some_and(|word| word == "all")) else {
            continue;
        };
        let first = words(config, decides).join(" ");
        for rule in rules {
            let message = format!("\"{}\" is never reached", words(config, rule).join(" "));
            findings.push(
                lint("unreachable-access", message, rule.at)
                    .note("this decides for everybody", Some(decides.at))
                    .help(format!("the first rule that fits decides; move it before \"{first}\"")),
            );
        }
    }
}

/// A location given by an expression that stands after the same expression, or after one that fits every path.
fn shadowed_expressions(config: &Config, findings: &mut Vec<Diagnostic>) {
    for level in levels(config) {
        // The first place of each expression, and whether it fits any case there.
        let mut before: HashMap<&str, (bool, Option<Position>)> = HashMap::new();
        let mut fits_every_path: Option<Option<Position>> = None;
        for location in level {
            let LocationKind::Regex(regex) = &location.kind else { continue };
            let at = config.built.scope(location.scope).at;
            let same = before.get(regex.pattern()).filter(|(any_case, _)| *any_case || !regex.is_caseless());
            let shadow = match (fits_every_path, same) {
                (Some(first), _) => Some((first, "an expression before it fits every path")),
                (None, Some((_, first))) => Some((*first, "the same expression stands before it")),
                (None, None) => None,
            };
            if let (Some((first, why)), Some(at)) = (shadow, at) {
                findings.push(
                    lint("unreachable-location", format!("this location is never used: {why}"), at)
                        .note("it is this one", first)
                        .help("of the expressions that fit, the first of the file is taken"),
                );
            }
            before.entry(regex.pattern()).or_insert_with(|| (regex.is_caseless(), at));
            if fits_every_path.is_none() && fits_all(regex.pattern()) {
                fits_every_path = Some(at);
            }
        }
    }
}

/// Whether an expression is one of the usual ways to fit every path.
fn fits_all(pattern: &str) -> bool {
    let open = pattern.strip_prefix('^').unwrap_or(pattern);
    let open = open.strip_prefix('/').unwrap_or(open);
    matches!(open, "" | ".*" | ".*$" | "(.*)" | "(.*)$")
}

/// `return` on the server's level: it answers before a location is looked for.
fn answered_before(config: &Config, findings: &mut Vec<Diagnostic>) {
    for server in &config.built.model.servers {
        // Anything conditional before it may end the server's own rewriting first.
        let first = first_rewrite(config.built.scope(server.scope));
        let Some(answers) = first.filter(|applied| applied.row.name == "return") else { continue };
        let locations = server.locations.iter().map(|number| &config.built.model.locations[*number]);
        // A named one can still be reached by the error page of that answer.
        let mut unused = locations.filter(|location| !matches!(location.kind, LocationKind::Named(_)));
        if let Some(location) = unused.next() {
            let message = "this \"return\" answers every request: the server's locations are never used".to_owned();
            findings.push(
                lint("unreachable-location", message, answers.at)
                    .note("such as this one", config.built.scope(location.scope).at)
                    .help("put the \"return\" into a location, such as \"location /\""),
            );
        }
    }
}

/// The first directive of a block that may answer, change the path, or end the block's rewriting.
pub(super) fn first_rewrite(scope: &Scope) -> Option<&Applied> {
    scope.applied.iter().find(|applied| matches!(applied.row.name, "return" | "rewrite" | "if" | "break"))
}

/// Rewriting after a `return` of the same block.
fn after_return(config: &Config, findings: &mut Vec<Diagnostic>) {
    for scope in &config.built.scopes {
        let mut applied = scope.applied.iter().skip_while(|applied| applied.row.name != "return");
        let Some(ends) = applied.next() else { continue };
        for late in applied.filter(|applied| rewrites(applied)) {
            findings.push(
                lint("unreachable-rewrite", format!("this \"{}\" is never reached", late.row.name), late.at)
                    .note("the request is answered here", Some(ends.at)),
            );
        }
    }
}

/// Whether a directive belongs to the rewriting that runs from top to bottom.
fn rewrites(applied: &Applied) -> bool {
    applied.row.name == "if" || applied.row.contexts.contains(Contexts::REWRITE)
}

/// `location /x { alias /y/; }`: `/x../secret` then is the file `/y/../secret`.
fn alias_traversal(config: &Config, findings: &mut Vec<Diagnostic>) {
    for location in &config.built.model.locations {
        let LocationKind::Prefix { path, .. } = &location.kind else { continue };
        let scope = config.built.scope(location.scope);
        let Some(alias) = named(scope, &["alias"]).next() else { continue };
        let folder = words(config, alias).pop().unwrap_or_default();
        if !path.ends_with(b"/") && folder.ends_with('/') {
            let name = &location.name;
            let message = format!("\"{name}../\" leads out of \"{folder}\"");
            findings.push(
                lint("alias-traversal", message, alias.at)
                    .note("this name fits more than its folder", scope.at)
                    .help(format!("write the location with a slash at its end: \"location {name}/\"")),
            );
        }
    }
}

/// Directives whose list a block takes from around it only if it has none of its own.
static LISTS: &[&str] = &["add_header", "add_trailer", "proxy_set_header"];

/// `add_header` in an inner block, where those of the block around no longer hold.
fn dropped_headers(config: &Config, findings: &mut Vec<Diagnostic>) {
    for scope in &config.built.scopes {
        for list in LISTS {
            let lines = |scope| named(scope, std::slice::from_ref(list));
            let Some(first) = lines(scope).next() else { continue };
            let mut around = around(config, scope).filter(|outer| lines(outer).next().is_some());
            let Some(outer) = around.next() else { continue };
            let header = |applied: &Applied| words(config, applied).get(1).map(|word| word.to_ascii_lowercase());
            let own: Vec<_> = lines(scope).map(header).collect();
            let lost: Vec<&Applied> = lines(outer).filter(|applied| !own.contains(&header(applied))).collect();
            let Some(one) = lost.first() else { continue };
            let names: Vec<_> = lost.iter().filter_map(|applied| words(config, applied).into_iter().nth(1)).collect();
            let message = format!("this \"{list}\" drops those of the block around it: {}", names.join(", "));
            findings.push(
                lint("dropped-headers", message, first.at)
                    .note("no longer holds there", Some(one.at))
                    .help(format!("a block with an \"{list}\" of its own inherits none: repeat them here")),
            );
        }
    }
}

/// Two `if` of one location that set more than rewriting: only the last that is true holds.
fn rival_ifs(config: &Config, findings: &mut Vec<Diagnostic>) {
    let mut before: Option<&Scope> = None;
    for scope in config.built.scopes.iter().filter(|scope| scope.context == Contexts::IF_LOCATION) {
        if scope.applied.iter().all(rewrites) {
            continue;
        }
        if let (Some(first), Some(at)) = (before.filter(|first| first.parent == scope.parent), scope.at) {
            let message = "where both conditions are true, only this \"if\" holds".to_owned();
            findings.push(
                lint("rival-ifs", message, at)
                    .note("not this one as well", first.at)
                    .help("an \"if\" is a location of its own; use \"map\" to choose values"),
            );
        }
        before = Some(scope);
    }
}

/// The locations of each level, in the order of the file.
fn levels(config: &Config) -> impl Iterator<Item = impl Iterator<Item = &LocationDef>> {
    let model = &config.built.model;
    let servers = model.servers.iter().map(|server| &server.locations);
    let nested = model.locations.iter().map(|location| &location.children);
    servers.chain(nested).map(|level| level.iter().map(|number| &model.locations[*number]))
}

/// The directives of some names that stand in a block.
fn named<'c>(scope: &'c Scope, names: &'static [&'static str]) -> impl Iterator<Item = &'c Applied> {
    scope.applied.iter().filter(|applied| names.contains(&applied.row.name))
}

/// The blocks around a block, from the inside.
fn around<'c>(config: &'c Config, scope: &'c Scope) -> impl Iterator<Item = &'c Scope> {
    std::iter::successors(scope.parent, |id| config.built.scope(*id).parent).map(|id| config.built.scope(id))
}

/// The words of a directive as they were written, the name first, without quotes around them. Good enough for words
/// without spaces, which is all that the rules look at.
fn words(config: &Config, applied: &Applied) -> Vec<String> {
    let written: Cow<'_, str> = config.built.sources.written(applied.at);
    written.split_ascii_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_text};

    /// Checks the findings in the body of a server, as `CODE LINE: MESSAGE`.
    #[track_caller]
    fn check(server: &str, expected: &[&str]) {
        let text = format!("events {{}} http {{ server {{\n{server}\n}} }}\n");
        let options = LoadOptions { file: "x".into(), offline: true, ..LoadOptions::default() };
        let config = load_text(options, text.as_bytes());
        assert!(config.is_good(), "{:?}", config.built.diagnostics);
        let line = |finding: &Diagnostic| {
            let line = finding.at.and_then(|at| Some(config.built.sources.place(at)?.1 - 1));
            format!("{} {}: {}", finding.code, line.unwrap_or_default(), finding.message)
        };
        let found: Vec<String> = run(&config).iter().map(line).collect();
        assert_eq!(found, expected, "{server}");
    }

    #[test]
    fn rules_after_all() {
        check("location / { allow 127.0.0.1; deny all; }", &[]);
        check("deny all;\nlocation / { allow 127.0.0.1; }", &[]);
        check(
            "allow 10.0.0.0/8;\ndeny all;\nallow 127.0.0.1;\nallow all;",
            &[
                "unreachable-access 3: \"allow 127.0.0.1\" is never reached",
                "unreachable-access 4: \"allow all\" is never reached",
            ],
        );
    }

    #[test]
    fn expressions_after_the_same() {
        check("location ~ a {}\nlocation ~* a {}\nlocation ~ b { location ~ a {} }", &[]);
        check(
            "location ~* a {}\nlocation ~ a {}",
            &["unreachable-location 2: this location is never used: the same expression stands before it"],
        );
        check(
            "location ~ ^/.* {}\nlocation ~ b {}",
            &["unreachable-location 2: this location is never used: an expression before it fits every path"],
        );
    }

    #[test]
    fn locations_after_an_answer() {
        check("if ($arg_x) { break; }\nreturn 404;\nlocation / {}", &[]);
        check("return 503;\nerror_page 503 @down;\nlocation @down {}", &[]);
        check(
            "return 404;\nlocation / {}",
            &["unreachable-location 1: this \"return\" answers every request: the server's locations are never used"],
        );
    }

    #[test]
    fn rewriting_after_return() {
        check("location / { set $x 1; return 200; }", &[]);
        check("location / { return 200;\nset $x 1; }", &["unreachable-rewrite 2: this \"set\" is never reached"]);
    }

    #[test]
    fn an_alias_out_of_its_folder() {
        check("location /x/ { alias /y/; }", &[]);
        check("location /x { alias /y; }", &[]);
        check("location = /x { alias /y/; }", &[]);
        check("location ^~ /x { alias '/y/'; }", &["alias-traversal 1: \"/x../\" leads out of \"/y/\""]);
    }

    #[test]
    fn headers_of_the_block_around() {
        check("add_header A 1;\nlocation / { add_header A 2; }", &[]);
        check("location / { add_header A 2; }", &[]);
        check(
            "add_header A 1; add_header B 1;\nlocation / { add_header a 2; add_header C 3; }",
            &["dropped-headers 2: this \"add_header\" drops those of the block around it: B"],
        );
    }

    #[test]
    fn ifs_beside_each_other() {
        check("location / { if ($arg_a) { return 1; } if ($arg_b) { root /x; } }", &[]);
        check("location / { if ($arg_a) { root /y; } }\nlocation /a { if ($arg_b) { root /x; } }", &[]);
        check(
            "location / { if ($arg_a) { root /y; }\nif ($arg_b) { root /x; } }",
            &["rival-ifs 2: where both conditions are true, only this \"if\" holds"],
        );
    }
}
