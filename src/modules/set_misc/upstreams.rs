//! `upstream_list` and `set_hashed_upstream` (NDK): a name out of a list, by the hash of a key.

use std::collections::HashMap;

use bytes::Bytes;

use super::step::{In, Outcome, assign};
use crate::config::{Call, Contexts, Cx, Fault, Merge, Section, Severity, Slot};
use crate::http::Request;

/// The lists of the configuration; they stand in the `http` block, wherever they were written.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    /// By name, in lower case.
    lists: HashMap<String, Vec<Bytes>>,
}

impl Section for Lists {
    type Raw = HashMap<String, Vec<Bytes>>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        match parent {
            Some(parent) if raw.is_empty() => parent.clone(),
            _ => Self { lists: raw.clone() },
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// `upstream_list name [weight:]item ...`
pub(super) fn upstream_list(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let name = call.text(0);
    let mut items = Vec::new();
    for index in 1..call.len() {
        let word = call.text(index);
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            items.push(Bytes::copy_from_slice(call.bytes(index)));
            continue;
        }
        if digits == word.len() {
            return Err(Fault::new(format!("upstream list just consists of number \"{word}\"")).word(index));
        }
        let malformed = || Fault::new(format!("upstream list not correct format \"{word}\"")).word(index);
        let weight: usize = word[..digits].parse().map_err(|_| malformed())?;
        let item = word[digits..].strip_prefix(':').ok_or_else(malformed)?;
        // More could only be a slip, and would be kept in memory.
        if weight > 10_000 {
            return Err(malformed().help("a weight of 10000 is the most"));
        }
        items.extend(std::iter::repeat_n(Bytes::copy_from_slice(item.as_bytes()), weight));
    }
    let Some(lists) = cx.edit_around::<Lists>(Contexts::HTTP) else { return Ok(()) };
    if lists.insert(name.to_ascii_lowercase(), items).is_some() {
        return Err(Fault::new(format!("duplicate upstream list name \"{name}\"")).word(0).code("duplicate"));
    }
    Ok(())
}

/// `set_hashed_upstream $variable list key`
pub(super) fn set_hashed_upstream(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let name = call.text(1).to_ascii_lowercase();
    if !name.contains('$') && !cx.edit_around::<Lists>(Contexts::HTTP).is_some_and(|lists| lists.contains_key(&name)) {
        return Err(Fault::new(undefined(call.bytes(1))).placeless().severity(Severity::Error).word(1));
    }
    assign(cx, call, hashed)
}

fn undefined(name: &[u8]) -> String {
    format!("set_hashed_upstream: upstream list \"{}\" not defined yet", name.escape_ascii())
}

fn hashed(given: In<'_>) -> Outcome {
    let (name, key) = (given.at(0), given.at(1));
    let found = given.request().and_then(|request| list(request, name));
    found.and_then(|items| choose(items, key)).ok_or_else(|| undefined(name))
}

fn list<'r>(request: &'r Request, name: &[u8]) -> Option<&'r [Bytes]> {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    request.settings::<Lists>().lists.get(&name).map(Vec::as_slice)
}

/// The item for a key, by nginx's hash of keys in lower case.
fn choose(items: &[Bytes], key: &[u8]) -> Option<Bytes> {
    let hash =
        key.iter().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte.to_ascii_lowercase())));
    let index = (hash & u64::from(u32::MAX)) as usize % items.len().max(1);
    items.get(index).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let items = ["moon", "sun", "earth"].map(Bytes::from);
        let check = |key: &str, expected: &str| assert_eq!(choose(&items, key.as_bytes()).unwrap(), expected, "{key}");
        check("", "moon");
        check("hello", "sun");
        check("world", "moon");
        check("larry", "earth");
        check("audreyt", "earth");
        check("HELLO", "sun");
        assert_eq!(choose(&[], b"x"), None);
    }
}
