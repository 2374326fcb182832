//! Opening a file from a folder that is open.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// Opens the file of a name, from a folder (`None`: the working folder), with the flags of `openat(2)`.
pub fn open_at(folder: Option<&File>, name: &[u8], flags: libc::c_int) -> io::Result<File> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    let folder = folder.map_or(libc::AT_FDCWD, AsRawFd::as_raw_fd);
    // SAFETY: the folder is borrowed for the call, and the name ends with NUL.
    let descriptor = unsafe { libc::openat(folder, name.as_ptr(), flags | libc::O_CLOEXEC) };
    if descriptor == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just opened it, so nothing else has it.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}
