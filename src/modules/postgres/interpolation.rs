//! `postgres_unsafe_interpolation`: values pasted into the SQL as they come, as the originals do.

use crate::config::value::{Flag, Value};
use crate::config::{Args, Call, Contexts, Cx, Diagnostic, Directive, Fault, Merge, Section, Severity, Slot};

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "postgres_unsafe_interpolation",
    contexts: Contexts::HTTP_ALL,
    args: Args::ONE,
    once: true,
    syntax: "on | off",
    default: "off",
    doc: "Whether the variables of a `postgres_query` are pasted into its text as they come, as the modules of 2015 and \
          2018 do. Then whoever chooses a value can run any SQL. For configurations that build SQL out of values which no \
          client chooses; `check` warns.",
    file: file!(),
    apply: postgres_unsafe_interpolation,
    ..Directive::BASE
}];

/// Whether values are pasted.
#[derive(Debug)]
pub(super) struct Interpolation {
    pub(super) is_unsafe: bool,
}

impl Section for Interpolation {
    type Raw = Option<bool>;

    fn merge(raw: &Option<bool>, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self { is_unsafe: raw.or_else(|| parent.map(|parent| parent.is_unsafe)).unwrap_or(false) }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn postgres_unsafe_interpolation(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let flag = Flag::parse(call, cx)?;
    *cx.edit::<Interpolation>() = Some(*flag);
    if *flag {
        let message = "what clients send becomes SQL as it comes: anyone can run any statement";
        let finding = Diagnostic::new(Severity::Lint, "unsafe-interpolation", message).near(Some(call.at()));
        cx.report(finding.help("leave it off, and pass values as parameters: $name::type"));
    }
    Ok(())
}
