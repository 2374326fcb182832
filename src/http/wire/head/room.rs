//! nginx's header buffers, without the buffers.

use super::parser::HeadOptions;

/// How nginx would have filled its buffers: what is left of the current one decides which line is too long.
///
/// A line that does not fit the rest of the current buffer moves to a large one of its own, as long as there are any.
#[derive(Debug, Default)]
pub(super) struct Room {
    used: usize,
    large: usize,
}

impl Room {
    fn left(&self, options: &HeadOptions) -> usize {
        let size = if self.large == 0 { options.client_header_buffer_size } else { options.large_buffer_size };
        size.saturating_sub(self.used)
    }

    /// How much of the next line may come without its end.
    #[inline]
    pub(super) fn reach(&self, options: &HeadOptions) -> usize {
        let left = self.left(options);
        if self.large < options.large_buffers { left.max(options.large_buffer_size) } else { left }
    }

    /// An empty line before the request. A buffer full of them starts anew.
    pub(super) fn skip(&mut self, options: &HeadOptions) {
        self.used += 1;
        if self.left(options) == 0 {
            self.used = 0;
        }
    }

    /// A line of this length.
    #[inline]
    pub(super) fn take(&mut self, length: usize, options: &HeadOptions) {
        if length > self.left(options) {
            self.large += 1;
            self.used = length;
        } else {
            self.used += length;
        }
    }
}
