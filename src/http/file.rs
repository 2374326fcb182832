//! Files as nginx opens them for an answer, and its words where that fails.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;

use super::open_files;
use super::request::Request;
use super::response::{Body, FileBody, Response};
use super::symlinks::Follow;
use super::wire::conditional::file_etag;
use crate::config::value::Flag;
use crate::server::log::Level;
use crate::settings;

settings! {
    /// How files are answered with.
    pub struct Files {
        /// Whether answers made of files have an `ETag`: the time of change and the length, in hexadecimal.
        "etag" HTTP_ALL = "on" => pub etag: Flag,
    }
}

/// Why a file can't be answered with.
#[derive(Debug)]
pub struct Failure {
    operation: &'static str,
    error: io::Error,
}

impl Failure {
    /// What failed in which system call.
    pub fn new(operation: &'static str, error: io::Error) -> Self {
        Self { operation, error }
    }

    /// Which system call it was.
    pub(super) fn operation(&self) -> &'static str {
        self.operation
    }

    /// The system's number of the error.
    pub fn errno(&self) -> i32 {
        self.error.raw_os_error().unwrap_or(0)
    }

    /// What the client gets.
    pub fn status(&self) -> u16 {
        match self.errno() {
            libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG => 404,
            libc::EACCES | libc::ELOOP | libc::EMLINK => 403,
            _ => 500,
        }
    }

    /// `(2: No such file or directory)`
    pub fn reason(&self) -> String {
        let text = self.error.to_string();
        let reason = text.split(" (os error").next().unwrap_or(&text);
        format!("({}: {reason})", self.errno())
    }

    /// Logs `open() "FILE" failed (2: No such file or directory)`.
    pub fn log(&self, request: &Request, path: &Path) {
        let level = if self.status() == 500 { Level::Crit } else { Level::Error };
        request.log(level, &self.message(path));
    }

    /// The same as critical, where only what is missing was expected.
    pub fn log_critical(&self, request: &Request, path: &Path) {
        request.log(Level::Crit, &self.message(path));
    }

    fn message(&self, path: &Path) -> String {
        format!("{}() \"{}\" failed {}", self.operation, path.display(), self.reason())
    }
}

/// What a path names.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Open to read; `None` for a folder, a pipe and the like.
    pub file: Option<Rc<File>>,
    /// What is known of it.
    pub metadata: Metadata,
}

/// Opens a file to read, or takes it from the cache of open files.
pub fn open(request: &Request, path: &Path) -> Result<Opened, Failure> {
    let follow = Follow::of(request, path);
    open_files::look(request, path, follow).unwrap_or_else(|| open_anew(path, follow))
}

/// Looks what a path names, in the cache of open files if there is one.
pub fn stat(request: &Request, path: &Path) -> Result<Metadata, Failure> {
    let follow = Follow::of(request, path);
    open_files::look(request, path, follow).map_or_else(|| stat_anew(path, follow), |opened| Ok(opened?.metadata))
}

/// Opens whatever a path names, to read. A pipe without a writer would block for good, were it not told not to.
pub fn open_plain(path: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    file.map_err(|error| Failure::new("open", error))
}

/// Opens a file to read.
pub(super) fn open_anew(path: &Path, follow: Follow) -> Result<Opened, Failure> {
    let file = if follow.is_any() { open_plain(path) } else { follow.open(path) }?;
    let metadata = file.metadata().map_err(|error| Failure::new("fstat", error))?;
    Ok(Opened { file: metadata.is_file().then(|| Rc::new(file)), metadata })
}

/// Looks what a path names.
pub(super) fn stat_anew(path: &Path, follow: Follow) -> Result<Metadata, Failure> {
    if !follow.is_any() {
        return Ok(open_anew(path, follow)?.metadata);
    }
    std::fs::metadata(path).map_err(|error| Failure::new("stat", error))
}

/// The answer that a file is, whole.
pub fn answer(request: &Request, file: Rc<File>, metadata: &Metadata, content_type: Bytes) -> Response {
    let (mtime, length) = (metadata.mtime(), metadata.len());
    Response {
        status: 200,
        content_type: Some(content_type),
        last_modified: Some(mtime),
        etag: request.settings::<Files>().etag.then(|| file_etag(mtime, length).into()),
        body: Body::File(FileBody { file, range: 0..length }),
        ..Response::default()
    }
}
