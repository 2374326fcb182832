//! `fastcgi_split_path_info`: the script's path and what follows it.

use bytes::Bytes;

use super::Settings;
use crate::config::value::Regex;
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot, VariableRow};
use crate::http::Request;

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "fastcgi_split_path_info",
    contexts: Contexts::HTTP_ALL,
    args: Args::ONE,
    syntax: "regex",
    doc: "Takes the path apart: what the expression's first group captures is `$fastcgi_script_name`, the second \
          `$fastcgi_path_info`.\n\nExample: `fastcgi_split_path_info ^(.+\\.php)(/.+)$;`",
    file: file!(),
    apply: split,
    ..Directive::BASE
}];

/// The variables that this file brings.
pub(super) const VARIABLES: &[VariableRow] = &[
    VariableRow::new(
        "fastcgi_script_name",
        |r, _| Some(script(r).0),
        "The path of the script: the request's, up to what `fastcgi_split_path_info` says, with `fastcgi_index` after a \
         slash.",
    )
    .volatile(),
    VariableRow::new(
        "fastcgi_path_info",
        |r, _| Some(script(r).1),
        "What follows the script's path, by `fastcgi_split_path_info`.",
    )
    .volatile(),
];

/// The expression that holds in a block.
#[derive(Clone, Debug)]
pub(super) struct Split(Option<Regex>);

impl Section for Split {
    type Raw = Option<Regex>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self(raw.clone().or_else(|| parent.and_then(|parent| parent.0.clone())))
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn split(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let pattern = call.text(0);
    let regex = Regex::compile(&pattern, false, cx).map_err(|fault| fault.word(0))?;
    if regex.capture_count() != 2 {
        return Err(Fault::new(format!("pattern \"{pattern}\" must have 2 captures")).word(0));
    }
    let raw = cx.edit::<Split>();
    if raw.is_some() {
        return Err(call.duplicate());
    }
    *raw = Some(regex);
    Ok(())
}

/// The script's path, and what follows it.
fn script(request: &Request) -> (Bytes, Bytes) {
    let whole = || (request.uri.clone(), Bytes::new());
    let found = request.settings::<Split>().0.as_ref().and_then(|regex| regex.captures(&request.uri).ok().flatten());
    let (script, rest) =
        found.map_or_else(whole, |captures| (captures.get(1).unwrap_or_default(), captures.get(2).unwrap_or_default()));
    match script.ends_with(b"/") {
        true => ([&script[..], &request.settings::<Settings>().index[..]].concat().into(), rest),
        false => (script, rest),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn captures() {
        assert_eq!(findings("fastcgi_split_path_info ^(.+\\.php)(/.+)$;"), [""; 0]);
        assert_eq!(findings("fastcgi_split_path_info ^(.+)$;"), ["pattern \"^(.+)$\" must have 2 captures"]);
    }
}
