//! ngx_http_not_modified_filter_module: conditional requests.

use crate::config::Declarations;
use crate::http::wire::conditional::{Conditions, IfModifiedSince, Validators, Verdict, judge};
use crate::http::wire::header::Known;
use crate::http::{Body, Module, Request, Response};
use crate::{choice, settings};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_not_modified_filter",
        sections: &[Conditional::ROW],
        commands: &[],
        variables: &[],
    },
    filter: Some(filter),
    ..Module::EMPTY
};

settings! {
    /// Conditional requests.
    pub struct Conditional {
        /// When a date in `If-Modified-Since` lets the client keep what it has: when it is `exact`ly that of the
        /// answer, when the answer is as old or older (`before`), or never (`off`).
        "if_modified_since" HTTP_ALL = "exact" => pub if_modified_since: Dates,
    }
}

choice! {
    /// `if_modified_since`
    pub enum Dates {
        /// The header is ignored.
        "off" => Off,
        /// The dates must be the same.
        "exact" => Exact,
        /// The answer may also be older.
        "before" => Before,
    }
}

impl Dates {
    fn rule(self) -> IfModifiedSince {
        match self {
            Self::Off => IfModifiedSince::Off,
            Self::Exact => IfModifiedSince::Exact,
            Self::Before => IfModifiedSince::Before,
        }
    }
}

fn filter(request: &mut Request, response: &mut Response) {
    if response.status != 200 || !request.is_main() || response.disable_not_modified {
        return;
    }
    let head = &request.head;
    let conditions = Conditions {
        if_modified_since: head.known(Known::IfModifiedSince),
        if_unmodified_since: head.known(Known::IfUnmodifiedSince),
        if_match: head.known(Known::IfMatch),
        if_none_match: head.known(Known::IfNoneMatch),
    };
    let validators = Validators { last_modified: response.last_modified, etag: response.etag.as_deref() };
    let rule = request.settings::<Conditional>().if_modified_since.rule();
    match judge(&conditions, &validators, rule) {
        Verdict::Send => {}
        Verdict::NotModified => {
            response.status = 304;
            response.content_type = None;
            response.content_length = None;
            response.ranges = false;
            response.body = Body::Empty;
        }
        Verdict::PreconditionFailed => *response = Response { refused: Some(412), ..Response::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(Dates::of("before").map(Dates::rule), Some(IfModifiedSince::Before));
        assert_eq!(Dates::of("sometimes"), None);
    }
}
