//! ngx_http_limit_conn_module: how many requests may be worked on at once, by key.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::config::value::{Flag, parse_number};
use crate::config::{
    Args, Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot, VariableRow,
};
use crate::http::limit::zone::{Memory, Zone, slot_size};
use crate::http::limit::{Importance, Refusal};
use crate::http::{Module, Next, Phase, Request};
use crate::server::log::{Level, shown};
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_limit_conn",
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
        /// How important it is in the error log that a request was refused.
        "limit_conn_log_level" HTTP_ALL = "error" => log_level: Importance,
        /// The status of a request that is refused: 400 to 599.
        "limit_conn_status" HTTP_ALL = "503" => status: Refusal,
        /// Whether requests are counted and logged only, and none is refused.
        "limit_conn_dry_run" HTTP_ALL = "off" => dry_run: Flag,
    }
}

const COMMANDS: &[Directive] = &[
    Directive {
        name: "limit_conn_zone",
        contexts: Contexts::HTTP,
        args: Args::exactly(2),
        syntax: "key zone=name:size",
        doc: "Declares a zone in which requests are counted by a key, for all workers. A key takes 64 bytes or more; in a \
              zone that is full a new key is refused. A reload keeps a zone whose size and key stay the same.\n\n\
              Example: `limit_conn_zone $binary_remote_addr zone=clients:10m;`",
        file: file!(),
        apply: |cx, call| {
            let invalid = |word: &[u8]| Err(format!("invalid parameter \"{}\"", String::from_utf8_lossy(word)));
            Zone::declare(cx, call, ZONE, invalid)
        },
        ..Directive::BASE
    },
    Directive {
        name: "limit_conn",
        contexts: Contexts::HTTP_ALL,
        args: Args::exactly(2),
        syntax: "zone number",
        doc: "How many requests with the same key may be worked on at once, at most 65535; websockets and other \
              subscribers count until they leave. An empty key is not counted. The whole list is inherited where a block \
              names none.\n\nExample: `limit_conn clients 10;`",
        file: file!(),
        apply: limit_conn,
        ..Directive::BASE
    },
];

const ZONE: &str = "limit_conn_zone";

const VARIABLES: &[VariableRow] = &[VariableRow::new(
    "limit_conn_status",
    |request, _| request.kept::<Held>()?.status.get().map(Bytes::from_static),
    "What `limit_conn` found: `PASSED`, `REJECTED` or `REJECTED_DRY_RUN`.",
)
.volatile()];

/// The limits that hold in a block.
#[derive(Clone, Debug)]
pub struct Limits {
    limits: Vec<Limit>,
}

/// One `limit_conn`.
#[derive(Clone, Debug)]
pub struct Limit {
    zone: Arc<Zone>,
    most: u32,
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

fn limit_conn(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let zone = Zone::named(cx, &call.text(0), ZONE).map_err(|fault| fault.word(0))?;
    if cx.edit::<Limits>().iter().any(|limit| Arc::ptr_eq(&limit.zone, &zone)) {
        return Err(call.duplicate());
    }
    let most = parse_number(call.bytes(1)).filter(|most| *most > 0);
    let most = most.ok_or_else(|| Fault::new(format!("invalid number of connections \"{}\"", call.text(1))).word(1))?;
    let most = u16::try_from(most).map_err(|_| Fault::new("connection limit must be less 65536").word(1))?;
    cx.edit::<Limits>().push(Limit { zone, most: most.into() });
    Ok(())
}

/// What a request holds to its end, its subrequests included.
#[derive(Debug, Default)]
struct Held {
    status: Cell<Option<&'static [u8]>>,
    places: RefCell<Vec<Place>>,
}

/// One place in a zone, given back when it is dropped.
struct Place {
    zone: Arc<Zone>,
    key: Bytes,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({})", self.zone.name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(counts) = self.zone.memory::<Counts>() {
            counts.lock().leave(&self.key);
        }
    }
}

/// The handler: once for a request, however it goes on.
fn check(request: &mut Request) -> Next<'_> {
    let limits = &request.settings::<Limits>().limits;
    if limits.is_empty() {
        return Next::Declined;
    }
    let held = request.keep::<Held>();
    if held.status.get().is_some() {
        return Next::Declined;
    }
    let settings = request.settings::<Settings>();
    for limit in limits {
        let Some((declared, counts)) = limit.zone.declared().zip(limit.zone.memory::<Counts>()) else { continue };
        let key = request.eval(&declared.key);
        if key.is_empty() {
            continue;
        }
        if key.len() > LONGEST_KEY {
            let written = String::from_utf8_lossy(&declared.written);
            let message = format!("the value of the \"{written}\" key is more than 255 bytes: \"{}\"", shown(&key));
            request.log(Level::Error, &message);
            continue;
        }
        held.status.set(Some(b"PASSED"));
        let entered = counts.lock().enter(&key, limit.most);
        if let Err(refused) = entered {
            let dry_run = *settings.dry_run;
            if refused == Refused::TooMany {
                let name = &limit.zone.name;
                let dry = if dry_run { ", dry run," } else { "" };
                request.log(settings.log_level.level(), &format!("limiting connections{dry} by zone \"{name}\""));
            }
            if refused == Refused::Full {
                let message = format!("no memory in limit_conn_zone \"{}\"", limit.zone.name);
                request.log(Level::Crit, &message);
            }
            held.places.borrow_mut().clear();
            held.status.set(Some(if dry_run { b"REJECTED_DRY_RUN" } else { b"REJECTED" }));
            return if dry_run { Next::Declined } else { Next::Status(settings.status.0) };
        }
        held.places.borrow_mut().push(Place { zone: Arc::clone(&limit.zone), key });
    }
    Next::Declined
}

/// A longer key is not counted.
const LONGEST_KEY: usize = 255;

/// What nginx needs for a key, beside its bytes.
const NODE: usize = 36;

/// The memory of a zone.
#[derive(Debug)]
struct Counts(Mutex<Table>);

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory for Counts {
    fn with_room(bytes: u64) -> Self {
        Self(Mutex::new(Table { counts: HashMap::new(), room: bytes }))
    }
}

#[derive(Debug)]
struct Table {
    counts: HashMap<Bytes, u32>,
    /// The bytes that are left.
    room: u64,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// There are as many as may be.
    TooMany,
    /// The zone is full.
    Full,
}

impl Table {
    fn enter(&mut self, key: &Bytes, most: u32) -> Result<(), Refused> {
        if let Some(count) = self.counts.get_mut(key) {
            if *count >= most {
                return Err(Refused::TooMany);
            }
            *count += 1;
            return Ok(());
        }
        self.room = self.room.checked_sub(slot_size(NODE + key.len())).ok_or(Refused::Full)?;
        // A copy, so that no larger buffer stays with it.
        self.counts.insert(Bytes::copy_from_slice(key), 1);
        Ok(())
    }

    fn leave(&mut self, key: &Bytes) {
        let Some(count) = self.counts.get_mut(key) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(key);
            self.room += slot_size(NODE + key.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn counting() {
        let mut table = Table { counts: HashMap::new(), room: 128 };
        let [a, b, c] = ["a", "b", "c"].map(Bytes::from);
        assert_eq!(table.enter(&a, 2), Ok(()));
        assert_eq!(table.enter(&a, 2), Ok(()));
        assert_eq!(table.enter(&a, 2), Err(Refused::TooMany));
        assert_eq!(table.enter(&b, 2), Ok(()));
        assert_eq!(table.enter(&c, 2), Err(Refused::Full));
        table.leave(&b);
        assert_eq!(table.enter(&c, 2), Ok(()));
        table.leave(&a);
        assert_eq!(table.enter(&a, 2), Ok(()));
        assert_eq!(table.enter(&a, 2), Err(Refused::TooMany));
    }

    #[test]
    fn words() {
        let check = |directives: &str, expected: &[&str]| {
            assert_eq!(findings(&format!("limit_conn_zone $host zone=a:1m; {directives}")), expected, "{directives}");
        };
        check("limit_conn a 1; server { limit_conn a 65535; }", &[]);
        check("limit_conn a 0;", &["invalid number of connections \"0\""]);
        check("limit_conn a x;", &["invalid number of connections \"x\""]);
        check("limit_conn a 65536;", &["connection limit must be less 65536"]);
        check("limit_conn a 1; limit_conn a 2;", &["\"limit_conn\" directive is duplicate"]);
        check("limit_conn_status 399;", &["value must be between 400 and 599"]);
        check("limit_conn_log_level debug;", &["invalid value \"debug\""]);
    }
}
