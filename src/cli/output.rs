//! Writing to standard output and standard error.

use std::io::{IsTerminal, Write};

/// Writes to standard output. A reader that has gone (`pushgate directives | head`) is no error of ours.
pub(super) fn print(text: impl AsRef<[u8]>) {
    drop(std::io::stdout().lock().write_all(text.as_ref()));
}

/// Writes to standard error; where that fails, there is nowhere left to say so.
pub(super) fn error(text: &str) {
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

/// Whether colours are wanted on standard output: on a terminal, unless the environment says `NO_COLOR`.
pub(super) fn wants_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
