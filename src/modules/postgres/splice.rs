//! What `check` says of statements that variables hold (2018: `$sql`, and the pieces in `$meta`): they become SQL as they
//! are, so what a client sends must not get into them.

use std::collections::BTreeMap;

use super::query::{Queries, is_clients};
use crate::config::{Builder, Diagnostic, Position, ScopeId, Severity};

/// Directives whose result is nothing that could be SQL, whatever they are given.
const HARMLESS: [&str; 10] = [
    "set_md5",
    "set_sha1",
    "set_encode_hex",
    "set_encode_base32",
    "set_encode_base64",
    "set_encode_base64url",
    "set_random",
    "set_rotate",
    "set_secure_random_alphanum",
    "set_secure_random_lcalpha",
];

/// A variable's value with others in it: their names, and where it is given.
type Given = BTreeMap<String, Vec<(Vec<String>, Position)>>;

/// Looks at each query whose statement a variable holds.
pub(super) fn finish(builder: &mut Builder) {
    let mut findings: Vec<Diagnostic> = Vec::new();
    for number in 0..builder.scopes.len() {
        let Some(raw) = builder.peek_number::<Queries>(number) else { continue };
        let mut given = None;
        for query in &raw.queries {
            for holder in query.sql.holders() {
                let given = given.get_or_insert_with(|| assignments(builder, number));
                let Some((name, at)) = source(given, holder) else { continue };
                let message =
                    format!("what a client sends as \"${name}\" becomes SQL as it comes: it gets into \"${holder}\"");
                let finding = Diagnostic::new(Severity::Lint, "spliced-sql", message).near(Some(at));
                let help = format!("name the variable in the statement, as a parameter: :{name}");
                findings.push(finding.note("this query takes its statement from there", Some(query.at)).help(help));
            }
        }
    }
    builder.diagnostics.extend(findings);
}

/// The variables that `set` and its kin give values, where a query of a block could see it.
fn assignments(builder: &Builder, number: usize) -> Given {
    let mut given = Given::new();
    for (other, scope) in builder.scopes.iter().enumerate() {
        if !is_within(builder, number, other) && !is_within(builder, other, number) {
            continue;
        }
        for applied in &scope.applied {
            let is_carrier = applied.row.name.starts_with("set") && !HARMLESS.contains(&applied.row.name);
            if !is_carrier {
                continue;
            }
            let written = builder.sources.written(applied.at);
            let mut names = references(&written).into_iter();
            let Some(variable) = names.next() else { continue };
            given.entry(variable).or_default().push((names.collect(), applied.at));
        }
    }
    given
}

/// Whether a block is another one, or inside of it.
fn is_within(builder: &Builder, number: usize, other: usize) -> bool {
    let parent = |number: &usize| builder.scopes.get(*number)?.parent.map(ScopeId::number);
    std::iter::successors(Some(number), parent).any(|number| number == other)
}

/// The client's variable that gets into another one, and where the last step is.
fn source(given: &Given, holder: &str) -> Option<(String, Position)> {
    let mut seen = vec![holder.to_owned()];
    let mut next = 0;
    let mut first_step: BTreeMap<String, Position> = BTreeMap::new();
    while let Some(variable) = seen.get(next).cloned() {
        next += 1;
        for (names, at) in given.get(&variable).into_iter().flatten() {
            let at = first_step.get(&variable).copied().unwrap_or(*at);
            for name in names {
                if is_clients(name) {
                    return Some((name.clone(), at));
                }
                if !seen.contains(name) {
                    seen.push(name.clone());
                    first_step.insert(name.clone(), at);
                }
            }
        }
    }
    None
}

/// The names of the variables in a directive as it was written, in their order, the assigned one first.
fn references(written: &str) -> Vec<String> {
    let after = |text: &str| {
        let name = text.strip_prefix('{').unwrap_or(text);
        let length = name.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        name[..length].to_ascii_lowercase()
    };
    written.split('$').skip(1).map(after).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use crate::config::{LoadOptions, load_text};

    /// Checks the findings about a location, as `LINE: MESSAGE`.
    #[track_caller]
    fn check(location: &str, expected: &[&str]) {
        let text = format!(
            "events {{}} http {{ upstream db {{ postgres_server 127.0.0.1 dbname=d user=u password=p; }} \
             server {{ location /other {{ set $sql $arg_other; }} location / {{ postgres_pass db;\n{location}\n}} }} }}\n"
        );
        let options = LoadOptions { file: "x".into(), offline: true, ..LoadOptions::default() };
        let config = load_text(options, text.as_bytes());
        assert!(config.is_good(), "{:?}", config.built.diagnostics);
        let findings = config.built.diagnostics.iter().filter(|finding| finding.code == "spliced-sql");
        let found: Vec<String> = findings
            .map(|finding| {
                let line = finding.at.and_then(|at| Some(config.built.sources.place(at)?.1 - 1));
                format!("{}: {}", line.unwrap_or_default(), finding.message)
            })
            .collect();
        assert_eq!(found, expected, "{location}");
    }

    #[test]
    fn what_gets_into_statements() {
        let becomes = |line: u8, name: &str, holder: &str| {
            format!("{line}: what a client sends as \"${name}\" becomes SQL as it comes: it gets into \"${holder}\"")
        };
        check("set $action a; set $sql 'select :id'; set $id $arg_id; postgres_query :index;", &[]);
        check("set $action a;\nset $sql \"select $arg_id\";\npostgres_query :index;", &[&becomes(2, "arg_id", "sql")]);
        check(
            "set $action a;\nset_unescape_uri $x $arg_id;\nset $meta '{\"a\": \"${x}\"}';\npostgres_query ':select :@:a';",
            &[&becomes(3, "arg_id", "meta")],
        );
        check("set_md5 $x $arg_id; set $meta '{\"a\": \"$x\"}'; postgres_query ':select :@:a';", &[]);
        check("set $meta $arg_meta; postgres_query ':select :a';", &[]);
        check(
            "set $action a;\nif ($arg_x) { set $sql $http_x; }\npostgres_query :index;",
            &[&becomes(2, "http_x", "sql")],
        );
    }
}
