//! ngx_http_limit_req_module: how fast requests may come, by key: a leaky bucket, to the millisecond.

mod bucket;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::bucket::{Buckets, Rule};
use crate::config::value::{Flag, parse_number};
use crate::config::{
    Args, Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot, VariableRow,
};
use crate::http::limit::zone::Zone;
use crate::http::limit::{Importance, Refusal};
use crate::http::{Module, Next, Phase, Request};
use crate::server::clock;
use crate::server::log::{Level, shown};
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_limit_req",
        sections: &[Settings::ROW, SectionRow::of::<Limits>(&[])],
        commands: COMMANDS,
        variables: VARIABLES,
    },
    phases: &[(Phase::Preaccess, check)],
    acts: Some(|settings| !settings.get::<Limits>().limits.is_empty()),
    ..Module::EMPTY
};

settings! {
    /// What becomes of a request over a limit.
    pub struct Settings {
        /// How important it is in the error log that a request was refused; one that is put off is logged one level
        /// lower.
        "limit_req_log_level" HTTP_ALL = "error" => log_level: Importance,
        /// The status of a request that is refused: 400 to 599.
        "limit_req_status" HTTP_ALL = "503" => status: Refusal,
        /// Whether requests are counted and logged only, and none is put off or refused.
        "limit_req_dry_run" HTTP_ALL = "off" => dry_run: Flag,
    }
}

const COMMANDS: &[Directive] = &[
    Directive {
        name: "limit_req_zone",
        contexts: Contexts::HTTP,
        args: Args::exactly(3),
        syntax: "key zone=name:size rate=rate",
        doc: "Declares a zone in which requests are counted by a key, for all workers, and how many may come: by second \
              (`r/s`) or minute (`r/m`). A key takes 128 bytes or more; in a zone that is full the key goes that was \
              not seen for the longest time. A reload keeps a zone whose size and key stay the same.\n\n\
              Example: `limit_req_zone $binary_remote_addr zone=clients:10m rate=10r/s;`",
        file: file!(),
        apply: |cx, call| Zone::declare(cx, call, ZONE, rate),
        ..Directive::BASE
    },
    Directive {
        name: "limit_req",
        contexts: Contexts::HTTP_ALL,
        args: Args::between(1, 3),
        syntax: "zone=name [burst=number] [nodelay | delay=number]",
        doc: "Puts requests off that come faster than the zone's rate, and refuses those that more than `burst` others \
              are ahead of. With `nodelay` none is put off, with `delay` only those past so many. An empty key is not \
              counted. The whole list is inherited where a block names none.\n\n\
              Example: `limit_req zone=clients burst=20 nodelay;`",
        file: file!(),
        apply: limit_req,
        ..Directive::BASE
    },
];

const ZONE: &str = "limit_req_zone";

const VARIABLES: &[VariableRow] = &[VariableRow::new(
    "limit_req_status",
    |request, _| request.kept::<Found>()?.0.get().map(Bytes::from_static),
    "What `limit_req` found: `PASSED`, `DELAYED`, `REJECTED`, `DELAYED_DRY_RUN` or `REJECTED_DRY_RUN`.",
)
.volatile()];

/// The limits that hold in a block.
#[derive(Clone, Debug)]
pub struct Limits {
    limits: Vec<Limit>,
}

/// One `limit_req`. Both numbers are in thousandths of a request.
#[derive(Clone, Debug)]
pub struct Limit {
    zone: Arc<Zone>,
    burst: u64,
    delay: u64,
}

impl Section for Limits {
    type Raw = Vec<Limit>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        match parent {
            Some(parent) if raw.is_empty() => parent.clone(),
            _ => Self { limits: raw.clone() },
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// Reads `rate=`, in thousandths of a request a second.
fn rate(word: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(word);
    let Some(rate) = word.strip_prefix(b"rate=") else { return Err(format!("invalid parameter \"{text}\"")) };
    let (number, scale) = match (rate.strip_suffix(b"r/s"), rate.strip_suffix(b"r/m")) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 60),
        (None, None) => (rate, 1),
    };
    let number = parse_number(number).filter(|number| *number > 0).ok_or_else(|| format!("invalid rate \"{text}\""))?;
    Ok((number.saturating_mul(1000) / scale).max(1))
}

fn limit_req(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let (mut zone, mut burst, mut delay) = (None, 0, 0);
    for (index, word) in call.words().enumerate() {
        let text = String::from_utf8_lossy(word);
        let number = |digits: &str, name: &str| {
            let number = parse_number(digits.as_bytes()).filter(|number| *number > 0);
            number.ok_or_else(|| Fault::new(format!("invalid {name} value \"{text}\"")).word(index))
        };
        match (text.split_once('='), &*text) {
            (Some(("zone", name)), _) => {
                zone = Some(Zone::named(cx, name, ZONE).map_err(|fault| fault.word(index))?);
            }
            (Some(("burst", digits)), _) => burst = number(digits, "burst")?,
            (Some(("delay", digits)), _) => delay = number(digits, "delay")?,
            (None, "nodelay") => delay = u64::MAX,
            _ => return Err(Fault::new(format!("invalid parameter \"{text}\"")).word(index)),
        }
    }
    let Some(zone) = zone else {
        return Err(Fault::new(format!("\"{}\" must have \"zone\" parameter", call.name())));
    };
    if cx.edit::<Limits>().iter().any(|limit| Arc::ptr_eq(&limit.zone, &zone)) {
        return Err(call.duplicate());
    }
    let (burst, delay) = (burst.saturating_mul(1000), delay.saturating_mul(1000));
    cx.edit::<Limits>().push(Limit { zone, burst, delay });
    Ok(())
}

/// What was found, of a request and its subrequests.
#[derive(Debug, Default)]
struct Found(Cell<Option<&'static [u8]>>);

/// A key that counts in a zone.
struct Counted<'l> {
    limit: &'l Limit,
    key: Bytes,
    buckets: &'l Buckets,
    rule: Rule,
}

/// The handler: once for a request, however it goes on.
fn check(request: &mut Request) -> Next<'_> {
    if request.settings::<Limits>().limits.is_empty() {
        return Next::Declined;
    }
    let found = request.keep::<Found>();
    if found.0.get().is_some() {
        return Next::Declined;
    }
    let settings = request.settings::<Settings>();
    let dry_run = *settings.dry_run;
    let (status, message) = match weigh(request, bucket::millis(clock::now())) {
        Verdict::Uncounted => return Next::Declined,
        Verdict::Passed => {
            found.0.set(Some(b"PASSED"));
            return Next::Declined;
        }
        Verdict::Delayed { delay, excess, zone } => {
            found.0.set(Some(if dry_run { b"DELAYED_DRY_RUN" } else { b"DELAYED" }));
            let dry = if dry_run { ", dry run" } else { "" };
            let excess = thousandths(excess);
            let message = format!("delaying request{dry}, excess: {excess}, by zone \"{}\"", zone.name);
            request.log(settings.log_level.lower(), &message);
            return if dry_run { Next::Declined } else { Next::later(put_off(request, delay)) };
        }
        Verdict::Refused { excess, zone } => {
            let dry = if dry_run { ", dry run" } else { "" };
            let excess = thousandths(excess);
            (settings.status.0, Some(format!("limiting requests{dry}, excess: {excess} by zone \"{}\"", zone.name)))
        }
        Verdict::NoRoom => (settings.status.0, None),
    };
    if let Some(message) = message {
        request.log(settings.log_level.level(), &message);
    }
    found.0.set(Some(if dry_run { b"REJECTED_DRY_RUN" } else { b"REJECTED" }));
    if dry_run { Next::Declined } else { Next::Status(status) }
}

fn thousandths(excess: u64) -> String {
    format!("{}.{:03}", excess / 1000, excess % 1000)
}

/// What the limits say of a request.
enum Verdict<'l> {
    /// It has no key.
    Uncounted,
    Passed,
    Delayed {
        delay: u64,
        excess: u64,
        zone: &'l Zone,
    },
    Refused {
        excess: u64,
        zone: &'l Zone,
    },
    /// It could not be counted: the key does not fit into the zone.
    NoRoom,
}

/// Weighs a request in each zone. It counts in all or, if one refuses it, in none.
fn weigh(request: &Request, now: u64) -> Verdict<'_> {
    let limits = &request.settings::<Limits>().limits;
    let counted: Vec<Counted<'_>> = limits.iter().filter_map(|limit| counted(request, limit)).collect();
    for counted in &counted {
        let zone = &*counted.limit.zone;
        match counted.buckets.look(&counted.key, counted.rule, now) {
            Some(excess) if excess <= counted.rule.burst => {}
            Some(excess) => return Verdict::Refused { excess, zone },
            None => {
                request.log(Level::Alert, &format!("could not allocate node in limit_req zone \"{}\"", zone.name));
                return Verdict::NoRoom;
            }
        }
    }
    let mut verdict = if counted.is_empty() { Verdict::Uncounted } else { Verdict::Passed };
    let mut longest = 0;
    // From the last to the first, as nginx does, so that of two that delay alike the later one is named.
    for counted in counted.iter().rev() {
        let excess = counted.buckets.count(&counted.key, counted.rule, now);
        let over = excess.saturating_sub(counted.limit.delay);
        let delay = over.saturating_mul(1000) / counted.rule.rate;
        if delay > longest {
            longest = delay;
            verdict = Verdict::Delayed { delay, excess, zone: &counted.limit.zone };
        }
    }
    verdict
}

fn counted<'l>(request: &Request, limit: &'l Limit) -> Option<Counted<'l>> {
    let declared = limit.zone.declared()?;
    let key = request.eval(&declared.key);
    if key.len() > usize::from(u16::MAX) {
        let written = String::from_utf8_lossy(&declared.written);
        let message = format!("the value of the \"{written}\" key is more than 65535 bytes: \"{}\"", shown(&key));
        request.log(Level::Error, &message);
        return None;
    }
    let rule = Rule { rate: declared.rate, burst: limit.burst };
    (!key.is_empty()).then_some(Counted { limit, key, buckets: limit.zone.memory()?, rule })
}

/// Goes on later, unless the client goes away meanwhile.
async fn put_off(request: &Request, delay: u64) -> Next<'static> {
    request.put_off(Duration::from_millis(delay)).await.map_or(Next::Declined, Next::Status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn rates() {
        let check = |word: &str, expected: Result<u64, &str>| {
            assert_eq!(rate(word.as_bytes()), expected.map_err(str::to_owned), "{word}");
        };
        check("rate=10r/s", Ok(10_000));
        check("rate=2r/m", Ok(33));
        check("rate=5", Ok(5000));
        check("rate=0r/s", Err("invalid rate \"rate=0r/s\""));
        check("rate=r/s", Err("invalid rate \"rate=r/s\""));
        check("rate=1r/h", Err("invalid rate \"rate=1r/h\""));
        check("speed=1", Err("invalid parameter \"speed=1\""));
    }

    #[test]
    fn words() {
        let check = |directives: &str, expected: &[&str]| {
            let text = format!("limit_req_zone $host zone=a:1m rate=1r/s; {directives}");
            assert_eq!(findings(&text), expected, "{directives}");
        };
        check("limit_req zone=a; server { limit_req zone=a burst=5 delay=3; }", &[]);
        check("limit_req nodelay zone=a burst=5;", &[]);
        check("limit_req zone=a burst=0;", &["invalid burst value \"burst=0\""]);
        check("limit_req zone=a delay=x;", &["invalid delay value \"delay=x\""]);
        check("limit_req zone=a wait;", &["invalid parameter \"wait\""]);
        check("limit_req burst=1;", &["\"limit_req\" must have \"zone\" parameter"]);
        check("limit_req zone=a; limit_req zone=a burst=1;", &["\"limit_req\" directive is duplicate"]);
        check("limit_req_status 200;", &["value must be between 400 and 599"]);
        check("limit_req_zone $host rate=1r/s zone=b:1m; limit_req zone=b;", &[]);
    }
}
