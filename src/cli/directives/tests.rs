//! The tables against nginx's own, against their own words, and against the page that is made of them.

use super::*;
use crate::config::{Args, Contexts, LoadOptions, load_text};

/// Rows whose contexts or number of arguments are not those of the catalogue, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("push_stream_subscriber_buffer_size", OURS),
    ("push_stream_farewell_time", OURS),
    ("push_stream_websocket_deflate", OURS),
    ("postgres_unsafe_interpolation", OURS),
    ("postgres_listen_canary", OURS),
    ("upstream_list", "it is of the NDK, which the catalogue leaves out"),
];

/// Why a row is not in the catalogue.
const OURS: &str = "nginx and its modules have nothing of the kind";

/// Defaults that can't be written out, and why.
const NOT_WRITTEN: &[(&str, &str)] = &[
    ("proxy_redirect", "stands after a proxy_pass"),
    ("log_format", "the format that is there already can't be defined again"),
    ("push_stream_subscriber", "it needs push_stream_channels_path beside it"),
];

#[test]
fn the_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/directives.md");
    let page = markdown::render(&entries());
    if std::fs::read_to_string(path).is_ok_and(|old| old == page) {
        return;
    }
    std::fs::write(path, page).expect("the page can be written where the source is");
    panic!("docs/directives.md was not up to date; it is now: run the test again, and commit it");
}

#[test]
fn rows_agree_with_nginx() {
    let mut problems = Vec::new();
    for row in Registry::get().directives() {
        let known = catalogue::named(row.name);
        let known = known.iter().filter(|known| !known.module.starts_with("stream"));
        let shapes: Vec<(Contexts, Args)> =
            known.map(|known| (contexts(known.contexts), arguments(known.arguments))).collect();
        let union = shapes.iter().copied().reduce(|(c, a), (d, b)| (c | d, widest(a, b)));
        let is_listed = EXCEPTIONS.iter().any(|(name, _)| *name == row.name);
        let agrees = shapes.iter().chain(&union).any(|(contexts, args)| *contexts == row.contexts && *args == row.args);
        match (agrees, is_listed) {
            (true, true) => problems.push(format!("{} agrees: strike it from EXCEPTIONS", row.name)),
            (false, false) => {
                let ours = format!("{} {:?}", row.contexts.names().join(", "), row.args);
                problems.push(format!("{}: {ours}, while nginx has {shapes:?}", row.name));
            }
            (true, false) | (false, true) => {}
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn defaults_and_examples_load() {
    let mut problems = Vec::new();
    for row in Registry::get().directives() {
        let default = format!("{} {}", row.name, row.default);
        let default =
            if row.body == Body::Block { format!("{} {{ {} }}", row.name, row.default) } else { default + ";" };
        let documented = doc(row);
        let examples = documented.lines().filter_map(|line| line.trim().strip_prefix("Example:"));
        let examples = examples.map(|line| line.trim().trim_matches('`').to_owned());
        let has_default = !row.default.is_empty() && !NOT_WRITTEN.iter().any(|(name, _)| *name == row.name);
        for line in examples.chain(has_default.then_some(default)) {
            let refused = Contexts::all().iter().filter(|context| row.contexts.contains(*context));
            let refused: Vec<_> = refused.map(|context| refusals(&line, context)).collect();
            // What needs another directive beside it may load in one of the blocks only.
            if refused.iter().all(|refusals| !refusals.is_empty()) {
                problems.push(format!("{line}: {:?}", refused.first()));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What refuses a directive in a block.
fn refusals(line: &str, context: Contexts) -> Vec<String> {
    let http = |inner: &str| format!("events {{}} http {{ {inner} }}");
    let location = |inner: &str| http(&format!("server {{ location /x {{ {inner} }} }}"));
    let text = match context {
        Contexts::MAIN if line.starts_with("events") || line.starts_with("http") => line.to_owned(),
        Contexts::MAIN => format!("{line} events {{}}"),
        Contexts::EVENTS => format!("events {{ {line} }}"),
        Contexts::HTTP => http(line),
        Contexts::SERVER => http(&format!("server {{ {line} }}")),
        Contexts::UPSTREAM => http(&format!("upstream u {{ {line} server 127.0.0.1:1; }}")),
        Contexts::IF_SERVER => http(&format!("server {{ if ($uri) {{ {line} }} }}")),
        Contexts::IF_LOCATION => location(&format!("if ($uri) {{ {line} }}")),
        Contexts::LIMIT_EXCEPT => location(&format!("limit_except GET {{ {line} }}")),
        _ => location(line),
    };
    let options =
        LoadOptions { offline: true, prefix: "/p".into(), file: "/p/conf/x".into(), ..LoadOptions::default() };
    let config = load_text(options, text.as_bytes());
    let refusing = config.built.diagnostics.iter().filter(|finding| finding.severity.refuses() && !finding.late);
    refusing.map(|finding| finding.message.clone()).collect()
}

fn contexts(text: &str) -> Contexts {
    let one =
        |name: &str| Contexts::all().iter().find(|context| context.names() == [name]).unwrap_or(Contexts::empty());
    text.split(", ").fold(Contexts::empty(), |all, name| all | one(name))
}

fn arguments(text: &str) -> Args {
    let number = |text: &str| text.parse::<u8>().unwrap_or(0);
    match text.strip_suffix('+') {
        _ if text == "flag" => Args::ONE,
        Some(least) => Args::at_least(number(least)),
        None => {
            let mut numbers = text.split(' ').map(number);
            let first = numbers.next().unwrap_or(0);
            Args::between(first, numbers.next_back().unwrap_or(first))
        }
    }
}

fn widest(a: Args, b: Args) -> Args {
    Args { min: a.min.min(b.min), max: a.max.max(b.max) }
}
