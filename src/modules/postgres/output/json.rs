//! `json`, as today's module and the one of 2018 write it.

use std::sync::Arc;

use super::{JsonStyle, Values};
use crate::http::wire::escape::{JsonDigits, push_json};
use crate::pg::connection::Column;

/// Types whose values stand without quotes in the JSON of 2018: int8, int2, int2vector, int4, json, jsonb.
const OLD_BARE: [u32; 6] = [20, 21, 22, 23, 114, 3802];

/// Types that today's module takes for numbers: those, bits and the system's own identifiers.
pub(super) const NUMBERS: [u32; 12] = [20, 21, 23, 26, 27, 28, 29, 700, 701, 1560, 1562, 1700];

const BOOL: u32 = 16;
const JSON: [u32; 2] = [114, 3802];

/// Objects, one for each row; the form of the whole depends on whether there is a second one.
#[derive(Debug)]
pub(in crate::modules::postgres) struct Json {
    style: JsonStyle,
    columns: Vec<JsonColumn>,
    /// Whether the only column is JSON: the only value of a result stands for itself then.
    is_lone_json: bool,
    rows: u64,
    /// What the result is if there is no second row.
    alone: Vec<u8>,
    /// The first row's object.
    first: Vec<u8>,
}

#[derive(Debug)]
struct JsonColumn {
    /// `"name":`
    start: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Bare,
    Bool,
    Quoted,
}

impl Json {
    pub(super) fn new(style: JsonStyle, columns: &Arc<[Column]>) -> Self {
        Self {
            style,
            columns: columns.iter().map(|column| JsonColumn::new(style, column)).collect(),
            is_lone_json: columns.len() == 1 && JSON.contains(&columns[0].oid),
            rows: 0,
            alone: Vec::new(),
            first: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, values: &Values<'_>, out: &mut Vec<u8>) {
        if self.columns.is_empty() {
            return;
        }
        self.rows += 1;
        match self.rows {
            1 => {
                let mut object = Vec::new();
                self.object(values, &mut object);
                self.alone = match self.style {
                    _ if self.is_lone_json => values[0].unwrap_or_default().to_vec(),
                    JsonStyle::New => object.clone(),
                    JsonStyle::Old => [b"[", object.as_slice(), b"]"].concat(),
                };
                self.first = object;
                return;
            }
            2 => {
                out.push(b'[');
                out.extend_from_slice(&std::mem::take(&mut self.first));
            }
            _ => {}
        }
        out.push(b',');
        self.object(values, out);
    }

    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        match self.rows {
            0 => return,
            1 => out.extend_from_slice(&self.alone),
            _ => out.push(b']'),
        }
        if self.style == JsonStyle::Old {
            out.push(0);
        }
    }

    fn object(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, (column, value)) in self.columns.iter().zip(values).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&column.start);
            match (value, column.kind) {
                (None, _) => out.extend_from_slice(b"null"),
                (Some(value), Kind::Bare) => out.extend_from_slice(value),
                (Some(value), Kind::Bool) => out.extend_from_slice(if *value == b"t" { b"true" } else { b"false" }),
                (Some(value), Kind::Quoted) => {
                    out.push(b'"');
                    push_json(out, value, JsonDigits::Upper);
                    out.push(b'"');
                }
            }
        }
        out.push(b'}');
    }
}

impl JsonColumn {
    fn new(style: JsonStyle, column: &Column) -> Self {
        let mut start = vec![b'"'];
        match style {
            JsonStyle::Old => start.extend_from_slice(&column.name),
            JsonStyle::New => push_json(&mut start, &column.name, JsonDigits::Upper),
        }
        start.extend_from_slice(b"\":");
        let kind = match style {
            JsonStyle::Old if OLD_BARE.contains(&column.oid) => Kind::Bare,
            JsonStyle::New if NUMBERS.contains(&column.oid) => Kind::Bare,
            JsonStyle::New if column.oid == BOOL => Kind::Bool,
            JsonStyle::Old | JsonStyle::New => Kind::Quoted,
        };
        Self { start, kind }
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::postgres::output::testing::encode;
    use crate::modules::postgres::output::{JsonStyle, Output};

    fn check(style: JsonStyle, columns: &[(&str, u32)], rows: &[&[Option<&str>]], expected: &str) {
        assert_eq!(String::from_utf8_lossy(&encode(&Output::Json(style), columns, rows)), expected);
    }

    #[test]
    fn of_today() {
        let new = |columns: &[_], rows: &[&[_]], expected: &str| check(JsonStyle::New, columns, rows, expected);
        let columns = [("n", 23), ("t\"", 25), ("b", 16)];
        let row: &[_] = &[Some("1"), Some("a\"\u{1f}\n"), Some("t")];
        new(&columns, &[], "");
        new(&columns, &[row], r#"{"n":1,"t\"":"a\"\u001F\n","b":true}"#);
        new(&[("i", 20)], &[&[Some("1")], &[None], &[Some("3")]], r#"[{"i":1},{"i":null},{"i":3}]"#);
        new(&[("j", 114)], &[&[Some("[1, 2]")]], "[1, 2]");
        new(&[("j", 3802)], &[&[Some("1")], &[Some("2")]], r#"[{"j":"1"},{"j":"2"}]"#);
        new(&[("j", 114)], &[&[None]], "");
        new(&[], &[&[]], "");
    }

    #[test]
    fn of_2018() {
        let old = |columns: &[_], rows: &[&[_]], expected: &str| check(JsonStyle::Old, columns, rows, expected);
        let columns = [("n", 23), ("b", 16), ("f", 701), ("j", 114)];
        let row: &[_] = &[Some("1"), Some("t"), Some("0.5"), Some("{}")];
        old(&columns, &[], "");
        old(&columns, &[row], "[{\"n\":1,\"b\":\"t\",\"f\":\"0.5\",\"j\":{}}]\0");
        old(&[("j", 114)], &[&[Some("[1]")]], "[1]\0");
        old(&[("j", 114)], &[&[None]], "\0");
        old(&[("j", 114)], &[&[Some("1")], &[Some("2")]], "[{\"j\":1},{\"j\":2}]\0");
    }
}
