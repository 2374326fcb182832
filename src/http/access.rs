//! Who may come in at all: `satisfy` and `internal`.

use crate::config::{Call, Cx, Fault, Merge, Section, Slot};
use crate::{choice, settings};

settings! {
    /// How the access phase's handlers count together.
    pub struct Satisfy {
        /// Whether `all` handlers of the access phase must grant, or `any` one is enough.
        "satisfy" HTTP_ALL = "all" => pub satisfy: Together,
    }
}

impl Satisfy {
    /// Whether one that grants is enough.
    pub fn is_any(&self) -> bool {
        self.satisfy == Together::Any
    }
}

choice! {
    /// `satisfy`
    pub enum Together {
        /// Every one.
        "all" => All,
        /// One.
        "any" => Any,
    }
}

/// Whether a location is closed to clients. It is not inherited.
#[derive(Debug)]
pub struct Internal {
    /// Whether it is.
    pub is_internal: bool,
}

impl Section for Internal {
    type Raw = bool;
    const ALWAYS: bool = true;

    fn merge(raw: &bool, _: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self { is_internal: *raw }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// Closes a location to clients: `internal`.
pub fn internal(cx: &mut Cx<'_>, _: &Call<'_>) -> Result<(), Fault> {
    *cx.edit::<Internal>() = true;
    Ok(())
}
