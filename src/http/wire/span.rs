//! A place in a buffer, in eight bytes.

/// A range of bytes of a request head: half the size of `Range<usize>`, and `Copy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The range from `start` to `end`. Heads are bounded far below 4 GiB; a longer one would be cut.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: u32::try_from(start).unwrap_or(u32::MAX), end: u32::try_from(end).unwrap_or(u32::MAX) }
    }

    /// The first byte's offset.
    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    /// The offset after the last byte.
    pub(crate) fn end(self) -> usize {
        self.end as usize
    }

    /// Whether it holds nothing.
    pub(crate) fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// The bytes of `buffer` at this place; empty if the place lies outside.
    #[inline]
    pub(crate) fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start()..self.end()).unwrap_or_default()
    }

    /// The same place in a buffer where everything lies `by` bytes further on.
    #[inline]
    pub(crate) fn shifted(self, by: usize) -> Self {
        let by = u32::try_from(by).unwrap_or(u32::MAX);
        Self { start: self.start.saturating_add(by), end: self.end.saturating_add(by) }
    }
}
