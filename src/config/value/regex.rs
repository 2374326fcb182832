//! Regular expressions: PCRE's, with JIT and match limits.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use pcre2::bytes::RegexBuilder;
use smallvec::SmallVec;

use super::{Cx, Fault};
use crate::config::VarId;

/// Work that one match may cost before it is given up; PCRE's own default. An expression that needs more on some input
/// is one that a client could stall a worker with.
const MATCH_LIMIT: &str = "(*LIMIT_MATCH=1000000)(*LIMIT_DEPTH=100000)";

/// A compiled expression, cheap to clone.
#[derive(Clone)]
pub struct Regex {
    inner: Arc<Inner>,
}

struct Inner {
    pattern: String,
    caseless: bool,
    code: pcre2::bytes::Regex,
    /// The variables that named captures assign: the capture's number and the variable's.
    named: Vec<(usize, VarId)>,
}

/// What matched: the subject and the ranges in it.
#[derive(Clone, Debug, Default)]
pub struct Captures {
    subject: Bytes,
    ranges: SmallVec<[(u32, u32); 4]>,
}

const UNMATCHED: (u32, u32) = (u32::MAX, u32::MAX);

impl Regex {
    /// Compiles an expression. Named captures become variables.
    pub fn compile(pattern: &str, caseless: bool, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let code = RegexBuilder::new()
            .caseless(caseless)
            .jit_if_available(true)
            .build(&format!("{MATCH_LIMIT}{pattern}"))
            .map_err(|error| fault(pattern, &error))?;
        let names = code.capture_names().iter().enumerate();
        let names = names.filter_map(|(number, name)| Some((number, name.as_deref()?)));
        let named =
            names.map(|(number, name)| Ok((number, cx.variables().assigned(name)?))).collect::<Result<_, Fault>>()?;
        Ok(Self { inner: Arc::new(Inner { pattern: pattern.to_owned(), caseless, code, named }) })
    }

    /// The expression as it was written.
    pub fn pattern(&self) -> &str {
        &self.inner.pattern
    }

    /// Whether case does not matter.
    pub fn is_caseless(&self) -> bool {
        self.inner.caseless
    }

    /// How many numbered captures it has.
    pub fn capture_count(&self) -> usize {
        self.inner.code.captures_len() - 1
    }

    /// The variables that its named captures assign.
    pub fn named(&self) -> &[(usize, VarId)] {
        &self.inner.named
    }

    /// Whether a text matches. An error is a match that was given up.
    pub fn is_match(&self, subject: &[u8]) -> Result<bool, pcre2::Error> {
        self.inner.code.is_match(subject)
    }

    /// Matches a text. An error is a match that was given up.
    pub fn captures(&self, subject: &Bytes) -> Result<Option<Captures>, pcre2::Error> {
        let mut locations = self.inner.code.capture_locations();
        if self.inner.code.captures_read(&mut locations, subject)?.is_none() {
            return Ok(None);
        }
        let range = |number| match locations.get(number) {
            Some((start, end)) => (u32::try_from(start).unwrap_or(u32::MAX), u32::try_from(end).unwrap_or(u32::MAX)),
            None => UNMATCHED,
        };
        let ranges = (0..self.inner.code.captures_len()).map(range).collect();
        Ok(Some(Captures { subject: subject.clone(), ranges }))
    }
}

impl Captures {
    /// One of them; 0 is the whole match.
    pub fn get(&self, number: usize) -> Option<Bytes> {
        let (start, end) = *self.ranges.get(number).filter(|range| **range != UNMATCHED)?;
        Some(self.subject.slice(start as usize..end as usize))
    }

    /// Where one of them lies in the subject.
    pub fn range(&self, number: usize) -> Option<std::ops::Range<usize>> {
        let (start, end) = *self.ranges.get(number).filter(|range| **range != UNMATCHED)?;
        Some(start as usize..end as usize)
    }
}

/// nginx's words for an expression that does not compile.
fn fault(pattern: &str, error: &pcre2::Error) -> Fault {
    let text = error.to_string();
    let reason = text.rsplit_once(": ").map_or(text.as_str(), |(_, reason)| reason);
    let offset = error.offset().map_or(0, |offset| offset.saturating_sub(MATCH_LIMIT.len()));
    let at = pattern.get(offset..).filter(|at| !at.is_empty());
    let message = match at {
        None => format!("pcre2_compile() failed: {reason} in \"{pattern}\""),
        Some(at) => format!("pcre2_compile() failed: {reason} in \"{pattern}\" at \"{at}\""),
    };
    Fault::new(message).code("regex")
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~{}{}", if self.inner.caseless { "*" } else { "" }, self.inner.pattern)
    }
}
