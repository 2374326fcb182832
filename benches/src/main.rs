//! Pushgate's numbers beside those of Debian's nginx with nchan, in one run on one machine. See `README.md` beside this crate.

mod clients;
mod database;
mod frames;
mod http;
mod load;
mod options;
mod postgres;
mod process;
mod report;
mod requests;
mod rows;
mod server;
mod site;
mod work;

use std::cell::OnceCell;
use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::frames::Faults;
use crate::options::{Options, USAGE};
use crate::process::{Cores, Perf, raise_file_limit};
use crate::report::Report;
use crate::rows::{ROWS, Session};
use crate::server::{CONNECTIONS, Side};
use crate::work::Bench;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).map_err(Into::into).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(&format!("pushgate-bench: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Measures and prints; whether all went well.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    if options.help {
        io::stdout().write_all(help().as_bytes())?;
        return Ok(true);
    }
    let files = raise_file_limit().min(CONNECTIONS);
    if files < options.subscribers as u64 + 100 {
        return Err(format!("{} subscribers need more open files than the {files} allowed", options.subscribers).into());
    }
    let bench = Bench { options, cores: Cores::divide()?, perf: Perf::is_supported(), cluster: OnceCell::new() };
    let mut report =
        Report { rows: options.rows.clone(), subscribers: options.subscribers, perf: bench.perf, ..Report::default() };
    report.conditions = conditions(&bench);
    for session in Session::ALL.into_iter().filter(|&session| options.rows.iter().any(|row| row.session == session)) {
        measure(&bench, session, &mut report);
    }
    let text = if options.json { format!("{:#}\n", report.json()) } else { report.markdown() };
    io::stdout().write_all(text.as_bytes())?;
    Ok(report.is_good())
}

/// All runs of a session, the sides by turns, so that both see the same machine. A side that fails once is left out.
fn measure(bench: &Bench<'_>, session: Session, report: &mut Report) {
    let mut failed = Vec::new();
    for run in 1..=bench.options.runs {
        for side in Side::BOTH {
            if failed.contains(&side) {
                continue;
            }
            tell(&format!("{session:?} {run}/{}: {}", bench.options.runs, side.name()));
            let mut faults = Faults::default();
            let result = bench.run(session, side, &mut faults);
            if session.has_messages() && (result.is_ok() || faults.total() > 0) {
                *report.faults.entry(side).or_default() += faults;
            }
            match result {
                Ok(numbers) => {
                    for (name, number) in numbers {
                        report.samples.entry((name, side)).or_default().push(number);
                    }
                }
                Err(error) => {
                    let names = bench.options.rows.iter().filter(|row| row.session == session).map(|row| row.name);
                    let failure = format!("{}, {}: {error}", side.name(), names.collect::<Vec<_>>().join(", "));
                    tell(&failure);
                    report.failures.push(failure);
                    failed.push(side);
                }
            }
        }
    }
}

fn conditions(bench: &Bench<'_>) -> Vec<String> {
    let proc = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
    let load = proc("loadavg").split_whitespace().next().unwrap_or("?").to_owned();
    vec![
        format!(
            "kernel {}, load {load} before the run; {}; medians of {} runs (least-most), the servers by turns",
            proc("sys/kernel/osrelease").trim(),
            bench.cores.describe(),
            bench.options.runs
        ),
        format!(
            "{} cores for a server with several workers, {} workers in the rows of requests; user-space instructions: {}",
            bench.cores.count(),
            bench.options.workers,
            if bench.perf { "by `perf stat`" } else { "not supported here (`perf stat -e instructions:u`)" }
        ),
    ]
}

fn help() -> String {
    let rows = ROWS
        .iter()
        .map(|row| format!("  {:<14}{}\n", row.name, row.work.replace("{n}", "N").replace("{tenth}", "N/10")));
    format!("{USAGE}\nrows:\n{}", rows.collect::<String>())
}

/// Progress and complaints: a closed stderr is no reason to stop.
fn tell(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}
