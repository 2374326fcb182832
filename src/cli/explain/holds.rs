//! What holds in a location, and where each directive was written.

use crate::compile::{Compiled, ServerId};
use crate::config::{Applied, Config, Contexts, Directive, LocationKind, Position, Registry, ScopeId, Status};

/// One block, and what of it holds in the location.
#[derive(Debug)]
pub(super) struct Block {
    /// What the block is, as one writes it.
    pub(super) name: String,
    pub(super) at: Option<Position>,
    pub(super) directives: Vec<Held>,
}

/// A directive that holds, or would if another one did not replace it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) name: &'static str,
    /// As it was written, on one line.
    pub(super) text: String,
    pub(super) at: Position,
    /// Where an inner block says something else.
    pub(super) replaced_by: Option<Position>,
}

/// Defaults that are worth knowing everywhere.
const IMPORTANT: &[&str] = &[
    "access_log",
    "autoindex",
    "client_body_timeout",
    "client_max_body_size",
    "default_type",
    "error_log",
    "gzip",
    "index",
    "keepalive_timeout",
    "root",
    "satisfy",
    "send_timeout",
    "server_tokens",
];

/// The blocks around a location with what they say, from the inside, and the defaults of what they don't.
pub(super) fn holds(
    compiled: &Compiled,
    server: ServerId,
    location: Option<usize>,
    method: &str,
) -> (Vec<Block>, Vec<(&'static str, &'static str)>) {
    let config = &compiled.config;
    let model = &config.built.model;
    let innermost = match location {
        Some(number) => limiting(config, number, method).unwrap_or(model.locations[number].scope),
        None => model.servers[server.0 as usize].scope,
    };
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_inner = true;
    for id in std::iter::successors(Some(innermost), |id| config.built.scope(*id).parent) {
        let scope = config.built.scope(id);
        let held: Vec<Held> = scope
            .applied
            .iter()
            .filter(|applied| matters(applied.row, scope.context, is_inner))
            .map(|applied| held(config, applied, scope.context, &blocks))
            .collect();
        blocks.push(Block { name: name(config, id), at: scope.at, directives: held });
        is_inner = scope.context == Contexts::LIMIT_EXCEPT;
    }
    let defaults = defaults(&blocks);
    (blocks, defaults)
}

/// The `limit_except` block that holds for a method.
fn limiting(config: &Config, number: usize, method: &str) -> Option<ScopeId> {
    let inside = config
        .built
        .model
        .locations
        .iter()
        .filter(|location| location.parent == Some(number) && matches!(location.kind, LocationKind::Nameless));
    inside.map(|location| location.scope).find(|id| {
        let scope = config.built.scope(*id);
        let written = scope.at.map(|at| config.built.sources.written(at)).unwrap_or_default();
        let excepted =
            |word: &str| word.eq_ignore_ascii_case(method) || word.eq_ignore_ascii_case("GET") && method == "HEAD";
        scope.context == Contexts::LIMIT_EXCEPT && !written.split_ascii_whitespace().skip(1).any(excepted)
    })
}

/// Whether a directive of a block says something about the location.
fn matters(row: &'static Directive, context: Contexts, is_inner: bool) -> bool {
    let opens_block = matches!(row.body, crate::config::Body::Block) && row.name != "types" && row.name != "if";
    if opens_block {
        return false;
    }
    match context {
        _ if is_inner => true,
        Contexts::SERVER => true,
        Contexts::LOCATION => inherits(row),
        _ => row.contexts.intersects(Contexts::LOCATION),
    }
}

/// Whether a location inside the one with this directive has it too: what may stand in `http` is meant to be inherited,
/// while what makes answers or rewrites belongs to its own block.
fn inherits(row: &'static Directive) -> bool {
    row.contexts.contains(Contexts::HTTP) || row.name == "alias" || is_setting(row)
}

fn is_setting(row: &'static Directive) -> bool {
    let sections = Registry::get().modules().iter().flat_map(|module| module.sections);
    sections.flat_map(|section| section.directives()).any(|setting| std::ptr::eq(setting, row))
}

fn held(config: &Config, applied: &Applied, context: Contexts, inner: &[Block]) -> Held {
    let row = applied.row;
    let rewrites = row.contexts.contains(Contexts::REWRITE) || row.name == "if";
    // The rewriting of the server runs before a location is looked for, so nothing replaces it.
    let stays = rewrites || context == Contexts::SERVER && !row.contexts.intersects(Contexts::LOCATION);
    let replaces = |other: &&Held| family(other.name) == family(row.name);
    let replaced_by = inner.iter().flat_map(|block| &block.directives).find(replaces);
    Held {
        name: row.name,
        text: one_line(&config.built.sources.written(applied.at), row),
        at: applied.at,
        replaced_by: replaced_by.filter(|_| !stays).map(|other| other.at),
    }
}

/// Directives that write one setting have one name here.
fn family(name: &'static str) -> &'static str {
    match name {
        "deny" => "allow",
        "alias" => "root",
        name => name,
    }
}

/// A directive as it was written, on one line.
pub(super) fn one_line(written: &str, row: &Directive) -> String {
    let words: Vec<&str> = written.split_ascii_whitespace().collect();
    let end = if matches!(row.body, crate::config::Body::Block) { " { … }" } else { ";" };
    words.join(" ") + end
}

/// What a block is, as one writes it.
fn name(config: &Config, id: ScopeId) -> String {
    let scope = config.built.scope(id);
    match scope.at {
        None => "outside of all blocks".to_owned(),
        Some(at) => config.built.sources.written(at).split_ascii_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// The defaults of what no block says: the important ones, and those of the modules that the innermost block uses.
fn defaults(blocks: &[Block]) -> Vec<(&'static str, &'static str)> {
    let written = |row: &Directive| {
        blocks.iter().flat_map(|block| &block.directives).any(|held| family(held.name) == family(row.name))
    };
    let uses = |rows: &[&'static Directive]| {
        let own = blocks.first().map(|block| block.directives.as_slice()).unwrap_or_default();
        own.iter().any(|held| rows.iter().any(|row| row.name == held.name))
    };
    let mut defaults = Vec::new();
    for module in Registry::get().modules() {
        let rows: Vec<&'static Directive> = module.directives().collect();
        let all = module.module != "http_core" && uses(&rows);
        let shown = rows.into_iter().filter(|row| {
            (all || IMPORTANT.contains(&row.name))
                && row.contexts.contains(Contexts::LOCATION)
                && !row.default.is_empty()
                && !matches!(row.status, Status::Ignored(_))
                && !written(row)
        });
        defaults.extend(shown.map(|row| (row.name, row.default)));
    }
    defaults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_text};

    const CONFIG: &str = "
        deny 10.0.0.1;
        root /srv;
        log_format x '$uri';
        server {
            listen 81;
            set $a 1;
            root /srv/www;
            location /a/ {
                set $a 2;
                internal;
                index a.html
                      b.html;
                location /a/b/ {
                    alias /pics/;
                    allow all;
                    limit_except GET { deny all; }
                }
            }
        }";

    /// Checks what holds in a location, as `BLOCK > TEXT`, with a dash before what is replaced.
    #[track_caller]
    fn check(location: usize, method: &str, expected: &[&str]) {
        let text = format!("events {{}} http {{ {CONFIG} }}");
        let options = LoadOptions { offline: true, ..LoadOptions::default() };
        let compiled = Compiled::new(load_text(options, text.as_bytes()));
        assert!(compiled.config.is_good(), "{:?}", compiled.config.built.diagnostics);
        let (blocks, _) = holds(&compiled, ServerId(0), Some(location), method);
        let lines = blocks.iter().flat_map(|block| block.directives.iter().map(move |held| (block, held)));
        let line = |(block, held): (&Block, &Held)| {
            let mark = if held.replaced_by.is_some() { "- " } else { "" };
            format!("{} > {mark}{}", block.name, held.text)
        };
        let found: Vec<String> = lines.map(line).collect();
        assert_eq!(found, expected, "{location} {method}");
    }

    #[test]
    fn an_outer_location() {
        check(
            0,
            "GET",
            &[
                "location /a/ > set $a 2;",
                "location /a/ > internal;",
                "location /a/ > index a.html b.html;",
                "server > listen 81;",
                "server > set $a 1;",
                "server > root /srv/www;",
                "http > deny 10.0.0.1;",
                "http > - root /srv;",
            ],
        );
    }

    #[test]
    fn an_inner_location_inherits_settings_only() {
        let outer = [
            "location /a/ > index a.html b.html;",
            "server > listen 81;",
            "server > set $a 1;",
            "server > - root /srv/www;",
            "http > - deny 10.0.0.1;",
            "http > - root /srv;",
        ];
        let own = ["location /a/b/ > alias /pics/;", "location /a/b/ > allow all;"];
        check(1, "HEAD", &[&own[..], &outer].concat());
        let own = ["limit_except GET > deny all;", "location /a/b/ > alias /pics/;", "location /a/b/ > - allow all;"];
        check(1, "POST", &[&own[..], &outer].concat());
    }
}
