//! The methods that a directive's leading words may name.

use crate::http::wire::method::Method;

/// The methods that the modules of 2015 and 2018 know.
const METHODS: [(&str, Method); 14] = [
    ("GET", Method::Get),
    ("HEAD", Method::Head),
    ("POST", Method::Post),
    ("PUT", Method::Put),
    ("DELETE", Method::Delete),
    ("MKCOL", Method::Mkcol),
    ("COPY", Method::Copy),
    ("MOVE", Method::Move),
    ("OPTIONS", Method::Options),
    ("PROPFIND", Method::Propfind),
    ("PROPPATCH", Method::Proppatch),
    ("LOCK", Method::Lock),
    ("UNLOCK", Method::Unlock),
    ("PATCH", Method::Patch),
];

/// What today's module knows beside them; `UNKNOWN` stands for those that nginx does not know.
const NEW_METHODS: [(&str, Method); 2] = [("TRACE", Method::Trace), ("UNKNOWN", Method::Unknown)];

/// A set of methods; empty: all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Methods(u32);

impl Methods {
    /// Adds one.
    pub(super) fn add(&mut self, method: Method) {
        self.0 |= 1 << method as u32;
    }

    /// Whether it is limited to some methods.
    pub(super) fn are_named(self) -> bool {
        self.0 != 0
    }

    /// Whether it names a method.
    pub(super) fn name(self, method: Method) -> bool {
        self.0 & 1 << method as u32 != 0
    }

    /// Whether what it stands at holds for a method.
    pub(super) fn suit(self, method: Method) -> bool {
        !self.are_named() || self.name(method)
    }
}

/// The method that a word names in the modules of 2015 and 2018, in any case.
pub(super) fn old(word: &str) -> Option<Method> {
    find(&METHODS, word)
}

/// The method that a word names in today's module, in any case.
pub(super) fn new(word: &str) -> Option<Method> {
    old(word).or_else(|| find(&NEW_METHODS, word))
}

fn find(table: &[(&str, Method)], word: &str) -> Option<Method> {
    table.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, method)| *method)
}
