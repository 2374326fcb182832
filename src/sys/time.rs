//! Local time, and the clock that the system's own services go by.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Sets the zone of local time. To be called while there is one thread: others may read the environment.
pub fn set_zone(zone: &OsStr) {
    let Ok(zone) = CString::new(zone.as_bytes()) else { return };
    // SAFETY: there is one thread yet, and both texts end with NUL.
    unsafe {
        libc::setenv(c"TZ".as_ptr(), zone.as_ptr(), 1);
    }
}

/// The time of CLOCK_MONOTONIC: since some moment, the same for all processes.
pub fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct lives through the call, which can't fail with this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The parts of a local time.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct LocalFields {
    pub year: i32,
    pub month: i32,
    pub day: i32,
    pub hour: i32,
    pub minute: i32,
    pub second: i32,
    /// How far the zone is ahead of UTC.
    pub zone_minutes: i32,
}

/// A second since 1970 in the machine's zone (`TZ`, or the system's).
pub fn local_time(seconds: i64) -> LocalFields {
    // SAFETY: an all-zero `tm` is a valid value, and `localtime_r` writes only to the one that it is given.
    let tm = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        libc::localtime_r(&seconds, &mut tm);
        tm
    };
    LocalFields {
        year: tm.tm_year + 1900,
        month: tm.tm_mon + 1,
        day: tm.tm_mday,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
        zone_minutes: i32::try_from(tm.tm_gmtoff / 60).unwrap_or(0),
    }
}

/// In which zone a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// The machine's.
    Local,
    /// Greenwich.
    Gmt,
}

/// A second since 1970 in the form that `strftime` makes of a format. `None`: it is empty, or not shorter than `max`.
pub fn format_time(seconds: i64, zone: Zone, format: &[u8], max: usize) -> Option<Vec<u8>> {
    let end = format.iter().position(|byte| *byte == 0).unwrap_or(format.len());
    let format = CString::new(&format[..end]).ok()?;
    let mut text = vec![0u8; max];
    // SAFETY: an all-zero `tm` is a valid value, which the two functions fill in; `strftime` writes at most `max` bytes,
    // which the buffer has, and reads a format that ends with NUL.
    let length = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        match zone {
            Zone::Local => libc::localtime_r(&seconds, &mut tm),
            Zone::Gmt => libc::gmtime_r(&seconds, &mut tm),
        };
        libc::strftime(text.as_mut_ptr().cast(), max, format.as_ptr(), &tm)
    };
    text.truncate(length);
    (length > 0).then_some(text)
}
