//! Times: `set_local_today`, `set_formatted_gmt_time`, `set_formatted_local_time`.

use bytes::Bytes;

use super::step::{In, Outcome};
use crate::server::clock;
use crate::sys::{Zone, format_time};

/// The result of a format is shorter than this.
const MAX: usize = 256;

/// `set_local_today`
pub(super) fn local_today(_: In<'_>) -> Outcome {
    formatted(b"%Y-%m-%d", Zone::Local)
}

/// `set_formatted_gmt_time`
pub(super) fn gmt(given: In<'_>) -> Outcome {
    formatted(given.text(), Zone::Gmt)
}

/// `set_formatted_local_time`
pub(super) fn local(given: In<'_>) -> Outcome {
    formatted(given.text(), Zone::Local)
}

fn formatted(format: &[u8], zone: Zone) -> Outcome {
    if format.is_empty() {
        return Ok(Bytes::new());
    }
    let text = format_time(clock::unix_seconds(), zone, format, MAX);
    text.map(Bytes::from).ok_or_else(|| format!("the time as \"{}\" is empty or too long", format.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let check = |format: &str, expected: Option<&str>| {
            let text = format_time(1_540_000_000, Zone::Gmt, format.as_bytes(), MAX);
            assert_eq!(text.as_deref(), expected.map(str::as_bytes), "{format}");
        };
        check("%Y-%m-%d %H:%M:%S %z %Z", Some("2018-10-20 01:46:40 +0000 GMT"));
        check("%a %b %e 100%%", Some("Sat Oct 20 100%"));
        check(&"x".repeat(255), Some(&"x".repeat(255)));
        check(&"x".repeat(256), None);
        check("%%", Some("%"));
        check("a\0b", Some("a"));
    }
}
