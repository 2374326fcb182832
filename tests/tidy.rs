//! Our own rules about the source, held by reading it as text.
//!
//! They keep what `docs/architecture.md` says true: data goes one way through the rooms, and what is dear to find again
//! later (the clock, `unsafe`, where configuration is read) is in one place. An exception is listed here with its reason.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

/// Rooms under `src/modules` that others may import, and why.
const SHARED_ROOMS: &[(&str, &str)] = &[
    ("http_core", "the content type of what a path names, which every module that answers needs"),
    ("upstream", "the blocks and settings that all have in common which talk to servers behind us"),
];

/// Files that may be longer than [`LONG`], and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// At so many lines (without the tests at the foot) a file has to say why.
const LONG: usize = 600;

#[test]
fn the_parser_knows_no_directive() {
    let names = directive_names();
    let quoted = Regex::new(r#""([a-z][a-z0-9_]*)""#).unwrap();
    hold("the parser knows nginx's grammar, not its directives", |source, line| {
        let of_parser = source.path.starts_with("parser/src");
        let found = quoted.captures_iter(line).find(|found| names.contains(&found[1]))?;
        of_parser.then(|| format!("names the directive {}", &found[0]))
    });
}

#[test]
fn the_engines_know_neither_http_nor_configuration() {
    hold_imports("hub, pg and tls take and give plain values", |source, path| {
        let foreign: &[&str] = match source.path.split('/').nth(1)? {
            "hub" => &["http", "config", "compile", "modules", "pg"],
            "pg" => &["http", "config", "compile", "modules", "hub"],
            "tls" => &["http", "config", "compile", "modules", "hub", "pg"],
            _ => return None,
        };
        Some(foreign.contains(&path.first()?.as_str()))
    });
}

#[test]
fn http_and_compile_name_no_room() {
    hold_imports("what all modules have in common goes through the list in modules/mod.rs", |source, path| {
        let common = source.path.starts_with("src/http") || source.path.starts_with("src/compile");
        Some(common && room(path).is_some())
    });
}

#[test]
fn rooms_import_no_other_room() {
    hold_imports(
        "a module knows no other module's inside; share a room by SHARED_ROOMS in tests/tidy.rs",
        |source, path| {
            let own = source.module.get(1).filter(|_| source.module[0] == "modules")?;
            let other = room(path)?;
            Some(own != other && !SHARED_ROOMS.iter().any(|(shared, _)| shared == other))
        },
    );
}

#[test]
fn only_config_reads_configuration() {
    hold("configuration is read by src/config alone", |source, line| {
        let elsewhere = source.path.starts_with("src/") && !source.path.starts_with("src/config/");
        (elsewhere && line.contains("pushgate_parser")).then(|| "uses the parser".into())
    });
}

#[test]
fn only_the_clock_reads_the_time() {
    let now = Regex::new(r"\b(Instant|SystemTime)::now\b").unwrap();
    hold("time comes from server/clock.rs, or is an argument", |source, line| {
        let elsewhere = source.path.starts_with("src/") && source.path != "src/server/clock.rs";
        now.find(line).filter(|_| elsewhere).map(|found| format!("calls {}", found.as_str()))
    });
}

#[test]
fn unsafe_is_in_sys() {
    let keyword = Regex::new(r"\bunsafe\s*(\{|fn\b|impl\b|trait\b|extern\b)|allow\(unsafe_code").unwrap();
    hold("unsafe code is in src/sys alone", |source, line| {
        (!source.path.starts_with("src/sys/") && keyword.is_match(line)).then(|| "has unsafe code".into())
    });
}

#[test]
fn nothing_is_left_to_do() {
    let stub = Regex::new(r"\b(todo|unimplemented|dbg)!").unwrap();
    hold("a stub is not a step", |_, line| stub.find(line).map(|found| format!("has {}", found.as_str())));
}

#[test]
fn every_file_says_what_it_is() {
    let mut problems = String::new();
    for source in sources().iter().filter(|source| !source.text.starts_with("//! ")) {
        writeln!(problems, "{}: does not begin with a `//!` comment", source.path).unwrap();
    }
    assert!(problems.is_empty(), "every file begins with what it is for:\n{problems}");
}

#[test]
fn files_are_not_long() {
    let mut problems = String::new();
    for source in sources() {
        let lines = source.without_tests().lines().count();
        let listed = LONG_FILES.iter().any(|(path, _)| *path == source.path);
        if lines >= LONG && !listed {
            writeln!(problems, "{}: {lines} lines; split it by feature, or list it in LONG_FILES", source.path)
                .unwrap();
        } else if lines < LONG && listed {
            writeln!(problems, "{}: is not long any more; strike it from LONG_FILES", source.path).unwrap();
        }
    }
    assert!(problems.is_empty(), "a file is under {LONG} lines:\n{problems}");
}

#[test]
fn exceptions_exist() {
    let root = root();
    for (path, _) in LONG_FILES {
        assert!(root.join(path).is_file(), "LONG_FILES: there is no {path}");
    }
}

#[test]
fn lines_have_no_trailing_space() {
    let ours = ["rs", "toml", "md", "html", "js", "css", "conf", "yml", "sh", "dev", "run"];
    let mut problems = String::new();
    for path in files() {
        let name = path.rsplit(['.', '/']).next().unwrap_or_default();
        // The recorded cases are data: there the spaces count.
        if path.starts_with("tests/conformance/cases/") || !ours.contains(&name) {
            continue;
        }
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| line.ends_with([' ', '\t', '\r'])) {
            writeln!(problems, "{path}:{}: {line:?}", number + 1).unwrap();
        }
    }
    assert!(problems.is_empty(), "lines end with what is seen:\n{problems}");
}

/// One Rust file.
struct Source {
    path: String,
    /// The path of its module: `src/modules/rewrite/set.rs` is `modules`, `rewrite`, `set`.
    module: Vec<String>,
    text: String,
}

impl Source {
    fn read(path: String) -> Self {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        let inner = path.strip_prefix("src/").unwrap_or_default().trim_end_matches(".rs");
        let inner = inner.trim_end_matches("mod").trim_end_matches('/');
        let module = inner.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Self { path, module, text }
    }

    /// Up to the tests at the foot; nothing of a file of tests.
    fn without_tests(&self) -> &str {
        if self.path.starts_with("src/") && self.path.ends_with("/tests.rs") {
            return "";
        }
        static TESTS: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"\n#\[cfg\(test\)\]\n(#\[[^\n]*\]\n)*mod ").unwrap());
        TESTS.split(&self.text).next().unwrap_or_default()
    }

    /// The text without tests and comments, line by line.
    fn code(&self) -> String {
        let line = |line: &str| {
            if line.trim_start().starts_with("//") { String::new() } else { line.to_owned() }
        };
        self.without_tests().lines().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Every path of the crate that the code names, with the number of its line.
    fn imports(&self) -> Vec<(usize, Vec<String>)> {
        let start = Regex::new(r"\b(crate|super)::").unwrap();
        let code = self.code();
        let mut out = Vec::new();
        for found in start.find_iter(&code) {
            // In `super::super::x` only the first begins a path.
            if code[..found.start()].ends_with("::") {
                continue;
            }
            let number = code[..found.start()].matches('\n').count() + 1;
            let mut paths = Vec::new();
            expand(&code[found.start()..], &mut Vec::new(), &mut paths);
            out.extend(paths.into_iter().map(|path| (number, self.absolute(path))));
        }
        out
    }

    /// A path from the crate's root, without `crate` and `super`.
    fn absolute(&self, path: Vec<String>) -> Vec<String> {
        let mut at = self.module.clone();
        let mut out = Vec::new();
        for part in path {
            match part.as_str() {
                "crate" => at.clear(),
                "super" => drop(at.pop()),
                _ => out.push(part),
            }
        }
        at.extend(out);
        at
    }
}

/// Reads one path, or a tree `a::{b, c::d}`, from the beginning of `text`; what follows it.
fn expand<'a>(text: &'a str, prefix: &mut Vec<String>, out: &mut Vec<Vec<String>>) -> &'a str {
    if let Some(group) = text.strip_prefix('{') {
        let mut rest = group.trim_start();
        while !rest.is_empty() && !rest.starts_with('}') {
            rest = expand(rest, prefix, out);
            // What may stand between two items: `as name`, `*`.
            rest = rest.trim_start_matches(|c: char| !matches!(c, ',' | '}'));
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        return rest.strip_prefix('}').unwrap_or_default();
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    if end == 0 {
        out.push(prefix.clone());
        return text;
    }
    prefix.push(text[..end].to_owned());
    let mut rest = &text[end..];
    match rest.strip_prefix("::") {
        Some(more) => rest = expand(more, prefix, out),
        None => out.push(prefix.clone()),
    }
    prefix.pop();
    rest
}

/// The room that a path leads into: `modules`, then a name in lower case.
fn room(path: &[String]) -> Option<&String> {
    let name = path.get(1).filter(|_| path[0] == "modules")?;
    name.starts_with(|c: char| c.is_lowercase()).then_some(name)
}

/// Names that can only be directives: those in the recorded cases that have an underscore, and the best known without.
fn directive_names() -> BTreeSet<String> {
    let name = Regex::new(r"(?m)^\s*([a-z0-9]+(?:_[a-z0-9]+)+)[ ;]").unwrap();
    let well_known =
        ["http", "events", "server", "location", "upstream", "listen", "root", "map", "geo", "types", "include"];
    let mut names: BTreeSet<String> = well_known.into_iter().map(str::to_owned).collect();
    for path in files().iter().filter(|path| path.starts_with("tests/conformance/cases/") && path.ends_with(".toml")) {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        names.extend(name.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    assert!(names.contains("push_stream_subscriber"), "the recorded cases are under tests/conformance/cases");
    names
}

/// Every line of code keeps a rule: `broken` tells what is wrong with one.
fn hold(rule: &str, broken: impl Fn(&Source, &str) -> Option<String>) {
    let mut problems = String::new();
    for source in sources().iter().filter(|source| source.path != "tests/tidy.rs") {
        for (number, line) in source.code().lines().enumerate() {
            if let Some(what) = broken(source, line) {
                writeln!(problems, "{}:{}: {what}: {}", source.path, number + 1, line.trim()).unwrap();
            }
        }
    }
    assert!(problems.is_empty(), "{rule}:\n{problems}");
}

/// Every path that the server's code names keeps a rule.
fn hold_imports(rule: &str, broken: impl Fn(&Source, &[String]) -> Option<bool>) {
    let mut problems = String::new();
    for source in sources().iter().filter(|source| source.path.starts_with("src/")) {
        for (number, path) in source.imports() {
            if broken(source, &path) == Some(true) {
                writeln!(problems, "{}:{number}: names crate::{}", source.path, path.join("::")).unwrap();
            }
        }
    }
    assert!(problems.is_empty(), "{rule}:\n{problems}");
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn sources() -> Vec<Source> {
    files().into_iter().filter(|path| path.ends_with(".rs")).map(Source::read).collect()
}

/// All our files, as paths from the root of the project, sorted.
fn files() -> Vec<String> {
    fn walk(root: &Path, folder: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name();
            let foreign = ["target", ".git", "corpus", "artifacts", "node_modules"];
            if entry.file_type().unwrap().is_dir() {
                if !foreign.iter().any(|foreign| name == *foreign) {
                    walk(root, &path, out);
                }
            } else {
                out.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut out = Vec::new();
    walk(&root(), &root(), &mut out);
    out.sort();
    out
}

#[test]
fn paths_are_read_as_the_compiler_does() {
    let check = |path: &str, text: &str, expected: &[&str]| {
        let mut source = Source::read("src/lib.rs".into());
        source.module = path.split("::").map(str::to_owned).collect();
        source.text = text.into();
        let paths: Vec<String> = source.imports().into_iter().map(|(_, path)| path.join("::")).collect();
        assert_eq!(paths, expected, "{text}");
    };
    check("hub", "use crate::http::Request;", &["http::Request"]);
    check("hub::channel", "use super::{Message, shard::Shard};", &["hub::Message", "hub::shard::Shard"]);
    check("hub", "use crate::{\n    config::{Flag, size as s},\n    pg,\n};", &["config::Flag", "config::size", "pg"]);
    check("modules::a::b", "let x = super::super::c::run(1);", &["modules::c::run"]);
    check("modules", "use crate::modules::*; // x", &["modules"]);
    check("modules", "// crate::http::no", &[]);
}
