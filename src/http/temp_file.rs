//! Temporary files for bodies that are too long for memory, or are to be files. They are named and spread over folders as
//! nginx's are; one that nobody is to find loses its name at once, and goes with whoever holds it.

use std::cell::Cell;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::value::{Value, parse_number};
use crate::config::{Args, Call, Cx, Fault, FolderDef};
use crate::server::sockets;

/// Where temporary files are: `client_body_temp_path` and its like.
#[derive(Clone, Debug, Default)]
pub struct TempPath {
    folder: PathBuf,
    /// How many digits of a file's number name the folders that it is in, from the last digit on.
    levels: Vec<usize>,
}

impl Value for TempPath {
    const ARGS: Args = Args::between(1, 4);
    const SYNTAX: &'static str = "path [level1 [level2 [level3]]]";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let mut levels = Vec::new();
        for index in 1..call.len() {
            let level = parse_number(call.bytes(index)).filter(|level| *level > 0);
            let level = level.and_then(|level| usize::try_from(level).ok());
            levels.push(level.ok_or_else(|| call.fault("invalid value").word(index))?);
        }
        if levels.iter().fold(0, |sum: usize, level| sum.saturating_add(*level)) > DIGITS {
            return Err(call.fault("invalid value"));
        }
        let folder = cx.options().full_path(&call.text(0));
        cx.model().folders.push(FolderDef { path: folder.clone(), levels: levels.clone(), at: call.at() });
        Ok(Self { folder, levels })
    }

    fn from_default(text: &'static str) -> Self {
        Self { folder: text.into(), levels: Vec::new() }
    }
}

/// How many digits the name of a file has.
const DIGITS: usize = 10;

impl TempPath {
    /// The file of a number: `FOLDER/3/02/0000000023` with the levels 1 and 2.
    fn file(&self, number: u32) -> PathBuf {
        let name = format!("{number:0DIGITS$}");
        let mut path = self.folder.clone();
        let mut end = DIGITS;
        for level in &self.levels {
            path.push(&name[end - level..end]);
            end -= level;
        }
        path.push(name);
        path
    }

    /// Makes the folders of a file, but not the one that is configured.
    fn make_folders(&self, file: &Path) -> Result<(), Failed> {
        let Some(folder) = file.parent() else { return Ok(()) };
        let made = match self.folder.is_dir() {
            true => DirBuilder::new().recursive(true).mode(0o700).create(folder),
            false => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        };
        made.map_err(|error| failed("mkdir", folder, error))
    }
}

/// For how long a file can be found under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// Not at all.
    No,
    /// Until nobody holds it any more.
    WhileHeld,
    /// For good.
    Always,
}

/// A temporary file.
#[derive(Debug)]
pub struct TempFile {
    file: File,
    path: PathBuf,
    stay: Stay,
    has_moved: Cell<bool>,
}

/// What could not be done with one: `open() "PATH" failed (13: Permission denied)`.
#[derive(Debug, thiserror::Error)]
#[error("{}", sockets::failed_on(call, path, error))]
pub(super) struct Failed {
    call: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl TempFile {
    /// Makes one, in the system's own folder where no other is given.
    pub(super) fn create(place: Option<&TempPath>, stay: Stay) -> Result<Self, Failed> {
        let system;
        let place = match place {
            Some(place) => place,
            None => {
                system = TempPath { folder: std::env::temp_dir(), levels: Vec::new() };
                &system
            }
        };
        let mut step = 1;
        loop {
            let path = place.file(next_number(step));
            let made = match open_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !place.levels.is_empty() => {
                    place.make_folders(&path)?;
                    open_new(&path)
                }
                made => made,
            };
            match made {
                Ok(file) => {
                    if stay == Stay::No {
                        std::fs::remove_file(&path).map_err(|error| failed("unlink", &path, error))?;
                    }
                    return Ok(Self { file, path, stay, has_moved: Cell::new(false) });
                }
                // Another program has a file of that number, perhaps the one that this one was before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => step = FAR,
                Err(error) => return Err(Failed { call: "open", path, error }),
            }
        }
    }

    /// The name that it was made with.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes at a place.
    pub(super) fn write(&self, bytes: &[u8], at: u64) -> Result<(), Failed> {
        self.file.write_all_at(bytes, at).map_err(|error| failed("pwrite", &self.path, error))
    }

    /// Reads from a place as much as there is room for.
    pub(super) fn read(&self, bytes: &mut [u8], at: u64) -> Result<(), Failed> {
        self.file.read_exact_at(bytes, at).map_err(|error| failed("pread", &self.path, error))
    }

    /// Gives it a name of its own, under which it stays.
    pub(super) fn rename(&self, to: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, to)?;
        self.has_moved.set(true);
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if self.stay == Stay::WhileHeld && !self.has_moved.get() {
            // One that somebody else has taken away is gone as well.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn failed(call: &'static str, path: &Path, error: io::Error) -> Failed {
    Failed { call, path: path.to_owned(), error }
}

fn open_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// How far the next number is after one that was taken, as in nginx.
const FAR: u32 = 123_456;

fn next_number(step: u32) -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    LAST.fetch_add(step, Ordering::Relaxed).wrapping_add(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    fn place(levels: &[usize]) -> (tempfile::TempDir, TempPath) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = TempPath { folder: folder.path().to_owned(), levels: levels.to_vec() };
        (folder, path)
    }

    #[test]
    fn it_keeps_bytes_and_has_no_name() {
        let (folder, place) = place(&[]);
        let file = TempFile::create(Some(&place), Stay::No).expect("a file");
        file.write(b"abc", 5).expect("written");
        let mut bytes = [0; 3];
        file.read(&mut bytes, 5).expect("read");
        assert_eq!(&bytes, b"abc");
        assert_eq!(folder.path().read_dir().expect("listed").count(), 0);
        assert!(file.path().starts_with(folder.path()));
    }

    #[test]
    fn names() {
        let check = |levels: &[usize], expected: &str| {
            let place = TempPath { folder: "/f".into(), levels: levels.to_vec() };
            assert_eq!(place.file(1_234_567_890), Path::new(expected));
        };
        check(&[], "/f/1234567890");
        check(&[1, 2], "/f/0/89/1234567890");
        check(&[5, 5], "/f/67890/12345/1234567890");
    }

    #[test]
    fn it_stays_as_long_as_it_is_to() {
        let (_folder, place) = place(&[1, 2]);
        let held = TempFile::create(Some(&place), Stay::WhileHeld).expect("a file");
        let path = held.path().to_owned();
        assert!(path.exists());
        drop(held);
        assert!(!path.exists() && path.parent().is_some_and(Path::exists), "its folders stay");
        let kept = TempFile::create(Some(&place), Stay::Always).expect("a file");
        let path = kept.path().to_owned();
        drop(kept);
        assert!(path.exists());
    }

    #[test]
    fn a_number_that_is_taken_is_passed_over() {
        let (_folder, place) = place(&[]);
        let next = TempFile::create(Some(&place), Stay::No).expect("a file");
        let next: u32 = next.path().file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a number");
        // Other tests take numbers, too.
        for number in 0..500 {
            File::create(place.file(next + 1 + number)).expect("a file of another program");
        }
        TempFile::create(Some(&place), Stay::No).expect("a file");
    }

    #[test]
    fn a_folder_that_is_gone_is_not_made_anew() {
        let (folder, place) = place(&[1]);
        drop(folder);
        let error = TempFile::create(Some(&place), Stay::No).expect_err("no folder").to_string();
        assert!(error.starts_with("mkdir() \"") && error.ends_with("(2: No such file or directory)"), "{error}");
    }

    #[test]
    fn words() {
        let check = |levels: &str, expected: &[&str]| {
            assert_eq!(findings(&format!("client_body_temp_path b {levels};")), expected, "{levels}");
        };
        check("", &[]);
        check("1 2 3", &[]);
        check("5 5", &[]);
        for wrong in ["0", "x", "11", "6 4 1"] {
            check(wrong, &["\"client_body_temp_path\" directive invalid value"]);
        }
    }
}
