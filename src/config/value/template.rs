//! Texts with variables: what nginx calls complex values.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Call, Cx, Fault, Value};
use crate::config::{Position, VarId};

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text as it stands.
    Literal(Bytes),
    /// `$name` or `${name}`.
    Variable(VarId),
    /// `$1` to `$9`: a capture of the last regular expression that matched.
    Capture(u8),
}

/// A text with variables, cut into pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    parts: SmallVec<[Part; 2]>,
}

impl Template {
    /// A text without variables.
    pub fn literal(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        let mut parts = SmallVec::new();
        if !text.is_empty() {
            parts.push(Part::Literal(text));
        }
        Self { parts }
    }

    /// A text that is one piece.
    pub fn part(part: Part) -> Self {
        Self { parts: SmallVec::from_iter([part]) }
    }

    /// Cuts a text into pieces. `at` is where an unknown variable is reported.
    pub fn compile(text: &[u8], cx: &mut Cx<'_>, at: Option<Position>) -> Result<Self, Fault> {
        let mut parts = SmallVec::new();
        let mut rest = text;
        while let Some(dollar) = memchr::memchr(b'$', rest) {
            if dollar > 0 {
                parts.push(Part::Literal(Bytes::copy_from_slice(&rest[..dollar])));
            }
            let (part, after) = reference(&rest[dollar + 1..], cx, at)?;
            parts.push(part);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(Bytes::copy_from_slice(rest)));
        }
        Ok(Self { parts })
    }

    /// Cuts one of a directive's words into pieces.
    pub fn word(call: &Call<'_>, index: usize, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let at = call.word_at(index);
        Self::compile(call.bytes(index), cx, Some(at)).map_err(|fault| fault.word(index))
    }

    /// The same for a word that nginx looks into only for servers: a file without one may name any variable there.
    pub fn word_for_servers(call: &Call<'_>, index: usize, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let template = Self::word(call, index, cx)?;
        template.variables().for_each(|id| cx.variables().used_for_servers(id));
        Ok(template)
    }

    /// The pieces.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text, if it has no variables.
    pub fn constant(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(&[]),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = VarId> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(id) => Some(*id),
            Part::Literal(_) | Part::Capture(_) => None,
        })
    }
}

/// What follows a dollar sign, and the text after it.
fn reference<'t>(text: &'t [u8], cx: &mut Cx<'_>, at: Option<Position>) -> Result<(Part, &'t [u8]), Fault> {
    if let Some(digit @ b'1'..=b'9') = text.first() {
        return Ok((Part::Capture(digit - b'0'), &text[1..]));
    }
    let braced = text.first() == Some(&b'{');
    let text = if braced { &text[1..] } else { text };
    let length = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let (name, rest) = text.split_at(length);
    let name = String::from_utf8_lossy(name);
    let rest = match (braced, rest.split_first()) {
        (false, _) => rest,
        (true, Some((b'}', rest))) => rest,
        (true, _) => {
            return Err(Fault::new(format!("the closing bracket in \"{name}\" variable is missing")));
        }
    };
    if name.is_empty() {
        return Err(Fault::new("invalid variable name"));
    }
    Ok((Part::Variable(cx.variables().used(&name, at)), rest))
}

impl Value for Template {
    const SYNTAX: &'static str = "string";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        Self::word(call, 0, cx)
    }

    fn from_default(text: &'static str) -> Self {
        Self::literal(Bytes::from_static(text.as_bytes()))
    }
}
