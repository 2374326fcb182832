//! What goes wrong with a query: its status and its line in the log, each as the generation of the module has it.

use crate::http::Request;
use crate::http::hook::Refusal;
use crate::pg::conninfo::Grammar;
use crate::pg::error::{Error, ServerError};
use crate::pg::listener::ListenError;
use crate::server::log::Level;

/// Why there is no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// PostgreSQL, or the way there.
    Query(Error),
    /// A channel can't be listened to.
    Listen(String, ListenError),
    /// LISTEN or UNLISTEN was not confirmed in time; it is carried out when PostgreSQL is back.
    ListenTimeout(&'static str, String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Query(error)
    }
}

impl Failure {
    /// Writes it down and gives the status for it.
    pub(super) fn report(&self, request: &mut Request, grammar: Grammar) -> u16 {
        let (level, message, status) = match self {
            Self::Query(error) => (level(error), line(error, grammar), status(error, grammar)),
            Self::Listen(name, error) => {
                let status = match error {
                    ListenError::Empty | ListenError::TooLong(_) | ListenError::Nul => 400,
                    ListenError::Refused(_) => 500,
                    ListenError::Stopped => 503,
                };
                let state = match error {
                    ListenError::Refused(error) => format!(" (SQLSTATE {})", error.code),
                    _ => String::new(),
                };
                (Level::Error, format!("postgres: LISTEN \"{}\" failed: {error}{state}", name.escape_default()), status)
            }
            Self::ListenTimeout(command, name) => {
                let name = name.escape_default();
                (
                    Level::Error,
                    format!("postgres: {command} \"{name}\" is not confirmed yet, it stands in the queue"),
                    504,
                )
            }
        };
        request.log(level, &one_line(&message));
        if let Self::Listen(_, error @ (ListenError::TooLong(_) | ListenError::Nul)) = self {
            let refusal = Refusal { close_code: 1008, reason: error.to_string() };
            *request.note_mut::<Option<Refusal>>() = Some(refusal);
        }
        status
    }

    /// What `$postgres_error` reads.
    pub(super) fn server_error(&self, sql: &str) -> Option<String> {
        match self {
            Self::Query(Error::Sql(error)) => Some(with_position(error, sql)),
            Self::Query(error) => Some(error.to_string()),
            Self::Listen(_, error) => Some(error.to_string()),
            Self::ListenTimeout(..) => None,
        }
    }
}

fn status(error: &Error, grammar: Grammar) -> u16 {
    let old = grammar == Grammar::Address;
    match error {
        // Today's module finds a refused connection out at once, and answers 500.
        Error::Refused { .. } if old => 502,
        Error::Refused { .. } => 500,
        Error::Tls { .. }
        | Error::Login(_)
        | Error::Authentication(_)
        | Error::Unsuitable { .. }
        | Error::NoServers => 502,
        Error::ConnectTimeout | Error::QueryTimeout | Error::QueueTimeout => 504,
        Error::PoolFull if old => 503,
        Error::PoolFull => 502,
        Error::Sql(_) | Error::Copy | Error::Lost { .. } | Error::Protocol(_) => 500,
    }
}

/// The server's words may have lines of their own, and a client's value in them: the log has one line for a message.
pub(super) fn one_line(message: &str) -> String {
    message.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn level(error: &Error) -> Level {
    if matches!(error, Error::PoolFull) { Level::Info } else { Level::Error }
}

fn line(error: &Error, grammar: Grammar) -> String {
    let state = error.sqlstate().map(|state| format!(" (SQLSTATE {state})")).unwrap_or_default();
    match (error, grammar) {
        (Error::Sql(_) | Error::Lost { .. }, Grammar::Address) => {
            format!("postgres: failed to receive result: PGRES_FATAL_ERROR: {error}{state}")
        }
        (Error::Sql(_) | Error::Lost { .. }, Grammar::Libpq) => {
            format!("PQresultStatus == PGRES_FATAL_ERROR: {error}{state}")
        }
        (Error::ConnectTimeout | Error::QueryTimeout, _) => format!("upstream timed out: postgres: {error}"),
        (Error::PoolFull, _) => format!("postgres: {error}, rejecting request"),
        _ => format!("postgres: {error}{state}"),
    }
}

/// What the log says of a result that broke off after the answer had begun.
pub(super) fn in_the_middle(error: &Error) -> String {
    one_line(&format!("postgres: a result broke off: {error}"))
}

/// The error with the line of the statement that it is about, as libpq shows it.
fn with_position(error: &ServerError, sql: &str) -> String {
    let mut text = format!("{}:  {}", error.severity, error.message);
    if let Some((number, line, column)) = error.position.and_then(|position| place(sql, position)) {
        let start = format!("LINE {number}: ");
        let blanks = " ".repeat(start.len() + column);
        text.push_str(&format!("\n{start}{line}\n{blanks}^"));
    }
    if let Some(detail) = &error.detail {
        text.push_str(&format!("\nDETAIL:  {detail}"));
    }
    if let Some(hint) = &error.hint {
        text.push_str(&format!("\nHINT:  {hint}"));
    }
    text
}

/// The line of a position, its number, and the column there, all in characters.
fn place(sql: &str, position: u32) -> Option<(usize, &str, usize)> {
    let before = usize::try_from(position).ok()?.checked_sub(1)?;
    let mut left = before;
    for (index, line) in sql.split('\n').enumerate() {
        let length = line.chars().count();
        if left <= length {
            return Some((index + 1, line, left));
        }
        left -= length + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        let check = |sql: &str, position, expected: &str| {
            let message = "syntax error".to_owned();
            let error = ServerError { severity: "ERROR".to_owned(), message, position, ..ServerError::default() };
            assert_eq!(with_position(&error, sql), expected);
        };
        check("selec 1", Some(1), "ERROR:  syntax error\nLINE 1: selec 1\n        ^");
        check("select\n  ü x", Some(12), "ERROR:  syntax error\nLINE 2:   ü x\n            ^");
        check("select", None, "ERROR:  syntax error");
        check("select", Some(99), "ERROR:  syntax error");
        check("select", Some(0), "ERROR:  syntax error");
    }
}
