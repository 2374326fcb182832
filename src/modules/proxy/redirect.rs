//! `proxy_redirect`: addresses in `Location` and `Refresh` are led back here.

use bytes::Bytes;

use crate::config::value::{Regex, Template};
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot};
use crate::http::Request;

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "proxy_redirect",
    contexts: Contexts::HTTP_ALL,
    args: Args::between(1, 2),
    syntax: "default | off | redirect replacement",
    default: "default",
    doc: "What is put in the place of an address at the beginning of `Location` and `Refresh`; the first that fits counts. \
          `~` and `~*` begin a regular expression. `default` puts the location's name in the place of the URL of \
          `proxy_pass`, which is also done where nothing is said.\n\n\
          Example: `proxy_redirect http://backend/ /;`",
    file: file!(),
    apply: proxy_redirect,
    ..Directive::BASE
}];

/// The rules that hold in a block.
#[derive(Clone, Debug)]
pub(super) struct Redirects {
    rules: Vec<Rule>,
    is_on: bool,
    /// Whether a block said something, so that it is inherited.
    is_said: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    from: From,
    to: Template,
}

#[derive(Clone, Debug)]
enum From {
    Prefix(Template),
    Regex(Regex),
}

/// What a block says.
#[derive(Debug, Default)]
pub(super) struct RawRedirects {
    rules: Vec<Rule>,
    /// `off`, or not.
    is_on: Option<bool>,
    /// What `proxy_pass` makes of it: the address and what takes its place; `Some(None)`: its URL has variables.
    pub(super) url: Option<Option<(Bytes, Bytes)>>,
}

impl Section for Redirects {
    type Raw = RawRedirects;
    const ALWAYS: bool = true;

    fn merge(raw: &RawRedirects, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        let is_on =
            raw.is_on.or_else(|| parent.filter(|parent| parent.is_said).map(|parent| parent.is_on)).unwrap_or(true);
        let is_said = raw.is_on.is_some() || parent.is_some_and(|parent| parent.is_said);
        let mut rules = raw.rules.clone();
        if is_on && rules.is_empty() {
            match (parent, &raw.url) {
                (Some(parent), _) if !parent.rules.is_empty() => rules.clone_from(&parent.rules),
                (_, Some(Some(url))) => rules.push(Rule::back(url)),
                _ => {}
            }
        }
        Self { rules, is_on, is_said }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

impl Rule {
    /// The rule that leads the URL of `proxy_pass` back to the location.
    fn back((from, to): &(Bytes, Bytes)) -> Self {
        Self { from: From::Prefix(Template::literal(from.clone())), to: Template::literal(to.clone()) }
    }
}

fn proxy_redirect(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if call.len() == 1 {
        return match call.bytes(0) {
            b"off" => {
                let raw = cx.edit::<Redirects>();
                raw.is_on = Some(false);
                raw.rules.clear();
                Ok(())
            }
            b"default" => match cx.edit::<Redirects>().url.clone() {
                Some(Some(url)) => {
                    let raw = cx.edit::<Redirects>();
                    raw.is_on = Some(true);
                    raw.rules.push(Rule::back(&url));
                    Ok(())
                }
                Some(None) => Err(Fault::new(
                    "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables",
                )),
                None => {
                    Err(Fault::new("\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive"))
                }
            },
            _ => Err(Fault::new(format!("invalid parameter \"{}\"", call.text(0))).word(0)),
        };
    }
    let from = match expression(call, 0) {
        Some((pattern, caseless)) => {
            From::Regex(Regex::compile(&pattern, caseless, cx).map_err(|fault| fault.word(0))?)
        }
        None => From::Prefix(Template::word(call, 0, cx)?),
    };
    let to = Template::word(call, 1, cx)?;
    let raw = cx.edit::<Redirects>();
    raw.is_on = Some(true);
    raw.rules.push(Rule { from, to });
    Ok(())
}

/// A word that begins with `~` or `~*`: the expression, and whether case does not matter.
pub(super) fn expression(call: &Call<'_>, index: usize) -> Option<(String, bool)> {
    let text = call.text(index);
    let rest = text.strip_prefix('~')?;
    match rest.strip_prefix('*') {
        Some(pattern) => Some((pattern.to_owned(), true)),
        None => Some((rest.to_owned(), false)),
    }
}

impl Redirects {
    /// Changes a header's value from a place on; `None`: no rule fits.
    pub(super) fn rewrite(&self, request: &Request, value: &Bytes, at: usize) -> Option<Bytes> {
        if !self.is_on {
            return None;
        }
        let (before, address) = (&value[..at], value.slice(at..));
        for rule in &self.rules {
            let rest = match &rule.from {
                From::Prefix(prefix) => {
                    let prefix = request.eval(prefix);
                    if !address.starts_with(&prefix) {
                        continue;
                    }
                    address.slice(prefix.len()..)
                }
                From::Regex(regex) => {
                    if !request.matches(regex, &address).unwrap_or(false) {
                        continue;
                    }
                    Bytes::new()
                }
            };
            return Some([before, &request.eval(&rule.to), &rest].concat().into());
        }
        None
    }
}
