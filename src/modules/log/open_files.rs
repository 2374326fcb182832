//! `open_log_file_cache`: logs whose paths have variables are kept open.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::config::value::{parse_number, parse_sec};
use crate::config::{Call, Cx, Fault, Merge, Section, Slot};
use crate::server::clock::{self, Moment};
use crate::server::log_file::LogFile;

/// The cache of a block and of those inside it; `None`: each line opens its log.
#[derive(Clone, Debug)]
pub(super) struct OpenFiles(pub(super) Option<Arc<Cache>>);

impl Section for OpenFiles {
    type Raw = Option<Self>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        raw.clone().or_else(|| parent.cloned()).unwrap_or(Self(None))
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// Logs that are open.
#[derive(Debug)]
pub(super) struct Cache {
    bounds: Bounds,
    files: Mutex<HashMap<Bytes, Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    max: usize,
    inactive: Duration,
    min_uses: u64,
    valid: Duration,
}

#[derive(Debug)]
struct Entry {
    file: Arc<LogFile>,
    /// When it was last seen that the path leads to it.
    checked: Moment,
    used: Moment,
    uses: u64,
}

pub(super) fn open_log_file_cache(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if cx.edit::<OpenFiles>().is_some() {
        return Err(call.duplicate());
    }
    let (mut is_off, mut max) = (false, 0);
    let mut bounds = Bounds { max: 0, inactive: Duration::from_secs(10), min_uses: 1, valid: Duration::from_secs(60) };
    for index in 0..call.len() {
        let word = call.text(index);
        let value = match word.split_once('=') {
            Some(("max", value)) => parse_number(value.as_bytes()).filter(|n| *n > 0).map(|n| max = n),
            Some(("inactive", value)) => {
                parse_sec(value.as_bytes()).map(|time| bounds.inactive = Duration::from_secs(time))
            }
            Some(("min_uses", value)) => parse_number(value.as_bytes()).map(|uses| bounds.min_uses = uses),
            Some(("valid", value)) => parse_sec(value.as_bytes()).map(|time| bounds.valid = Duration::from_secs(time)),
            None if word == "off" => {
                is_off = true;
                Some(())
            }
            _ => None,
        };
        value.ok_or_else(|| Fault::new(format!("invalid \"open_log_file_cache\" parameter \"{word}\"")).word(index))?;
    }
    if !is_off && max == 0 {
        return Err(Fault::new("\"open_log_file_cache\" must have \"max\" parameter"));
    }
    bounds.max = usize::try_from(max).unwrap_or(usize::MAX);
    let cache = (!is_off).then(|| Arc::new(Cache { bounds, files: Mutex::default() }));
    *cx.edit::<OpenFiles>() = Some(OpenFiles(cache));
    Ok(())
}

impl Cache {
    /// The log of a path, opened if it is not open.
    pub(super) fn open(&self, path: &Bytes) -> io::Result<Arc<LogFile>> {
        let now = clock::now();
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |entry: &Entry| now.since(entry.checked) < self.bounds.valid;
        if let Some(entry) = files.get_mut(path) {
            if !is_fresh(entry) {
                // What was moved away is let go.
                entry.file.reopen()?;
                entry.checked = now;
            }
            entry.used = now;
            entry.uses += 1;
            return Ok(Arc::clone(&entry.file));
        }
        let file = open(path)?;
        let is_idle =
            |entry: &Entry| now.since(entry.used) >= self.bounds.inactive || entry.uses < self.bounds.min_uses;
        if files.len() >= self.bounds.max {
            files.retain(|_, entry| !is_idle(entry));
        }
        if files.len() >= self.bounds.max
            && let Some(oldest) = files.iter().min_by_key(|(_, entry)| entry.used).map(|(path, _)| path.clone())
        {
            files.remove(&oldest);
        }
        files.insert(path.clone(), Entry { file: Arc::clone(&file), checked: now, used: now, uses: 1 });
        Ok(file)
    }
}

/// Opens the log of a path.
pub(super) fn open(path: &[u8]) -> io::Result<Arc<LogFile>> {
    let file = LogFile::at(Path::new(std::ffi::OsStr::from_bytes(path)));
    file.open()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn words() {
        let check = |words: &str, expected: &[&str]| {
            assert_eq!(findings(&format!("open_log_file_cache {words};")), expected, "{words}");
        };
        check("off", &[]);
        check("max=10 inactive=20s valid=1m min_uses=2", &[]);
        check("max=0", &["invalid \"open_log_file_cache\" parameter \"max=0\""]);
        check("max=1 valid=x", &["invalid \"open_log_file_cache\" parameter \"valid=x\""]);
        check("max=1 colour", &["invalid \"open_log_file_cache\" parameter \"colour\""]);
        check("valid=1s", &["\"open_log_file_cache\" must have \"max\" parameter"]);
    }

    #[test]
    fn no_more_are_open_than_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds { max: 2, inactive: Duration::from_secs(60), min_uses: 1, valid: Duration::from_secs(60) };
        let cache = Cache { bounds, files: Mutex::default() };
        let open = |name: &str| {
            let path = Bytes::copy_from_slice(folder.path().join(name).as_os_str().as_bytes());
            Arc::downgrade(&cache.open(&path).unwrap())
        };
        let (a, b) = (open("a"), open("b"));
        assert!(a.ptr_eq(&open("a")));
        let c = open("c");
        let is_open = [&a, &b, &c].map(|file| file.strong_count() > 0);
        assert_eq!(is_open, [true, false, true]);
    }
}
