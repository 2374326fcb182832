//! `plain` and `csv`: lines of values.

use std::sync::Arc;

use super::Values;
use super::json::NUMBERS;
use crate::config::{Call, Fault};
use crate::modules::postgres::server::{additional, error};
use crate::pg::connection::Column;

/// How the lines look.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::modules::postgres) struct CsvOptions {
    pub(super) content_type: &'static str,
    delimiter: u8,
    null: Vec<u8>,
    quote: Option<u8>,
    escape: Option<u8>,
    /// Whether the names stand before the rows.
    header: bool,
    /// Whether only texts are quoted, numbers not.
    string: bool,
}

impl CsvOptions {
    /// Of `plain`.
    pub(super) fn plain() -> Self {
        Self {
            content_type: "text/plain",
            delimiter: b'\t',
            null: b"\\N".to_vec(),
            quote: None,
            escape: None,
            header: true,
            string: true,
        }
    }

    /// Of `csv`.
    pub(super) fn csv() -> Self {
        Self {
            content_type: "text/csv",
            delimiter: b',',
            null: Vec::new(),
            quote: Some(b'"'),
            escape: Some(b'"'),
            header: true,
            string: true,
        }
    }
}

/// Reads the words after the form's name.
pub(super) fn options(call: &Call<'_>, mut options: CsvOptions) -> Result<CsvOptions, Fault> {
    for index in 1..call.len() {
        let word = call.text(index);
        let Some((name, value)) = word.split_once('=') else { return Err(additional(call, index)) };
        let value_bytes = value.as_bytes();
        match name {
            "header" => options.header = switch(call, index, name, value)?,
            "string" => options.string = switch(call, index, name, value)?,
            // Rows are sent as they come in any case; the original sends the first one only.
            "single" => drop(switch(call, index, name, value)?),
            "delimiter" if !value.is_empty() => options.delimiter = character(call, index, name, value_bytes)?,
            "null" if !value.is_empty() => options.null = value_bytes.to_vec(),
            "quote" if value.is_empty() => options.quote = None,
            "quote" => options.quote = Some(character(call, index, name, value_bytes)?),
            "escape" if value.is_empty() => options.escape = None,
            "escape" => options.escape = Some(character(call, index, name, value_bytes)?),
            _ => return Err(additional(call, index)),
        }
    }
    Ok(options)
}

fn switch(call: &Call<'_>, index: usize, name: &str, value: &str) -> Result<bool, Fault> {
    match value {
        "on" | "yes" | "true" => Ok(true),
        "off" | "no" | "false" => Ok(false),
        _ => {
            let allowed = "\"off\", \"no\", \"false\", \"on\", \"yes\" or \"true\"";
            Err(error(call, &format!("\"{name}\" value \"{value}\" must be {allowed}")).word(index))
        }
    }
}

fn character(call: &Call<'_>, index: usize, name: &str, value: &[u8]) -> Result<u8, Fault> {
    match value {
        [one] => Ok(*one),
        // As many letters of the word as the value has: what the original prints.
        _ => {
            let printed: String = call.text(index).chars().take(value.len()).collect();
            Err(error(call, &format!("\"{name}\" value \"{printed}\" must be one character")).word(index))
        }
    }
}

/// Lines, one for each row; a line feed stands between them, not at the end.
#[derive(Debug)]
pub(in crate::modules::postgres) struct Csv {
    options: CsvOptions,
    /// The line of names, until the first row comes.
    header: Option<Vec<u8>>,
    /// Whether a column's values are quoted.
    quoted: Vec<bool>,
    is_first: bool,
}

impl Csv {
    pub(super) fn new(options: CsvOptions, columns: &Arc<[Column]>) -> Self {
        let quoted =
            columns.iter().map(|column| !options.string || !NUMBERS.contains(&column.oid) && column.oid != BOOL);
        let quoted = quoted.collect();
        let mut header = Vec::new();
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                header.push(options.delimiter);
            }
            value(&options, true, &column.name, &mut header);
        }
        let header = options.header.then_some(header);
        Self { options, header, quoted, is_first: true }
    }

    pub(super) fn row(&mut self, values: &Values<'_>, out: &mut Vec<u8>) {
        if values.is_empty() {
            return;
        }
        if let Some(header) = self.header.take() {
            out.extend_from_slice(&header);
            self.is_first = false;
        }
        if !std::mem::take(&mut self.is_first) {
            out.push(b'\n');
        }
        for (index, (text, quoted)) in values.iter().zip(&self.quoted).enumerate() {
            if index > 0 {
                out.push(self.options.delimiter);
            }
            match text {
                None => out.extend_from_slice(&self.options.null),
                Some(text) => value(&self.options, *quoted, text, out),
            }
        }
    }
}

const BOOL: u32 = 16;

fn value(options: &CsvOptions, quoted: bool, text: &[u8], out: &mut Vec<u8>) {
    let Some(quote) = options.quote.filter(|_| quoted) else {
        out.extend_from_slice(text);
        return;
    };
    out.push(quote);
    let mut rest = text;
    while let Some(escape) = options.escape
        && let Some(at) = memchr::memchr(quote, rest)
    {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[escape, quote]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::postgres::output::{Output, testing::encode};

    fn check(options: CsvOptions, rows: &[&[Option<&str>]], expected: &str) {
        let columns = [("n", 23), ("t\"", 25), ("b", 16)];
        assert_eq!(String::from_utf8_lossy(&encode(&Output::Csv(options), &columns, rows)), expected);
    }

    const ROW: &[Option<&str>] = &[Some("1"), Some("a\"b"), Some("t")];

    #[test]
    fn csv() {
        check(CsvOptions::csv(), &[], "");
        check(CsvOptions::csv(), &[ROW, &[None, None, None]], "\"n\",\"t\"\"\",\"b\"\n1,\"a\"\"b\",t\n,,");
        check(CsvOptions { header: false, ..CsvOptions::csv() }, &[ROW, ROW], "1,\"a\"\"b\",t\n1,\"a\"\"b\",t");
        let all_quoted = CsvOptions { string: false, escape: None, null: b"NULL".to_vec(), ..CsvOptions::csv() };
        check(all_quoted, &[ROW, &[None, None, None]], "\"n\",\"t\"\",\"b\"\n\"1\",\"a\"b\",\"t\"\nNULL,NULL,NULL");
    }

    #[test]
    fn plain() {
        check(CsvOptions::plain(), &[ROW, &[None, Some(""), Some("f")]], "n\tt\"\tb\n1\ta\"b\tt\n\\N\t\tf");
    }
}
