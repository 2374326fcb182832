//! Descriptors that go from one program to the next.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Takes a descriptor that the program was started with, once; standard input, output and error are not for taking.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the call takes numbers; it fails if the descriptor is not open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and whoever started the program left it to it: nothing else in here has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets a program that is started have descriptors, under the same numbers.
pub fn hand_on(command: &mut Command, descriptors: Vec<RawFd>) {
    let keep = move || {
        for number in &descriptors {
            // SAFETY: the call takes numbers.
            if unsafe { libc::fcntl(*number, libc::F_SETFD, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec, and makes system calls only.
    unsafe { command.pre_exec(keep) };
}
