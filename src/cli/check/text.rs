//! The findings for people: each with its line, what to look at, and what to do.

use std::borrow::Cow;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Class, Report};
use crate::config::{Diagnostic, Position, SourceText, Sources};

/// Two places of one file are shown in one piece if no more than so many bytes are between them; what lies between is
/// folded away. Past it they are shown apart, so that the work for a finding does not grow with its file.
const NEAR: usize = 2000;

/// A directive that spans more lines than this is shown by its first line.
const TALL: usize = 4;

/// All findings, and a summary.
pub(super) fn render(report: &Report, verbose: bool, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut text = String::new();
    for finding in &report.findings {
        if verbose || Class::of(finding.severity) != Class::Note {
            text.push_str(&renderer.render(&[group(report.sources(), finding)]));
            text.push_str("\n\n");
        }
    }
    text.push_str(&summary(report, verbose));
    text
}

fn summary(report: &Report, verbose: bool) -> String {
    let counted = |number: usize, word: &str| match number {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{number} {word}s")),
    };
    let problems: Vec<String> =
        [counted(report.errors(), "error"), counted(report.warnings(), "warning")].into_iter().flatten().collect();
    let problems = if problems.is_empty() { "no problems".to_owned() } else { problems.join(", ") };
    let notes = match counted(report.notes(), "note") {
        Some(notes) if verbose => format!(", {notes}"),
        Some(notes) => format!(" ({notes} not shown; --verbose shows all)"),
        None => String::new(),
    };
    format!("{}: {problems}{notes}\n", report.file())
}

fn group<'r>(sources: &'r Sources, finding: &'r Diagnostic) -> Group<'r> {
    let level = match Class::of(finding.severity) {
        Class::Error => Level::ERROR,
        Class::Warning => Level::WARNING,
        Class::Note => Level::NOTE,
    };
    let mut group = Group::with_title(level.primary_title(finding.message.as_str()).id(finding.code));
    let mut marks: Vec<Mark<'_>> = finding.at.map(|at| Mark { at, label: None }).into_iter().collect();
    marks.extend(finding.notes.iter().map(|note| Mark { at: note.at, label: Some(note.text.as_str()) }));
    let first = finding.at.or_else(|| finding.notes.first().map(|note| note.at));
    for excerpt in excerpts(sources, &marks) {
        group = group.element(excerpt);
    }
    for at in first.map(|at| sources.include_stack(at.source)).unwrap_or_default() {
        group = group.element(Level::NOTE.message(format!("included from {}", sources.label(at))));
    }
    match &finding.help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    }
}

/// A place to show; without a label it is the finding's own.
struct Mark<'r> {
    at: Position,
    label: Option<&'r str>,
}

/// The pieces of the files that show the marks: the finding's own first, with the notes that are near it.
fn excerpts<'r>(sources: &'r Sources, marks: &[Mark<'r>]) -> Vec<Snippet<'r, Annotation<'r>>> {
    let mut excerpts: Vec<Excerpt<'r>> = Vec::new();
    for mark in marks {
        let source = sources.get(mark.at.source);
        let span = span(source, mark.at);
        let near = excerpts.iter_mut().find(|excerpt| std::ptr::eq(excerpt.source, source) && excerpt.is_near(&span));
        match near {
            Some(excerpt) => excerpt.add(span, mark.label),
            None => excerpts.push(Excerpt::new(source, span, mark.label)),
        }
    }
    excerpts.into_iter().map(Excerpt::snippet).collect()
}

/// Lines of one file, with what is marked in them.
struct Excerpt<'r> {
    source: &'r SourceText,
    /// Whole lines.
    range: Range<usize>,
    marks: Vec<(Range<usize>, Option<&'r str>)>,
}

impl<'r> Excerpt<'r> {
    fn new(source: &'r SourceText, span: Range<usize>, label: Option<&'r str>) -> Self {
        Self { source, range: lines(&source.text, &span), marks: vec![(span, label)] }
    }

    fn is_near(&self, span: &Range<usize>) -> bool {
        span.start <= self.range.end + NEAR && self.range.start <= span.end + NEAR
    }

    fn add(&mut self, span: Range<usize>, label: Option<&'r str>) {
        let lines = lines(&self.source.text, &span);
        self.range = self.range.start.min(lines.start)..self.range.end.max(lines.end);
        self.marks.push((span, label));
    }

    fn snippet(self) -> Snippet<'r, Annotation<'r>> {
        let text = utf8(&self.source.text[self.range.clone()]);
        let line = self.source.lines().line(u32::try_from(self.range.start).unwrap_or(u32::MAX));
        let path = self.source.path.as_ref().map_or(Cow::Borrowed("command line"), |path| path.to_string_lossy());
        let annotations = self.marks.into_iter().map(|(span, label)| {
            let kind = if label.is_some() { AnnotationKind::Context } else { AnnotationKind::Primary };
            kind.span(span.start - self.range.start..span.end - self.range.start).label(label)
        });
        Snippet::source(text).line_start(line as usize).path(path).annotations(annotations)
    }
}

/// What to underline.
fn span(source: &SourceText, at: Position) -> Range<usize> {
    let text = &source.text;
    let start = (at.span.start as usize).min(text.len());
    let end = (at.span.end as usize).clamp(start, text.len());
    if start == text.len() {
        // What is missing at the end of the file is missed after its last word.
        let last = text.trim_ascii_end().len();
        return last..last;
    }
    let tall = memchr::memchr_iter(b'\n', &text[start..end]).nth(TALL - 1).is_some();
    match memchr::memchr(b'\n', &text[start..end]) {
        Some(length) if tall => start..start + length,
        _ => start..end,
    }
}

/// The whole lines around a span.
fn lines(text: &[u8], span: &Range<usize>) -> Range<usize> {
    let start = memchr::memrchr(b'\n', &text[..span.start]).map_or(0, |line_feed| line_feed + 1);
    let end = memchr::memchr(b'\n', &text[span.end..]).map_or(text.len(), |line_feed| span.end + line_feed);
    start..end
}

/// A text with every byte that is not UTF-8 replaced by one, so that places stay the same.
fn utf8(text: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(text) {
        return text.into();
    }
    let mut clean = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        clean.push_str(chunk.valid());
        clean.extend(chunk.invalid().iter().map(|_| '?'));
    }
    clean.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_text};

    #[track_caller]
    fn check(config: &[u8], expected: &str) {
        let options =
            LoadOptions { file: "nginx.conf".into(), prefix: "/p".into(), offline: true, ..LoadOptions::default() };
        let report = Report::of(load_text(options, config));
        assert_eq!(render(&report, false, false), expected);
    }

    #[test]
    fn a_misspelled_directive() {
        check(
            b"events {}\nhttp {\n    servr {\n    }\n}\n",
            "\
error[unknown-directive]: unknown directive \"servr\"
 --> nginx.conf:3:5
  |
3 |     servr {
  |     ^^^^^
  |
  = help: did you mean \"server\"?

nginx.conf: 1 error
",
        );
    }

    #[test]
    fn a_duplicate_shows_the_first() {
        check(
            b"pid a;\nuser x;\n\n\n\n\npid b;\nevents {}\n",
            "\
error[duplicate]: \"pid\" directive is duplicate
 --> nginx.conf:7:1
  |
1 | pid a;
  | ----- first set here
...
7 | pid b;
  | ^^^^^

nginx.conf: 1 error
",
        );
    }

    #[test]
    fn the_end_of_the_file() {
        check(
            b"events {}\nhttp {\n\n",
            "\
error[syntax]: unexpected end of file, expecting \"}\"
 --> nginx.conf:2:7
  |
2 | http {
  |       ^

nginx.conf: 1 error
",
        );
    }

    #[test]
    fn bytes_that_are_not_text() {
        check(
            b"\xff\x1b[1m \xc3\xbc;\nevents {}\n",
            "\
error[unknown-directive]: unknown directive \"\u{fffd}\u{241b}[1m\"
 --> nginx.conf:1:1
  |
1 | ?\u{241b}[1m \u{fc};
  | ^^^^^

nginx.conf: 1 error
",
        );
    }

    #[test]
    fn nothing_wrong() {
        check(b"events {}\n", "nginx.conf: no problems\n");
        check(b"events { accept_mutex on; }\n", "nginx.conf: no problems (1 note not shown; --verbose shows all)\n");
    }
}
