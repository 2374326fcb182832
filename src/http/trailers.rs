//! Headers behind a body: those of an upstream's answer that are passed on, and those that the configuration adds.

use bytes::Bytes;

use super::request::Request;
use super::response::clean;
use super::sent;
use super::wire::body::LAST_CHUNK;
use crate::config::Value;
use crate::config::value::Template;

/// What was sent behind the body.
#[derive(Debug, Default)]
struct SentTrailers(Vec<(Bytes, Bytes)>);

/// What stands behind a body that is out now; those without a value are left out.
pub(super) fn list(request: &mut Request, added: &[(Bytes, Template)]) -> Vec<(Bytes, Bytes)> {
    let passed = request.upstream_record().map(|record| record.borrow().passed_trailers.clone()).unwrap_or_default();
    let added = added.iter().map(|(name, value)| (name.clone(), request.eval(value)));
    let list: Vec<_> = passed.into_iter().chain(added.filter(|(_, value)| !value.is_empty())).collect();
    let list: Vec<_> = list.into_iter().map(|(name, value)| (name, clean(value))).collect();
    if !list.is_empty() {
        request.note_mut::<SentTrailers>().0.clone_from(&list);
    }
    list
}

/// The end of a chunked body, with what stands behind it.
pub(super) fn last_chunk(request: &mut Request, added: &[(Bytes, Template)]) -> Bytes {
    if added.is_empty() && request.upstream_record().is_none() {
        return Bytes::from_static(LAST_CHUNK);
    }
    let list = list(request, added);
    let mut text = b"0\r\n".to_vec();
    for part in list.iter().flat_map(|(name, value)| [&name[..], b": ", &value[..], b"\r\n"]) {
        text.extend_from_slice(part);
    }
    text.extend_from_slice(b"\r\n");
    text.into()
}

/// Reads one of those that were sent; several of a name are joined by commas.
pub fn sent_trailer(request: &Request, variable: &str) -> Value {
    let SentTrailers(list) = request.note()?;
    sent::named(list, variable)
}
