//! `$upstream_...`

use std::time::Duration;

use bytes::Bytes;

use crate::config::{Value, VariableRow};
use crate::http::Request;
use crate::http::upstream::record::Try;
use crate::http::wire::lookup;

/// The variables. All are read anew each time, as another server may be tried meanwhile.
pub(super) const VARIABLES: &[VariableRow] = &[
    row(
        "upstream_addr",
        |r, _| each(r, |one| one.server.as_deref().map(|name| String::from_utf8_lossy(name).into_owned())),
        "The servers that were asked, separated by commas; a colon stands before those of another location.",
    ),
    row(
        "upstream_status",
        |r, _| each(r, |one| (one.status > 0).then(|| one.status.to_string())),
        "The statuses of their answers, or those that stand for what went wrong.",
    ),
    row(
        "upstream_connect_time",
        |r, _| each(r, |one| one.connect.map(seconds)),
        "How long connecting took, in seconds.",
    ),
    row(
        "upstream_header_time",
        |r, _| each(r, |one| one.header.map(seconds)),
        "When the head of the answer was there.",
    ),
    row("upstream_response_time", |r, _| each(r, |one| one.response.map(seconds)), "When the answer was there."),
    row(
        "upstream_response_length",
        |r, _| each(r, |one| Some(one.length.to_string())),
        "The length of the answer's body.",
    ),
    row("upstream_bytes_received", |r, _| each(r, |one| Some(one.received.to_string())), "How many bytes came."),
    row("upstream_bytes_sent", |r, _| each(r, |one| Some(one.sent.to_string())), "How many bytes went."),
    row("upstream_http_", |r, name| header(r, name.as_bytes()), "A header of the last answer."),
    row("upstream_cookie_", |r, name| cookie(r, name.as_bytes()), "A cookie that the last answer sets."),
    row(
        "upstream_trailer_",
        |r, name| trailer(r, name.as_bytes()),
        "A header behind the body of the last answer, with `proxy_pass_trailers on`.",
    ),
    row("upstream_cache_status", |_, _| None, "Nothing is cached."),
    row("upstream_cache_last_modified", |_, _| None, "Nothing is cached."),
    row("upstream_cache_etag", |_, _| None, "Nothing is cached."),
];

const fn row(name: &'static str, read: crate::config::Read, doc: &'static str) -> VariableRow {
    VariableRow::new(name, read, doc).volatile()
}

fn seconds(time: Duration) -> String {
    let millis = time.as_millis();
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// What is known of each try, as nginx puts it together.
fn each(request: &Request, text: impl Fn(&Try) -> Option<String>) -> Value {
    let record = request.upstream_record()?.borrow();
    if record.tries.is_empty() {
        return None;
    }
    let mut all = String::new();
    let mut separator = "";
    for one in &record.tries {
        if one.server.is_none() {
            separator = " : ";
            continue;
        }
        all.push_str(separator);
        all.push_str(text(one).as_deref().unwrap_or("-"));
        separator = ", ";
    }
    Some(all.into())
}

fn header(request: &Request, name: &[u8]) -> Value {
    let record = request.upstream_record()?.borrow();
    let head = record.head.as_ref()?;
    named(head.headers().map(|(found, value, _)| (found, value)), name)
}

fn trailer(request: &Request, name: &[u8]) -> Value {
    let record = request.upstream_record()?.borrow();
    named(record.trailers.iter().map(|(found, value)| (&found[..], &value[..])), name)
}

/// The headers that a variable's name means, joined by commas.
fn named<'h>(headers: impl Iterator<Item = (&'h [u8], &'h [u8])>, name: &[u8]) -> Value {
    let mut values = headers.filter(|(found, _)| crate::http::wire::head::names_variable(found, name));
    let mut all = values.next()?.1.to_vec();
    for (_, value) in values {
        all.extend_from_slice(b", ");
        all.extend_from_slice(value);
    }
    Some(all.into())
}

fn cookie(request: &Request, name: &[u8]) -> Value {
    let record = request.upstream_record()?.borrow();
    let head = record.head.as_ref()?;
    let set = head.headers().filter(|(name, _, _)| name.eq_ignore_ascii_case(b"Set-Cookie")).map(|(_, value, _)| value);
    lookup::set_cookie(set, name).map(Bytes::copy_from_slice)
}
