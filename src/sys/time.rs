//! Local time.

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
