//! Settings: typed groups of values that a block inherits from the block around it.
//!
//! A *section* is a struct that handlers read, with plain fields. While the file is walked its raw twin collects what
//! one block says; the merge makes the final one from the raw one, the parent's, and the defaults.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use super::builder::Merge;
use super::directive::Directive;

/// A group of settings.
pub trait Section: Any + Send + Sync + Sized {
    /// What one block says of them.
    type Raw: Any + Default + Send + Sync;

    /// Whether [`Section::merge`] must run even in a block that says nothing.
    const ALWAYS: bool = false;

    /// Makes the final values: what the block says, else the parent's, else the default.
    fn merge(raw: &Self::Raw, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self;

    /// The number of the section, given when the registry is built.
    fn slot() -> &'static Slot;
}

/// A number that is given once, when the program starts.
#[derive(Debug, Default)]
pub struct Slot(OnceLock<usize>);

impl Slot {
    /// A slot without a number yet.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    fn number(&self) -> usize {
        *self.0.get().expect("the registry numbers the section of every module in the list")
    }
}

/// How the walk and the merge handle a section whose type they don't know.
#[derive(Clone, Copy, Debug)]
pub struct SectionRow {
    slot: fn() -> &'static Slot,
    merge: fn(Option<&AnyRaw>, Option<&AnyFinal>, &mut Merge<'_>) -> AnyFinal,
    rows: &'static [Directive],
}

type AnyRaw = Box<dyn Any + Send + Sync>;
type AnyFinal = Arc<dyn Any + Send + Sync>;

impl SectionRow {
    /// The row of a section, with the directives that its fields are.
    pub const fn of<S: Section>(rows: &'static [Directive]) -> Self {
        Self { slot: S::slot, merge: merge_any::<S>, rows }
    }

    /// The directives that are fields of it.
    pub fn directives(&self) -> &'static [Directive] {
        self.rows
    }

    /// Gives the section its number.
    pub(super) fn number(&self, number: usize) {
        let given = (self.slot)().0.get_or_init(|| number);
        assert_eq!(*given, number, "a section is in the list of modules once");
    }
}

fn merge_any<S: Section>(raw: Option<&AnyRaw>, parent: Option<&AnyFinal>, cx: &mut Merge<'_>) -> AnyFinal {
    if let (None, Some(parent), false) = (raw, parent, S::ALWAYS) {
        return Arc::clone(parent);
    }
    let parent = parent.and_then(|any| any.downcast_ref::<S>());
    let fallback;
    let raw = match raw.and_then(|any| any.downcast_ref::<S::Raw>()) {
        Some(raw) => raw,
        None => {
            fallback = S::Raw::default();
            &fallback
        }
    };
    Arc::new(S::merge(raw, parent, cx))
}

/// What one block says, for each section that it says something of.
#[derive(Debug, Default)]
pub(super) struct RawSections {
    said: Vec<(usize, AnyRaw)>,
}

impl RawSections {
    /// The raw section, made empty if the block has said nothing of it yet.
    pub(super) fn edit<S: Section>(&mut self) -> &mut S::Raw {
        let slot = S::slot().number();
        let index = match self.said.iter().position(|(number, _)| *number == slot) {
            Some(index) => index,
            None => {
                self.said.push((slot, Box::new(S::Raw::default())));
                self.said.len() - 1
            }
        };
        self.said[index].1.downcast_mut().expect("a slot holds the raw type of its section")
    }

    /// The raw section, if the block has said something of it.
    pub(super) fn peek<S: Section>(&self) -> Option<&S::Raw> {
        let slot = S::slot().number();
        self.said.iter().find(|(number, _)| *number == slot).and_then(|(_, raw)| raw.downcast_ref())
    }

    fn any(&self, slot: usize) -> Option<&AnyRaw> {
        self.said.iter().find(|(number, _)| *number == slot).map(|(_, raw)| raw)
    }
}

/// The final settings of a block: one of each section.
#[derive(Clone, Debug)]
pub struct Settings {
    all: Box<[AnyFinal]>,
}

impl Settings {
    /// Merges what a block says with what holds around it.
    pub(super) fn merge(rows: &[SectionRow], raw: &RawSections, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        let merged =
            |(slot, row): (usize, &SectionRow)| (row.merge)(raw.any(slot), parent.map(|parent| &parent.all[slot]), cx);
        Self { all: rows.iter().enumerate().map(merged).collect() }
    }

    /// The section of a type.
    pub fn get<S: Section>(&self) -> &S {
        self.all[S::slot().number()].downcast_ref().expect("a slot holds the type of its section")
    }
}

/// Declares a section whose fields are directives, each written once.
///
/// ```ignore
/// settings! {
///     /// How patiently the answer is sent.
///     pub struct Send {
///         /// Closes the connection when the client takes nothing for this long.
///         "send_timeout" HTTP_ALL = "60s" => pub timeout: Msec,
///     }
/// }
/// ```
///
/// It makes the struct, its raw twin, the merge of each field (what the block says, else the parent's, else the
/// default), and the rows. Arity, accepted values and syntax come from the field's type.
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $section_doc:literal])*
        $visibility:vis struct $section:ident {
            $(
                $(#[doc = $doc:literal])*
                $(@$status:expr;)?
                $name:literal $contexts:ident = $default:literal => $field_visibility:vis $field:ident: $kind:ty
            ),* $(,)?
        }
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug)]
        #[allow(unreachable_pub, reason = "a room decides how far its settings are seen")]
        $visibility struct $section {
            $($(#[doc = $doc])* $field_visibility $field: $kind,)*
        }

        const _: () = {
            /// What one block says.
            #[derive(Default)]
            #[allow(unnameable_types, unreachable_pub, reason = "only the section's own code names its raw twin")]
            pub struct Raw {
                $($field: Option<$kind>,)*
            }

            impl $crate::config::Section for $section {
                type Raw = Raw;

                fn merge(raw: &Raw, parent: Option<&Self>, _: &mut $crate::config::Merge<'_>) -> Self {
                    Self {
                        $($field: match (&raw.$field, parent) {
                            (Some(own), _) => own.clone(),
                            (None, Some(parent)) => parent.$field.clone(),
                            (None, None) => <$kind as $crate::config::value::Value>::from_default($default),
                        },)*
                    }
                }

                fn slot() -> &'static $crate::config::Slot {
                    static SLOT: $crate::config::Slot = $crate::config::Slot::new();
                    &SLOT
                }
            }

            impl $section {
                /// The rows of the directives that the fields are.
                #[allow(unreachable_pub, reason = "a room decides how far its settings are seen")]
                $visibility const ROW: $crate::config::SectionRow = $crate::config::SectionRow::of::<Self>(&[
                    $($crate::config::Directive {
                        name: $name,
                        contexts: $crate::config::Contexts::$contexts,
                        args: <$kind as $crate::config::value::Value>::ARGS,
                        once: <$kind as $crate::config::value::Value>::ONCE,
                        syntax: <$kind as $crate::config::value::Value>::SYNTAX,
                        default: $default,
                        $(status: $status,)?
                        doc: concat!($($doc, "\n"),*),
                        file: file!(),
                        apply: |cx, call| {
                            let value = <$kind as $crate::config::value::Value>::parse(call, cx)?;
                            let before = cx.edit::<Self>().$field.as_ref();
                            for warning in <$kind as $crate::config::value::Value>::repeats(before, call) {
                                cx.warn("duplicate-value", warning, call);
                            }
                            let slot = &mut cx.edit::<Self>().$field;
                            <$kind as $crate::config::value::Value>::store(slot, value);
                            Ok(())
                        },
                        ..$crate::config::Directive::BASE
                    },)*
                ]);
            }
        };
    };
}
