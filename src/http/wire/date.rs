//! Dates in the forms that HTTP and the logs want, from seconds since 1970; nothing here asks what time it is.

/// The length of an HTTP date.
pub const HTTP_DATE_LENGTH: usize = 29;

const DAYS: [&[u8; 3]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// A moment in the parts of the Gregorian calendar.
struct Calendar {
    year: i64,
    /// From 0.
    month: usize,
    day: i64,
    /// From Sunday.
    weekday: usize,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Calendar {
    fn at(seconds: i64) -> Self {
        // Past the year 9999 no form has room, so the last second of it stands for all later ones.
        let seconds = seconds.clamp(MIN_SECONDS, MAX_SECONDS);
        let (days, rest) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
        // Count from 1 March of the year 0, so that the leap day is the last of its year: in eras of 400 years.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = (march_month + 2) % 12;
        Self {
            year: year_of_era + era * 400 + i64::from(month < 2),
            month: month as usize,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            weekday: (days + 4).rem_euclid(7) as usize,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }
}

/// 0000-01-01 and 9999-12-31 23:59:59.
const MIN_SECONDS: i64 = -62_167_219_200;
const MAX_SECONDS: i64 = 253_402_300_799;

/// Seconds of a date that exists. `month` counts from 1.
fn seconds_of(year: i64, month: i64, day: i64, time: i64) -> i64 {
    let march_year = if month <= 2 { year - 1 } else { year };
    let march_month = (month + 9) % 12;
    let (era, year_of_era) = (march_year.div_euclid(400), march_year.rem_euclid(400));
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    days * 86400 + time
}

/// Writes the two digits of `value` at `at`.
fn put2(out: &mut [u8], at: usize, value: i64) {
    out[at] = b'0' + (value / 10 % 10) as u8;
    out[at + 1] = b'0' + (value % 10) as u8;
}

fn put4(out: &mut [u8], at: usize, value: i64) {
    put2(out, at, value / 100);
    put2(out, at + 2, value % 100);
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub fn http_date(seconds: i64) -> [u8; HTTP_DATE_LENGTH] {
    let date = Calendar::at(seconds);
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    out[..3].copy_from_slice(DAYS[date.weekday]);
    put2(&mut out, 5, date.day);
    out[8..11].copy_from_slice(MONTHS[date.month]);
    put4(&mut out, 12, date.year);
    put2(&mut out, 17, date.hour);
    put2(&mut out, 20, date.minute);
    put2(&mut out, 23, date.second);
    out
}

/// `10/Oct/2000:13:55:36 +0000` (`$time_local`), in a zone that many minutes east of Greenwich.
pub fn time_local(seconds: i64, zone_minutes: i32) -> [u8; 26] {
    let date = Calendar::at(seconds.saturating_add(i64::from(zone_minutes) * 60));
    let mut out = *b"01/Jan/1970:00:00:00 +0000";
    put2(&mut out, 0, date.day);
    out[3..6].copy_from_slice(MONTHS[date.month]);
    put4(&mut out, 7, date.year);
    put2(&mut out, 12, date.hour);
    put2(&mut out, 15, date.minute);
    put2(&mut out, 18, date.second);
    let zone = i64::from(zone_minutes.unsigned_abs());
    out[21] = if zone_minutes < 0 { b'-' } else { b'+' };
    put2(&mut out, 22, zone / 60);
    put2(&mut out, 24, zone % 60);
    out
}

/// `2000-10-10T13:55:36+00:00` (`$time_iso8601`), in a zone that many minutes east of Greenwich.
pub fn time_iso8601(seconds: i64, zone_minutes: i32) -> [u8; 25] {
    let date = Calendar::at(seconds.saturating_add(i64::from(zone_minutes) * 60));
    let mut out = *b"1970-01-01T00:00:00+00:00";
    put4(&mut out, 0, date.year);
    put2(&mut out, 5, date.month as i64 + 1);
    put2(&mut out, 8, date.day);
    put2(&mut out, 11, date.hour);
    put2(&mut out, 14, date.minute);
    put2(&mut out, 17, date.second);
    let zone = i64::from(zone_minutes.unsigned_abs());
    out[19] = if zone_minutes < 0 { b'-' } else { b'+' };
    put2(&mut out, 20, zone / 60);
    put2(&mut out, 23, zone % 60);
    out
}

/// Parses the three forms of HTTP (RFC 1123, RFC 850, asctime), as loosely as nginx does.
pub fn parse_http_date(text: &[u8]) -> Option<i64> {
    // The weekday ends with a comma, except in asctime's form, where it ends with a blank.
    let stop = text.iter().position(|&ch| ch == b',' || ch == b' ')?;
    let asctime = text[stop] == b' ';
    let mut rest = Reader(trim_start(&text[stop + 1..]));
    let (year, month, day, time);
    if asctime {
        month = rest.month()?;
        // nginx does not look at the byte after the month; one blank may pad the day.
        rest.0 = rest.0.get(1..)?;
        rest.0 = rest.0.strip_prefix(b" ").unwrap_or(rest.0);
        day = match rest.0 {
            [_, b' ', ..] => rest.digits(1)?,
            _ => rest.digits(2)?,
        };
        rest.expect(b' ')?;
        time = rest.time()?;
        rest.expect(b' ')?;
        year = rest.digits(4)?;
    } else {
        day = rest.digits(2)?;
        let separator = *rest.0.first()?;
        if separator != b' ' && separator != b'-' {
            return None;
        }
        rest.expect(separator)?;
        month = rest.month()?;
        rest.expect(separator)?;
        year = if separator == b'-' {
            let short = rest.digits(2)?;
            short + if short < 70 { 2000 } else { 1900 }
        } else {
            rest.digits(4)?
        };
        rest.expect(b' ')?;
        time = rest.time()?;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last_day = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    // Day 0 passes, as it does there.
    (day <= last_day).then(|| seconds_of(year, month, day, time))
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|&&ch| ch == b' ').count();
    &text[blanks..]
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn expect(&mut self, ch: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[ch])?;
        Some(())
    }

    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits.iter().try_fold(0, |value, ch| ch.is_ascii_digit().then(|| value * 10 + i64::from(ch - b'0')))
    }

    /// From 1. Looks, as nginx does, only at the letters that tell the months apart.
    fn month(&mut self) -> Option<i64> {
        let (name, rest) = self.0.split_at_checked(3)?;
        self.0 = rest;
        Some(match name {
            [b'J', b'a', _] => 1,
            [b'J', _, b'n'] => 6,
            [b'J', ..] => 7,
            [b'F', ..] => 2,
            [b'M', _, b'r'] => 3,
            [b'M', ..] => 5,
            [b'A', b'p', _] => 4,
            [b'A', ..] => 8,
            [b'S', ..] => 9,
            [b'O', ..] => 10,
            [b'N', ..] => 11,
            [b'D', ..] => 12,
            _ => return None,
        })
    }

    /// `hh:mm:ss` in seconds.
    fn time(&mut self) -> Option<i64> {
        let hour = self.digits(2)?;
        self.expect(b':')?;
        let minute = self.digits(2)?;
        self.expect(b':')?;
        let second = self.digits(2)?;
        (hour <= 23 && minute <= 59 && second <= 59).then_some(hour * 3600 + minute * 60 + second)
    }
}

/// The text of the current second, made once for all who ask within it.
#[derive(Clone, Debug)]
pub struct DateCache {
    second: i64,
    text: [u8; HTTP_DATE_LENGTH],
}

impl Default for DateCache {
    fn default() -> Self {
        Self { second: 0, text: http_date(0) }
    }
}

impl DateCache {
    /// The HTTP date of `second`.
    #[inline]
    pub fn at(&mut self, second: i64) -> &[u8; HTTP_DATE_LENGTH] {
        if self.second != second {
            self.second = second;
            self.text = http_date(second);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).expect("dates are ASCII")
    }

    #[test]
    fn forms() {
        for (seconds, expected) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
            (i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(text(&http_date(seconds)), expected);
            assert_eq!(text(DateCache::default().at(seconds)), expected);
        }
        assert_eq!(text(&time_local(971_186_136, 0)), "10/Oct/2000:13:55:36 +0000");
        assert_eq!(text(&time_local(971_186_136, -210)), "10/Oct/2000:10:25:36 -0330");
        assert_eq!(text(&time_iso8601(971_186_136, 120)), "2000-10-10T15:55:36+02:00");
    }

    #[test]
    fn parsing() {
        for (date, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Sun Nov 6 08:49:37 1994", Some(784_111_777)),
            ("Sun Nov 16 08:49:37 1994", Some(784_975_777)),
            ("Sun,06 Nov 1994 08:49:37", Some(784_111_777)),
            ("Sun, 06 No- 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sun, 06 nov 1994 08:49:37 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", Some(783_593_377)),
            ("Sun, 30 Feb 1994 08:49:37 GMT", None),
            ("Sun, 29 Feb 1900 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("Sun, 06 Nov 94 08:49:37 GMT", None),
            ("Sun, 6 Nov 1994 08:49:37 GMT", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(parse_http_date(date.as_bytes()), expected, "{date}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in MIN_SECONDS..MAX_SECONDS) {
            prop_assert_eq!(parse_http_date(&http_date(seconds)), Some(seconds));
        }

        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_http_date(&data);
        }
    }
}
