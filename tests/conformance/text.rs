//! Texts of the cases: bytes as text, placeholders, and the patterns in expectations.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use regex::{Captures, Regex};

/// Names of placeholders and their values.
pub(crate) type Values = BTreeMap<String, String>;

static NAME: LazyLock<Regex> = LazyLock::new(|| regex(r"%%([A-Za-z][A-Za-z0-9_]*)([+-][0-9]+)?%%"));
static HEX: LazyLock<Regex> = LazyLock::new(|| regex(r"%%x((?:[0-9a-f]{2})+)%%"));
static REPEATED: LazyLock<Regex> = LazyLock::new(|| regex(r"%%rep([0-9]+)_([A-Za-z0-9])%%"));
static LITERAL: LazyLock<Regex> = LazyLock::new(|| regex(r"\A(?:%%x(?:[0-9a-f]{2})+%%|%%rep[0-9]+_[A-Za-z0-9]%%)\z"));

const DATE: &str = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} \
                    [0-9]{2}:[0-9]{2}:[0-9]{2} GMT";

/// A row of one letter at least this long is written `%%repN_c%%`.
const LONG_ROW: usize = 200;

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

/// Bytes as text: what is not printable UTF-8 becomes `%%xHH..%%`, a long row of one letter `%%repN_c%%`.
pub(crate) fn show(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut odd: Vec<u8> = Vec::new();
    let flush = |odd: &mut Vec<u8>, out: &mut String| {
        if !odd.is_empty() {
            let hex: String = odd.drain(..).map(|b| format!("{b:02x}")).collect();
            out.push_str(&format!("%%x{hex}%%"));
        }
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if matches!(c, '\t' | '\r' | '\n') || printable(c) {
                flush(&mut odd, &mut out);
                out.push(c);
            } else {
                odd.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        odd.extend_from_slice(chunk.invalid());
    }
    flush(&mut odd, &mut out);
    squeeze(&out)
}

fn printable(c: char) -> bool {
    // The standard library tells what is printable only by how it escapes; a letter before it spares combining marks.
    matches!(c, '"' | '\'' | '\\' | ' '..='~') || !c.is_ascii() && format!("a{c}").escape_debug().count() == 2
}

fn squeeze(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let row = rest.len() - rest.trim_start_matches(c).len();
        if c.is_ascii_alphanumeric() && row >= LONG_ROW {
            out.push_str(&format!("%%rep{row}_{c}%%"));
        } else {
            out.push_str(&rest[..row]);
        }
        rest = &rest[row..];
    }
    out
}

/// Text to bytes, the reverse of [`show`].
pub(crate) fn unshow(text: &str) -> Vec<u8> {
    let text = REPEATED.replace_all(text, |m: &Captures<'_>| m[2].repeat(m[1].parse().unwrap()));
    let mut out = Vec::new();
    let mut end = 0;
    for found in HEX.captures_iter(&text) {
        let whole = found.get(0).unwrap();
        out.extend_from_slice(text[end..whole.start()].as_bytes());
        let digits = found[1].as_bytes();
        out.extend(digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()));
        end = whole.end();
    }
    out.extend_from_slice(text[end..].as_bytes());
    out
}

/// Puts in the values of the placeholders that have one.
pub(crate) fn substitute(text: &str, values: &Values) -> String {
    let replaced = NAME.replace_all(text, |m: &Captures<'_>| match (m.get(2), values.get(&m[1])) {
        (None, Some(value)) => value.clone(),
        _ => m[0].to_owned(),
    });
    replaced.into_owned()
}

/// The bytes to send for a `request`: every line end of the head becomes CR LF.
pub(crate) fn wire(text: &str, values: &Values) -> Vec<u8> {
    let text = substitute(text, values);
    let text = match text.split_once("\n\n") {
        Some((head, body)) => format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n")),
        None => text.replace('\n', "\r\n"),
    };
    unshow(&text)
}

/// An expected text with placeholders, ready to be matched.
pub(crate) struct Pattern {
    text: String,
    /// Without placeholders there is nothing but the text.
    regex: Option<Regex>,
    /// For each date in the text: seconds from now.
    dates: Vec<i64>,
}

impl Pattern {
    pub(crate) fn new(text: &str, values: &Values) -> Self {
        let mut dates = Vec::new();
        let mut pattern = String::from(r"\A");
        let mut end = 0;
        for found in NAME.captures_iter(text) {
            let whole = found.get(0).unwrap();
            pattern.push_str(&regex::escape(&text[end..whole.start()]));
            end = whole.end();
            let (name, offset) = (&found[1], found.get(2));
            let value = offset.is_none().then(|| values.get(name)).flatten();
            let class = offset.is_none().then(|| class(name)).flatten();
            if LITERAL.is_match(whole.as_str()) {
                pattern.push_str(&regex::escape(whole.as_str()));
            } else if name == "DATE" {
                dates.push(offset.map_or(0, |o| o.as_str().parse().unwrap()));
                pattern.push_str(&format!("({DATE})"));
            } else if let Some(value) = value {
                pattern.push_str(&regex::escape(&show(value.as_bytes())));
            } else if let Some(class) = class {
                pattern.push_str(&format!("(?:{class})"));
            } else {
                pattern.push_str(&regex::escape(whole.as_str()));
            }
        }
        pattern.push_str(&regex::escape(&text[end..]));
        pattern.push_str(r"\z");
        let regex = (end > 0).then(|| {
            // Some expected bodies are hundreds of kilobytes long.
            regex::RegexBuilder::new(&pattern).size_limit(1 << 28).build().unwrap()
        });
        Self { text: text.to_owned(), regex, dates }
    }

    pub(crate) fn matches(&self, actual: &str) -> bool {
        if self.text == actual {
            return true;
        }
        let Some(found) = self.regex.as_ref().and_then(|regex| regex.captures(actual)) else {
            return false;
        };
        let now = SystemTime::now();
        self.dates.iter().zip(found.iter().skip(1)).all(|(offset, date)| {
            date.and_then(|d| httpdate::parse_http_date(d.as_str()).ok()).is_some_and(|date| near(date, now, *offset))
        })
    }
}

/// Whether `date` is `offset` seconds from `now`, with a minute of tolerance.
fn near(date: SystemTime, now: SystemTime, offset: i64) -> bool {
    let seconds =
        |t: SystemTime| t.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs().cast_signed();
    (seconds(date) - seconds(now) - offset).abs() <= 60
}

fn class(name: &str) -> Option<&'static str> {
    Some(match name {
        "SERVER" => "[A-Za-z0-9._-]+/[A-Za-z0-9.+_-]+",
        "SERVER_NAME" | "HOSTNAME" => "[A-Za-z0-9._-]+",
        "ETAG" => r#"(?:W/)?"[0-9a-f]+-[0-9a-f]+""#,
        "LENGTH" => "[0-9]+",
        "INT" => "-?[0-9]+",
        "NUM" => r"-?[0-9]+(?:\.[0-9]+)?",
        "HEX" => "[0-9a-fA-F]+",
        "WORD" => "[A-Za-z0-9_]+",
        "ISO_TIME" => "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}",
        "ANY" => r"[^\r\n]*",
        "REST" => r"(?s:.*)",
        _ => return None,
    })
}

/// Whether `actual` is what the pattern `expected` says.
pub(crate) fn matches(expected: &str, actual: &str, values: &Values) -> bool {
    expected == actual || Pattern::new(expected, values).matches(actual)
}

/// Checks this file's own rules; the harness has no unit tests of its own to put it in.
pub(crate) fn self_test() {
    let bytes = "a\u{7f}é\u{301}\u{200b}\"\\'\r\n".as_bytes().iter().copied().chain([0xff, 0]).collect::<Vec<_>>();
    let shown = show(&bytes);
    assert_eq!(shown, "a%%x7f%%é\u{301}%%xe2808b%%\"\\'\r\n%%xff00%%");
    assert_eq!(unshow(&shown), bytes);
    assert_eq!(show(&[b'x'; 300]), "%%rep300_x%%");
    assert_eq!(unshow("%%rep300_x%%"), [b'x'; 300]);

    let values = Values::from([("PORT".into(), "81".into())]);
    assert_eq!(wire("GET /\nHost: a:%%PORT%%\n\na\nb", &values), b"GET /\r\nHost: a:81\r\n\r\na\nb");
    assert!(matches("a:%%PORT%% %%INT%%.", "a:81 -7.", &values));
    assert!(!matches("a:%%PORT%% %%INT%%.", "a:81 -7,", &values));
    let now = SystemTime::now();
    let soon = httpdate::fmt_http_date(now + Duration::from_secs(3600));
    assert!(matches("%%DATE+3600%%", &soon, &values) && !matches("%%DATE%%", &soon, &values));
}
