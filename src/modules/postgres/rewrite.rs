//! `postgres_rewrite`: statuses that hang on what a query found.

use bytes::Bytes;

use super::methods::{self, Methods};
use super::query::{Queries, attach};
use super::reading::Reading;
use super::redirect::Target;
use super::server::error;
use crate::config::value::parse_number;
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, VarId};
use crate::http::wire::method::Method;

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "postgres_rewrite",
    contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION),
    args: Args::at_least(2),
    syntax: "[method ...] no_changes | changes | no_rows | rows | no_errors | errors [=]status | location",
    doc: "Changes the status of an answer by what the query found. The first that matches counts. From 300 on the \
          answer is the page for the status, unless `=` stands before it: then the result stays. Where methods are \
          named and the servers are written in the grammar of 2018, what is no status is a place to send the client to \
          (303), with variables (`$name`) and, for `errors` and `no_errors`, values of the first row (`:name`).\n\n\
          Example: `postgres_rewrite no_rows 404;`",
    file: file!(),
    apply: postgres_rewrite,
    ..Directive::BASE
}];

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rewrite {
    methods: Methods,
    condition: Condition,
    pub(super) then: Then,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Then {
    /// Sets the status.
    Status {
        /// It.
        status: u16,
        /// `=`: the result stays the answer.
        keeps_body: bool,
    },
    /// Sends the client elsewhere. (2018)
    Redirect(Target),
    /// Puts a text into `$html`. (2018)
    Html(VarId, Bytes),
}

/// What is asked of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    NoChanges,
    Changes,
    NoRows,
    Rows,
    NoErrors,
    Errors,
}

/// What a result tells the rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Whether it has rows.
    pub(super) rows: bool,
    /// Rows that a command has changed; `None`: it was none that changes.
    pub(super) affected: Option<u64>,
    /// Whether the values tell of an error; `None`: there are no values.
    pub(super) errors: Option<bool>,
}

impl Condition {
    const WORDS: [(&'static str, Self); 6] = [
        ("no_changes", Self::NoChanges),
        ("changes", Self::Changes),
        ("no_rows", Self::NoRows),
        ("rows", Self::Rows),
        ("no_errors", Self::NoErrors),
        ("errors", Self::Errors),
    ];

    fn of(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, condition)| *condition)
    }

    fn holds(self, found: Found) -> bool {
        match self {
            Self::NoChanges => found.affected == Some(0),
            Self::Changes => found.affected.is_some_and(|rows| rows > 0),
            Self::NoRows => !found.rows,
            Self::Rows => found.rows,
            Self::NoErrors => found.errors == Some(false),
            Self::Errors => found.errors == Some(true),
        }
    }

    /// Whether it is about the values of all rows.
    pub(super) fn is_about_errors(self) -> bool {
        matches!(self, Self::NoErrors | Self::Errors)
    }

    /// Whether it is about what a command changed, which shows only when that has ended.
    pub(super) fn is_about_changes(self) -> bool {
        matches!(self, Self::NoChanges | Self::Changes)
    }
}

impl Rewrite {
    /// What it asks.
    pub(super) fn condition(&self) -> Condition {
        self.condition
    }
}

/// The rule that holds for a result.
pub(super) fn matching(rules: &[Rewrite], reading: Reading, method: Method, found: Found) -> Option<&Rewrite> {
    if reading != Reading::Address {
        return rules.iter().find(|rule| rule.methods.suit(method) && rule.condition.holds(found));
    }
    // The older modules go by condition, in the order of first appearance; a rule for the method goes before one for all.
    let mut tried: Vec<Condition> = Vec::new();
    for rule in rules {
        if tried.contains(&rule.condition) {
            continue;
        }
        tried.push(rule.condition);
        if !rule.condition.holds(found) {
            continue;
        }
        let same = || rules.iter().filter(|other| other.condition == rule.condition);
        let found = same().find(|other| other.methods.name(method));
        if let Some(found) = found.or_else(|| same().find(|other| !other.methods.are_named())) {
            return Some(found);
        }
    }
    None
}

fn postgres_rewrite(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let reading = Reading::of(cx);
    if reading == Reading::Libpq {
        attach(cx, call)?;
    }
    let rewrite = match reading {
        Reading::Address => old_words(cx, call)?,
        Reading::Libpq | Reading::Either => words(call)?,
    };
    attach(cx, call)?.rewrites.push(rewrite);
    Ok(())
}

/// `[METHOD...] CONDITION [=]STATUS`; words that are no methods mean nothing, as in the original.
fn words(call: &Call<'_>) -> Result<Rewrite, Fault> {
    let last = call.len() - 1;
    let mut named = Methods::default();
    for index in 0..last - 1 {
        if let Some(method) = methods::new(&call.text(index)) {
            named.add(method);
        }
    }
    let word = call.text(last - 1);
    let known = Condition::of(&word).filter(|condition| !matches!(condition, Condition::NoErrors | Condition::Errors));
    let condition = known.ok_or_else(|| {
        let allowed = "must be \"no_changes\", \"changes\", \"no_rows\", \"rows\", \"no_errors\" or \"errors\"";
        error(call, &format!("condition \"{word}\" {allowed}")).word(last - 1)
    })?;
    let (status, keeps_body) = status(call.bytes(last)).ok_or_else(|| {
        let text = format!("invalid status value \"{}\" for condition \"{word}\"", call.text(last));
        error(call, &text).word(last)
    })?;
    Ok(Rewrite { methods: named, condition, then: Then::Status { status, keeps_body } })
}

/// The same in the modules of 2015 and 2018.
fn old_words(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<Rewrite, Fault> {
    let said = &cx.edit::<Queries>().common.rewrites;
    let fault =
        |text: String, index| Fault::new(format!("postgres: {text} in \"postgres_rewrite\" directive")).word(index);
    let last = call.len() - 1;
    let word = call.text(last - 1);
    let condition = Condition::of(&word.to_ascii_lowercase());
    let condition = condition.ok_or_else(|| fault(format!("invalid condition \"{word}\""), last - 1))?;
    let mut named = Methods::default();
    let same = || said.iter().filter(|rule| rule.condition == condition);
    for index in 0..last - 1 {
        let written = call.text(index);
        let method = methods::old(&written)
            .ok_or_else(|| fault(format!("invalid method \"{written}\" for condition \"{word}\""), index))?;
        if named.name(method) || same().any(|rule| rule.methods.name(method)) {
            return Err(fault(format!("method \"{written}\" for condition \"{word}\" is duplicate"), index));
        }
        named.add(method);
    }
    if !named.are_named() && same().any(|rule| !rule.methods.are_named()) {
        return Err(call.duplicate());
    }
    let target = call.bytes(last);
    let then = match status(target) {
        Some((status, keeps_body)) => Then::Status { status, keeps_body },
        // The fork of 2018 sends the client to what is no status, if methods are named.
        None if named.are_named() => elsewhere(cx, call, target.strip_prefix(b"=").unwrap_or(target)),
        None => {
            let status = parse_number(target).and_then(|status| u16::try_from(status).ok());
            let status = status.filter(|status| (200..600).contains(status)).ok_or_else(|| {
                let text = format!("invalid status value \"{}\" for condition \"{word}\"", call.text(last));
                fault(text, last)
            })?;
            Then::Status { status, keeps_body: false }
        }
    };
    Ok(Rewrite { methods: named, condition, then })
}

fn elsewhere(cx: &mut Cx<'_>, call: &Call<'_>, target: &[u8]) -> Then {
    let is_plain = !target.contains(&b'$') && !target.contains(&b':');
    if is_plain && memchr::memmem::find(target, b".html").is_some() {
        let html = cx.variables().used("html", Some(call.at()));
        return Then::Html(html, Bytes::copy_from_slice(target));
    }
    Then::Redirect(Target::compile(target, cx, call))
}

/// A status from 200 to 299 or 400 to 507, and whether `=` stands before it.
fn status(word: &[u8]) -> Option<(u16, bool)> {
    let number = word.strip_prefix(b"=");
    let status = parse_number(number.unwrap_or(word)).and_then(|status| u16::try_from(status).ok());
    let status = status.filter(|status| matches!(status, 200..=299 | 400..=507))?;
    Some((status, number.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(methods: &[Method], condition: Condition, status: u16) -> Rewrite {
        let mut named = Methods::default();
        methods.iter().for_each(|method| named.add(*method));
        Rewrite { methods: named, condition, then: Then::Status { status, keeps_body: false } }
    }

    #[test]
    fn the_first_rule_counts() {
        let rules = [
            rule(&[Method::Delete], Condition::Rows, 204),
            rule(&[], Condition::Rows, 206),
            rule(&[Method::Get], Condition::Rows, 203),
            rule(&[], Condition::NoRows, 404),
        ];
        let check = |reading, method, rows, expected: Option<u16>| {
            let found = Found { rows, affected: None, errors: None };
            let then = expected.map(|status| Then::Status { status, keeps_body: false });
            assert_eq!(matching(&rules, reading, method, found).map(|rule| rule.then.clone()), then);
        };
        check(Reading::Libpq, Method::Get, true, Some(206));
        check(Reading::Address, Method::Get, true, Some(203));
        check(Reading::Address, Method::Put, true, Some(206));
        check(Reading::Address, Method::Put, false, Some(404));
        let changes = [rule(&[], Condition::NoChanges, 404)];
        let found = |affected| Found { rows: false, affected, errors: None };
        assert!(matching(&changes, Reading::Libpq, Method::Get, found(None)).is_none());
        assert!(matching(&changes, Reading::Libpq, Method::Get, found(Some(0))).is_some());
    }
}
