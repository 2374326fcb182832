//! `postgres_set`: variables that take values of a result.

use bytes::Bytes;

use super::output::{JsonStyle, Output};
use super::query::attach;
use super::reading::Reading;
use super::result::Collected;
use super::server::error;
use crate::config::value::parse_number;
use crate::config::{Args, Call, Contexts, Cx, Diagnostic, Directive, Fault, VarId};
use crate::server::log::shown;

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "postgres_set",
    contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION),
    args: Args::between(2, 4),
    syntax: "$variable row column [optional|required] | $variable nfields|ntuples|cmdTuples|cmdStatus|value|json",
    doc: "Keeps a value of the result in a variable: of a row and column (a number or name, from 0), or a figure of the \
          whole. Where there is no such value, or it is NULL or empty, the variable has none; with `required` the \
          answer is 500 then.\n\n\
          Example: `postgres_set $name 0 name;`",
    file: file!(),
    apply: postgres_set,
    ..Directive::BASE
}];

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) variable: VarId,
    name: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Cell { row: usize, column: Column, required: bool },
    Fields,
    Tuples,
    CommandTuples,
    CommandStatus,
    Value,
    Json,
}

#[derive(Clone, Debug, PartialEq)]
enum Column {
    Number(usize),
    Name(Bytes),
}

impl Set {
    /// How many rows must be known for it; `None`: all.
    pub(super) fn rows_needed(&self) -> Option<usize> {
        match self.what {
            What::Cell { row, .. } => Some(row.saturating_add(1)),
            What::Fields => Some(0),
            What::Value => Some(2),
            What::Tuples | What::CommandTuples | What::CommandStatus | What::Json => None,
        }
    }

    /// The output whose content type it sets, as today's module does.
    pub(super) fn output(&self) -> Option<Output> {
        match self.what {
            What::Value => Some(Output::Value),
            What::Json => Some(Output::Json(JsonStyle::New)),
            _ => None,
        }
    }

    /// The value for a result. An error says what is required and missing.
    pub(super) fn value(&self, result: &Collected) -> Result<Option<Bytes>, String> {
        let number = |number: usize| Some(Bytes::from(number.to_string()));
        Ok(match &self.what {
            What::Cell { row, column, required } => match cell(result, *row, column) {
                Ok(value) => Some(value),
                Err(missing) if *required => {
                    return Err(format!("\"postgres_set\" for variable \"${}\" requires {missing}", self.name));
                }
                Err(_) => None,
            },
            What::Fields => result.has_rows().then(|| number(result.columns.len())).flatten(),
            What::Tuples => result.has_rows().then(|| number(result.rows.len())).flatten(),
            What::CommandTuples => {
                let tuples = result.command_tuples().filter(|_| result.has_rows());
                tuples.map(|tuples| tuples.to_string().into())
            }
            What::CommandStatus => Some(result.tag.clone().into()).filter(|tag: &Bytes| !tag.is_empty()),
            What::Value => match result.rows.as_slice() {
                [row] if row.len() == 1 => row.get_bytes(0),
                _ => None,
            },
            What::Json => Some(result.encode(&Output::Json(JsonStyle::New))),
        })
    }
}

fn cell(result: &Collected, row: usize, column: &Column) -> Result<Bytes, String> {
    let by_name = |name: &Bytes| result.columns.iter().position(|column| column.name == *name);
    let number = match column {
        Column::Number(number) => *number,
        Column::Name(name) => by_name(name).ok_or_else(|| {
            let name = shown(name);
            let word = if result.reading == Reading::Address { "column" } else { "col" };
            format!("value from {word} \"{name}\" that wasn't found in the received result-set")
        })?,
    };
    let (rows, cols) = (result.rows.len(), result.columns.len());
    if row >= rows || number >= cols {
        return Err(format!("value out of range of the received result-set (rows:{rows} cols:{cols})"));
    }
    match result.rows[row].get_bytes(number) {
        None => Err("non-NULL value".to_owned()),
        Some(value) if value.is_empty() => Err("non-zero length value".to_owned()),
        Some(value) => Ok(value),
    }
}

fn postgres_set(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let reading = Reading::of(cx);
    if reading == Reading::Libpq {
        attach(cx, call)?;
    }
    let name = call.text(0);
    let what = match reading {
        Reading::Address => old_words(call)?,
        Reading::Libpq | Reading::Either => words(call)?,
    };
    let name = name.trim_start_matches('$').to_owned();
    let variable = match cx.variables().assigned(&name) {
        Ok(variable) => variable,
        // Today's module says it twice.
        Err(_) if reading != Reading::Address => {
            let message = format!("the duplicate \"{name}\" variable");
            cx.report(Diagnostic::emerg("duplicate-variable", message).at(call.at()));
            return Err(error(call, "!ngx_http_add_variable").placeless());
        }
        Err(fault) => return Err(fault),
    };
    attach(cx, call)?.sets.push(Set { variable, name, what });
    Ok(())
}

fn words(call: &Call<'_>) -> Result<What, Fault> {
    match call.bytes(0) {
        [] | [_] => return Err(error(call, "empty variable name").word(0)),
        [b'$', ..] => {}
        _ => return Err(error(call, "invalid variable name").word(0)),
    }
    if call.len() == 2 {
        let word = call.text(1);
        return Ok(match &*word {
            "nfields" => What::Fields,
            "ntuples" => What::Tuples,
            "cmdTuples" => What::CommandTuples,
            "cmdStatus" => What::CommandStatus,
            "value" => What::Value,
            "json" => What::Json,
            _ => {
                let kinds = "\"nfields\", \"ntuples\", \"cmdTuples\", \"cmdStatus\", \"value\" or \"json\"";
                return Err(error(call, &format!("type \"{word}\" must be {kinds}")).word(1));
            }
        });
    }
    if call.bytes(2).is_empty() {
        return Err(error(call, "empty col").word(2));
    }
    let row = number(call.bytes(1));
    let row = row.ok_or_else(|| error(call, &format!("row \"{}\" must be number", call.text(1))).word(1))?;
    let required = match call.bytes(3) {
        b"" | b"optional" => false,
        b"required" => true,
        _ => {
            let text = format!("requirment \"{}\" must be \"optional\" or \"required\"", call.text(3));
            return Err(error(call, &text).word(3));
        }
    };
    Ok(What::Cell { row, column: column(call), required })
}

fn old_words(call: &Call<'_>) -> Result<What, Fault> {
    let fault = |text: &str, index| Fault::new(format!("postgres: {text} in \"postgres_set\" directive")).word(index);
    if call.len() < 3 {
        return Err(Fault::new("invalid number of arguments in \"postgres_set\" directive").code("arity"));
    }
    match call.bytes(0) {
        [] | [_] => return Err(fault("empty variable name", 0)),
        [b'$', ..] => {}
        _ => return Err(fault(&format!("invalid variable name \"{}\"", call.text(0)), 0)),
    }
    if call.bytes(2).is_empty() {
        return Err(fault("empty column", 2));
    }
    let row = number(call.bytes(1)).ok_or_else(|| fault(&format!("invalid row number \"{}\"", call.text(1)), 1))?;
    let required = match call.text(3).to_ascii_lowercase().as_str() {
        "" | "optional" => false,
        "required" => true,
        _ => return Err(fault(&format!("invalid requirement option \"{}\"", call.text(3)), 3)),
    };
    Ok(What::Cell { row, column: column(call), required })
}

fn number(word: &[u8]) -> Option<usize> {
    parse_number(word).and_then(|number| usize::try_from(number).ok())
}

/// What is no number is a name.
fn column(call: &Call<'_>) -> Column {
    number(call.bytes(2)).map_or_else(|| Column::Name(Bytes::copy_from_slice(call.bytes(2))), Column::Number)
}
