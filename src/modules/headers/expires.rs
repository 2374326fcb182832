//! `expires`: how long an answer may be kept.

use bytes::Bytes;

use super::replace;
use crate::config::value::{Template, parse_sec};
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot};
use crate::http::wire::date::http_date;
use crate::http::{Request, Response};
use crate::server::{clock, local_time};

/// The row that this file brings.
pub(super) const COMMANDS: &[Directive] = &[Directive {
    name: "expires",
    contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION),
    args: Args::between(1, 2),
    once: true,
    syntax: "[modified] time | @time | epoch | max | off",
    default: "off",
    doc: "Sets `Expires` and `Cache-Control` of answers with the statuses of `add_header`. A time counts from now, or \
          from the answer's `Last-Modified` (`modified`); `@15h30m` is a time of day; `epoch` is long ago, `max` ten \
          years ahead, `off` changes nothing. It may be a variable.\n\nExample: `expires 30d;`",
    file: file!(),
    apply: expires,
    ..Directive::BASE
}];

const DAY: i64 = 24 * 60 * 60;

/// How long answers may be kept.
#[derive(Clone, Debug)]
pub(super) struct Expires {
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Known(When),
    /// Read for each answer; the flag is `modified`.
    Variable(Template, bool),
}

impl Expires {
    /// Whether anything is said about it.
    pub(super) fn is_on(&self) -> bool {
        self.rule != Rule::Known(When::Off)
    }
}

/// When an answer expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Off,
    Epoch,
    Max,
    /// Seconds from now.
    Access(i64),
    /// Seconds from the answer's time.
    Modified(i64),
    /// Seconds from midnight, local time.
    Daily(i64),
}

impl Section for Expires {
    type Raw = Option<Rule>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        let inherited = || parent.map_or(Rule::Known(When::Off), |parent| parent.rule.clone());
        Self { rule: raw.clone().unwrap_or_else(inherited) }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn expires(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let is_modified = call.len() == 2;
    if is_modified && call.bytes(0) != b"modified" {
        return Err(Fault::new(format!("invalid value \"{}\"", call.text(0))).word(0).help("it may be: modified"));
    }
    let last = call.len() - 1;
    let template = Template::word(call, last, cx)?;
    let rule = match template.constant() {
        None => Rule::Variable(template, is_modified),
        Some(text) => Rule::Known(When::parse(text, is_modified).map_err(|words| call.fault(words).word(last))?),
    };
    *cx.edit::<Expires>() = Some(rule);
    Ok(())
}

impl When {
    /// Reads the word; an error is nginx's words for it.
    fn parse(text: &[u8], is_modified: bool) -> Result<Self, &'static str> {
        match text {
            b"epoch" if !is_modified => return Ok(Self::Epoch),
            b"max" if !is_modified => return Ok(Self::Max),
            b"off" if !is_modified => return Ok(Self::Off),
            [b'@', ..] if is_modified => return Err("daily time cannot be used with \"modified\" parameter"),
            _ => {}
        }
        let (sign, digits) = match text {
            [b'@' | b'+', digits @ ..] => (1, digits),
            [b'-', digits @ ..] => (-1, digits),
            digits => (1, digits),
        };
        let seconds = parse_sec(digits).and_then(|seconds| i64::try_from(seconds).ok()).ok_or("invalid value")?;
        match text.first() {
            Some(b'@') if seconds > DAY => Err("daily time value must be less than 24 hours"),
            Some(b'@') => Ok(Self::Daily(seconds)),
            _ if is_modified => Ok(Self::Modified(sign * seconds)),
            _ => Ok(Self::Access(sign * seconds)),
        }
    }

    /// The moment, and the seconds until then (negative: it must not be kept); `None`: nothing is set.
    fn moment(self, now: i64, since_midnight: i64, last_modified: Option<i64>) -> Option<(i64, i64)> {
        const LONG_AGO: i64 = 1;
        /// Thu, 31 Dec 2037 23:55:55 GMT
        const LONG_HENCE: i64 = 2_145_916_555;
        const TEN_YEARS: i64 = 315_360_000;
        let from_now = |seconds: i64| {
            let age = if seconds < 0 { -1 } else { seconds };
            (now.saturating_add(seconds), age)
        };
        Some(match (self, last_modified) {
            (Self::Off, _) => return None,
            (Self::Epoch, _) => (LONG_AGO, -1),
            (Self::Max, _) => (LONG_HENCE, TEN_YEARS),
            (Self::Modified(0), _) => from_now(0),
            (Self::Access(seconds), _) | (Self::Modified(seconds), None) => from_now(seconds),
            (Self::Modified(seconds), Some(modified)) => {
                let moment = modified.saturating_add(seconds);
                (moment, if seconds < 0 { -1 } else { moment.saturating_sub(now) })
            }
            (Self::Daily(seconds), _) => {
                let today = now - since_midnight + seconds;
                let next = if today > now { today } else { today + DAY };
                (next, next - now)
            }
        })
    }
}

/// Sets the headers of an answer.
pub(super) fn set(request: &Request, response: &mut Response) {
    let when = match &request.settings::<Expires>().rule {
        Rule::Known(When::Off) => return,
        Rule::Known(when) => *when,
        // A value that can't be read sets nothing, as in nginx.
        Rule::Variable(template, is_modified) => {
            When::parse(&request.eval(template), *is_modified).unwrap_or(When::Off)
        }
    };
    let now = clock::unix_seconds();
    let since_midnight = match when {
        When::Daily(_) => local_time::now(now).since_midnight(),
        _ => 0,
    };
    let Some((moment, age)) = when.moment(now, since_midnight, response.last_modified) else { return };
    replace(response, "Expires", Bytes::copy_from_slice(&http_date(moment)));
    let cache_control = if age < 0 { "no-cache".into() } else { format!("max-age={age}").into() };
    replace(response, "Cache-Control", cache_control);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let check = |text: &str, is_modified, expected| {
            assert_eq!(When::parse(text.as_bytes(), is_modified), expected, "{text} {is_modified}");
        };
        check("1h", false, Ok(When::Access(3600)));
        check("+1h", true, Ok(When::Modified(3600)));
        check("-1h", false, Ok(When::Access(-3600)));
        check("epoch", false, Ok(When::Epoch));
        check("max", false, Ok(When::Max));
        check("off", false, Ok(When::Off));
        check("off", true, Err("invalid value"));
        check("@15h30m", false, Ok(When::Daily(55_800)));
        check("@24h", false, Ok(When::Daily(DAY)));
        check("@25h", false, Err("daily time value must be less than 24 hours"));
        check("@1h", true, Err("daily time cannot be used with \"modified\" parameter"));
        check("abc", false, Err("invalid value"));
        check("", false, Err("invalid value"));
    }

    #[test]
    fn moments() {
        let check = |when: When, last_modified, expected| {
            assert_eq!(when.moment(1_000_000, 50_000, last_modified), expected, "{when:?}");
        };
        check(When::Off, None, None);
        check(When::Epoch, None, Some((1, -1)));
        check(When::Max, None, Some((2_145_916_555, 315_360_000)));
        check(When::Access(60), None, Some((1_000_060, 60)));
        check(When::Access(0), None, Some((1_000_000, 0)));
        check(When::Access(-60), None, Some((999_940, -1)));
        check(When::Modified(60), Some(999_990), Some((1_000_050, 50)));
        check(When::Modified(60), Some(5), Some((65, -999_935)));
        check(When::Modified(60), None, Some((1_000_060, 60)));
        check(When::Daily(50_001), None, Some((1_000_001, 1)));
        check(When::Daily(50_000), None, Some((1_086_400, DAY)));
    }
}
