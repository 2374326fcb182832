//! What can go wrong with PostgreSQL, sorted by who is to blame.

use std::fmt;
use std::io;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;
use thiserror::Error;

/// Why there is no result.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody answers at the address, or its name is unknown.
    #[error("connect() to {address} failed ({source})")]
    Refused {
        /// Where we tried.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// TLS could not be agreed upon, or the server is not who it should be.
    #[error("TLS with {address} failed: {reason}")]
    Tls {
        /// Where we tried.
        address: String,
        /// Why.
        reason: String,
    },
    /// The server does not let us in: password, role, database, too many clients, starting up.
    #[error("connection failed: {0}")]
    Login(Box<ServerError>),
    /// The server wants a way of logging in that we don't have, or we lack what it wants.
    #[error("connection failed: {0}")]
    Authentication(String),
    /// The server is up but not of the wanted kind (`target_session_attrs`, an unsafe client encoding).
    #[error("server at {address} is not usable: {reason}")]
    Unsuitable {
        /// Where we tried.
        address: String,
        /// Why.
        reason: &'static str,
    },
    /// Connecting and logging in took too long.
    #[error("connect timed out")]
    ConnectTimeout,
    /// The result took too long.
    #[error("query timed out")]
    QueryTimeout,
    /// The pool is full, and its queue too.
    #[error("keepalive connection pool is full")]
    PoolFull,
    /// Waiting for a connection of the pool took too long.
    #[error("timed out in the queue for a connection")]
    QueueTimeout,
    /// Every server of the upstream is down or marked as failed.
    #[error("no live upstreams")]
    NoServers,
    /// The statement failed.
    #[error("{0}")]
    Sql(Box<ServerError>),
    /// The statement was COPY, which has no rows to answer with.
    #[error("COPY is not supported")]
    Copy,
    /// The connection broke while in use; the server's last words if it said some.
    #[error("{}", lost(.reason, .last_words.as_deref()))]
    Lost {
        /// What the system said.
        reason: String,
        /// As `terminating connection due to administrator command`.
        last_words: Option<Box<ServerError>>,
    },
    /// The server sent what it should not have.
    #[error("unexpected message from the server: {0}")]
    Protocol(String),
}

impl Error {
    /// The five characters of the SQLSTATE, if the server gave one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Login(error) | Self::Sql(error) => Some(&error.code),
            Self::Lost { last_words: Some(error), .. } => Some(&error.code),
            _ => None,
        }
    }

    /// Whether it speaks against the server, so that the next one should be tried.
    #[must_use]
    pub fn is_servers_fault(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. } | Self::Tls { .. } | Self::Login(_) | Self::Unsuitable { .. } | Self::ConnectTimeout
        )
    }

    pub(crate) fn lost(error: &io::Error) -> Self {
        Self::Lost { reason: error.to_string(), last_words: None }
    }
}

fn lost(reason: &str, last_words: Option<&ServerError>) -> String {
    match last_words {
        Some(error) => error.to_string(),
        None => format!("connection lost: {reason}"),
    }
}

/// An error as the server words it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`.
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// One line.
    pub message: String,
    /// More lines.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
}

impl ServerError {
    pub(crate) fn read(mut fields: ErrorFields<'_>) -> Self {
        let mut error = Self::default();
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                // V is S untranslated: servers that speak another language give both.
                b'V' => error.severity = value,
                b'S' if error.severity.is_empty() => error.severity = value,
                b'C' => error.code = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b'P' => error.position = value.parse().ok(),
                _ => {}
            }
        }
        error
    }

    /// Whether the server closes the connection after it.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

/// In libpq's way: severity, two blanks, message, and the detail on a line of its own.
impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:  {}", self.severity, self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, "\nDETAIL:  {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nHINT:  {hint}")?;
        }
        Ok(())
    }
}
