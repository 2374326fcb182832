//! Log files: opened once for each path, reopened on request, written to by all threads.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use arc_swap::ArcSwapOption;

/// A file that lines are appended to.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: ArcSwapOption<File>,
}

/// There is one for each path.
impl PartialEq for LogFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for LogFile {}

static FILES: LazyLock<Mutex<HashMap<PathBuf, Weak<LogFile>>>> = LazyLock::new(Mutex::default);

impl LogFile {
    /// The file of a path; the same for all who name it. It is not opened yet.
    pub fn at(path: &Path) -> Arc<Self> {
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(path).and_then(Weak::upgrade) {
            return file;
        }
        let file = Arc::new(Self { path: path.to_owned(), file: ArcSwapOption::empty() });
        files.retain(|_, file| file.strong_count() > 0);
        files.insert(path.to_owned(), Arc::downgrade(&file));
        file
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it, unless it is open.
    pub fn open(&self) -> io::Result<()> {
        if self.file.load().is_some() { Ok(()) } else { self.reopen() }
    }

    /// Opens it anew, so that a file that was moved away is let go. On an error the old one is kept.
    pub fn reopen(&self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(&self.path)?;
        self.file.store(Some(Arc::new(file)));
        Ok(())
    }

    /// Appends a line in one write, so that lines of several threads don't mix. What can't be written is lost, as there
    /// is nowhere left to say so.
    pub fn write(&self, line: &[u8]) {
        if let Some(file) = &*self.file.load() {
            drop((&**file).write_all(line));
        }
    }

    /// Its descriptor, for the process's own standard error.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        match &*self.file.load() {
            Some(file) => Ok(file.try_clone()?.into()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// All log files that somebody still holds, in the order of their paths.
pub fn all() -> Vec<Arc<LogFile>> {
    let files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut files: Vec<_> = files.values().filter_map(Weak::upgrade).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}
