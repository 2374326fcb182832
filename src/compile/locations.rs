//! Which location a path belongs to, in nginx's order: exact, the longest prefix, then the expressions.

use super::hash::Table;
use super::{Compiled, LocationId};
use crate::config::value::{Captures, Regex};
use bytes::Bytes;

/// The locations on one level: of a server, or inside a location.
#[derive(Debug, Default)]
pub struct LocationTree {
    exact: Table<LocationId>,
    /// Sorted by path. Each knows the longest other that is a prefix of it.
    prefixes: Vec<Prefix>,
    /// In the order of the file.
    regexes: Vec<(Regex, LocationId)>,
    /// `/x/` for the requests of `/x` that get a redirect to it.
    redirects: Table<LocationId>,
}

#[derive(Debug)]
struct Prefix {
    path: Box<[u8]>,
    location: LocationId,
    shorter: Option<u32>,
}

/// What was found.
#[derive(Clone, Debug)]
pub enum Found<'t> {
    /// A location, with its expression and what that captured, if it has one.
    Location(LocationId, Option<(&'t Regex, Captures)>),
    /// The path lacks the slash that this location's name ends with: a permanent redirect.
    Redirect(LocationId),
    /// None.
    Nothing,
}

impl LocationTree {
    /// Adds `location = path`.
    pub fn add_exact(&mut self, path: &[u8], location: LocationId) {
        self.exact.insert(path.into(), location);
    }

    /// Adds `location path`.
    pub fn add_prefix(&mut self, path: &[u8], location: LocationId, auto_redirect: bool) {
        if auto_redirect && let [without @ .., b'/'] = path {
            self.redirects.insert(without.into(), location);
        }
        self.prefixes.push(Prefix { path: path.into(), location, shorter: None });
    }

    /// Adds `location ~ expression`.
    pub fn add_regex(&mut self, regex: Regex, location: LocationId) {
        self.regexes.push((regex, location));
    }

    /// Sorts the prefixes, so that they can be searched.
    pub fn finish(&mut self) {
        self.prefixes.sort_by(|a, b| a.path.cmp(&b.path));
        // The prefixes of an entry stand before it; those still open are the ones that may contain the next.
        let mut open: Vec<usize> = Vec::new();
        for index in 0..self.prefixes.len() {
            while open.last().is_some_and(|last| !self.prefixes[index].path.starts_with(&self.prefixes[*last].path)) {
                open.pop();
            }
            self.prefixes[index].shorter = open.last().and_then(|last| u32::try_from(*last).ok());
            open.push(index);
        }
    }

    /// The longest prefix of a path.
    fn longest(&self, path: &[u8]) -> Option<LocationId> {
        let after = self.prefixes.partition_point(|prefix| &*prefix.path <= path);
        let mut candidate = after.checked_sub(1).map(|index| &self.prefixes[index]);
        while let Some(prefix) = candidate {
            if path.starts_with(&prefix.path) {
                return Some(prefix.location);
            }
            candidate = prefix.shorter.map(|index| &self.prefixes[index as usize]);
        }
        None
    }
}

/// Finds the location of a path. `Err` is an expression whose match was given up.
pub fn find<'c>(compiled: &'c Compiled, tree: &'c LocationTree, path: &Bytes) -> Result<Found<'c>, pcre2::Error> {
    let mut captured = None;
    Ok(match search(compiled, tree, path, &mut captured)? {
        Step::Nothing => Found::Nothing,
        Step::Prefix(location) | Step::Settled(location) => Found::Location(location, captured),
        Step::Redirect(location) => Found::Redirect(location),
    })
}

/// What the search on one level, and on those inside, came to.
enum Step {
    Nothing,
    /// The longest prefix, unless an expression of a level around it matches.
    Prefix(LocationId),
    Settled(LocationId),
    Redirect(LocationId),
}

fn search<'c>(
    compiled: &'c Compiled,
    tree: &'c LocationTree,
    path: &Bytes,
    captured: &mut Option<(&'c Regex, Captures)>,
) -> Result<Step, pcre2::Error> {
    if let Some(location) = tree.exact.get(&path[..]) {
        return Ok(Step::Settled(*location));
    }
    let longest = tree.longest(path);
    // A redirect stands for an exact match of the path without the slash.
    if let Some(location) = tree.redirects.get(&path[..])
        && longest.is_none_or(|found| compiled.location(found).path_len() != path.len())
    {
        return Ok(Step::Redirect(*location));
    }
    let mut found = Step::Nothing;
    let mut no_regex = false;
    if let Some(location) = longest {
        let entry = compiled.location(location);
        no_regex = entry.no_regex;
        found = match search(compiled, &entry.tree, path, captured)? {
            Step::Nothing => Step::Prefix(location),
            Step::Prefix(inner) => Step::Prefix(inner),
            settled => return Ok(settled),
        };
    }
    if !no_regex {
        for (regex, location) in &tree.regexes {
            if let Some(captures) = regex.captures(path)? {
                *captured = Some((regex, captures));
                return Ok(match search(compiled, &compiled.location(*location).tree, path, captured)? {
                    Step::Nothing => Step::Settled(*location),
                    Step::Prefix(inner) | Step::Settled(inner) | Step::Redirect(inner) => Step::Settled(inner),
                });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> LocationTree {
        let mut tree = LocationTree::default();
        for (number, path) in paths.iter().enumerate() {
            tree.add_prefix(path.as_bytes(), LocationId(u32::try_from(number).expect("few")), false);
        }
        tree.finish();
        tree
    }

    #[test]
    fn the_longest_prefix_wins() {
        let paths = ["/", "/a", "/ab", "/a/b", "/abc/d", "/b"];
        let tree = tree(&paths);
        let check = |path: &str, expected: Option<&str>| {
            let found = tree.longest(path.as_bytes()).map(|id| paths[id.0 as usize]);
            assert_eq!(found, expected, "{path}");
        };
        check("/", Some("/"));
        check("/a", Some("/a"));
        check("/a/", Some("/a"));
        check("/a/b/c", Some("/a/b"));
        check("/abc", Some("/ab"));
        check("/abc/e", Some("/ab"));
        check("/abc/d", Some("/abc/d"));
        check("/zz", Some("/"));
        check("*", None);
    }

    #[test]
    fn expressions_around_nested_prefixes() {
        let check = |path: &'static str, expected: &str| {
            let server = "
                location /d/ { location /d/e { location ~ inner { } } }
                location ^~ /k/ { location /k/e { } }
                location ~ \\.php$ { }
                location ~ /u/ { location /u/a { } }";
            let text = format!("events {{}} http {{ server {{ {server} }} }}");
            let options = crate::config::LoadOptions { offline: true, ..Default::default() };
            let compiled = Compiled::new(crate::config::load_text(options, text.as_bytes()));
            let tree = &compiled.server(crate::compile::ServerId(0)).tree;
            let found =
                find(&compiled, tree, &Bytes::from_static(path.as_bytes())).expect("all expressions are simple");
            let Found::Location(location, _) = found else { panic!("{path}: {found:?}") };
            assert_eq!(compiled.location(location).name, expected, "{path}");
        };
        check("/d/e/x", "/d/e");
        check("/d/e/x.php", "\\.php$");
        check("/d/e/inner.php", "inner");
        check("/k/e/x.php", "/k/e");
        check("/u/abc", "/u/a");
        check("/u/bcd", "/u/");
    }
}
