//! Conditional requests: entity tags and `If-...` headers, judged in nginx's order.

use super::date::parse_http_date;

/// `if_modified_since`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfModifiedSince {
    /// The header is ignored.
    Off,
    /// The dates must be the same.
    #[default]
    Exact,
    /// The answer may also be older.
    Before,
}

/// The conditions of a request, as sent.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "named as the headers")]
pub struct Conditions<'a> {
    pub if_modified_since: Option<&'a [u8]>,
    pub if_unmodified_since: Option<&'a [u8]>,
    pub if_match: Option<&'a [u8]>,
    pub if_none_match: Option<&'a [u8]>,
}

/// What the conditions are held against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// `Last-Modified`, in seconds.
    pub last_modified: Option<i64>,
    /// `ETag`, with quotes and weakness.
    pub etag: Option<&'a [u8]>,
}

/// How a 200 is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it is.
    Send,
    /// 304
    NotModified,
    /// 412
    PreconditionFailed,
}

/// Judges a 200 answer.
pub fn judge(conditions: &Conditions<'_>, validators: &Validators<'_>, since: IfModifiedSince) -> Verdict {
    if let Some(date) = conditions.if_unmodified_since
        && !is_unmodified(date, validators.last_modified)
    {
        return Verdict::PreconditionFailed;
    }
    if let Some(tags) = conditions.if_match
        && !is_match(tags, validators.etag, false)
    {
        return Verdict::PreconditionFailed;
    }
    if conditions.if_modified_since.is_none() && conditions.if_none_match.is_none() {
        return Verdict::Send;
    }
    if let Some(date) = conditions.if_modified_since
        && is_modified(date, validators.last_modified, since)
    {
        return Verdict::Send;
    }
    if let Some(tags) = conditions.if_none_match
        && !is_match(tags, validators.etag, true)
    {
        return Verdict::Send;
    }
    Verdict::NotModified
}

fn is_unmodified(date: &[u8], last_modified: Option<i64>) -> bool {
    let Some(last_modified) = last_modified else {
        return false;
    };
    parse_http_date(date).unwrap_or(-1) >= last_modified
}

fn is_modified(date: &[u8], last_modified: Option<i64>, since: IfModifiedSince) -> bool {
    let Some(last_modified) = last_modified else {
        return true;
    };
    let date = parse_http_date(date).unwrap_or(-1);
    match since {
        IfModifiedSince::Off => true,
        IfModifiedSince::Exact => date != last_modified,
        IfModifiedSince::Before => date < last_modified,
    }
}

/// Whether a list of tags holds ours.
fn is_match(list: &[u8], etag: Option<&[u8]>, weak: bool) -> bool {
    if list == b"*" {
        return true;
    }
    let Some(mut etag) = etag else { return false };
    if weak && etag.len() > 2 {
        etag = etag.strip_prefix(b"W/").unwrap_or(etag);
    }
    let mut rest = list;
    while !rest.is_empty() {
        if weak && rest.len() > 2 {
            rest = rest.strip_prefix(b"W/").unwrap_or(rest);
        }
        if let Some(after) = rest.strip_prefix(etag) {
            let after = skip(after, b" \t");
            if matches!(after.first(), None | Some(b',')) {
                return true;
            }
        }
        let comma = memchr::memchr(b',', rest).unwrap_or(rest.len());
        rest = skip(&rest[comma..], b" \t,");
    }
    false
}

fn skip<'a>(text: &'a [u8], what: &[u8]) -> &'a [u8] {
    let count = text.iter().take_while(|ch| what.contains(ch)).count();
    &text[count..]
}

/// nginx's tag of a file: modification time and length in hexadecimal.
pub fn file_etag(mtime: i64, length: u64) -> String {
    format!("\"{mtime:x}-{length:x}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    /// Judges conditions written as header lines against a file of `DATE` with the tag `"a"`.
    fn check(headers: &str, since: IfModifiedSince) -> Verdict {
        let mut conditions = Conditions::default();
        for line in headers.lines() {
            let (name, value) = line.split_once(": ").expect("a header line");
            let place = match name {
                "IMS" => &mut conditions.if_modified_since,
                "IUS" => &mut conditions.if_unmodified_since,
                "IM" => &mut conditions.if_match,
                _ => &mut conditions.if_none_match,
            };
            *place = Some(value.as_bytes());
        }
        let validators = Validators { last_modified: Some(784_111_777), etag: Some(b"\"a\"") };
        judge(&conditions, &validators, since)
    }

    #[test]
    fn verdicts() {
        use IfModifiedSince::{Before, Exact, Off};
        use Verdict::{NotModified, PreconditionFailed, Send};
        for (headers, since, expected) in [
            (String::new(), Exact, Send),
            (format!("IMS: {DATE}"), Exact, NotModified),
            (format!("IMS: {LATER}"), Exact, Send),
            (format!("IMS: {LATER}"), Before, NotModified),
            (format!("IMS: {EARLIER}"), Before, Send),
            (format!("IMS: {DATE}"), Off, Send),
            ("IMS: never".into(), Exact, Send),
            (format!("IUS: {DATE}"), Exact, Send),
            (format!("IUS: {LATER}"), Exact, Send),
            (format!("IUS: {EARLIER}"), Exact, PreconditionFailed),
            ("IM: \"a\"".into(), Exact, Send),
            ("IM: *".into(), Exact, Send),
            ("IM: \"b\", \"a\"".into(), Exact, Send),
            ("IM: W/\"a\"".into(), Exact, PreconditionFailed),
            ("IM: \"b\"".into(), Exact, PreconditionFailed),
            ("INM: \"a\"".into(), Exact, NotModified),
            ("INM: W/\"a\"".into(), Exact, NotModified),
            ("INM: \"b\" , W/\"a\" ,\"c\"".into(), Exact, NotModified),
            ("INM: \"aa\"".into(), Exact, Send),
            ("INM: *".into(), Exact, NotModified),
            (format!("INM: \"b\"\nIMS: {DATE}"), Exact, Send),
            (format!("INM: \"a\"\nIMS: {LATER}"), Exact, Send),
        ] {
            assert_eq!(check(&headers, since), expected, "{headers} {since:?}");
        }
    }

    #[test]
    fn tags_of_files() {
        assert_eq!(file_etag(784_111_777, 300), "\"2ebc98a1-12c\"");
    }
}
