//! What a thread has for itself: processors, urgency, a working folder.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Lets this thread, and those that it starts, run on some processors only.
pub fn set_affinity(processors: &[usize]) -> io::Result<()> {
    // SAFETY: an all-zero set is a valid, empty one; numbers past its end are left out; it lives through the call.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for processor in processors.iter().filter(|processor| **processor < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(*processor, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets this thread's nice value: Linux keeps one for each.
pub fn set_priority(priority: i32) -> io::Result<()> {
    // SAFETY: the call takes numbers.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, priority) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Changes the working folder of this thread and those that it starts, and of no other.
pub fn change_folder(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the first call takes a number, and the path of the second ends with NUL.
    let result = unsafe { if libc::unshare(libc::CLONE_FS) == 0 { libc::chdir(path.as_ptr()) } else { -1 } };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
