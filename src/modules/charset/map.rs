//! `charset_map`: how characters of one charset are written in another.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::config::{Call, Cx, Fault, Merge, Section, Slot};

/// One `charset_map` as written.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    from: Vec<u8>,
    to: Vec<u8>,
    characters: Vec<(u8, Character)>,
}

/// A character's bytes.
pub(super) type Character = SmallVec<[u8; 4]>;

/// The maps of the `http` block.
#[derive(Clone, Debug)]
pub(super) struct Maps {
    maps: Arc<[Both]>,
}

#[derive(Debug)]
struct Both {
    from: Vec<u8>,
    to: Vec<u8>,
    forth: Map,
    back: Map,
}

/// One direction of a map; cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Map {
    /// Byte for byte.
    Bytes(Arc<[u8; 256]>),
    /// From bytes to characters of utf-8.
    ToUtf8(Arc<[Character]>),
    /// From characters of utf-8 to bytes.
    FromUtf8(Arc<HashMap<char, u8>>),
}

impl Definition {
    /// Whether the map is between these, one way or the other.
    pub(super) fn joins(&self, one: &[u8], other: &[u8]) -> bool {
        let is = |from: &[u8], to: &[u8]| self.from.eq_ignore_ascii_case(from) && self.to.eq_ignore_ascii_case(to);
        is(one, other) || is(other, one)
    }

    fn is_utf8(&self) -> bool {
        self.to.eq_ignore_ascii_case(b"utf-8")
    }

    fn build(&self) -> Both {
        let (forth, back) = if self.is_utf8() { self.build_utf8() } else { self.build_bytes() };
        Both { from: self.from.clone(), to: self.to.clone(), forth, back }
    }

    fn build_bytes(&self) -> (Map, Map) {
        // What has no counterpart becomes a question mark.
        let ascii: [u8; 256] = std::array::from_fn(|byte| if byte < 128 { byte as u8 } else { b'?' });
        let (mut forth, mut back) = (ascii, ascii);
        for (from, to) in &self.characters {
            if let [to] = to[..] {
                forth[usize::from(*from)] = to;
                back[usize::from(to)] = *from;
            }
        }
        (Map::Bytes(Arc::new(forth)), Map::Bytes(Arc::new(back)))
    }

    fn build_utf8(&self) -> (Map, Map) {
        let ascii = |byte: u8| if byte < 128 { byte } else { b'?' };
        let mut forth: Vec<Character> = (0..=255).map(|byte| SmallVec::from_slice(&[ascii(byte)])).collect();
        let mut back = HashMap::new();
        for (from, to) in &self.characters {
            if let Some(character) = std::str::from_utf8(to).ok().and_then(|text| text.chars().next()) {
                forth[usize::from(*from)] = to.clone();
                back.insert(character, *from);
            }
        }
        (Map::ToUtf8(forth.into()), Map::FromUtf8(Arc::new(back)))
    }
}

impl Maps {
    /// Whether there is one.
    pub(super) fn is_any(&self) -> bool {
        !self.maps.is_empty()
    }

    /// Whether one of them is from or to a charset.
    pub(super) fn name(&self, charset: &[u8]) -> bool {
        self.maps.iter().any(|both| both.from.eq_ignore_ascii_case(charset) || both.to.eq_ignore_ascii_case(charset))
    }

    /// The way from one charset to another.
    pub(super) fn find(&self, from: &[u8], to: &[u8]) -> Option<&Map> {
        self.maps.iter().find_map(|both| {
            let is = |one: &[u8], other: &[u8]| one.eq_ignore_ascii_case(from) && other.eq_ignore_ascii_case(to);
            match () {
                () if is(&both.from, &both.to) => Some(&both.forth),
                () if is(&both.to, &both.from) => Some(&both.back),
                () => None,
            }
        })
    }
}

impl Section for Maps {
    type Raw = Vec<Definition>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        match parent {
            Some(parent) if raw.is_empty() => parent.clone(),
            _ => Self { maps: raw.iter().map(Definition::build).collect() },
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

pub(super) fn charset_map(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let (from, to) = (call.bytes(0), call.bytes(1));
    let names = format!("\"{}\" and \"{}\"", call.text(0), call.text(1));
    if from.eq_ignore_ascii_case(to) {
        return Err(Fault::new(format!("\"charset_map\" between the same charsets {names}")));
    }
    if cx.edit::<Maps>().iter().any(|map| map.joins(from, to)) {
        return Err(Fault::new(format!("duplicate \"charset_map\" between {names}")));
    }
    let mut map = Definition { from: from.to_vec(), to: to.to_vec(), characters: Vec::new() };
    cx.entries(call, &mut |_, entry| {
        let character = entry_of(entry, map.is_utf8())?;
        map.characters.push(character);
        Ok(())
    });
    cx.edit::<Maps>().push(map);
    Ok(())
}

/// Reads `C0 D18E;`.
fn entry_of(entry: &Call<'_>, is_utf8: bool) -> Result<(u8, Character), Fault> {
    if entry.len() != 1 {
        return Err(Fault::new("invalid parameters number"));
    }
    let from = match hex(entry.name_bytes()).as_deref() {
        Some([from]) => *from,
        _ => return Err(Fault::new(format!("invalid value \"{}\"", entry.name()))),
    };
    let character = hex(entry.bytes(0)).filter(|bytes| match is_utf8 {
        true => std::str::from_utf8(bytes).is_ok_and(|text| text.chars().count() == 1),
        false => bytes.len() == 1,
    });
    match character {
        Some(character) => Ok((from, character)),
        None => Err(Fault::new(format!("invalid value \"{}\"", entry.text(0))).word(0)),
    }
}

/// Bytes written in hexadecimal; a lone digit is a byte too.
fn hex(text: &[u8]) -> Option<Character> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match text {
        [] => None,
        [one] => Some(SmallVec::from_slice(&[digit(one)?])),
        _ if text.len() % 2 == 1 => None,
        _ => text.chunks_exact(2).map(|pair| Some(digit(&pair[0])? << 4 | digit(&pair[1])?)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{findings, load_http};

    #[test]
    fn both_ways() {
        let config = load_http("charset_map koi8-r utf-8 { C0 D18E; } charset_map koi8-r x { C0 EE; }");
        let maps = config.settings(config.built.model.http.expect("there is an http block")).get::<Maps>();
        let show = |from: &str, to: &str, byte: u8| match maps.find(from.as_bytes(), to.as_bytes()) {
            None => "none".into(),
            Some(Map::Bytes(table)) => format!("{:02x}", table[usize::from(byte)]),
            Some(Map::ToUtf8(table)) => String::from_utf8_lossy(&table[usize::from(byte)]).into_owned(),
            Some(Map::FromUtf8(table)) => format!("{:02x?}", table.get(&'ю')),
        };
        assert_eq!(show("KOI8-R", "UTF-8", 0xc0), "ю");
        assert_eq!(show("koi8-r", "utf-8", 0xc1), "?");
        assert_eq!(show("utf-8", "koi8-r", 0), "Some(c0)");
        assert_eq!(show("koi8-r", "x", 0xc0), "ee");
        assert_eq!(show("x", "koi8-r", 0xee), "c0");
        assert_eq!(show("x", "koi8-r", 0xef), "3f");
        assert_eq!(show("x", "koi8-r", b'a'), "61");
        assert_eq!(show("x", "utf-8", 0), "none");
    }

    #[test]
    fn wrong_words() {
        let check = |directives: &str, expected: &str| assert_eq!(findings(directives), [expected], "{directives}");
        check("charset_map a A { }", "\"charset_map\" between the same charsets \"a\" and \"A\"");
        check("charset_map a b { } charset_map b a { }", "duplicate \"charset_map\" between \"b\" and \"a\"");
        check("charset_map a b { 80; }", "invalid parameters number");
        check("charset_map a b { 100 80; }", "invalid value \"100\"");
        check("charset_map a b { 80 8081; }", "invalid value \"8081\"");
        check("charset_map a utf-8 { 80 8081; }", "invalid value \"8081\"");
        check("charset_map a utf-8 { 80 4142; }", "invalid value \"4142\"");
    }

    #[test]
    fn hexadecimal() {
        let check = |text: &str, bytes: Option<&[u8]>| {
            assert_eq!(hex(text.as_bytes()).as_deref(), bytes, "{text}");
        };
        check("C0", Some(&[0xc0]));
        check("d18e", Some(&[0xd1, 0x8e]));
        check("a", Some(&[10]));
        check("abc", None);
        check("", None);
        check("xx", None);
        check("+1", None);
    }
}
