//! Rewriting, maps and their like, of any form, and whatever a client sends them: all is answered, and ends.
#![no_main]

use pushgate_parser::{Item, parse};

/// The directives that may stand in what the fuzzer makes: none opens a file of its choice, connects or waits.
const ALLOWED: [&str; 16] = [
    "absolute_redirect",
    "add_header",
    "allow",
    "break",
    "deny",
    "error_page",
    "geo",
    "if",
    "location",
    "map",
    "return",
    "rewrite",
    "set",
    "split_clients",
    "try_files",
    "uninitialized_variable_warn",
];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    if let (Some(http), Some(server), Some(sent)) = (parts.next(), parts.next(), parts.next())
        && is_allowed(http)
        && is_allowed(server)
    {
        pushgate::http::fuzz_site(http, server, sent);
    }
});

/// Whether a text is whole and has only what is allowed; the entries of a `map` are none of ours.
fn is_allowed(text: &[u8]) -> bool {
    are_allowed(&parse(text).items, None)
}

fn are_allowed(items: &[Item], block: Option<&[u8]>) -> bool {
    let has_entries = matches!(block, Some(b"map" | b"geo" | b"split_clients"));
    items.iter().all(|item| match item {
        Item::Comment(_) => true,
        Item::Error(_) => false,
        Item::Directive(directive) => {
            let name = directive.name.value.as_slice();
            let is_known = ALLOWED.iter().any(|allowed| allowed.as_bytes() == name);
            (if has_entries { name != b"include" } else { is_known })
                && directive.args.iter().all(|word| !word.value.windows(10).any(|part| part == b"limit_rate"))
                && directive.block().is_none_or(|inside| are_allowed(inside, Some(name)))
        }
    })
}
