//! `postgres_escape`: a text as an SQL literal, as a step of the rewrite phase. (2015, 2018)

use bytes::Bytes;

use crate::config::value::{Part, Template};
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, VarId};
use crate::http::rewrite::{Flow, Step, push_step};
use crate::http::{Quoting, Request};

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "postgres_escape",
    contexts: Contexts::HTTP_ALL,
    args: Args::between(1, 2),
    syntax: "$variable [[=]text]",
    doc: "Makes an SQL literal of a text, or of the variable's own value: `'` around it, and each `'` in it doubled. \
          Nothing makes `NULL`, or with `=` before the text an empty literal. The value is known to be quoted, and is \
          not quoted again by `postgres_query`.\n\n\
          Differs from the original: a backslash always stands for itself, as it does for PostgreSQL since 9.1 (there \
          it is doubled until the worker has had a connection).\n\n\
          Example: `postgres_escape $id $arg_id;`",
    file: file!(),
    apply: postgres_escape,
    ..Directive::BASE
}];

struct Escape {
    variable: VarId,
    text: Template,
    empty_is_text: bool,
}

impl Step for Escape {
    fn run(&self, request: &mut Request) -> Flow {
        let text = request.eval(&self.text);
        let literal = escape(&text, self.empty_is_text);
        request.set_quoted(self.variable, literal, Quoting::Sql);
        Flow::On
    }
}

fn postgres_escape(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let fault =
        |text: &str, index| Fault::new(format!("postgres: {text} in \"postgres_escape\" directive")).word(index);
    let last = call.len() - 1;
    let written = call.bytes(last);
    let (text, empty_is_text) = match written.strip_prefix(b"=") {
        Some(text) => (text, true),
        None => (written, false),
    };
    if text.is_empty() {
        return Err(fault("empty value", last));
    }
    // Of the only word it is the name, too.
    let name = if last == 0 { text } else { call.bytes(0) };
    let name = match name {
        [] | [_] => return Err(fault("empty variable name", 0)),
        [b'$', name @ ..] => String::from_utf8_lossy(name).into_owned(),
        other => return Err(fault(&format!("invalid variable name \"{}\"", String::from_utf8_lossy(other)), 0)),
    };
    let variable = cx.variables().assigned(&name).map_err(|fault| fault.word(0))?;
    let text = match last {
        0 => Template::part(Part::Variable(variable)),
        _ => Template::compile(text, cx, Some(call.word_at(last)))?,
    };
    push_step(cx, Escape { variable, text, empty_is_text });
    Ok(())
}

/// The text ends at a NUL byte, which PostgreSQL could not take.
fn escape(text: &[u8], empty_is_text: bool) -> Bytes {
    if text.is_empty() && !empty_is_text {
        return Bytes::from_static(b"NULL");
    }
    let mut literal = vec![b'\''];
    for byte in text.iter().take_while(|byte| **byte != 0) {
        if *byte == b'\'' {
            literal.push(b'\'');
        }
        literal.push(*byte);
    }
    literal.push(b'\'');
    literal.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        let check = |text: &[u8], empty_is_text, expected: &str| assert_eq!(escape(text, empty_is_text), expected);
        check(b"", false, "NULL");
        check(b"", true, "''");
        check(b"it's \\", false, "'it''s \\'");
        check(b"a\0b", false, "'a'");
        check(b"\0", false, "''");
    }
}
