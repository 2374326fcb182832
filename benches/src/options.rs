//! The command line.

use std::path::PathBuf;

use crate::rows::{ROWS, Row};
use crate::server::Programs;

/// How to call it.
pub(crate) const USAGE: &str = "usage: pushgate-bench [OPTION...] [ROW...|all]

  --pushgate FILE     Pushgate's binary (target/release/pushgate)
  --nginx FILE        nginx's binary (/usr/sbin/nginx)
  --nchan FILE        its nchan module (/usr/lib/nginx/modules/ngx_nchan_module.so)
  --runs N            runs of each row on each side (3)
  --subscribers N     (10000)
  --workers N         of each server in the rows of requests, from `return` to `reload` (1)
  --quick             a smoke run: one run, 500 subscribers, little work
  --json              JSON instead of Markdown
  --help              this, and the rows
";

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    /// The programs to measure.
    pub(crate) programs: Programs,
    /// The rows, in the report's order.
    pub(crate) rows: Vec<&'static Row>,
    /// Runs of each.
    pub(crate) runs: usize,
    /// Subscribers in the rows with many.
    pub(crate) subscribers: usize,
    /// Workers of each server in the rows of requests; more than one run on all cores.
    pub(crate) workers: usize,
    /// Little work in each run.
    pub(crate) quick: bool,
    /// JSON instead of Markdown.
    pub(crate) json: bool,
    /// Only say how to call it.
    pub(crate) help: bool,
}

impl Options {
    /// Reads the arguments (without the program's name).
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            programs: Programs {
                pushgate: "target/release/pushgate".into(),
                nginx: "/usr/sbin/nginx".into(),
                nchan: "/usr/lib/nginx/modules/ngx_nchan_module.so".into(),
            },
            rows: Vec::new(),
            runs: 0,
            subscribers: 0,
            workers: 1,
            quick: false,
            json: false,
            help: false,
        };
        let mut names = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--pushgate" => options.programs.pushgate = PathBuf::from(value()?),
                "--nginx" => options.programs.nginx = PathBuf::from(value()?),
                "--nchan" => options.programs.nchan = PathBuf::from(value()?),
                "--runs" => options.runs = count(&argument, &value()?)?,
                "--subscribers" => options.subscribers = count(&argument, &value()?)?,
                "--workers" => options.workers = count(&argument, &value()?)?,
                "--quick" => options.quick = true,
                "--json" => options.json = true,
                "--help" | "-h" => options.help = true,
                option if option.starts_with('-') => {
                    return Err(format!("unknown option \"{option}\""));
                }
                name if name == "all" || ROWS.iter().any(|row| row.name == name) => names.push(argument),
                name => return Err(format!("unknown row \"{name}\"")),
            }
        }
        let all = names.is_empty() || names.iter().any(|name| name == "all");
        options.rows = ROWS.iter().filter(|row| all || names.iter().any(|name| name == row.name)).collect();
        if options.runs == 0 {
            options.runs = if options.quick { 1 } else { 3 };
        }
        if options.subscribers == 0 {
            options.subscribers = if options.quick { 500 } else { 10_000 };
        }
        Ok(options)
    }
}

fn count(option: &str, value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("invalid number \"{value}\" for {option}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &str, expected: &str) {
        let seen = match Options::parse(arguments.split_whitespace().map(str::to_owned)) {
            Ok(options) => {
                let rows: Vec<&str> = options.rows.iter().map(|row| row.name).collect();
                let rows = if rows.len() == ROWS.len() { "all".to_owned() } else { rows.join(" ") };
                format!("{rows}; {} x {} on {}", options.runs, options.subscribers, options.workers)
            }
            Err(error) => error,
        };
        assert_eq!(seen, expected, "{arguments:?}");
    }

    #[test]
    fn rows_come_in_the_order_of_the_table() {
        check("", "all; 3 x 10000 on 1");
        check("all check", "all; 3 x 10000 on 1");
        check("check fanout", "fanout check; 3 x 10000 on 1");
        check("fanout --quick", "fanout; 1 x 500 on 1");
        check("fanout --quick --runs 2 --subscribers 7 --workers 2", "fanout; 2 x 7 on 2");
    }

    #[test]
    fn nonsense_is_refused() {
        check("fnout", "unknown row \"fnout\"");
        check("--fast", "unknown option \"--fast\"");
        check("--runs", "--runs needs a value");
        check("--runs 0", "invalid number \"0\" for --runs");
    }
}
