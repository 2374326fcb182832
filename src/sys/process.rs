//! The process: who it runs as, its limits, its place in the background.

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;

/// The number of this thread, as the kernel counts.
pub fn thread_id() -> i32 {
    // SAFETY: `gettid` has no arguments and can't fail.
    unsafe { libc::gettid() }
}

/// The user and group of a name; `None`: there is no such user.
pub fn user_ids(name: &str) -> Option<(u32, u32)> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with NUL; the entry is read before any other call could overwrite it, on the one thread
    // that loads the configuration.
    unsafe {
        let entry = libc::getpwnam(name.as_ptr());
        entry.as_ref().map(|entry| (entry.pw_uid, entry.pw_gid))
    }
}

/// The group of a name; `None`: there is no such group.
pub fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: as in `user_ids`.
    unsafe {
        let entry = libc::getgrnam(name.as_ptr());
        entry.as_ref().map(|entry| entry.gr_gid)
    }
}

/// Makes this thread, and those that it starts, another user's for good, if it is root's. The other threads stay as they
/// are: Linux keeps credentials by thread, and only libc's wrappers change all of them together.
pub fn drop_thread_privileges(name: &str, uid: u32, gid: u32) -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let groups = supplementary_groups(name, gid)?;
    // SAFETY: the calls take numbers and a list that lives through the call; they change this thread's credentials only.
    unsafe {
        check_call(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check_call(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check_call(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        // The kernel leaves no core file of a process that has changed its user, unless it says that it wants one.
        check(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0))
    }
}

/// The groups that a user is in.
fn supplementary_groups(name: &str, gid: u32) -> io::Result<Vec<libc::gid_t>> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut groups = vec![0; 64];
    loop {
        let mut count = i32::try_from(groups.len()).unwrap_or(i32::MAX);
        // SAFETY: the name ends with NUL, and the list is as long as `count` says.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &mut count) };
        let needed = usize::try_from(count).unwrap_or(0);
        if result >= 0 || needed <= groups.len() {
            groups.truncate(needed);
            return Ok(groups);
        }
        groups.resize(needed, 0);
    }
}

/// What the kernel bounds for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Open files (`worker_rlimit_nofile`).
    Files,
    /// Bytes of a core file (`worker_rlimit_core`).
    Core,
}

/// Sets a limit of the process.
pub fn set_limit(what: Limit, limit: u64) -> io::Result<()> {
    let what = match what {
        Limit::Files => libc::RLIMIT_NOFILE,
        Limit::Core => libc::RLIMIT_CORE,
    };
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: the struct lives through the call.
    check(unsafe { libc::setrlimit(what, &limit) })
}

/// Sends a signal to a process.
pub fn signal(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes two numbers.
    check(unsafe { libc::kill(pid, signal) })
}

/// Signals that wait, on this thread and those that it starts meanwhile, until this value goes. Then this thread gets
/// them, even if whoever started the program held them back, as nginx does from the program that takes over from it.
#[derive(Debug)]
pub struct HeldSignals {
    held: libc::sigset_t,
    /// The mask is the thread's, and so is this.
    on_thread: PhantomData<*const ()>,
}

impl HeldSignals {
    /// Holds these signals back.
    pub fn hold(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: the set is plain data that lives through the calls; `sigemptyset` makes a valid one.
        unsafe {
            let mut held = std::mem::zeroed();
            libc::sigemptyset(&mut held);
            for signal in signals {
                libc::sigaddset(&mut held, *signal);
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, &held, std::ptr::null_mut()) {
                0 => Ok(Self { held, on_thread: PhantomData }),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // SAFETY: the set is valid. The call can't fail with a valid set and way.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &self.held, std::ptr::null_mut()) };
    }
}

/// Goes into the background: the parent ends, the child goes on in a session of its own, with standard input and
/// output on `/dev/null`. To be called while there is one thread.
pub fn daemonize() -> io::Result<()> {
    // SAFETY: there is one thread yet, so the child has everything that it needs; the descriptors are checked.
    unsafe {
        match libc::fork() {
            -1 => return Err(io::Error::last_os_error()),
            0 => {}
            _ => libc::_exit(0),
        }
        if libc::setsid() == -1 {
            return Err(io::Error::last_os_error());
        }
        libc::umask(0);
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        if null == -1 {
            return Err(io::Error::last_os_error());
        }
        check(libc::dup2(null, libc::STDIN_FILENO).min(0))?;
        check(libc::dup2(null, libc::STDOUT_FILENO).min(0))?;
        if null > libc::STDERR_FILENO {
            libc::close(null);
        }
    }
    Ok(())
}

fn check_call(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets a child end (by SIGINT) when the thread that starts it ends, however it ends.
pub fn die_with_parent(command: &mut std::process::Command) {
    // SAFETY: the closure runs between fork and exec and makes one system call with constant arguments.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(command, || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT))
        });
    }
}

/// Whether root runs the process.
pub fn is_root() -> bool {
    // SAFETY: `geteuid` has no arguments and can't fail.
    unsafe { libc::geteuid() == 0 }
}

/// The machine's name in lower case, as nginx has it.
pub fn host_name() -> String {
    let mut name = [0u8; 256];
    // SAFETY: the buffer lives through the call, and its length is given; the last byte stays NUL.
    let result = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(0);
    if result == 0 { String::from_utf8_lossy(&name[..end]).to_ascii_lowercase() } else { String::new() }
}
