//! Who may come in at all: `satisfy`, `auth_delay`, `internal` and `limit_except`.

use super::wire::method::Method;
use crate::config::value::Msec;
use crate::config::{Call, Cx, Fault, Merge, Section, Slot};
use crate::{choice, settings};

settings! {
    /// How the access phase's handlers count together.
    pub struct Satisfy {
        /// Whether `all` handlers of the access phase must grant, or `any` one is enough.
        "satisfy" HTTP_ALL = "all" => pub satisfy: Together,
        /// How long a request that the access phase answers with 401 waits for that answer, so that passwords can't be
        /// tried fast, and the time that a comparison takes tells nothing.
        "auth_delay" HTTP_ALL = "0s" => pub auth_delay: Msec,
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

/// Whether a location, with those inside it, is closed to clients.
#[derive(Debug)]
pub struct Internal {
    /// Whether it is.
    pub is_internal: bool,
}

impl Section for Internal {
    type Raw = bool;

    fn merge(raw: &bool, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self { is_internal: *raw || parent.is_some_and(|parent| parent.is_internal) }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// Settings of their own for some methods: `limit_except`. They are not inherited.
#[derive(Debug)]
pub struct LimitExcept {
    limit: Option<Limit>,
}

/// What a `limit_except` says.
#[derive(Clone, Debug)]
pub struct Limit {
    /// The methods that it is not about.
    pub except: Vec<Method>,
    /// The number of the nameless location that holds for the others.
    pub location: usize,
}

impl LimitExcept {
    /// The nameless location that holds for a method.
    pub fn location(&self, method: Method) -> Option<usize> {
        self.limit.as_ref().filter(|limit| !limit.except.contains(&method)).map(|limit| limit.location)
    }
}

impl Section for LimitExcept {
    type Raw = Option<Limit>;
    const ALWAYS: bool = true;

    fn merge(raw: &Self::Raw, _: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self { limit: raw.clone() }
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
