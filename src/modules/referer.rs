//! ngx_http_referer_module: whether a request comes from a page of ours.

use std::sync::Arc;

use bytes::Bytes;

use crate::compile::{ServerNames, host_names};
use crate::config::value::Regex;
use crate::config::{
    Args, Call, Contexts, Cx, Declarations, Diagnostic, Directive, Fault, Merge, Position, Section, SectionRow,
    ServerName, Slot, Value, VariableRow,
};
use crate::http::wire::header::Known;
use crate::http::{Module, Request};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_referer",
        sections: &[SectionRow::of::<Referers>(&[])],
        commands: COMMANDS,
        variables: VARIABLES,
    },
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[
    Directive {
        name: "valid_referers",
        contexts: Contexts::SERVER.union(Contexts::LOCATION),
        args: Args::SOME,
        syntax: "none | blocked | server_names | string ...",
        doc: "The pages that requests may come from, for `$invalid_referer`: names of hosts (`*.name`, `name.*`), with \
              the beginning of a path or without, expressions (`~`) over all that follows the scheme, the names of the \
              server. `none` is a request without `Referer`, `blocked` one whose `Referer` is no address. The whole \
              list is inherited where a block names none.\n\n\
              Example: `valid_referers none blocked server_names *.example.com;`",
        file: file!(),
        apply: valid_referers,
        ..Directive::BASE
    },
    Directive::ignored(
        "referer_hash_max_size",
        Contexts::SERVER.union(Contexts::LOCATION),
        Args::ONE,
        "tables grow as needed",
        "The size of nginx's tables.",
    ),
    Directive::ignored(
        "referer_hash_bucket_size",
        Contexts::SERVER.union(Contexts::LOCATION),
        Args::ONE,
        "tables grow as needed",
        "The size of a bucket of those tables.",
    ),
];

const VARIABLES: &[VariableRow] = &[VariableRow::new(
    "invalid_referer",
    invalid_referer,
    "`1` where `valid_referers` does not name the page that a request comes from, else empty.",
)];

/// The longest name of a host that is looked up.
const LONGEST_NAME: usize = 256;

/// The pages that requests may come from.
#[derive(Clone, Debug, Default)]
pub struct Referers {
    list: Option<Arc<List>>,
}

/// What a block names.
#[derive(Clone, Debug, Default)]
pub struct List {
    none: bool,
    blocked: bool,
    server_names: bool,
    /// Each with the number of the beginning that a path must have.
    names: ServerNames<usize>,
    /// The beginnings; an empty one is any.
    paths: Vec<Bytes>,
    regexes: Vec<Regex>,
}

impl Section for Referers {
    type Raw = Option<List>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        let Some(list) = raw else { return parent.cloned().unwrap_or_default() };
        if (list.none || list.blocked) && list.names.is_empty() && !list.server_names {
            let message = "the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" directive \
                           without any valid referer";
            cx.report(Diagnostic::emerg("no-referer", message).near(cx.first("valid_referers")));
        }
        Self { list: Some(Arc::new(list.clone())) }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn valid_referers(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    for (index, word) in call.words().enumerate() {
        let text = call.text(index);
        let regex = match word {
            b"~" => return Err(Fault::new(format!("empty regex in \"{text}\"")).word(index)),
            [b'~', ..] => Some(Regex::compile(&text[1..], true, cx).map_err(|fault| fault.word(index))?),
            _ => None,
        };
        let list = cx.edit::<Referers>().get_or_insert_default();
        match (word, regex) {
            (_, Some(regex)) => list.regexes.push(regex),
            (b"", _) => return Err(Fault::new("invalid referer \"\"").word(index)),
            (b"none", _) => list.none = true,
            (b"blocked", _) => list.blocked = true,
            (b"server_names", _) => list.server_names = true,
            _ => list.add(&text).map_err(|fault| fault.word(index))?,
        }
    }
    Ok(())
}

impl List {
    /// Adds a host, and the beginning of a path after it.
    fn add(&mut self, text: &str) -> Result<(), Fault> {
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let host = host.to_ascii_lowercase();
        let names = host_names(&host).filter(|_| !host.is_empty());
        let names = names.ok_or_else(|| Fault::new(format!("invalid hostname or wildcard \"{host}\"")))?;
        let number = self.paths.len();
        self.paths.push(Bytes::copy_from_slice(path.as_bytes()));
        for name in &names {
            if !self.names.add(name, number) {
                return Err(Fault::new(format!("conflicting parameter \"{host}\"")));
            }
        }
        Ok(())
    }

    /// Whether a request may come from a page.
    fn allows(&self, referer: Option<&[u8]>, server: &[(ServerName, String, Position)]) -> bool {
        let Some(referer) = referer else { return self.none };
        let Some(rest) = after_scheme(referer) else { return self.blocked };
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b':')).unwrap_or(rest.len());
        if end > LONGEST_NAME {
            return false;
        }
        let host = Bytes::from(rest[..end].to_ascii_lowercase());
        if let Some((number, _)) = self.names.find(&host) {
            let path = rest.iter().position(|byte| *byte == b'/').map_or(&b""[..], |slash| &rest[slash..]);
            return path.starts_with(&self.paths[number]);
        }
        if self.server_names && server.iter().any(|(name, ..)| is_named(name, &host)) {
            return true;
        }
        self.regexes.iter().any(|regex| regex.is_match(rest).unwrap_or(false))
    }
}

/// What follows the scheme of an address.
fn after_scheme(referer: &[u8]) -> Option<&[u8]> {
    let after = |scheme: &[u8]| {
        let (start, rest) = referer.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    // Shorter ones are no addresses.
    (referer.len() >= b"http://i.ru".len()).then(|| after(b"http://").or_else(|| after(b"https://"))).flatten()
}

/// Whether a server's name is a host's.
fn is_named(name: &ServerName, host: &[u8]) -> bool {
    match name {
        ServerName::Exact(name) => host == name.as_bytes(),
        ServerName::Suffix(name) => {
            host.strip_suffix(name.as_bytes()).is_some_and(|rest| rest.len() > 1 && rest.ends_with(b"."))
        }
        ServerName::Prefix(name) => {
            host.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.len() > 1 && rest.starts_with(b"."))
        }
        ServerName::Regex(regex) => regex.is_match(host).unwrap_or(false),
    }
}

fn invalid_referer(request: &Request, _: &str) -> Value {
    let Some(list) = &request.settings::<Referers>().list else { return Some(Bytes::new()) };
    let server = request.compiled.config.built.model.servers.get(request.server_id.0 as usize);
    let names = server.map_or(&[][..], |server| &server.names);
    let is_valid = list.allows(request.head.known(Known::Referer), names);
    Some(Bytes::from_static(if is_valid { b"" } else { b"1" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{findings, load_http};

    #[test]
    fn pages() {
        let check = |directive: &str, referer: &str, expected: bool| {
            let config = load_http(&format!("server {{ server_name here.example *.wild.example; {directive} }}"));
            let server = &config.built.model.servers[0];
            let list = config.settings(server.scope).get::<Referers>().list.clone().unwrap_or_default();
            let referer = (referer != "-").then_some(referer.as_bytes());
            assert_eq!(list.allows(referer, &server.names), expected, "{directive} {referer:?}");
        };
        let names = "valid_referers a.example *.b.example c.*;";
        check(names, "http://a.example", true);
        check(names, "HTTPS://A.example:8080/page", true);
        check(names, "http://x.b.example/", true);
        check(names, "http://b.example/", false);
        check(names, "http://c.org/", true);
        check(names, "http://d.example/", false);
        check(names, "-", false);
        check(names, "a.example", false);
        check("valid_referers none a.example;", "-", true);
        check("valid_referers blocked a.example;", "a removed text", true);
        check("valid_referers blocked a.example;", "http://b.example", false);
        check("valid_referers a.example/in/;", "http://a.example:80/in/page", true);
        check("valid_referers a.example/in/;", "http://a.example/out", false);
        check("valid_referers server_names;", "http://here.example/", true);
        check("valid_referers server_names;", "http://a.wild.example/", true);
        check("valid_referers server_names;", "http://wild.example/", false);
        check("valid_referers ~\\.re\\./x;", "http://A.RE.example/x", false);
        check("valid_referers ~\\.re\\.org/x;", "http://A.RE.ORG/x", true);
    }

    #[test]
    fn words() {
        let check = |words: &str, expected: &[&str]| {
            assert_eq!(findings(&format!("server {{ valid_referers {words}; }}")), expected, "{words}");
        };
        check("none blocked a.b", &[]);
        check("~", &["empty regex in \"~\""]);
        check("a a", &["conflicting parameter \"a\""]);
        check("a*b", &["invalid hostname or wildcard \"a*b\""]);
        check("''", &["invalid referer \"\""]);
        let alone = "the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" directive without any \
                     valid referer";
        check("none", &[alone]);
    }
}
