//! `proxy_cookie_domain`, `proxy_cookie_path`, `proxy_cookie_flags`: what is changed in `Set-Cookie`.

use bytes::Bytes;

use super::redirect::expression;
use crate::config::value::{Regex, Template};
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot};
use crate::http::Request;

/// The rows that this file brings.
pub(super) const COMMANDS: [Directive; 3] = [
    Directive {
        name: "proxy_cookie_domain",
        contexts: Contexts::HTTP_ALL,
        args: Args::between(1, 2),
        syntax: "off | domain replacement",
        default: "off",
        doc: "What is put in the place of the `Domain` of cookies; the first that fits counts. `~` begins a regular \
              expression; case does not matter.",
        file: file!(),
        apply: cookie_domain,
        ..Directive::BASE
    },
    Directive {
        name: "proxy_cookie_path",
        contexts: Contexts::HTTP_ALL,
        args: Args::between(1, 2),
        syntax: "off | path replacement",
        default: "off",
        doc: "What is put in the place of the beginning of the `Path` of cookies; the first that fits counts. `~` and \
              `~*` begin a regular expression.",
        file: file!(),
        apply: cookie_path,
        ..Directive::BASE
    },
    Directive {
        name: "proxy_cookie_flags",
        contexts: Contexts::HTTP_ALL,
        args: Args::between(1, 4),
        syntax: "off | cookie [flag ...]",
        default: "off",
        doc: "Flags that cookies of a name get or lose: `secure`, `httponly`, `samesite=strict`, `samesite=lax`, \
              `samesite=none`, `nosecure`, `nohttponly`, `nosamesite`. `~` begins a regular expression.",
        file: file!(),
        apply: cookie_flags,
        ..Directive::BASE
    },
];

/// The rules that hold in a block; each list is inherited by itself.
#[derive(Clone, Debug)]
pub(super) struct Cookies {
    domains: Option<Vec<Rule>>,
    paths: Option<Vec<Rule>>,
    flags: Option<Vec<Flags>>,
}

/// What a block says.
#[derive(Debug, Default)]
pub(super) struct RawCookies {
    domains: Option<Vec<Rule>>,
    paths: Option<Vec<Rule>>,
    flags: Option<Vec<Flags>>,
}

#[derive(Clone, Debug)]
struct Rule {
    from: From,
    to: Template,
}

#[derive(Clone, Debug)]
struct Flags {
    cookie: From,
    flags: Vec<Template>,
}

#[derive(Clone, Debug)]
enum From {
    Text(Template),
    Regex(Regex),
}

impl Section for Cookies {
    type Raw = RawCookies;

    fn merge(raw: &RawCookies, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self {
            domains: raw.domains.clone().or_else(|| parent.and_then(|parent| parent.domains.clone())),
            paths: raw.paths.clone().or_else(|| parent.and_then(|parent| parent.paths.clone())),
            flags: raw.flags.clone().or_else(|| parent.and_then(|parent| parent.flags.clone())),
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// Adds a rule to a list; `off` is an empty list, which nothing may follow or precede.
fn add<T>(list: &mut Option<Vec<T>>, rule: Option<T>, call: &Call<'_>) -> Result<(), Fault> {
    match (list, rule) {
        (Some(list), _) if list.is_empty() => Err(call.duplicate()),
        (Some(_), None) => Err(call.duplicate()),
        (list, None) => {
            *list = Some(Vec::new());
            Ok(())
        }
        (list, Some(rule)) => {
            list.get_or_insert_default().push(rule);
            Ok(())
        }
    }
}

fn is_off(call: &Call<'_>) -> Result<bool, Fault> {
    match (call.len(), call.bytes(0)) {
        (1, b"off") => Ok(true),
        (1, _) => Err(Fault::new(format!("invalid parameter \"{}\"", call.text(0))).word(0)),
        _ => Ok(false),
    }
}

fn cookie_domain(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if is_off(call)? {
        return add(&mut cx.edit::<Cookies>().domains, None, call);
    }
    let text = call.text(0).into_owned();
    let from = match text.strip_prefix('~') {
        Some(pattern) => From::Regex(Regex::compile(pattern, true, cx).map_err(|fault| fault.word(0))?),
        None => {
            let text = text.strip_prefix('.').unwrap_or(&text);
            From::Text(Template::compile(text.as_bytes(), cx, Some(call.word_at(0)))?)
        }
    };
    let to = Template::word(call, 1, cx)?;
    add(&mut cx.edit::<Cookies>().domains, Some(Rule { from, to }), call)
}

fn cookie_path(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if is_off(call)? {
        return add(&mut cx.edit::<Cookies>().paths, None, call);
    }
    let from = match expression(call, 0) {
        Some((pattern, caseless)) => {
            From::Regex(Regex::compile(&pattern, caseless, cx).map_err(|fault| fault.word(0))?)
        }
        None => From::Text(Template::word(call, 0, cx)?),
    };
    let to = Template::word(call, 1, cx)?;
    add(&mut cx.edit::<Cookies>().paths, Some(Rule { from, to }), call)
}

fn cookie_flags(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if is_off(call)? {
        return add(&mut cx.edit::<Cookies>().flags, None, call);
    }
    let cookie = match call.text(0).strip_prefix('~') {
        Some(pattern) => From::Regex(Regex::compile(pattern, true, cx).map_err(|fault| fault.word(0))?),
        None => From::Text(Template::word(call, 0, cx)?),
    };
    let mut flags = Vec::new();
    for index in 1..call.len() {
        let template = Template::word(call, index, cx)?;
        if template.constant().is_some_and(|text| Change::of(text).is_none()) {
            return Err(Fault::new(format!("invalid parameter \"{}\"", call.text(index))).word(index));
        }
        flags.push(template);
    }
    add(&mut cx.edit::<Cookies>().flags, Some(Flags { cookie, flags }), call)
}

/// What a flag of `proxy_cookie_flags` does.
#[derive(Clone, Copy)]
enum Change {
    Add(&'static [u8], Option<&'static [u8]>),
    Remove(&'static [u8]),
}

impl Change {
    fn of(word: &[u8]) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_slice() {
            b"secure" => Self::Add(b"Secure", None),
            b"httponly" => Self::Add(b"HttpOnly", None),
            b"samesite=strict" => Self::Add(b"SameSite", Some(b"Strict")),
            b"samesite=lax" => Self::Add(b"SameSite", Some(b"Lax")),
            b"samesite=none" => Self::Add(b"SameSite", Some(b"None")),
            b"nosecure" => Self::Remove(b"secure"),
            b"nohttponly" => Self::Remove(b"httponly"),
            b"nosamesite" => Self::Remove(b"samesite"),
            _ => return None,
        })
    }
}

/// A part of a cookie: `Path=/`.
#[derive(Debug, PartialEq)]
struct Part {
    name: Bytes,
    value: Option<Bytes>,
}

impl Part {
    fn is(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

fn parts(value: &Bytes) -> Vec<Part> {
    let part = |text: &[u8]| {
        let equals = memchr::memchr(b'=', text);
        let name = text[..equals.unwrap_or(text.len())].trim_ascii();
        let content = equals.map(|at| value.slice_ref(text[at + 1..].trim_ascii()));
        Part { name: value.slice_ref(name), value: content }
    };
    value.split(|byte| *byte == b';').map(part).collect()
}

fn joined(parts: &[Part]) -> Bytes {
    let mut text = Vec::new();
    for part in parts {
        if !text.is_empty() {
            text.extend_from_slice(b"; ");
        }
        text.extend_from_slice(&part.name);
        if let Some(value) = &part.value {
            text.push(b'=');
            text.extend_from_slice(value);
        }
    }
    text.into()
}

impl Cookies {
    /// Changes a `Set-Cookie`; `None`: nothing is to be changed.
    pub(super) fn rewrite(&self, request: &Request, value: &Bytes) -> Option<Bytes> {
        let list = |list: &Option<Vec<Rule>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let has_flags = self.flags.as_ref().is_some_and(|flags| !flags.is_empty());
        if !list(&self.domains) && !list(&self.paths) && !has_flags {
            return None;
        }
        let mut parts = parts(value);
        let mut has_changed = false;
        for part in parts.iter_mut().skip(1) {
            let Some(text) = &part.value else { continue };
            let changed = if part.is(b"domain") {
                self.domain(request, text)
            } else if part.is(b"path") {
                self.path(request, text)
            } else {
                None
            };
            if let Some(changed) = changed {
                part.value = Some(changed);
                has_changed = true;
            }
        }
        has_changed |= self.change_flags(request, &mut parts);
        has_changed.then(|| joined(&parts))
    }

    fn domain(&self, request: &Request, value: &Bytes) -> Option<Bytes> {
        self.domains.iter().flatten().find_map(|rule| match &rule.from {
            From::Regex(regex) => request.matches(regex, value).unwrap_or(false).then(|| request.eval(&rule.to)),
            From::Text(text) => {
                let bare = value.strip_prefix(b".").unwrap_or(value);
                let dot = &value[..value.len() - bare.len()];
                let fits = bare.eq_ignore_ascii_case(&request.eval(text));
                fits.then(|| [dot, &request.eval(&rule.to)].concat().into())
            }
        })
    }

    fn path(&self, request: &Request, value: &Bytes) -> Option<Bytes> {
        self.paths.iter().flatten().find_map(|rule| match &rule.from {
            From::Regex(regex) => request.matches(regex, value).unwrap_or(false).then(|| request.eval(&rule.to)),
            From::Text(text) => {
                let rest = value.strip_prefix(&request.eval(text)[..])?;
                Some([&request.eval(&rule.to), rest].concat().into())
            }
        })
    }

    /// Adds and removes flags, by the first rule for the cookie.
    fn change_flags(&self, request: &Request, parts: &mut Vec<Part>) -> bool {
        let Some(name) = parts.first().map(|part| part.name.clone()) else { return false };
        let rule = self.flags.iter().flatten().find(|rule| match &rule.cookie {
            From::Regex(regex) => request.matches(regex, &name).unwrap_or(false),
            From::Text(text) => request.eval(text).eq_ignore_ascii_case(&name),
        });
        let Some(rule) = rule else { return false };
        for flag in &rule.flags {
            match Change::of(&request.eval(flag)) {
                None => {}
                Some(Change::Remove(name)) => parts.retain(|part| !part.is(name)),
                Some(Change::Add(name, value)) => {
                    let value = value.map(Bytes::from_static);
                    match parts.iter_mut().skip(1).find(|part| part.is(name)) {
                        Some(part) if value.is_some() => part.value = value,
                        Some(_) => {}
                        None => parts.push(Part { name: Bytes::from_static(name), value }),
                    }
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn cookies_are_cut_and_joined() {
        let check = |value: &'static str, expected: &str| {
            let joined = joined(&parts(&Bytes::from_static(value.as_bytes())));
            assert_eq!(String::from_utf8_lossy(&joined), expected, "{value}");
        };
        check("a=b; Path=/; HttpOnly", "a=b; Path=/; HttpOnly");
        check("a=b;Path = /x ;Secure", "a=b; Path=/x; Secure");
        check("a=b=c", "a=b=c");
    }

    #[test]
    fn words() {
        assert_eq!(findings("proxy_cookie_domain a;"), ["invalid parameter \"a\""]);
        assert_eq!(findings("proxy_cookie_domain off; proxy_cookie_path / /x; proxy_cookie_path ~^/a$ /b;"), [""; 0]);
        assert_eq!(findings("proxy_cookie_flags a secure nosuch;"), ["invalid parameter \"nosuch\""]);
        let duplicate = ["\"proxy_cookie_path\" directive is duplicate"];
        assert_eq!(findings("proxy_cookie_path off; proxy_cookie_path / /x;"), duplicate);
    }
}
