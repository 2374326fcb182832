//! What was observed against what is expected, told as lines.

use crate::case::{Frame, Observed};
use crate::text::{Values, matches};

/// The differences between the recorded and the seen, as lines for a reader; empty when there are none.
pub(crate) fn differences(expected: &Observed, seen: &Observed, values: &Values) -> Vec<String> {
    let mut out = Vec::new();
    text("status", &expected.status, &seen.status, values, &mut out);
    headers(expected, seen, values, &mut out);
    if expected.body.is_some() || seen.body.as_ref().is_some_and(|body| !body.is_empty()) {
        text("body", &expected.body, &seen.body, values, &mut out);
    }
    frames(expected, seen, values, &mut out);
    if seen.ended == Some(true) && expected.ended.is_none() {
        out.push("    the response ended, it should go on".into());
    } else {
        flag("ended", expected.ended, seen.ended, &mut out);
    }
    if expected.closed.is_some() {
        flag("closed", expected.closed, seen.closed, &mut out);
    }
    if expected.exit != seen.exit {
        let show = |code: Option<i32>| code.map_or_else(|| "none".into(), |code| code.to_string());
        out.push(format!("    exit code: expected {}, got {}", show(expected.exit), show(seen.exit)));
    }
    lines("stderr", &expected.stderr, &seen.stderr, values, &mut out);
    lines("stdout", &expected.stdout, &seen.stdout, values, &mut out);
    let row_lines = |rows: &Option<Vec<Vec<String>>>| {
        rows.as_ref().map(|rows| rows.iter().map(|row| row.join(" | ")).collect::<Vec<_>>())
    };
    lines("rows", &row_lines(&expected.rows), &row_lines(&seen.rows), values, &mut out);
    text("error", &expected.error, &seen.error, values, &mut out);
    lines("requests", &expected.requests, &seen.requests, values, &mut out);
    flag("file missing", expected.missing, seen.missing, &mut out);
    out
}

fn flag(name: &str, expected: Option<bool>, seen: Option<bool>, out: &mut Vec<String>) {
    let (expected, seen) = (expected.unwrap_or(false), seen.unwrap_or(false));
    if expected != seen {
        out.push(format!("    {name}: expected {expected}, got {seen}"));
    }
}

fn text(name: &str, expected: &Option<String>, seen: &Option<String>, values: &Values, out: &mut Vec<String>) {
    match (expected, seen) {
        (None, None) => {}
        (Some(expected), Some(seen)) if matches(expected, seen, values) => {}
        (Some(expected), Some(seen)) if !expected.contains('\n') && !seen.contains('\n') => {
            out.push(format!("    {name}: expected {expected:?}"));
            out.push(format!("    {:1$}  got      {seen:?}", "", name.len()));
        }
        (expected, seen) => {
            let lines = |text: &Option<String>| -> Vec<String> {
                text.as_deref().unwrap_or_default().split('\n').map(str::to_owned).collect()
            };
            listing(name, &lines(expected), &lines(seen), |e, s| matches(e, s, values), out);
        }
    }
}

fn lines(
    name: &str,
    expected: &Option<Vec<String>>,
    seen: &Option<Vec<String>>,
    values: &Values,
    out: &mut Vec<String>,
) {
    let expected = expected.as_deref().unwrap_or_default();
    let seen = seen.as_deref().unwrap_or_default();
    let same = expected.len() == seen.len() && expected.iter().zip(seen).all(|(e, s)| matches(e, s, values));
    if !same {
        listing(name, expected, seen, |e, s| matches(e, s, values), out);
    }
}

/// Each expected header exactly once, no others, in any order.
fn headers(expected: &Observed, seen: &Observed, values: &Values, out: &mut Vec<String>) {
    let (wanted, came) = match (&expected.headers, &seen.headers) {
        (None, None) => return,
        (_, None) => return out.push("    no response, expected one".into()),
        (wanted, Some(came)) => (wanted.as_deref().unwrap_or_default(), came),
    };
    let mut left: Vec<&String> = came.iter().collect();
    let mut missing = Vec::new();
    for header in wanted {
        let (name, value) = header.split_once(": ").unwrap_or((header, ""));
        let hit = left.iter().position(|seen_header| {
            let (seen_name, seen_value) = seen_header.split_once(": ").unwrap_or((seen_header, ""));
            let length_fits = value != "%%LENGTH%%" || seen.length.is_none_or(|n| seen_value == n.to_string());
            seen_name.eq_ignore_ascii_case(name) && matches(value, seen_value, values) && length_fits
        });
        match hit {
            Some(at) => drop(left.remove(at)),
            None => missing.push(header),
        }
    }
    if !missing.is_empty() || !left.is_empty() {
        out.push("    headers differ (- expected, + got):".into());
        out.extend(missing.iter().map(|header| format!("      - {header}")));
        out.extend(left.iter().map(|header| format!("      + {header}")));
    }
}

fn frames(expected: &Observed, seen: &Observed, values: &Values, out: &mut Vec<String>) {
    let wanted = expected.frames.as_deref().unwrap_or_default();
    let came = seen.frames.as_deref().unwrap_or_default();
    let same = |e: &Frame, s: &Frame| {
        let text = |e: &Option<String>, s: &Option<String>| match (e, s) {
            (Some(e), Some(s)) => matches(e, s, values),
            (e, s) => e == s,
        };
        let rest = |f: &Frame| (f.fin, f.rsv, f.masked, f.code);
        e.op == s.op && rest(e) == rest(s) && text(&e.data, &s.data) && text(&e.reason, &s.reason)
    };
    if wanted.len() != came.len() || !wanted.iter().zip(came).all(|(e, s)| same(e, s)) {
        listing("frames", wanted, came, same, out);
    }
}

/// How an item of a listing is written.
trait Line {
    fn line(&self) -> String;
}

impl Line for String {
    fn line(&self) -> String {
        self.replace('\r', "\\r")
    }
}

impl Line for Frame {
    fn line(&self) -> String {
        let mut parts = vec![format!("op = {:?}", self.op)];
        parts.extend(self.data.iter().map(|data| format!("data = {data:?}")));
        parts.extend(self.code.iter().map(|code| format!("code = {code}")));
        parts.extend(self.reason.iter().map(|reason| format!("reason = {reason:?}")));
        parts.extend(self.fin.iter().map(|fin| format!("fin = {fin}")));
        parts.extend(self.rsv.iter().map(|rsv| format!("rsv = {rsv}")));
        parts.extend(self.masked.iter().map(|masked| format!("masked = {masked}")));
        format!("{{ {} }}", parts.join(", "))
    }
}

/// Two lists side by side: what only the first has after `-`, what only the second has after `+`.
fn listing<T: Line>(name: &str, expected: &[T], seen: &[T], same: impl Fn(&T, &T) -> bool, out: &mut Vec<String>) {
    out.push(format!("    {name} differs (- expected, + got):"));
    let from_start = expected.iter().zip(seen).take_while(|(e, s)| same(e, s)).count();
    let (expected_rest, seen_rest) = (&expected[from_start..], &seen[from_start..]);
    let from_end = expected_rest.iter().rev().zip(seen_rest.iter().rev()).take_while(|(e, s)| same(e, s)).count();
    let common = |item: &T| format!("        {}", item.line());
    out.extend(expected[..from_start].iter().map(common));
    out.extend(expected_rest[..expected_rest.len() - from_end].iter().map(|item| format!("      - {}", item.line())));
    out.extend(seen_rest[..seen_rest.len() - from_end].iter().map(|item| format!("      + {}", item.line())));
    out.extend(expected[expected.len() - from_end..].iter().map(common));
}
