//! Where a `postgres_rewrite` of 2018 sends the client: a text with nginx variables and values of the result.

use bytes::Bytes;

use super::result::Collected;
use crate::config::{Call, Cx, VarId};
use crate::http::Request;
use crate::http::wire::escape::{Escape, escape};

/// So many values of a result a target may have.
const MAX_COLUMNS: usize = 10;

/// A target, cut into pieces.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(Vec<u8>),
    Variable(VarId),
    Capture(u8),
    /// A value of the first row.
    Column(Vec<u8>),
}

impl Target {
    /// Cuts a text into pieces: `$name` up to one of `= & - % / # ? :`, and `:name` where no slash follows the colon.
    pub(super) fn compile(text: &[u8], cx: &mut Cx<'_>, call: &Call<'_>) -> Self {
        let mut variable = |name: &str| cx.variables().used(name, Some(call.at()));
        Self::cut(text, &mut variable)
    }

    fn cut(text: &[u8], variable: &mut dyn FnMut(&str) -> VarId) -> Self {
        let mut parts = Vec::new();
        let (mut at, mut start, mut columns) = (0, 0, 0);
        while at < text.len() {
            let rest = &text[at + 1..];
            let length = rest.iter().take_while(|byte| !b"=&-%/#?:$".contains(byte)).count();
            let name = &rest[..length];
            // A name of one letter at the end is not seen, as in the original.
            let is_column = text[at] == b':' && columns < MAX_COLUMNS && at + 2 < text.len();
            let part = match text[at] {
                _ if name.is_empty() => None,
                b'$' => match name {
                    [digit @ b'1'..=b'9'] => Some(Part::Capture(digit - b'0')),
                    _ => Some(Part::Variable(variable(&String::from_utf8_lossy(name)))),
                },
                b':' if is_column => Some(Part::Column(name.to_vec())),
                _ => None,
            };
            let Some(part) = part else {
                at += 1;
                continue;
            };
            columns += usize::from(matches!(part, Part::Column(_)));
            if start < at {
                parts.push(Part::Text(text[start..at].to_vec()));
            }
            parts.push(part);
            at += 1 + length;
            start = at;
        }
        if start < text.len() {
            parts.push(Part::Text(text[start..].to_vec()));
        }
        Self { parts }
    }

    /// The URL for a request and what its query found; `None`: values of the result are not to be looked at.
    pub(super) fn location(&self, request: &Request, result: Option<&Collected>) -> Bytes {
        self.build(&mut |part| match part {
            Part::Text(text) => text.clone(),
            Part::Variable(id) => request.variable(*id).unwrap_or_default().to_vec(),
            Part::Capture(number) => request.capture(usize::from(*number)).unwrap_or_default().to_vec(),
            Part::Column(name) => {
                let value = result.and_then(|result| result.find(name)).unwrap_or_default();
                escape(&value, Escape::UriComponent).into_owned()
            }
        })
    }

    fn build(&self, value: &mut dyn FnMut(&Part) -> Vec<u8>) -> Bytes {
        let mut url: Vec<u8> = Vec::new();
        let mut after_value = false;
        for part in &self.parts {
            let text = value(part);
            let is_text = matches!(part, Part::Text(_));
            // Among the arguments a slash behind a value is one of the path that the value has taken the place of.
            let skip = usize::from(is_text && after_value && text.first() == Some(&b'/') && url.contains(&b'?'));
            url.extend_from_slice(&text[skip..]);
            after_value = !is_text;
        }
        collapse(&url).into()
    }
}

/// `//` becomes `/` but for the one of a scheme, and `/0/` becomes `/`.
fn collapse(url: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(url.len());
    let mut at = 0;
    while at < url.len() {
        if url[at..].starts_with(b"/0/") {
            at += 2;
            continue;
        }
        let is_double =
            url[at] == b'/' && out.last() == Some(&b'/') && out.get(out.len().wrapping_sub(2)) != Some(&b':');
        if !is_double {
            out.push(url[at]);
        }
        at += 1;
    }
    out
}

/// The value of `"name": value` in a text that looks like JSON; a string loses its quotes.
pub(super) fn find_in_json<'t>(text: &'t [u8], name: &[u8]) -> Option<&'t [u8]> {
    let quoted = [b"\"", name, b"\""].concat();
    let mut rest = text;
    loop {
        let at = memchr::memmem::find(rest, &quoted)?;
        rest = &rest[at + quoted.len()..];
        let Some(value) = rest.trim_ascii_start().strip_prefix(b":") else { continue };
        let value = value.trim_ascii_start();
        return Some(match value.strip_prefix(b"\"") {
            Some(string) => &string[..memchr::memchr(b'"', string).unwrap_or(string.len())],
            None => &value[..value.iter().position(|byte| b",}] \n".contains(byte)).unwrap_or(value.len())],
        });
    }
}

/// Whether a text tells of errors: `error` or `errors`, a quote, a colon, and something that is not `null`.
pub(super) fn tells_errors(text: &[u8]) -> bool {
    memchr::memmem::find_iter(text, b"error").any(|at| {
        let rest = &text[at + b"error".len()..];
        let rest = rest.strip_prefix(b"s").unwrap_or(rest).trim_ascii_start();
        let value = rest.strip_prefix(b"\"").and_then(|rest| rest.strip_prefix(b":")).map(<[u8]>::trim_ascii_start);
        value.and_then(<[u8]>::first).is_some_and(|first| *first != b'n')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |target: &str, expected: &str| {
            let mut names = Vec::new();
            let target = Target::cut(target.as_bytes(), &mut |name| {
                names.push(name.to_owned());
                VarId(u32::try_from(names.len() - 1).unwrap())
            });
            let url = target.build(&mut |part| match part {
                Part::Text(text) => text.clone(),
                Part::Variable(id) => format!("<{}>", names[id.0 as usize]).into_bytes(),
                Part::Capture(number) => format!("<{number}>").into_bytes(),
                Part::Column(name) => [b"[", name.as_slice(), b"]"].concat(),
            });
            assert_eq!(url, expected);
        };
        check("/x/:id", "/x/[id]");
        check("/x/:i", "/x/:i");
        check("https://$host/a//b/0/c", "https://<host>/a/b/c");
        check("/$1/$name-x?q=:id&r=$r", "/<1>/<name>-x?q=[id]&r=<r>");
        check("/a?id=:id/b", "/a?id=[id]b");
        check("/a:/b$", "/a:/b$");
    }

    #[test]
    fn json() {
        let check = |text: &str, name: &str, expected: Option<&str>| {
            let found = find_in_json(text.as_bytes(), name.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{text} {name}");
        };
        check(r#"{"id": 5, "name":"x y"}"#, "id", Some("5"));
        check(r#"{"id": 5, "name":"x y"}"#, "name", Some("x y"));
        check(r#"{"a":"id", "id":[1]}"#, "id", Some("[1"));
        check(r#"{"id"}"#, "id", None);
        check(r#"{"id":"#, "id", Some(""));
    }

    #[test]
    fn errors() {
        let check = |text: &str, expected| assert_eq!(tells_errors(text.as_bytes()), expected, "{text}");
        check(r#"{"errors": ["x"]}"#, true);
        check(r#"{"error":null}"#, false);
        check(r#"{"error" : 1}"#, false);
        check(r#"{"a":null,"error":  {}}"#, true);
        check("no error here", false);
        check("error\":", false);
    }
}
