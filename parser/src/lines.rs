//! From byte offsets to lines and columns.

use memchr::memchr_iter;

use crate::ast::offset;

/// Where the lines of one source begin: built once, so that finding a line doesn't count line feeds
/// again.
#[derive(Debug, Clone)]
pub struct LineIndex {
    /// Offsets of the first bytes of all lines but the first.
    starts: Vec<u32>,
}

/// A place as people and editors write it, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column, in characters of UTF-8.
    pub column: u32,
}

impl LineIndex {
    /// Finds the lines of `source`. The other functions are to be called with the same source.
    pub fn new(source: &[u8]) -> Self {
        Self { starts: memchr_iter(b'\n', source).map(|line_feed| offset(line_feed + 1)).collect() }
    }

    /// The line of a place, counted from 1 as nginx does: a line feed belongs to the line that it
    /// ends.
    pub fn line(&self, offset: u32) -> u32 {
        let before = self.starts.partition_point(|&start| start <= offset);
        u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Line and column of a place.
    pub fn position(&self, source: &[u8], offset: u32) -> Position {
        let line = self.line(offset);
        let before = source.get(self.start(line)..offset as usize).unwrap_or_default();
        let characters = before.iter().filter(|&&byte| !is_continuation(byte)).count();
        Position { line, column: u32::try_from(characters).unwrap_or(u32::MAX).saturating_add(1) }
    }

    /// The text of a line, without its end; empty for a line that is not there.
    pub fn text<'a>(&self, source: &'a [u8], line: u32) -> &'a [u8] {
        let rest = source.get(self.start(line)..).unwrap_or_default();
        let text = memchr_iter(b'\n', rest).next().and_then(|end| rest.get(..end)).unwrap_or(rest);
        text.strip_suffix(b"\r").unwrap_or(text)
    }

    fn start(&self, line: u32) -> usize {
        match line {
            0 | 1 => 0,
            _ => self.starts.get(line as usize - 2).map_or(usize::MAX, |&start| start as usize),
        }
    }
}

/// Whether this byte is a further byte of a character, not its first.
fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, place: usize, line: u32, column: u32, text: &str) {
        let index = LineIndex::new(source.as_bytes());
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        assert_eq!(index.position(source.as_bytes(), place), Position { line, column }, "{source:?} at {place}");
        assert_eq!(index.text(source.as_bytes(), line), text.as_bytes());
    }

    #[test]
    fn places_are_found() {
        check("", 0, 1, 1, "");
        check("ab", 1, 1, 2, "ab");
        check("ab", 2, 1, 3, "ab");
        check("ab\ncd", 2, 1, 3, "ab");
        check("ab\ncd", 3, 2, 1, "cd");
        check("ab\r\ncd\r\n", 5, 2, 2, "cd");
        check("ab\n", 3, 2, 1, "");
        check("\n\n\nx", 3, 4, 1, "x");
        check("a привет b", "a привет ".len(), 1, 10, "a привет b");
    }

    #[test]
    fn places_outside_do_no_harm() {
        check("ab\n", usize::MAX, 2, 1, "");
        assert_eq!(LineIndex::new(b"ab").text(b"ab", 0), b"ab");
        assert_eq!(LineIndex::new(b"ab").text(b"ab", 7), b"");
    }
}
