//! Which location a path belongs to, and why not another one.

use bytes::Bytes;

use crate::compile::{Compiled, Found, ServerId, find_location};
use crate::config::value::Regex;
use crate::config::{LocationDef, LocationKind, Model, Position};

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// A location, by its number in the model.
    Location(usize),
    /// A location whose name is the path and a slash: a redirect leads there.
    Redirect(usize),
    /// None: what the server itself says holds.
    Nothing,
}

impl Chosen {
    /// The number of the location in the model.
    pub(super) fn number(self) -> Option<usize> {
        match self {
            Self::Location(number) | Self::Redirect(number) => Some(number),
            Self::Nothing => None,
        }
    }
}

/// A location that was considered.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Its modifier and name, as one writes them.
    pub(super) name: String,
    pub(super) at: Option<Position>,
    /// How many locations are around it.
    pub(super) depth: usize,
    /// Whether it was taken, on its level.
    pub(super) taken: bool,
    pub(super) reason: String,
}

/// Finds the location as the server does, and the reasons level by level.
pub(super) fn choose(compiled: &Compiled, server: ServerId, path: &Bytes) -> Result<(Chosen, Vec<Candidate>), String> {
    let number = |id: crate::compile::LocationId| id.0 as usize - compiled.servers.len();
    let chosen = match find_location(compiled, &compiled.server(server).tree, path) {
        Ok(Found::Location(id, _)) => Chosen::Location(number(id)),
        Ok(Found::Redirect(id)) => Chosen::Redirect(number(id)),
        Ok(Found::Nothing) => Chosen::Nothing,
        Err(error) => return Err(format!("an expression is given up on this path, and the answer is 500: {error}")),
    };
    let model = &compiled.config.built.model;
    // From the server's level to the one that was chosen.
    let mut chain: Vec<usize> =
        std::iter::successors(chosen.number(), |number| model.locations[*number].parent).collect();
    chain.reverse();
    let mut candidates = Vec::new();
    let mut numbers = &model.servers[server.0 as usize].locations;
    for depth in 0..=chain.len() {
        let taken = chain.get(depth).copied();
        let level = Level::new(model, numbers, path, taken, chosen, depth + 1 < chain.len());
        for location in numbers {
            let definition = &model.locations[*location];
            candidates.push(Candidate {
                name: label(definition),
                at: compiled.config.built.scope(definition.scope).at,
                depth,
                taken: taken == Some(*location),
                reason: level.reason(*location),
            });
        }
        let Some(inner) = taken else { break };
        numbers = &model.locations[inner].children;
    }
    Ok((chosen, candidates))
}

/// Modifier and name, as one writes them.
pub(super) fn label(location: &LocationDef) -> String {
    let name = &location.name;
    match &location.kind {
        LocationKind::Exact(_) => format!("= {name}"),
        LocationKind::Prefix { no_regex: true, .. } => format!("^~ {name}"),
        LocationKind::Regex(regex) if regex.is_caseless() => format!("~* {name}"),
        LocationKind::Regex(_) => format!("~ {name}"),
        LocationKind::Prefix { .. } | LocationKind::Named(_) | LocationKind::Nameless => name.clone(),
    }
}

/// The locations beside each other, and what was found among them.
struct Level<'m> {
    model: &'m Model,
    path: &'m Bytes,
    taken: Option<usize>,
    /// Whether the taken one stands for a redirect.
    redirects: bool,
    /// Whether a location inside the taken one was found.
    goes_on: bool,
    longest: Option<usize>,
    has_regexes: bool,
}

impl<'m> Level<'m> {
    fn new(
        model: &'m Model,
        numbers: &[usize],
        path: &'m Bytes,
        taken: Option<usize>,
        chosen: Chosen,
        goes_on: bool,
    ) -> Self {
        let prefix = |number: &usize| match &model.locations[*number].kind {
            LocationKind::Prefix { path: prefix, .. } if path.starts_with(prefix) => Some((prefix.len(), *number)),
            _ => None,
        };
        let longest = numbers.iter().filter_map(prefix).max().map(|(_, number)| number);
        let is_regex = |number: &usize| matches!(model.locations[*number].kind, LocationKind::Regex(_));
        let redirects = !goes_on && matches!(chosen, Chosen::Redirect(_));
        Self { model, path, taken, redirects, goes_on, longest, has_regexes: numbers.iter().any(is_regex) }
    }

    fn kind(&self, number: usize) -> &'m LocationKind {
        &self.model.locations[number].kind
    }

    fn name(&self, number: usize) -> String {
        label(&self.model.locations[number])
    }

    /// Why a location of this level was taken, or not.
    fn reason(&self, number: usize) -> String {
        if self.taken == Some(number) {
            return self.reason_for(number);
        }
        match self.kind(number) {
            LocationKind::Named(_) => "only for jumps inside the server".to_owned(),
            LocationKind::Nameless => String::new(),
            LocationKind::Exact(_) => "the path is not exactly this".to_owned(),
            LocationKind::Prefix { path, .. } if !self.path.starts_with(path) => {
                "the path does not begin with this".to_owned()
            }
            LocationKind::Prefix { .. } => self.reason_against_prefix(number),
            LocationKind::Regex(regex) => self.reason_against_regex(regex),
        }
    }

    fn reason_for(&self, number: usize) -> String {
        let why = match self.kind(number) {
            _ if self.redirects => return "the path lacks only its last slash: a redirect leads there".to_owned(),
            LocationKind::Exact(_) => "the path is exactly this",
            LocationKind::Prefix { no_regex: true, .. } if self.has_regexes => {
                "the longest prefix, and its ^~ keeps expressions out"
            }
            LocationKind::Prefix { .. } if self.has_regexes && !self.goes_on => {
                "the longest prefix, and no expression matches"
            }
            LocationKind::Prefix { .. } => "the longest prefix",
            LocationKind::Regex(_) => "the first expression that matches",
            LocationKind::Named(_) | LocationKind::Nameless => "",
        };
        why.to_owned()
    }

    fn reason_against_prefix(&self, number: usize) -> String {
        match (self.taken, self.longest) {
            (Some(taken), _) if self.redirects || matches!(self.kind(taken), LocationKind::Exact(_)) => {
                format!("\"{}\" fits exactly", self.name(taken))
            }
            (_, Some(longest)) if longest != number => format!("a shorter prefix than \"{}\"", self.name(longest)),
            (Some(taken), _) => format!("the longest prefix, but \"{}\" matches", self.name(taken)),
            (None, _) => "a location around it was taken".to_owned(),
        }
    }

    fn reason_against_regex(&self, regex: &Regex) -> String {
        let not_tried = |why: String| format!("not tried: {why}");
        match self.taken {
            Some(taken) if self.redirects => not_tried(format!("\"{}\" is meant", self.name(taken))),
            Some(taken) => match self.kind(taken) {
                LocationKind::Exact(_) => not_tried("an exact location fits".to_owned()),
                LocationKind::Prefix { no_regex: true, .. } => {
                    not_tried(format!("because of \"{}\"", self.name(taken)))
                }
                LocationKind::Prefix { .. } if self.goes_on => {
                    not_tried(format!("a location inside \"{}\" fits", self.name(taken)))
                }
                LocationKind::Regex(_) if regex.is_match(self.path).unwrap_or(false) => {
                    format!("matches too, but \"{}\" stands before it", self.name(taken))
                }
                _ => "does not match".to_owned(),
            },
            None => "does not match".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_text};

    const SERVER: &str = "
        location / { }
        location = /x { }
        location ^~ /img/ { }
        location /dir/ {
            location /dir/sub { }
            location ~ sub { }
        }
        location ~ \\.php$ { }
        location ~* php { }
        location @n { }";

    /// Checks `NAME: REASON` for the locations of one level of depth.
    #[track_caller]
    fn check(path: &'static str, depth: usize, expected: &[&str]) {
        let text = format!("events {{}} http {{ server {{ {SERVER} }} }}");
        let options = LoadOptions { offline: true, ..LoadOptions::default() };
        let compiled = Compiled::new(load_text(options, text.as_bytes()));
        let (_, candidates) =
            choose(&compiled, ServerId(0), &Bytes::from_static(path.as_bytes())).expect("all expressions are simple");
        let line = |candidate: &Candidate| {
            let mark = if candidate.taken { "* " } else { "" };
            format!("{mark}{}: {}", candidate.name, candidate.reason)
        };
        let found: Vec<String> = candidates.iter().filter(|candidate| candidate.depth == depth).map(line).collect();
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn an_exact_location() {
        check(
            "/x",
            0,
            &[
                "/: \"= /x\" fits exactly",
                "* = /x: the path is exactly this",
                "^~ /img/: the path does not begin with this",
                "/dir/: the path does not begin with this",
                "~ \\.php$: not tried: an exact location fits",
                "~* php: not tried: an exact location fits",
                "@n: only for jumps inside the server",
            ],
        );
    }

    #[test]
    fn a_prefix_that_keeps_expressions_out() {
        check(
            "/img/a.php",
            0,
            &[
                "/: a shorter prefix than \"^~ /img/\"",
                "= /x: the path is not exactly this",
                "* ^~ /img/: the longest prefix, and its ^~ keeps expressions out",
                "/dir/: the path does not begin with this",
                "~ \\.php$: not tried: because of \"^~ /img/\"",
                "~* php: not tried: because of \"^~ /img/\"",
                "@n: only for jumps inside the server",
            ],
        );
    }

    #[test]
    fn an_expression() {
        check(
            "/a.php",
            0,
            &[
                "/: the longest prefix, but \"~ \\.php$\" matches",
                "= /x: the path is not exactly this",
                "^~ /img/: the path does not begin with this",
                "/dir/: the path does not begin with this",
                "* ~ \\.php$: the first expression that matches",
                "~* php: matches too, but \"~ \\.php$\" stands before it",
                "@n: only for jumps inside the server",
            ],
        );
    }

    #[test]
    fn a_location_inside_another() {
        check(
            "/dir/sub.php",
            0,
            &[
                "/: a shorter prefix than \"/dir/\"",
                "= /x: the path is not exactly this",
                "^~ /img/: the path does not begin with this",
                "* /dir/: the longest prefix",
                "~ \\.php$: not tried: a location inside \"/dir/\" fits",
                "~* php: not tried: a location inside \"/dir/\" fits",
                "@n: only for jumps inside the server",
            ],
        );
        check(
            "/dir/sub.php",
            1,
            &["/dir/sub: the longest prefix, but \"~ sub\" matches", "* ~ sub: the first expression that matches"],
        );
    }
}
