//! The words of a command: its flags, its values, and where its configuration is.

use std::fmt;
use std::path::PathBuf;

use crate::config::LoadOptions;

/// Where files are when no prefix is given (`-p`): as in Debian's and nginx's own packages, so that a copied
/// configuration finds what it names.
pub(super) const DEFAULT_PREFIX: &str = "/usr/share/nginx/";
/// The configuration when none is given (`-c`) and no prefix.
pub(super) const DEFAULT_FILE: &str = "/etc/nginx/nginx.conf";
/// The log of errors when none is given (`-e`, `error_log`) and no prefix.
pub(super) const DEFAULT_ERROR_LOG: &str = "/var/log/nginx/error.log";
/// The file of the process's id when none is given (`pid`) and no prefix.
pub(super) const DEFAULT_PID: &str = "/run/nginx.pid";

/// Why a command can't be run: how it was used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong(pub(super) String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the words of a command one after the other.
#[derive(Debug)]
pub(super) struct Words<'w> {
    rest: std::slice::Iter<'w, String>,
    /// What followed `=` in a long flag.
    attached: Option<&'w str>,
    only_operands: bool,
}

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word<'w> {
    /// A flag, with its dashes.
    Flag(&'w str),
    /// Anything else.
    Operand(&'w str),
}

impl<'w> Words<'w> {
    pub(super) fn new(words: &'w [String]) -> Self {
        Self { rest: words.iter(), attached: None, only_operands: false }
    }

    /// The next word. A value that was given to a flag which takes none is an error.
    pub(super) fn next(&mut self) -> Result<Option<Word<'w>>, Wrong> {
        if let Some(value) = self.attached.take() {
            return Err(Wrong(format!("unexpected value \"{value}\"")));
        }
        let Some(word) = self.rest.next() else { return Ok(None) };
        if word == "--" && !self.only_operands {
            self.only_operands = true;
            return self.next();
        }
        if self.only_operands || word == "-" || !word.starts_with('-') {
            return Ok(Some(Word::Operand(word)));
        }
        match word.split_once('=').filter(|_| word.starts_with("--")) {
            None => Ok(Some(Word::Flag(word))),
            Some((flag, value)) => {
                self.attached = Some(value);
                Ok(Some(Word::Flag(flag)))
            }
        }
    }

    /// The value of a flag: after its `=`, or the next word.
    pub(super) fn value(&mut self, flag: &str) -> Result<&'w str, Wrong> {
        let value = self.attached.take().or_else(|| self.rest.next().map(String::as_str));
        value.ok_or_else(|| Wrong(format!("option \"{flag}\" requires a value")))
    }
}

/// The error of a flag that the command does not have.
pub(super) fn unknown(flag: &str) -> Wrong {
    Wrong(format!("invalid option: \"{flag}\""))
}

/// The error of a second operand.
pub(super) fn superfluous(word: &str) -> Wrong {
    Wrong(format!("one argument too many: \"{word}\""))
}

/// What a load is asked for, from the flags that nginx has too; where they are not given, the places are those of a
/// Debian system, or under the prefix if there is one.
pub(super) fn load_options(prefix: Option<&str>, file: Option<&str>) -> LoadOptions {
    match prefix {
        Some(prefix) => {
            let prefix = PathBuf::from(format!("{}/", prefix.trim_end_matches('/')));
            let file = prefix.join(file.unwrap_or("conf/nginx.conf"));
            LoadOptions { prefix, file, ..LoadOptions::default() }
        }
        None => {
            let prefix = PathBuf::from(DEFAULT_PREFIX);
            let file = prefix.join(file.unwrap_or(DEFAULT_FILE));
            let (error_log, pid) = (Some(DEFAULT_ERROR_LOG.into()), Some(DEFAULT_PID.into()));
            LoadOptions { prefix, file, error_log, pid, ..LoadOptions::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_flags_values_and_operands() -> Result<(), Wrong> {
        let words: Vec<String> = ["--format=json", "-p", "/x", "a", "--", "-b"].map(str::to_owned).into();
        let mut words = Words::new(&words);
        assert_eq!(words.next()?, Some(Word::Flag("--format")));
        assert_eq!(words.value("--format")?, "json");
        assert_eq!(words.next()?, Some(Word::Flag("-p")));
        assert_eq!(words.value("-p")?, "/x");
        assert_eq!(words.next()?, Some(Word::Operand("a")));
        assert_eq!(words.next()?, Some(Word::Operand("-b")));
        assert_eq!(words.next()?, None);
        assert_eq!(words.value("-c"), Err(Wrong("option \"-c\" requires a value".into())));
        Ok(())
    }

    #[test]
    fn a_flag_without_a_value_takes_none() {
        let words = ["--strict=yes".to_owned()];
        let mut words = Words::new(&words);
        assert_eq!(words.next(), Ok(Some(Word::Flag("--strict"))));
        assert_eq!(words.next(), Err(Wrong("unexpected value \"yes\"".into())));
    }

    #[test]
    fn paths_are_completed() {
        let check = |prefix, file, expected: &str| {
            assert_eq!(load_options(prefix, file).file.display().to_string(), expected);
        };
        check(None, None, "/etc/nginx/nginx.conf");
        check(None, Some("/a.conf"), "/a.conf");
        check(Some("/p"), None, "/p/conf/nginx.conf");
        check(Some("/p//"), Some("a.conf"), "/p/a.conf");
        check(Some("/p/"), Some("/a.conf"), "/a.conf");
        assert_eq!(load_options(Some("/p"), None).error_log, None);
    }
}
