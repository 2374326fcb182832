//! What answers a location's requests.

use crate::config::{Merge, Section, Slot};
use crate::http::module::Handler;

/// The content handler of a location. It is not inherited.
#[derive(Debug)]
pub struct Content {
    /// Set by directives such as `postgres_pass`; `None`: the handlers of the content phase.
    pub handler: Option<Handler>,
    /// Whether a location whose name ends with a slash gets the requests without it by a redirect, as it is for the
    /// handlers that pass requests on.
    pub auto_redirect: bool,
}

/// What a block says of it.
#[derive(Debug, Default)]
pub struct RawContent {
    /// The handler.
    pub handler: Option<Handler>,
    /// Whether it wants the redirect.
    pub auto_redirect: bool,
}

impl Section for Content {
    type Raw = RawContent;
    const ALWAYS: bool = true;

    fn merge(raw: &RawContent, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        // An `if` or `limit_except` block inherits the handler of the location that it stands in.
        let inside = crate::config::Contexts::IF_LOCATION | crate::config::Contexts::LIMIT_EXCEPT;
        let inherited = parent.filter(|_| inside.contains(cx.context)).and_then(|parent| parent.handler);
        Self { handler: raw.handler.or(inherited), auto_redirect: raw.auto_redirect }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}
