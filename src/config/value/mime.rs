//! Lists of content types that a filter works on.

use std::collections::HashSet;

use super::{Call, Cx, Fault, Value};
use crate::config::Args;

/// Content types, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MimeTypes {
    /// `*`
    All,
    /// These.
    Some(HashSet<Vec<u8>>),
}

impl MimeTypes {
    /// A list of these.
    pub fn of(types: &[&str]) -> Self {
        Self::Some(types.iter().map(|word| word.as_bytes().to_vec()).collect())
    }

    /// Adds the types of a directive. `text/html` is in every list.
    pub fn add(list: &mut Option<Self>, cx: &mut Cx<'_>, call: &Call<'_>) {
        let list = list.get_or_insert_with(|| Self::of(&["text/html"]));
        for word in call.words() {
            if word == b"*" {
                *list = Self::All;
                continue;
            }
            let Self::Some(types) = list else { continue };
            if !types.insert(word.to_ascii_lowercase()) {
                cx.warn("duplicate-type", duplicate(word), call);
            }
        }
    }

    /// Whether an answer with this `Content-Type` is meant. Parameters other than an upstream's charset are part of it,
    /// as in nginx: push_stream's event sources are `"text/event-stream; charset=utf-8"`.
    pub fn contain(&self, content_type: &[u8]) -> bool {
        let Self::Some(types) = self else { return true };
        types.contains(content_type) || types.contains(&content_type.to_ascii_lowercase())
    }
}

fn duplicate(word: &[u8]) -> String {
    format!("duplicate MIME type \"{}\"", String::from_utf8_lossy(word))
}

/// A list that a block names whole; several directives add up.
impl Value for MimeTypes {
    const ARGS: Args = Args::SOME;
    const ONCE: bool = false;
    const SYNTAX: &'static str = "type ... | *";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let mut list = None;
        Self::add(&mut list, cx, call);
        Ok(list.unwrap_or(Self::All))
    }

    fn repeats(before: Option<&Self>, call: &Call<'_>) -> Vec<String> {
        let Some(Self::Some(before)) = before else { return Vec::new() };
        // `text/html` is in the new list as well, which has warned of it.
        let is_there =
            |word: &&[u8]| !word.eq_ignore_ascii_case(b"text/html") && before.contains(&word.to_ascii_lowercase());
        call.words().filter(is_there).map(duplicate).collect()
    }

    fn from_default(text: &'static str) -> Self {
        Self::of(&text.split(' ').collect::<Vec<_>>())
    }

    fn store(slot: &mut Option<Self>, value: Self) {
        match (slot, value) {
            (Some(Self::Some(types)), Self::Some(more)) => types.extend(more),
            (slot, value) => *slot = Some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates() {
        let check = |directives: &str, expected: &[&str]| {
            let expected: Vec<_> = expected.iter().map(|name| format!("duplicate MIME type \"{name}\"")).collect();
            assert_eq!(crate::config::testing::findings(directives), expected, "{directives}");
        };
        check("sub_filter_types text/css; sub_filter_types text/xml;", &[]);
        check("sub_filter_types text/css; server { sub_filter_types text/css; }", &[]);
        check("sub_filter_types text/css Text/CSS text/html;", &["Text/CSS", "text/html"]);
        check("sub_filter_types text/css; sub_filter_types text/xml text/css;", &["text/css"]);
        check("sub_filter_types text/css; sub_filter_types text/html;", &["text/html"]);
        check("sub_filter_types *; sub_filter_types text/css text/css;", &["text/css"]);
    }

    #[test]
    fn content_types() {
        let types = MimeTypes::of(&["text/html", "text/xml"]);
        assert!(types.contain(b"text/html"));
        assert!(types.contain(b"Text/HTML"));
        assert!(!types.contain(b"text/html; x=y"));
        assert!(!types.contain(b"text/plain"));
        assert!(!types.contain(b""));
        assert!(MimeTypes::All.contain(b"any/thing"));
    }
}
