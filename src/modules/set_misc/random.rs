//! Numbers and words by chance, and in turn: `set_random`, `set_secure_random_alphanum`, `set_secure_random_lcalpha`,
//! `set_rotate`.

use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use rand::Rng;

use super::step::{In, Outcome, destination};
use crate::config::value::{Part, Template, parse_number};
use crate::config::{Call, Cx, Fault, VarId};
use crate::http::rewrite::{Flow, Step, push_step};
use crate::http::{Next, Request};
use crate::server::log::Level;

/// `set_random`
pub(super) fn random(given: In<'_>) -> Outcome {
    let bound = |index, name: &str| {
        let text = given.at(index);
        parse_number(text).ok_or_else(|| format!("set_random: bad \"{name}\" argument: {}", text.escape_ascii()))
    };
    let (from, to) = (bound(0, "from")?, bound(1, "to")?);
    let number = rand::rng().random_range(from.min(to)..=from.max(to));
    Ok(number.to_string().into())
}

/// `set_secure_random_alphanum`
pub(super) fn alphanum(given: In<'_>) -> Outcome {
    word(given, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
}

/// `set_secure_random_lcalpha`
pub(super) fn lcalpha(given: In<'_>) -> Outcome {
    word(given, b"abcdefghijklmnopqrstuvwxyz")
}

/// Letters by chance, each as likely as the others.
fn word(given: In<'_>, letters: &[u8]) -> Outcome {
    const MAX: u64 = 64;
    let text = given.text();
    let length = parse_number(text).filter(|length| (1..=MAX).contains(length));
    let length = length.ok_or_else(|| format!("set_random: bad \"length\" argument: {}", text.escape_ascii()))?;
    let mut rng = rand::rng();
    let word: Vec<u8> = (0..length).map(|_| letters[rng.random_range(0..letters.len())]).collect();
    Ok(word.into())
}

/// `set_rotate`: the next number, from the variable's own or the one that the directive gave last.
///
/// Differs from the original: there each worker goes through the numbers by itself; here all go through them together.
struct Rotate {
    variable: VarId,
    current: Template,
    from: Template,
    to: Template,
    last: AtomicI64,
}

/// No number was given yet.
const NONE: i64 = i64::MIN;

/// Adds the step.
pub(super) fn rotate(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let variable = destination(cx, call)?;
    let current = Template::part(Part::Variable(variable));
    let (from, to) = (Template::word(call, 1, cx)?, Template::word(call, 2, cx)?);
    push_step(cx, Rotate { variable, current, from, to, last: AtomicI64::new(NONE) });
    Ok(())
}

impl Step for Rotate {
    fn run(&self, request: &mut Request) -> Flow {
        match self.next(request) {
            Ok(number) => {
                request.set_variable(self.variable, Some(Bytes::from(number.to_string())));
                Flow::On
            }
            Err(message) => {
                request.log(Level::Error, &message);
                Flow::End(Next::Status(500))
            }
        }
    }
}

impl Rotate {
    fn next(&self, request: &Request) -> Result<i64, String> {
        let bound = |template, name: &str| {
            let text = request.eval(template);
            number(&text)
                .ok_or_else(|| format!("set_rotate: bad \"{name}\" argument value: \"{}\"", text.escape_ascii()))
        };
        let (from, to) = (bound(&self.from, "from")?, bound(&self.to, "to")?);
        let (from, to) = (from.min(to), from.max(to));
        let text = request.eval(&self.current);
        let current = number(&text);
        if current.is_none() && !text.is_empty() {
            request.log(Level::Error, &format!("set_rotate: bad current value: \"{}\"", text.escape_ascii()));
        }
        let step = |last: i64| {
            let current = current.or_else(|| (last != NONE).then_some(last)).unwrap_or(from - 1);
            let next = current.saturating_add(1);
            if (from..=to).contains(&next) { next } else { from }
        };
        let update = |last| Some(step(last));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update).unwrap_or_else(|last| last);
        Ok(step(last))
    }
}

fn number(text: &[u8]) -> Option<i64> {
    parse_number(text).and_then(|number| i64::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let check = |from: &str, to: &str, allowed: std::ops::RangeInclusive<u64>| {
            for _ in 0..50 {
                let got = random(In::test(&[from.as_bytes(), to.as_bytes()])).unwrap();
                assert!(allowed.contains(&parse_number(&got).unwrap()), "{from} {to}: {got:?}");
            }
        };
        check("3", "5", 3..=5);
        check("5", "3", 3..=5);
        check("0", "9223372036854775807", 0..=i64::MAX as u64);
        for wrong in ["", "-1", "x", "9223372036854775808"] {
            let got = random(In::test(&[b"1", wrong.as_bytes()]));
            assert_eq!(got, Err(format!("set_random: bad \"to\" argument: {wrong}")));
        }
    }

    #[test]
    fn words() {
        for length in ["1", "64"] {
            let word = alphanum(In::test(&[length.as_bytes()])).unwrap();
            assert_eq!(word.len().to_string(), length);
            assert!(word.iter().all(u8::is_ascii_alphanumeric));
        }
        assert!(lcalpha(In::test(&[b"64"])).unwrap().iter().all(u8::is_ascii_lowercase));
        for wrong in ["0", "65", "-1", "x", ""] {
            assert_eq!(
                lcalpha(In::test(&[wrong.as_bytes()])),
                Err(format!("set_random: bad \"length\" argument: {wrong}"))
            );
        }
    }
}
