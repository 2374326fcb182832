//! From runs to the table, as Markdown and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::frames::Faults;
use crate::rows::{Row, Target, Unit};
use crate::server::Side;

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The machine and the conditions, a line each.
    pub(crate) conditions: Vec<String>,
    /// The rows asked for.
    pub(crate) rows: Vec<&'static Row>,
    /// Subscribers in the rows with many.
    pub(crate) subscribers: usize,
    /// Whether instructions could be counted.
    pub(crate) perf: bool,
    /// A number for each run, by row and side.
    pub(crate) samples: BTreeMap<(&'static str, Side), Vec<f64>>,
    /// Sums over all runs with messages; a side without such runs is not there.
    pub(crate) faults: BTreeMap<Side, Faults>,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

/// Pushgate's account of lost messages is a row too.
const INTEGRITY: &str = "losses, duplicates, disorder in any of it";

/// The median of some runs, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Summary {
    median: f64,
    min: f64,
    max: f64,
}

impl Summary {
    fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + upper) / 2.0 } else { upper };
        Some(Self { median, min: *sorted.first()?, max: *sorted.last()? })
    }

    fn cell(self, unit: Unit) -> String {
        let median = format!("{} {}", unit.number(self.median), unit.name());
        if self.min == self.max {
            return median.trim_end().to_owned();
        }
        format!("{} ({}-{})", median.trim_end(), unit.number(self.min), unit.number(self.max))
    }

    fn json(self, samples: &[f64]) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max, "samples": samples })
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Ms => "ms",
            Self::Bytes => "B",
            Self::Mb => "MB",
            Self::PerSecond => "/s",
            Self::Instructions | Self::Times => "",
        }
    }

    fn number(self, number: f64) -> String {
        match self {
            Self::Us | Self::Ms | Self::Mb | Self::Times if number < 100.0 => format!("{number:.2}"),
            Self::Us | Self::Ms | Self::Mb | Self::Bytes | Self::Instructions | Self::Times | Self::PerSecond => {
                format!("{number:.0}")
            }
        }
    }
}

impl Target {
    fn text(self, unit: Unit) -> String {
        let (words, limit) = match self {
            Self::None => return String::new(),
            Self::Ratio(limit) => return format!("ratio at most {limit:.2}"),
            Self::RatioAtLeast(limit) => return format!("ratio at least {limit:.2}"),
            Self::AtMost(limit) => ("at most", limit),
            Self::Below(limit) => ("under", limit),
        };
        format!("{words} {limit} {}", unit.name()).trim_end().to_owned()
    }

    /// `None` where there is no target or no number to hold against it.
    fn is_reached(self, pushgate: Option<f64>, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::None => None,
            Self::Ratio(limit) => ratio.map(|ratio| ratio <= limit),
            Self::RatioAtLeast(limit) => ratio.map(|ratio| ratio >= limit),
            Self::AtMost(limit) => pushgate.map(|number| number <= limit),
            Self::Below(limit) => pushgate.map(|number| number < limit),
        }
    }
}

/// A row with its numbers.
struct Line<'a> {
    row: &'static Row,
    pushgate: Option<(Summary, &'a [f64])>,
    peer: Option<(Summary, &'a [f64])>,
    ratio: Option<f64>,
    reached: Option<bool>,
}

impl Report {
    /// Whether everything could be measured, and nothing of Pushgate's was lost.
    pub(crate) fn is_good(&self) -> bool {
        self.failures.is_empty() && self.faults.get(&Side::Pushgate).is_none_or(|faults| faults.total() == 0)
    }

    /// The table, with the conditions above and the failures below.
    pub(crate) fn markdown(&self) -> String {
        let mut text = self.conditions.join("  \n");
        text += "\n\n| work | Pushgate | peer | ratio | target | reached |\n|---|---|---|---|---|---|\n";
        for line in self.lines() {
            let unit = line.row.unit;
            let cell = |side: Option<(Summary, &[f64])>| {
                side.map_or_else(|| self.absent(unit), |(summary, _)| summary.cell(unit))
            };
            text += &table_row([
                self.work(line.row),
                cell(line.pushgate),
                cell(line.peer),
                line.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
                line.row.target.text(unit),
                reached(line.row.target, line.reached).to_owned(),
            ]);
        }
        if !self.faults.is_empty() {
            let cell = |side| self.faults.get(&side).map_or_else(|| "-".to_owned(), faults_cell);
            text += &table_row([
                INTEGRITY.to_owned(),
                cell(Side::Pushgate),
                cell(Side::Peer),
                "-".to_owned(),
                "none".to_owned(),
                match self.faults.get(&Side::Pushgate) {
                    Some(faults) if faults.total() == 0 => "yes",
                    Some(_) => "**no**",
                    None => "-",
                }
                .to_owned(),
            ]);
        }
        if !self.failures.is_empty() {
            text += "\nNot measured:\n\n";
            for failure in &self.failures {
                // Writing to a string does not fail.
                writeln!(text, "- {failure}").ok();
            }
        }
        text
    }

    /// The same, with every single run.
    pub(crate) fn json(&self) -> Value {
        let side = |side: Option<(Summary, &[f64])>| side.map(|(summary, samples)| summary.json(samples));
        let rows: Vec<Value> = self
            .lines()
            .map(|line| {
                json!({
                    "name": line.row.name,
                    "work": self.work(line.row),
                    "unit": line.row.unit.name(),
                    "pushgate": side(line.pushgate),
                    "peer": side(line.peer),
                    "ratio": line.ratio,
                    "target": line.row.target.text(line.row.unit),
                    "reached": line.reached,
                })
            })
            .collect();
        let faults = |side| {
            self.faults.get(&side).map(|faults| {
                json!({
                    "lost": faults.lost,
                    "duplicated": faults.duplicated,
                    "disordered": faults.disordered,
                    "malformed": faults.malformed,
                    "disconnected": faults.disconnected,
                })
            })
        };
        json!({
            "conditions": self.conditions,
            "rows": rows,
            "faults": { "pushgate": faults(Side::Pushgate), "peer": faults(Side::Peer) },
            "failures": self.failures,
        })
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.rows.iter().map(|&row| {
            let side = |side| {
                let samples = self.samples.get(&(row.name, side))?;
                Some((Summary::of(samples)?, samples.as_slice()))
            };
            let (pushgate, peer) = (side(Side::Pushgate), side(Side::Peer));
            let ratio = pushgate
                .zip(peer)
                .map(|((ours, _), (theirs, _))| ours.median / theirs.median)
                .filter(|ratio| ratio.is_finite());
            let reached = row.target.is_reached(pushgate.map(|(summary, _)| summary.median), ratio);
            Line { row, pushgate, peer, ratio, reached }
        })
    }

    /// What stands for a number that there is not.
    fn absent(&self, unit: Unit) -> String {
        let absent = if unit == Unit::Instructions && !self.perf { "not supported" } else { "-" };
        absent.to_owned()
    }

    fn work(&self, row: &Row) -> String {
        row.work
            .replace("{n}", &thousands(self.subscribers))
            .replace("{tenth}", &thousands(self.subscribers.div_ceil(10)))
    }
}

fn reached(target: Target, reached: Option<bool>) -> &'static str {
    match (target, reached) {
        (Target::None, _) => "",
        (_, Some(true)) => "yes",
        (_, Some(false)) => "**no**",
        (_, None) => "-",
    }
}

fn table_row(cells: [String; 6]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn faults_cell(faults: &Faults) -> String {
    let parts = [
        (faults.lost, "lost"),
        (faults.duplicated, "duplicated"),
        (faults.disordered, "disordered"),
        (faults.malformed, "malformed"),
        (faults.disconnected, "disconnected"),
    ];
    let seen: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    if seen.is_empty() { "none".to_owned() } else { seen.join(", ") }
}

/// `10000` as `10,000`.
fn thousands(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", thousands(number / 1000), number % 1000) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;
    use crate::rows::ROWS;

    fn row(name: &str) -> &'static Row {
        ROWS.iter().find(|row| row.name == name).unwrap()
    }

    /// The line of the row `name`, for these runs of Pushgate and of the peer.
    fn check(name: &str, pushgate: &[f64], peer: &[f64], expected: &str) {
        let row = row(name);
        let samples = [(Side::Pushgate, pushgate), (Side::Peer, peer)]
            .map(|(side, samples)| ((row.name, side), samples.to_vec()));
        let report = Report { rows: vec![row], subscribers: 10_000, samples: samples.into(), ..Report::default() };
        let text = report.markdown();
        let line = text.lines().find(|line| line.starts_with("| ") && !line.starts_with("| work")).unwrap();
        let (_, numbers) = line.strip_prefix("| ").unwrap().split_once(" | ").unwrap();
        assert_eq!(numbers, expected);
    }

    #[test]
    fn a_row_says_median_spread_ratio_and_whether_it_is_reached() {
        check(
            "fanout",
            &[7.0, 9.0, 8.0],
            &[10.0, 9.0, 11.0],
            "8.00 us (7.00-9.00) | 10.00 us (9.00-11.00) | 0.80 | ratio at most 0.85 | yes |",
        );
        check("fanout", &[9.5], &[10.0], "9.50 us | 10.00 us | 0.95 | ratio at most 0.85 | **no** |");
        check("instructions", &[135.0], &[1640.0], "135 | 1640 | 0.08 | at most 300 | yes |");
        check("memory", &[1000.0, 1500.0], &[], "1250 B (1000-1500) | - | - | at most 300 B | **no** |");
        check("check", &[100.0], &[1.0], "100 ms | 1.00 ms | 100.00 | under 100 ms | **no** |");
        check("fanout", &[7.0], &[], "7.00 us | - | - | ratio at most 0.85 | - |");
        check("select", &[5000.0], &[10_000.0], "5000 /s | 10000 /s | 0.50 | ratio at least 0.60 | **no** |");
        check("select", &[7000.0], &[10_000.0], "7000 /s | 10000 /s | 0.70 | ratio at least 0.60 | yes |");
        check("burst", &[3.0], &[9.0], "3.00 us | 9.00 us | 0.33 | ratio at most 0.35 | yes |");
    }

    #[test]
    fn a_loss_of_ours_spoils_the_report_and_one_of_the_peer_does_not() {
        let faulty =
            |side| Report { faults: [(side, Faults { lost: 2, ..Faults::default() })].into(), ..Report::default() };
        assert!(Report::default().is_good());
        assert!(faulty(Side::Peer).is_good());
        assert!(!faulty(Side::Pushgate).is_good());
        assert!(faulty(Side::Pushgate).markdown().contains("| 2 lost | - | - | none | **no** |"));
    }

    #[test]
    fn a_failure_spoils_the_report_and_is_told() {
        let report = Report { failures: vec!["Pushgate: does not start".to_owned()], ..Report::default() };
        assert!(!report.is_good());
        assert!(report.markdown().ends_with("Not measured:\n\n- Pushgate: does not start\n"));
        assert_eq!(report.json()["failures"][0], "Pushgate: does not start");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            ["999", "10,000", "1,000,007"],
            [999, 10_000, 1_000_007].map(thousands).each_ref().map(String::as_str)
        );
    }
}
