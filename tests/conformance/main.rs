//! Replays what was recorded from nginx and the modules: each case under `cases/` is one test.
//!
//!     cargo test --test conformance                     all that is to be as recorded
//!     cargo test --test conformance -- core/proxy       those whose name contains a text
//!     cargo test --test conformance -- --ignored        those of `later.toml`: what passes can be struck from it
//!
//! `PUSHGATE_BIN=/usr/sbin/nginx` replays against another binary. `cases/README.md` describes the format.
#![allow(clippy::print_stdout, reason = "the summary of a test run")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod backend;
mod case;
mod compare;
mod connection;
mod lists;
mod steps;
#[path = "../support/mod.rs"]
mod support;
mod text;
mod world;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};

use case::Case;
use lists::{Listed, Lists};

/// Cases wait much and compute little, so there may be more of them than processors.
const CASES_PER_PROCESSOR: usize = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    arguments.test_threads.get_or_insert(processors * CASES_PER_PROCESSOR);

    text::self_test();
    let tally = Arc::new(Tally::default());
    match trials(&tally) {
        Err(problem) => {
            println!("{problem}");
            ExitCode::FAILURE
        }
        Ok(trials) => {
            let conclusion = libtest_mimic::run(&arguments, trials);
            tally.print();
            conclusion.exit_code()
        }
    }
}

fn trials(tally: &Arc<Tally>) -> Result<Vec<Trial>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let runs: Vec<Run> = Case::load_all(&folder.join("cases"))?.into_iter().flat_map(runs).collect();
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    let lists = Arc::new(Lists::load(&folder, &names)?);
    let trial = |run: Run| {
        let (lists, tally) = (lists.clone(), tally.clone());
        let (name, area) = (run.name.clone(), run.case.area.clone());
        let later = matches!(lists.about(&name), Listed::Later(_));
        Trial::test(name, move || run.judge(&lists, &tally)).with_kind(area).with_ignored_flag(later)
    };
    Ok(runs.into_iter().map(trial).collect())
}

/// One thing to run: the steps of a case, or one of its checks.
struct Run {
    name: String,
    case: Arc<Case>,
    check: Option<usize>,
}

fn runs(case: Case) -> Vec<Run> {
    let case = Arc::new(case);
    let steps = (!case.steps.is_empty()).then(|| Run { name: case.name.clone(), case: case.clone(), check: None });
    let checks = case.checks.iter().enumerate().map(|(number, check)| Run {
        name: format!("{}: {}", case.name, check.name),
        case: case.clone(),
        check: Some(number),
    });
    steps.into_iter().chain(checks).collect()
}

impl Run {
    /// What is not as recorded, with sleeps so many times as long.
    fn differences(&self, sleeps: u32) -> Vec<String> {
        match self.check {
            None => steps::run(&self.case, sleeps),
            Some(number) => steps::check(&self.case, &self.case.checks[number]),
        }
    }

    fn judge(&self, lists: &Lists, tally: &Tally) -> Result<(), Failed> {
        let listed = lists.about(&self.name);
        let must_differ = matches!(listed, Listed::Differs(_));
        let mut lines = self.differences(1);
        // The recorded cases sleep and expect silence, which a busy machine upsets; a fault fails again.
        for sleeps in [4, 1] {
            if lines.is_empty() != must_differ || self.case.lenient().is_some() {
                break;
            }
            lines = self.differences(sleeps);
            if lines.is_empty() != must_differ {
                tally.add(&tally.again, self.name.clone());
            }
        }
        let name = self.name.clone();
        match (listed, lines.is_empty()) {
            (Listed::Differs(why), true) => {
                Err(format!("listed in differences.toml ({why}), but it is as recorded").into())
            }
            (Listed::Differs(_), false) => {
                tally.add(&tally.differ_on_purpose, name);
                Ok(())
            }
            (Listed::Later(issue), true) => {
                tally.add(&tally.earlier, format!("{name} (issue {issue})"));
                Ok(())
            }
            (_, true) => Ok(()),
            (_, false) if self.case.lenient().is_some() => {
                let reason = self.case.lenient().unwrap_or_default();
                tally.add(&tally.differ_from_mistakes, format!("{name} (the original is {reason})"));
                Ok(())
            }
            (_, false) => Err(format!("\n{}", lines.join("\n")).into()),
        }
    }
}

/// What passed without being as recorded, or without having to be; for the summary.
#[derive(Default)]
struct Tally {
    differ_on_purpose: Mutex<Vec<String>>,
    differ_from_mistakes: Mutex<Vec<String>>,
    earlier: Mutex<Vec<String>>,
    again: Mutex<Vec<String>>,
}

impl Tally {
    fn add(&self, list: &Mutex<Vec<String>>, name: String) {
        list.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }

    fn print(&self) {
        let print = |what: &str, list: &Mutex<Vec<String>>| {
            let mut names = std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner));
            if !names.is_empty() {
                names.sort();
                println!("{} {what}:", names.len());
                names.iter().for_each(|name| println!("    {name}"));
                println!();
            }
        };
        print("differ on purpose (differences.toml)", &self.differ_on_purpose);
        print("differ where the original is unsafe or wrong (allowed)", &self.differ_from_mistakes);
        print("were as expected only when they ran again: the machine was busy", &self.again);
        print("are as recorded already: strike them from later.toml", &self.earlier);
    }
}
