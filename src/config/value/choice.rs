//! Directives whose value is one of a few words.

/// Declares an enum of words, as a kind of value.
#[macro_export]
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        $visibility:vis enum $name:ident {
            $($(#[doc = $variant_doc:literal])* $word:literal => $variant:ident,)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $name {
            $($(#[doc = $variant_doc])* $variant,)*
        }

        impl $name {
            const WORDS: &[(&'static str, Self)] = &[$(($word, Self::$variant),)*];

            /// The value that a word names.
            fn of(word: &str) -> Option<Self> {
                Self::WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, value)| *value)
            }
        }

        impl $crate::config::value::Value for $name {
            const SYNTAX: &'static str = $crate::choice!(@syntax $($word)*);

            fn parse(
                call: &$crate::config::Call<'_>,
                _: &mut $crate::config::Cx<'_>,
            ) -> Result<Self, $crate::config::Fault> {
                let word = call.text(0);
                Self::of(&word).ok_or_else(|| {
                    $crate::config::Fault::new(format!("invalid value \"{word}\""))
                        .word(0)
                        .help(concat!("it may be: ", $crate::choice!(@syntax $($word)*)))
                })
            }

            fn from_default(text: &'static str) -> Self {
                Self::of(text).unwrap_or(Self::WORDS[0].1)
            }
        }
    };
    (@syntax $first:literal $($word:literal)*) => { concat!($first $(, " | ", $word)*) };
}
