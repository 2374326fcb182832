//! `pushgate check`: every problem of a configuration at once, for people or for programs.
//!
//! It needs nothing outside the configuration: no names are resolved, no certificates, users or log folders looked for.

mod json;
mod sarif;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use super::options::{Word, Words, Wrong, load_options, superfluous, unknown};
use super::{Command, lint, output};
use crate::compile::Compiled;
use crate::config::{self, Config, Diagnostic, LoadOptions, Position, Severity, Sources};
use crate::modules::postgres::database;

pub(super) const COMMAND: Command = Command {
    name: "check",
    summary: "say all that is wrong with a configuration, and why",
    usage: "[file] [-p prefix] [-g directives] [--format text|json|sarif]
                     [--strict] [--verbose] [--no-color]

  file             : the configuration (default: that of pushgate -t)
  -p prefix        : what relative paths hang on
  -g directives    : directives beside the file
  --format format  : text (default), json, or sarif (2.1.0)
  --strict         : fail on warnings too
  --db             : ask PostgreSQL too: its servers, and whether each query prepares
  --verbose        : list directives that have no effect here
  --no-color       : no colours on a terminal

Exit code: 0 nothing wrong (or warnings only), 1 errors, 2 wrong use.",
    run,
};

#[derive(Debug)]
struct Options {
    load: LoadOptions,
    format: Format,
    strict: bool,
    database: bool,
    verbose: bool,
    colour: bool,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Text,
    Json,
    Sarif,
}

fn run(words: &[String]) -> Result<ExitCode, Wrong> {
    let options = Options::read(words)?;
    let mut report = Report::of(config::load(options.load));
    if options.database && report.errors() == 0 {
        report.ask_databases(matches!(options.format, Format::Text))?;
    }
    output::print(match options.format {
        Format::Text => text::render(&report, options.verbose, options.colour),
        Format::Json => json::render(&report),
        Format::Sarif => sarif::render(&report),
    });
    let fails = report.errors() > 0 || options.strict && report.warnings() > 0;
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Options {
    fn read(words: &[String]) -> Result<Self, Wrong> {
        let (mut prefix, mut file, mut globals) = (None, None, None);
        let (mut format, mut strict, mut verbose, mut colour) = (Format::Text, false, false, true);
        let mut database = false;
        let mut words = Words::new(words);
        while let Some(word) = words.next()? {
            match word {
                Word::Flag(flag @ ("-p" | "--prefix")) => prefix = Some(words.value(flag)?),
                Word::Flag(flag @ "-c") => file = Some(words.value(flag)?),
                Word::Flag(flag @ "-g") => globals = Some(words.value(flag)?.to_owned()),
                Word::Flag(flag @ "--format") => format = Format::of(words.value(flag)?)?,
                Word::Flag("--strict") => strict = true,
                Word::Flag("--db") => database = true,
                Word::Flag("--verbose") => verbose = true,
                Word::Flag("--no-color") => colour = false,
                Word::Flag(flag) => return Err(unknown(flag)),
                Word::Operand(word) if file.is_some() => return Err(superfluous(word)),
                Word::Operand(word) => file = Some(word),
            }
        }
        let mut load = load_options(prefix, None);
        if let Some(file) = file {
            // As for every tool, and unlike `-t -c`, a relative name hangs on the folder that we stand in.
            load.file = PathBuf::from(file);
        }
        load = LoadOptions { globals, offline: true, ..load };
        Ok(Self { load, format, strict, database, verbose, colour: colour && output::wants_colour() })
    }
}

impl Format {
    fn of(word: &str) -> Result<Self, Wrong> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "sarif" => Ok(Self::Sarif),
            _ => Err(Wrong(format!("there is no format \"{word}\"; there are: text json sarif"))),
        }
    }
}

/// What was found in a configuration: by the load, by compiling, and by our own rules.
#[derive(Debug)]
struct Report {
    config: Config,
    findings: Vec<Diagnostic>,
}

impl Report {
    fn of(mut config: Config) -> Self {
        if config.is_good() {
            config = Compiled::new(config).config;
        }
        let mut findings = std::mem::take(&mut config.built.diagnostics);
        findings.extend(lint::run(&config));
        Self { config, findings }
    }

    /// Adds what PostgreSQL says; the lines about what is well go before the findings.
    fn ask_databases(&mut self, prints: bool) -> Result<(), Wrong> {
        let asked = database::check(&self.config).map_err(|error| Wrong(format!("no runtime: {error}")))?;
        if prints {
            for line in &asked.lines {
                output::print(format!("{line}\n"));
            }
        }
        self.findings.extend(asked.findings);
        Ok(())
    }

    fn sources(&self) -> &Sources {
        &self.config.built.sources
    }

    fn file(&self) -> std::path::Display<'_> {
        self.config.built.options.file.display()
    }

    fn count(&self, class: Class) -> usize {
        self.findings.iter().filter(|finding| Class::of(finding.severity) == class).count()
    }

    fn errors(&self) -> usize {
        self.count(Class::Error)
    }

    fn warnings(&self) -> usize {
        self.count(Class::Warning)
    }

    fn notes(&self) -> usize {
        self.count(Class::Note)
    }
}

/// How bad a finding is, in three steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// A server does not start with it.
    Error,
    /// It starts, but hardly does what was meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl Class {
    fn of(severity: Severity) -> Self {
        match severity {
            Severity::Info => Self::Note,
            Severity::Lint | Severity::Warn => Self::Warning,
            Severity::Error | Severity::Crit | Severity::Emerg => Self::Error,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// A position as programs want it; lines and columns count from 1, columns in characters, the end is exclusive.
#[derive(Debug)]
struct Place {
    /// `None`: the command line.
    path: Option<String>,
    line: u32,
    column: u32,
    end_line: u32,
    end_column: u32,
}

impl Place {
    fn of(sources: &Sources, at: Position) -> Self {
        let source = sources.get(at.source);
        let start = source.lines().position(&source.text, at.span.start);
        let end = source.lines().position(&source.text, at.span.end);
        let path = source.path.as_ref().map(|path| path.display().to_string());
        Self { path, line: start.line, column: start.column, end_line: end.line, end_column: end.column }
    }
}
