//! The time of day in the zone of the machine.

use std::cell::Cell;

use crate::sys;

/// A second, in local time.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalTime {
    seconds: i64,
    fields: sys::LocalFields,
}

/// A second in local time; asked of the system once a second.
pub fn now(seconds: i64) -> LocalTime {
    thread_local! {
        static LAST: Cell<LocalTime> = Cell::default();
    }
    let last = LAST.get();
    if last.seconds == seconds {
        return last;
    }
    let time = LocalTime { seconds, fields: sys::local_time(seconds) };
    LAST.set(time);
    time
}

impl LocalTime {
    /// The form of the error log: `2026/11/23 06:28:03`.
    pub fn log(&self) -> String {
        let fields = &self.fields;
        format!(
            "{:04}/{:02}/{:02} {:02}:{:02}:{:02}",
            fields.year, fields.month, fields.day, fields.hour, fields.minute, fields.second
        )
    }

    /// The form of syslog (RFC 3164): `Nov  3 06:28:03`.
    pub fn syslog(&self) -> String {
        let text = sys::format_time(self.seconds, sys::Zone::Local, b"%b %e %H:%M:%S", 32);
        String::from_utf8(text.unwrap_or_default()).unwrap_or_default()
    }

    /// Seconds since the day began.
    pub fn since_midnight(&self) -> i64 {
        let fields = &self.fields;
        i64::from(fields.hour * 3600 + fields.minute * 60 + fields.second)
    }

    /// How far the zone is ahead of UTC, in minutes.
    pub fn zone_minutes(&self) -> i32 {
        self.fields.zone_minutes
    }

    /// Seconds since the beginning of 1970.
    pub fn unix(&self) -> i64 {
        self.seconds
    }
}
