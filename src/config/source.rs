//! The texts that a configuration is made of: files, what they include, and the `-g` of the command line.
//!
//! This is the only place that reads configuration files.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::{fs, io};

use pushgate_parser::{Ast, LineIndex, Span};

/// Names one source of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(u32);

/// A span in a source: where something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which text.
    pub source: SourceId,
    /// What to underline.
    pub span: Span,
    /// The offset whose line nginx reports: that of the `;` or `{` which ends the directive.
    pub end: u32,
}

/// One text.
#[derive(Debug)]
pub struct Source {
    /// The path as nginx prints it; `None` for the command line.
    pub path: Option<PathBuf>,
    /// The bytes of it.
    pub text: Vec<u8>,
    /// Where it was included from.
    pub included: Option<Position>,
    lines: LineIndex,
}

impl Source {
    /// The line index of the text.
    pub fn lines(&self) -> &LineIndex {
        &self.lines
    }
}

/// All the texts of one load, in the order of reading.
#[derive(Debug, Default)]
pub struct Sources {
    all: Vec<Source>,
}

impl Sources {
    /// Reads a file. An error names the system call that failed, as nginx does.
    pub fn read(
        &mut self,
        path: &Path,
        included: Option<Position>,
    ) -> Result<(SourceId, Ast), (&'static str, io::Error)> {
        let mut file = fs::File::open(path).map_err(|error| ("open", error))?;
        let mut text = Vec::new();
        io::Read::read_to_end(&mut file, &mut text).map_err(|error| ("pread", error))?;
        Ok(self.add(Some(path.to_owned()), text, included))
    }

    /// Adds a text that is not a file: the command line's `-g`, or a test's.
    pub fn add(&mut self, path: Option<PathBuf>, text: Vec<u8>, included: Option<Position>) -> (SourceId, Ast) {
        let ast = pushgate_parser::parse(&text);
        let id = SourceId(u32::try_from(self.all.len()).expect("fewer than 2^32 files are included"));
        self.all.push(Source { path, lines: LineIndex::new(&text), text, included });
        (id, ast)
    }

    /// One of them.
    pub fn get(&self, id: SourceId) -> &Source {
        &self.all[id.0 as usize]
    }

    /// All of them, in the order of reading.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.all.iter()
    }

    /// The file and line that nginx names for a position; `None` for the command line.
    pub fn place(&self, at: Position) -> Option<(std::path::Display<'_>, u32)> {
        let source = self.get(at.source);
        let path = source.path.as_deref()?;
        Some((path.display(), source.lines.line(at.end)))
    }

    /// `FILE:LINE` of a position, for people.
    pub fn label(&self, at: Position) -> String {
        match self.place(at) {
            Some((path, line)) => format!("{path}:{line}"),
            None => "command line".to_owned(),
        }
    }

    /// What was written at a position.
    pub fn written(&self, at: Position) -> Cow<'_, str> {
        let text = &self.get(at.source).text;
        String::from_utf8_lossy(text.get(at.span.start as usize..at.span.end as usize).unwrap_or_default())
    }

    /// The chain of includes that a source hangs on, innermost first.
    pub fn include_stack(&self, id: SourceId) -> Vec<Position> {
        let mut stack = Vec::new();
        let mut next = self.get(id).included;
        while let Some(at) = next {
            stack.push(at);
            next = self.get(at.source).included;
        }
        stack
    }
}
