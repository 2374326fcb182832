//! A result: what is known of it when the answer begins, and the rest of a long one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::failure;
use super::output::{Encoder, Output, Summary, values};
use super::reading::Reading;
use super::redirect;
use crate::http::{AlreadyTold, BodyStream, LaterLog};
use crate::pg::connection::{Column, Row};
use crate::pg::pool::Pooled;
use crate::server::log::Level;

/// How much of a long result is sent at once.
const CHUNK: usize = 32 * 1024;

/// What is known of a result when it is looked at: all of it, or its beginning.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) reading: Reading,
    pub(super) columns: Arc<[Column]>,
    pub(super) rows: Vec<Row>,
    /// What the command did; empty while there is more to come.
    pub(super) tag: String,
    /// Whether nothing is to come any more.
    pub(super) is_whole: bool,
}

impl Collected {
    /// Whether it is one with rows, be they none.
    pub(super) fn has_rows(&self) -> bool {
        !self.columns.is_empty()
    }

    /// The number in the command's tag, as libpq's `PQcmdTuples` gives it.
    pub(super) fn command_tuples(&self) -> Option<u64> {
        let (command, numbers) = self.tag.split_once(' ')?;
        let counts = matches!(command, "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "MOVE" | "FETCH" | "COPY");
        numbers.rsplit(' ').next()?.parse().ok().filter(|_| counts)
    }

    /// How many rows a command has changed.
    pub(super) fn affected(&self) -> Option<u64> {
        self.command_tuples().filter(|_| !self.tag.starts_with("SELECT"))
    }

    pub(super) fn summary(&self) -> Summary {
        let oid = self.tag.strip_prefix("INSERT ").and_then(|rest| rest.split(' ').next()?.parse().ok());
        Summary { affected: self.affected(), oid: oid.unwrap_or(0) }
    }

    /// Whether it tells of an error, as the fork of 2018 finds out: a column whose name begins with `error` has a value,
    /// or where there is none, a text that looks like JSON has such a member.
    pub(super) fn tells_errors(&self) -> bool {
        let column = self.columns.iter().position(|column| column.name.starts_with(b"error"));
        match column {
            Some(column) => self.rows.first().is_some_and(|row| row.get(column).is_some()),
            None => self.rows.iter().any(|row| values(row).into_iter().flatten().any(redirect::tells_errors)),
        }
    }

    /// A value of the first row, by the beginning of its column's name, or out of a text that looks like JSON.
    pub(super) fn find(&self, name: &[u8]) -> Option<Vec<u8>> {
        let row = self.rows.first()?;
        let column = self.columns.iter().position(|column| column.name.starts_with(name));
        let value = match column {
            Some(column) => row.get(column),
            None => values(row).into_iter().flatten().find_map(|text| redirect::find_in_json(text, name)),
        };
        value.map(<[u8]>::to_vec)
    }

    /// The rows in a form.
    pub(super) fn encode(&self, output: &Output) -> Bytes {
        output.encode(&self.columns, &self.summary(), &self.rows)
    }

    /// Whether it is one value that there is; an error says what it is instead.
    pub(super) fn single(&self) -> Result<(), String> {
        let count = self.rows.len() * self.columns.len();
        match self.rows.as_slice() {
            [row] if row.len() == 1 && self.is_whole => match row.get(0) {
                None => Err("NULL value".to_owned()),
                Some(b"") => Err("empty value".to_owned()),
                Some(_) => Ok(()),
            },
            _ => Err(format!("{count} value(s) instead of expected single value")),
        }
    }
}

/// A result that leaves as it comes. Dropped before its end, its query is cancelled.
pub(super) struct Rest {
    /// The rows that came before the answer began.
    pub(super) held: Option<Vec<Row>>,
    pub(super) connection: Pooled,
    pub(super) encoder: Encoder,
    pub(super) is_over: bool,
    pub(super) log: LaterLog,
}

impl BodyStream for Rest {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + '_>> {
        Box::pin(async {
            if self.is_over {
                return None;
            }
            let mut out = Vec::with_capacity(CHUNK + CHUNK / 8);
            for row in self.held.take().into_iter().flatten() {
                self.encoder.row(&values(&row), &mut out);
            }
            while out.len() < CHUNK {
                match self.connection.next_row().await {
                    Ok(Some(row)) => self.encoder.row(&values(&row), &mut out),
                    Ok(None) => {
                        self.is_over = true;
                        self.encoder.end(&mut out);
                        break;
                    }
                    Err(error) => {
                        self.is_over = true;
                        self.log.write(Level::Error, &failure::in_the_middle(&error));
                        return Some(Err(io::Error::other(AlreadyTold)));
                    }
                }
            }
            Some(Ok(out.into()))
        })
    }
}
