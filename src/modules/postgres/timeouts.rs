//! How long a query may take, and the other plain settings of a location.

use std::time::Duration;

use super::query::attach;
use super::reading::Reading;
use super::server::error;
use crate::config::value::{Flag, Msec, parse_msec};
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Status};
use crate::settings;

settings! {
    /// What holds for a location's queries.
    pub struct Patience {
        /// How long connecting may take where the servers are written in the grammar of 2015 and 2018; libpq's has
        /// `connect_timeout`. Then the answer is 504.
        "postgres_connect_timeout" HTTP_ALL = "10s" => pub connect: Msec,
        /// How long a result may be awaited where the servers are written in the grammar of 2015 and 2018. Then the
        /// statement is cancelled and the answer is 504.
        "postgres_result_timeout" HTTP_ALL = "30s" => pub result: Msec,
        /// Whether the request's body is read before the query, so that `$request_body` holds it.
        "postgres_read_request_body" HTTP_ALL = "off" => pub read_body: Flag,
        /// How long all attempts may take together, in the original.
        @Status::Ignored("connect_timeout bounds each attempt"); "postgres_next_upstream_timeout" HTTP_ALL = "0" => pub next_timeout: Msec,
    }
}

/// The rows that this file brings.
pub(super) const COMMANDS: [Directive; 2] = [
    Directive {
        name: "postgres_timeout",
        contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION),
        args: Args::ONE,
        syntax: "time",
        doc: "How long the result of the query before it may be awaited, or where it stands before all of them, of each. \
              Then the statement is cancelled and the answer is 504. It is not inherited.",
        file: file!(),
        apply: postgres_timeout,
        ..Directive::BASE
    },
    Directive {
        name: "postgres_next_upstream",
        contexts: Contexts::HTTP_ALL,
        args: Args::SOME,
        syntax: "error | timeout | denied | invalid_header | non_idempotent | http_XXX | off ...",
        default: "error timeout",
        status: Status::Partly("the next server is tried where connecting failed, whatever it says"),
        doc: "When the next server is tried.",
        file: file!(),
        apply: postgres_next_upstream,
        ..Directive::BASE
    },
];

fn postgres_timeout(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let word = call.text(0);
    let time = parse_msec(call.bytes(0)).ok_or_else(|| error(call, &format!("\"{word}\" must be time")).word(0))?;
    if time.is_zero() {
        return Err(error(call, &format!("\"{word}\" must be positive")).word(0));
    }
    let slot = match Reading::of(cx) {
        Reading::Address => &mut cx.edit::<super::query::Queries>().common.timeout,
        Reading::Libpq | Reading::Either => timeout_slot(cx, call)?,
    };
    match slot.replace(time) {
        Some(_) => Err(call.duplicate()),
        None => Ok(()),
    }
}

/// The time of the query before, or of all where there is none yet.
fn timeout_slot<'c>(cx: &'c mut Cx<'_>, call: &Call<'_>) -> Result<&'c mut Option<Duration>, Fault> {
    if cx.edit::<super::query::Queries>().queries.is_empty() {
        return Ok(&mut cx.edit::<super::query::Queries>().common.timeout);
    }
    Ok(&mut attach(cx, call)?.timeout)
}

fn postgres_next_upstream(_: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    const WORDS: [&str; 12] = [
        "error",
        "timeout",
        "denied",
        "invalid_header",
        "non_idempotent",
        "http_500",
        "http_502",
        "http_503",
        "http_504",
        "http_403",
        "http_404",
        "http_429",
    ];
    for index in 0..call.len() {
        let word = call.text(index);
        if !WORDS.contains(&&*word) && word != "off" && word != "updating" {
            return Err(Fault::new(format!("invalid value \"{word}\"")).word(index));
        }
    }
    Ok(())
}
