//! What is wrong with a configuration, where, and what to do.
//!
//! A [`Diagnostic`] is collected, never thrown: the walk goes on, `-t` prints the first error in nginx's words, and
//! `pushgate check` prints them all with source lines, carets and help.

use std::fmt;

use super::source::{Position, Sources};

/// How bad it is, in nginx's own levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; `-t` does not print it.
    Info,
    /// Loads, but is unsafe or useless. Printed by `-t` only when nginx prints it too.
    Lint,
    /// nginx prints `[warn]`.
    Warn,
    /// nginx prints `[error]` and refuses.
    Error,
    /// nginx prints `[crit]` and refuses.
    Crit,
    /// nginx prints `[emerg]` and refuses.
    Emerg,
}

impl Severity {
    /// nginx's word for the level.
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Lint | Self::Warn => "warn",
            Self::Error => "error",
            Self::Crit => "crit",
            Self::Emerg => "emerg",
        }
    }

    /// Whether a server must not start with this.
    pub fn refuses(self) -> bool {
        self >= Self::Error
    }
}

/// A second place that explains the first ("first set here").
#[derive(Clone, Debug)]
pub struct Note {
    /// What is to be seen there.
    pub text: String,
    /// Where.
    pub at: Position,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable short name, such as `unknown-directive`.
    pub code: &'static str,
    /// nginx's words, without the place.
    pub message: String,
    /// The place: the words to underline.
    pub at: Option<Position>,
    /// Whether nginx names the place in this message (`… in FILE:LINE`).
    pub names_place: bool,
    /// Whether nginx finds it only after it has read everything and said that the syntax is ok.
    pub late: bool,
    /// What to do, or what is allowed there.
    pub help: Option<String>,
    /// Whether a server must not start with it: most often as its severity says.
    pub refuses: bool,
    /// Other places that belong to it.
    pub notes: Vec<Note>,
}

impl Diagnostic {
    /// An `[emerg]` finding without a place.
    pub fn emerg(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Emerg, code, message)
    }

    /// A finding without a place.
    pub fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity,
            code,
            message: message.into(),
            at: None,
            names_place: false,
            late: false,
            help: None,
            refuses: severity.refuses(),
            notes: Vec::new(),
        }
    }

    /// The same, at a place that nginx names in the message.
    pub fn at(mut self, at: Position) -> Self {
        self.at = Some(at);
        self.names_place = true;
        self
    }

    /// The same, at a place that only `check` shows.
    pub fn near(mut self, at: Option<Position>) -> Self {
        self.at = at;
        self
    }

    /// The same, found only after "syntax is ok".
    pub fn late(mut self) -> Self {
        self.late = true;
        self
    }

    /// The same, with help.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, refusing the configuration or not, whatever its severity says.
    pub fn refuses(mut self, refuses: bool) -> Self {
        self.refuses = refuses;
        self
    }

    /// The same, with another place that explains it.
    pub fn note(mut self, text: impl Into<String>, at: Option<Position>) -> Self {
        if let Some(at) = at {
            self.notes.push(Note { text: text.into(), at });
        }
        self
    }

    /// The line that nginx would print: `[emerg] message in FILE:LINE`.
    pub fn nginx_line<'a>(&'a self, sources: &'a Sources) -> impl fmt::Display + 'a {
        NginxLine { diagnostic: self, sources }
    }
}

struct NginxLine<'a> {
    diagnostic: &'a Diagnostic,
    sources: &'a Sources,
}

impl fmt::Display for NginxLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.diagnostic.severity.word(), self.diagnostic.message)?;
        match self.diagnostic.at.filter(|_| self.diagnostic.names_place) {
            None => Ok(()),
            Some(at) => match self.sources.place(at) {
                None => write!(f, " in command line"),
                Some((path, line)) => write!(f, " in {path}:{line}"),
            },
        }
    }
}

/// What a directive's setter says when its arguments are wrong; the checker adds the place.
#[derive(Debug)]
pub struct Fault {
    pub(super) severity: Severity,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) names_place: bool,
    pub(super) word: Option<usize>,
    pub(super) help: Option<String>,
    pub(super) refuses: Option<bool>,
}

impl Fault {
    /// A fault in nginx's words; the checker adds ` in FILE:LINE`.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Emerg,
            code: "invalid-value",
            message: message.into(),
            names_place: true,
            word: None,
            help: None,
            refuses: None,
        }
    }

    /// The same, underlining one argument (0 is the first after the name).
    pub fn word(mut self, index: usize) -> Self {
        self.word = Some(index);
        self
    }

    /// The same, with help for `check`.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, under another stable name.
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }

    /// The same, in a message that does not name the place (nginx logs a few that way).
    pub fn placeless(mut self) -> Self {
        self.names_place = false;
        self
    }

    /// The same, refusing the configuration or not, whatever its level says.
    pub fn refuses(mut self, refuses: bool) -> Self {
        self.refuses = Some(refuses);
        self
    }

    /// The same, at another level than `[emerg]`.
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
}
