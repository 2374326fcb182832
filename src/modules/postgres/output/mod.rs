//! `postgres_output`: how a result becomes the body of an answer.
//!
//! An [`Encoder`] takes the rows one after another as they come and holds back no more than one of them, so that a
//! result of any length leaves in bounded memory.

mod csv;
mod json;
mod rds;
mod single;

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

pub(super) use self::csv::CsvOptions;
use super::query::{Queries, attach};
use super::reading::Reading;
use super::server::{additional, error};
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault};
use crate::pg::connection::{Column, Row};

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "postgres_output",
    contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION),
    args: Args::SOME,
    syntax: "none | plain [option ...] | csv [option ...] | json | value | binary | rds | text | binary_value | hex",
    default: "text where the server's grammar is that of 2015 or 2018, else none",
    doc: "The form of the answer. `plain` and `csv` take `header=on|off`, `string=on|off`, `single=on|off`, \
          `delimiter=`, `null=`, `quote=` and `escape=`; `value`, `binary` (once `binary_value`) and `hex` answer with \
          the one value of the result; `text` is all values with a line feed between them, `rds` the binary form that \
          nginx's rds modules read.\n\n\
          In today's grammar it belongs to the query before it.\n\n\
          Differs from the modules of 2015 and 2018: their default is `rds`; here it is `text`, and `check` tells.\n\n\
          Example: `postgres_output json;`",
    file: file!(),
    apply: postgres_output,
    ..Directive::BASE
}];

/// A form.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Output {
    /// No body.
    None,
    /// All values, a line feed between them.
    Text,
    /// The one value.
    Value,
    /// The one value as the server has it.
    Binary,
    /// The one value, whose hexadecimal digits become bytes.
    Hex,
    /// JSON, as today's module or the one of 2018 writes it.
    Json(JsonStyle),
    /// Lines of values.
    Csv(CsvOptions),
    /// The form of the rds modules.
    Rds(RdsStyle),
}

/// Whose JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonStyle {
    /// Of 2018.
    Old,
    /// Of today.
    New,
}

/// Whose rds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RdsStyle {
    /// Of 2015 and 2018: nothing follows the head of a result without columns.
    Old,
    /// Of today: there the end is marked too.
    New,
}

fn postgres_output(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let reading = Reading::of(cx);
    let word = call.text(0);
    let old = || old_format(&word);
    let output = match reading {
        Reading::Address => {
            if call.len() > 1 {
                return Err(Fault::new("invalid number of arguments in \"postgres_output\" directive").code("arity"));
            }
            if cx.edit::<Queries>().common.output.is_some() {
                return Err(call.duplicate());
            }
            let message = format!("postgres: invalid output format \"{word}\" in \"postgres_output\" directive");
            old().ok_or_else(|| Fault::new(message).word(0))?
        }
        Reading::Libpq => format(call)?,
        Reading::Either => match format(call) {
            Ok(output) => output,
            Err(fault) => old().ok_or(fault)?,
        },
    };
    let slot = &mut attach(cx, call)?.output;
    if slot.as_ref().is_some_and(|before| *before != Output::None) {
        return Err(call.duplicate());
    }
    *slot = Some(output);
    Ok(())
}

fn old_format(word: &str) -> Option<Output> {
    Some(match word.to_ascii_lowercase().as_str() {
        "none" => Output::None,
        "rds" => Output::Rds(RdsStyle::Old),
        "text" => Output::Text,
        "value" => Output::Value,
        "binary_value" => Output::Binary,
        "json" => Output::Json(JsonStyle::Old),
        "hex" => Output::Hex,
        _ => return None,
    })
}

fn format(call: &Call<'_>) -> Result<Output, Fault> {
    let word = call.text(0);
    let output = match &*word {
        "none" => Output::None,
        "plain" => return csv::options(call, CsvOptions::plain()).map(Output::Csv),
        "csv" => return csv::options(call, CsvOptions::csv()).map(Output::Csv),
        "value" => Output::Value,
        "binary" => Output::Binary,
        "json" => Output::Json(JsonStyle::New),
        "rds" => Output::Rds(RdsStyle::New),
        _ => {
            let text = "must be \"none\", \"plain\", \"csv\", \"value\", \"binary\", \"json\" or \"rds\"";
            return Err(error(call, &format!("format \"{word}\" {text}")).word(0));
        }
    };
    if call.len() > 1 { Err(additional(call, 1)) } else { Ok(output) }
}

impl Output {
    /// The content type, where the form has one of its own; else it is `default_type`. `Some(None)`: none at all.
    pub(super) fn content_type(&self) -> ContentType {
        match self {
            Self::None => ContentType::Unchanged,
            Self::Text | Self::Value | Self::Binary | Self::Hex | Self::Json(JsonStyle::Old) => ContentType::Default,
            Self::Json(JsonStyle::New) => ContentType::Is("application/json"),
            Self::Csv(options) => ContentType::Is(options.content_type),
            Self::Rds(_) => ContentType::Is("application/x-resty-dbd-stream"),
        }
    }

    /// Whether it is about one value.
    pub(super) fn is_single(&self) -> bool {
        matches!(self, Self::Value | Self::Binary | Self::Hex)
    }

    /// What makes a result's bytes.
    pub(super) fn encoder(&self, columns: &Arc<[Column]>, result: &Summary) -> Encoder {
        match self {
            Self::None => Encoder::None,
            Self::Text => Encoder::Single(single::Single::Text { is_first: true }),
            Self::Value | Self::Binary => Encoder::Single(single::Single::Raw),
            Self::Hex => Encoder::Single(single::Single::Hex),
            Self::Json(style) => Encoder::Json(json::Json::new(*style, columns)),
            Self::Csv(options) => Encoder::Csv(csv::Csv::new(options.clone(), columns)),
            Self::Rds(style) => Encoder::Rds(rds::Rds::new(*style, columns, result)),
        }
    }

    /// A whole result.
    pub(super) fn encode(&self, columns: &Arc<[Column]>, result: &Summary, rows: &[Row]) -> Bytes {
        let mut encoder = self.encoder(columns, result);
        let mut out = Vec::new();
        for row in rows {
            encoder.row(&values(row), &mut out);
        }
        encoder.end(&mut out);
        out.into()
    }
}

/// The type that an answer is given by its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentType {
    /// What it was before, perhaps none.
    Unchanged,
    /// `default_type`.
    Default,
    /// This.
    Is(&'static str),
}

/// What is known of a result beside its rows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Summary {
    /// Rows that a command has changed.
    pub(super) affected: Option<u64>,
    /// The OID of the one row that was inserted, in old tables.
    pub(super) oid: u32,
}

/// The values of a row.
pub(super) type Values<'r> = [Option<&'r [u8]>];

/// The values of a row, as the encoders take them.
pub(super) fn values(row: &Row) -> SmallVec<[Option<&[u8]>; 16]> {
    (0..row.len()).map(|column| row.get(column)).collect()
}

/// Makes a result's bytes, row by row.
#[derive(Debug)]
pub(super) enum Encoder {
    None,
    Single(single::Single),
    Json(json::Json),
    Csv(csv::Csv),
    Rds(rds::Rds),
}

impl Encoder {
    /// Adds a row.
    pub(super) fn row(&mut self, values: &Values<'_>, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Single(single) => single.row(values, out),
            Self::Json(json) => json.row(values, out),
            Self::Csv(csv) => csv.row(values, out),
            Self::Rds(rds) => rds.row(values, out),
        }
    }

    /// Adds what stands after the last row.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::None | Self::Single(_) | Self::Csv(_) => {}
            Self::Json(json) => json.end(out),
            Self::Rds(rds) => rds.end(out),
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Results for the tests of the forms.

    use super::*;

    /// What a form makes of columns (name and type) and rows.
    pub(in crate::modules::postgres) fn encode(
        output: &Output,
        columns: &[(&str, u32)],
        rows: &[&[Option<&str>]],
    ) -> Vec<u8> {
        let columns =
            columns.iter().map(|(name, oid)| Column { name: Bytes::copy_from_slice(name.as_bytes()), oid: *oid });
        let mut encoder = output.encoder(&columns.collect(), &Summary::default());
        let mut out = Vec::new();
        for row in rows {
            let values: Vec<_> = row.iter().map(|value| value.map(str::as_bytes)).collect();
            encoder.row(&values, &mut out);
        }
        encoder.end(&mut out);
        out
    }
}
