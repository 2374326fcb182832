//! `env`: what a program that takes over finds in its environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::config::{Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot, Status};

/// The row that this file brings.
pub(super) const COMMAND: Directive = Directive {
    name: "env",
    contexts: Contexts::MAIN,
    syntax: "variable[=value]",
    default: "TZ",
    status: Status::Partly("the process itself keeps what it was started with, which nothing but `TZ` concerns"),
    doc: "A variable that stays in the environment, or gets a value, when a new program takes over (USR2): all others \
          but `TZ` are taken out. `env TZ=...` sets the time zone from the start on.",
    file: file!(),
    apply: env,
    ..Directive::BASE
};

/// The variables that stay.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(OsString, Option<OsString>)>,
}

impl Section for Environment {
    type Raw = Self;

    fn merge(raw: &Self, _: Option<&Self>, _: &mut Merge<'_>) -> Self {
        raw.clone()
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

impl Environment {
    /// The environment for a program that takes over from one that was started with this one.
    pub fn of(&self, own: impl Fn(&OsStr) -> Option<OsString>) -> Vec<(OsString, OsString)> {
        let zone = (OsString::from("TZ"), None);
        let has_zone = self.variables.iter().any(|(name, _)| *name == zone.0);
        let all = self.variables.iter().chain((!has_zone).then_some(&zone));
        all.filter_map(|(name, value)| Some((name.clone(), value.clone().or_else(|| own(name))?))).collect()
    }

    /// The value that a variable is given.
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.variables.iter().find(|(other, _)| *other == name)?.1.as_deref()
    }
}

fn env(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let word = call.bytes(0);
    let equals = word.iter().position(|byte| *byte == b'=');
    let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let variable = match equals {
        Some(at) => (text(&word[..at]), Some(text(&word[at + 1..]))),
        None => (text(word), None),
    };
    cx.edit::<Environment>().variables.push(variable);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_taken_out() {
        let own = |name: &OsStr| match name.to_str()? {
            "TZ" => Some("UTC".into()),
            "HOME" => Some("/root".into()),
            _ => None,
        };
        let check = |variables: &[(&str, Option<&str>)], expected: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| (name.into(), value.map(Into::into))).collect();
            let expected: Vec<_> = expected.iter().map(|(name, value)| (name.into(), value.into())).collect();
            assert_eq!(Environment { variables }.of(own), expected);
        };
        check(&[], &[("TZ", "UTC")]);
        check(&[("HOME", None), ("NONE", None)], &[("HOME", "/root"), ("TZ", "UTC")]);
        check(&[("HOME", Some("")), ("TZ", Some("GMT"))], &[("HOME", ""), ("TZ", "GMT")]);
        check(&[("TZ", None)], &[("TZ", "UTC")]);
    }
}
