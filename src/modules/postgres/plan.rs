//! What a query's result is wanted for, and so how much of it must be known before the answer begins.

use std::time::Duration;

use super::output::{Output, RdsStyle};
use super::query::{Attached, Query};
use super::rewrite::Rewrite;
use super::set::Set;
use crate::pg::conninfo::Grammar;

/// What is wanted of one query's result.
pub(super) struct Plan<'q> {
    pub(super) output: Output,
    pub(super) rules: &'q [Rewrite],
    pub(super) sets: &'q [Set],
    pub(super) timeout: Option<Duration>,
    needs_all: bool,
    needs_tag: bool,
    pub(super) needs_errors: bool,
    rows: usize,
}

impl<'q> Plan<'q> {
    pub(super) fn new(query: &'q Query, common: &'q Attached, grammar: Grammar, needs_all: bool) -> Self {
        let own = &query.attached;
        let output = own.output.as_ref().or(common.output.as_ref()).cloned();
        let output = output.unwrap_or(match grammar {
            Grammar::Address => Output::Text,
            Grammar::Libpq => Output::None,
        });
        let sets = if own.sets.is_empty() { &common.sets } else { &own.sets };
        let rules = if own.rewrites.is_empty() { &common.rewrites } else { &own.rewrites };
        let sets_need_all = sets.iter().any(|set| set.rows_needed().is_none());
        // The two forms that say at their beginning what a command has changed.
        let tells_changes = matches!(output, Output::Rds(RdsStyle::Old | RdsStyle::New));
        let needs_errors = rules.iter().any(|rule| rule.condition().is_about_errors());
        Self {
            needs_all: needs_all || sets_need_all || needs_errors,
            needs_errors,
            needs_tag: tells_changes || rules.iter().any(|rule| rule.condition().is_about_changes()),
            rows: sets.iter().filter_map(Set::rows_needed).max().unwrap_or(0).max(2),
            timeout: own.timeout.or(common.timeout),
            output,
            rules,
            sets,
        }
    }

    /// Whether so many rows tell all that must be known before the answer begins.
    pub(super) fn is_enough(&self, rows: usize, is_select: bool) -> bool {
        !self.needs_all && (!self.needs_tag || is_select) && rows >= self.rows
    }
}

/// Whether a statement changes nothing, as far as its first word tells.
pub(super) fn is_select(sql: &str) -> bool {
    let first = sql.trim_start().split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default();
    ["select", "values", "table", "show"].iter().any(|word| first.eq_ignore_ascii_case(word))
}
