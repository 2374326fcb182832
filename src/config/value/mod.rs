//! The kinds of value that a directive takes.

mod address;
mod choice;
mod mime;
mod number;
mod regex;
mod template;
mod text;

pub use address::{AddressError, parse_address, parse_ip, parse_listen, parse_network};
pub use mime::MimeTypes;
pub use number::{
    Flag, Msec, Number, Offset, Sec, Size, parse_msec, parse_number, parse_offset, parse_sec, parse_size,
};
pub use regex::{Captures, Regex};
pub use template::{Part, Template};
pub use text::{ConfPath, Path, Text};

use super::builder::Cx;
use super::call::Call;
use super::diagnostic::Fault;
use super::directive::Args;

/// A kind of value that a field of a section can have.
pub trait Value: Clone + Sized {
    /// How many words it takes.
    const ARGS: Args = Args::ONE;
    /// Whether a second directive in the same block is refused.
    const ONCE: bool = true;
    /// The arguments, as documentation writes them.
    const SYNTAX: &'static str;

    /// Reads it from a directive's words.
    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault>;

    /// Reads it from a row's default, which a test has seen to be right.
    fn from_default(text: &'static str) -> Self;

    /// What a directive repeats of those before it in its block: nginx's warnings.
    fn repeats(_: Option<&Self>, _: &Call<'_>) -> Vec<String> {
        Vec::new()
    }

    /// Keeps it; a list appends.
    fn store(slot: &mut Option<Self>, value: Self) {
        *slot = Some(value);
    }
}

/// A value that may be left unset: the empty default is none.
impl<T: Value> Value for Option<T> {
    const ARGS: Args = T::ARGS;
    const ONCE: bool = T::ONCE;
    const SYNTAX: &'static str = T::SYNTAX;

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        T::parse(call, cx).map(Some)
    }

    fn from_default(text: &'static str) -> Self {
        (!text.is_empty()).then(|| T::from_default(text))
    }
}
