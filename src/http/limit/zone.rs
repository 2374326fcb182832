//! Zones: memory by name that all workers count in, and that a reload keeps where its size and key stay the same.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::compile::Compiled;
use crate::config::value::{Template, parse_size};
use crate::config::{Builder, Call, Contexts, Cx, Diagnostic, Fault, Merge, Section, Slot};
use crate::server::live::Live;

/// The least size of a zone: nginx's eight pages.
const LEAST: u64 = 8 * PAGE;

/// How nginx's allocator cuts a zone.
const PAGE: u64 = 4096;

/// What it needs of each page, and of the zone as a whole, for itself.
const PAGE_OVERHEAD: u64 = 24;
const OVERHEAD: u64 = 704;

/// The zones that a configuration names. They belong to the file, whichever block names them.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    named: Vec<Arc<Zone>>,
}

/// A zone.
pub struct Zone {
    /// Its name.
    pub name: Box<str>,
    /// The directive that declares zones of this use.
    declarer: &'static str,
    declared: OnceLock<Declared>,
    memory: OnceLock<Arc<dyn Memory>>,
}

/// What the directive says that declares a zone.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Its size in bytes.
    pub size: u64,
    /// What is counted by.
    pub key: Template,
    /// The same as it was written.
    pub written: Box<[u8]>,
    /// How many thousandths of a request a second may bring; 0 where requests are not counted.
    pub rate: u64,
}

/// What is kept in a zone.
pub trait Memory: Any + Send + Sync {
    /// An empty one that keeps so many bytes, as nginx counts them.
    fn with_room(bytes: u64) -> Self
    where
        Self: Sized;
}

/// The memory of a zone that holds now or did last.
struct Kept {
    name: Box<str>,
    declarer: &'static str,
    size: u64,
    written: Box<[u8]>,
    memory: Arc<dyn Memory>,
}

/// The zones of the process.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

impl Section for Zones {
    type Raw = Vec<Arc<Zone>>;

    fn merge(raw: &Self::Raw, _: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self { named: raw.clone() }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

impl Zone {
    /// The zone of a name, for those that a directive declares. It may be declared further down.
    pub fn named(cx: &mut Cx<'_>, name: &str, declarer: &'static str) -> Result<Arc<Self>, Fault> {
        let Some(zones) = cx.edit_around::<Zones>(Contexts::MAIN) else {
            return Err(Fault::new("there is no place for zones"));
        };
        if let Some(zone) = zones.iter().find(|zone| &*zone.name == name) {
            if zone.declarer != declarer {
                let message = format!("the shared memory zone \"{name}\" is already declared for a different use");
                return Err(Fault::new(message));
            }
            return Ok(Arc::clone(zone));
        }
        let (declared, memory) = (OnceLock::new(), OnceLock::new());
        let zone = Arc::new(Self { name: name.into(), declarer, declared, memory });
        zones.push(Arc::clone(&zone));
        Ok(zone)
    }

    /// Declares a zone: `key zone=name:size`, and words that `other` reads; what that returns last is the rate.
    pub fn declare(
        cx: &mut Cx<'_>,
        call: &Call<'_>,
        declarer: &'static str,
        mut other: impl FnMut(&[u8]) -> Result<u64, String>,
    ) -> Result<(), Fault> {
        let key = Template::word(call, 0, cx)?;
        let (mut zone, mut rate) = (None, 0);
        for index in 1..call.len() {
            let text = call.text(index);
            match text.strip_prefix("zone=") {
                Some(words) => zone = Some(name_and_size(words, &text).map_err(|fault| fault.word(index))?),
                None => rate = other(call.bytes(index)).map_err(|message| Fault::new(message).word(index))?,
            }
        }
        let Some((name, size)) = zone.filter(|(name, _)| !name.is_empty()) else {
            return Err(Fault::new(format!("\"{}\" must have \"zone\" parameter", call.name())));
        };
        let zone = Self::named(cx, &name, declarer)?;
        if let Some(first) = zone.declared.get() {
            if first.size != size {
                return Err(conflict(&name, size, first.size));
            }
            let written = String::from_utf8_lossy(&first.written);
            let message = format!("{} \"{name}\" is already bound to key \"{written}\"", call.name());
            return Err(Fault::new(message).code("duplicate"));
        }
        // It was looked at just now whether it is declared.
        drop(zone.declared.set(Declared { size, key, written: call.bytes(0).into(), rate }));
        Ok(())
    }

    /// Declares a zone of some size that is not counted in here. Further declarations must say the same size.
    pub fn reserve(cx: &mut Cx<'_>, name: &str, size: u64, declarer: &'static str) -> Result<(), Fault> {
        let zone = Self::named(cx, name, declarer)?;
        let made = || Declared { size, key: Template::literal(""), written: Box::default(), rate: 0 };
        match zone.declared.get_or_init(made).size {
            first if first == size => Ok(()),
            first => Err(conflict(name, size, first)),
        }
    }

    /// What its directive says; every zone of a configuration that holds has one.
    pub fn declared(&self) -> Option<&Declared> {
        self.declared.get()
    }

    /// Its memory: that of the same zone of an earlier configuration, where there was one.
    pub fn memory<M: Memory>(&self) -> Option<&M> {
        let declared = self.declared.get()?;
        let memory = self.memory.get_or_init(|| self.find::<M>(declared));
        (&**memory as &dyn Any).downcast_ref()
    }

    fn find<M: Memory>(&self, declared: &Declared) -> Arc<dyn Memory> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = kept.iter().find(|kept| self.is(kept)) {
            return Arc::clone(&same.memory);
        }
        let pages = declared.size.saturating_sub(OVERHEAD) / (PAGE + PAGE_OVERHEAD);
        let memory: Arc<dyn Memory> = Arc::new(M::with_room(pages * PAGE));
        kept.retain(|kept| kept.name != self.name);
        kept.push(Kept {
            name: self.name.clone(),
            declarer: self.declarer,
            size: declared.size,
            written: declared.written.clone(),
            memory: Arc::clone(&memory),
        });
        memory
    }

    fn is(&self, kept: &Kept) -> bool {
        let same = |declared: &Declared| declared.size == kept.size && declared.written == kept.written;
        self.name == kept.name && self.declarer == kept.declarer && self.declared.get().is_some_and(same)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({} {:?})", self.name, self.declared)
    }
}

fn conflict(name: &str, size: u64, first: u64) -> Fault {
    let message =
        format!("the size {size} of shared memory zone \"{name}\" conflicts with already declared size {first}");
    Fault::new(message).code("duplicate")
}

fn name_and_size(words: &str, word: &str) -> Result<(String, u64), Fault> {
    let invalid = || Fault::new(format!("invalid zone size \"{word}\""));
    let (name, size) = words.split_once(':').ok_or_else(invalid)?;
    let size = parse_size(size.as_bytes()).ok_or_else(invalid)?;
    if size < LEAST {
        return Err(Fault::new(format!("zone \"{word}\" is too small")));
    }
    Ok((name.to_owned(), size))
}

/// How many bytes nginx's allocator gives for so many.
pub fn slot_size(bytes: usize) -> u64 {
    let bytes = bytes as u64;
    if bytes > PAGE / 2 { bytes.next_multiple_of(PAGE) } else { bytes.next_power_of_two().max(8) }
}

/// Reports zones that are named and not declared.
pub fn finish(builder: &mut Builder) {
    let zones = builder.peek::<Zones>(Builder::MAIN).cloned().unwrap_or_default();
    for zone in zones.iter().filter(|zone| zone.declared.get().is_none()) {
        let message = format!("zero size shared memory zone \"{}\"", zone.name);
        let help = format!("a \"{}\" is to declare it", zone.declarer);
        builder.diagnostics.push(Diagnostic::emerg("unknown-zone", message).late().help(help));
    }
}

/// Forgets the memory of zones that a new configuration does not have.
pub fn keep(compiled: &Compiled, _: &'static Live) {
    let named = &compiled.config.main().get::<Zones>().named;
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.retain(|kept| named.iter().any(|zone| zone.is(kept)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn words() {
        let check = |directives: &str, expected: &str| {
            assert_eq!(findings(directives).first().map_or("", |first| first), expected, "{directives}");
        };
        check("limit_conn_zone $host zone=a:32k;", "");
        check("limit_conn_zone $host zone=a:31k;", "zone \"zone=a:31k\" is too small");
        check("limit_conn_zone $host zone=a;", "invalid zone size \"zone=a\"");
        check("limit_conn_zone $host zone=a:x;", "invalid zone size \"zone=a:x\"");
        check("limit_conn_zone $host zone=:1m;", "\"limit_conn_zone\" must have \"zone\" parameter");
        check("limit_conn_zone $host size=1m;", "invalid parameter \"size=1m\"");
        check(
            "limit_conn_zone $host zone=a:1m; limit_conn_zone $uri zone=a:1m;",
            "limit_conn_zone \"a\" is already bound to key \"$host\"",
        );
        check(
            "limit_conn_zone $host zone=a:1m; limit_conn_zone $uri zone=a:2m;",
            "the size 2097152 of shared memory zone \"a\" conflicts with already declared size 1048576",
        );
        check(
            "limit_conn_zone $host zone=a:1m; limit_req zone=a;",
            "the shared memory zone \"a\" is already declared for a different use",
        );
        check("ssl_session_cache shared:a:1m; server { ssl_session_cache shared:a:1m; }", "");
        check(
            "ssl_session_cache shared:a:1m; server { ssl_session_cache shared:a:2m; }",
            "the size 2097152 of shared memory zone \"a\" conflicts with already declared size 1048576",
        );
        check(
            "upstream u { zone a 1m; server 127.0.0.1; } limit_conn_zone $host zone=a:1m;",
            "the shared memory zone \"a\" is already declared for a different use",
        );
        check("upstream u { zone a; server 127.0.0.1; } upstream v { zone a 1m; server 127.0.0.1; }", "");
        check("upstream u { zone a; server 127.0.0.1; }", "zero size shared memory zone \"a\"");
        check("server { limit_conn a 1; } limit_conn_zone $host zone=a:1m;", "");
        check("limit_conn a 1;", "zero size shared memory zone \"a\"");
    }

    #[test]
    fn sizes() {
        let sizes = [1, 8, 40, 84, 128, 129, 2048, 2049, 5000].map(slot_size);
        assert_eq!(sizes, [8, 8, 64, 128, 128, 256, 2048, 4096, 8192]);
    }
}
