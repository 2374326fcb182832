//! Variables: which names exist, what they read, and the number that a request keeps each one under.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::diagnostic::{Diagnostic, Fault};
use super::registry::Registry;
use super::source::Position;
use crate::http::Request;

/// The value of a variable; `None` is nginx's "not found", which reads as empty.
pub type Value = Option<Bytes>;

/// Reads a variable of a request. The text is what follows the prefix in a family such as `$http_`.
pub type Read = fn(&Request, &str) -> Value;

/// A built-in variable of a module.
#[derive(Clone, Copy, Debug)]
pub struct VariableRow {
    /// Its name; a family's name ends in `_`.
    pub name: &'static str,
    /// Reads it.
    pub read: Read,
    /// What `set` does to it; `None`: it can't be set.
    pub write: Option<Write>,
    /// Whether a request may keep the value once it was read.
    pub cached: bool,
    /// The manual's text.
    pub doc: &'static str,
}

/// Carries a `set` of a built-in variable out.
pub type Write = fn(&mut Request, Bytes);

impl VariableRow {
    /// A read-only variable that does not change while a request lasts.
    pub const fn new(name: &'static str, read: Read, doc: &'static str) -> Self {
        Self { name, read, write: None, cached: true, doc }
    }

    /// The same, read anew each time.
    pub const fn volatile(self) -> Self {
        Self { cached: false, ..self }
    }

    /// The same, and `set` may change it.
    pub const fn writable(self, write: Write) -> Self {
        Self { write: Some(write), cached: false, ..self }
    }
}

/// The number of a variable in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VarId(pub(crate) u32);

/// How a variable gets its value.
#[derive(Clone)]
pub enum Source {
    /// A built-in one, or a member of a family.
    BuiltIn {
        /// Its row.
        row: &'static VariableRow,
        /// What follows the prefix.
        suffix: Box<str>,
    },
    /// Computed by a directive (`map`, `geo` …).
    Computed(Arc<dyn Fn(&Request) -> Value + Send + Sync>),
    /// Only what `set`, a named capture and their like put there.
    Assigned,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn { row, suffix } => write!(f, "BuiltIn({}{suffix})", row.name),
            Self::Computed(_) => f.write_str("Computed"),
            Self::Assigned => f.write_str("Assigned"),
        }
    }
}

/// One variable that a configuration names.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name, in lower case as nginx keeps it.
    pub name: Box<str>,
    /// How it gets its value.
    pub source: Source,
    /// Whether a request may keep the value once it was read.
    pub cached: bool,
}

impl Variable {
    /// Whether it is none of a module's, but the configuration's own.
    pub fn is_assigned(&self) -> bool {
        !matches!(self.source, Source::BuiltIn { .. })
    }
}

#[derive(Debug)]
struct Entry {
    name: Box<str>,
    source: Option<Source>,
    cached: bool,
    used_at: Option<Position>,
    /// How many read it even where there is no server.
    uses: u32,
    /// Whether it may be missing.
    is_optional: bool,
}

/// The variables that a configuration names, while it is read.
#[derive(Debug)]
pub struct VariableTable {
    registry: &'static Registry,
    numbers: HashMap<Box<str>, VarId>,
    entries: Vec<Entry>,
}

impl VariableTable {
    pub(super) fn new(registry: &'static Registry) -> Self {
        Self { registry, numbers: HashMap::new(), entries: Vec::new() }
    }

    /// The number of a variable that is read somewhere. Whether it exists is known at the end.
    pub fn used(&mut self, name: &str, at: Option<Position>) -> VarId {
        let id = self.number(name);
        let entry = &mut self.entries[id.0 as usize];
        entry.used_at = entry.used_at.or(at);
        entry.uses += 1;
        id
    }

    /// Says of a use that it counts only if there is a server.
    pub fn used_for_servers(&mut self, id: VarId) {
        self.entries[id.0 as usize].uses -= 1;
    }

    /// The number of a variable that is read if it exists, and has no value if it does not.
    pub fn wanted(&mut self, name: &str) -> VarId {
        let id = self.number(name);
        self.entries[id.0 as usize].is_optional = true;
        id
    }

    /// The number of a variable that the configuration names.
    pub fn id(&self, name: &str) -> Option<VarId> {
        self.numbers.get(name.to_ascii_lowercase().as_str()).copied()
    }

    /// The number of a variable that `set`, a capture and their like assign.
    pub fn assigned(&mut self, name: &str) -> Result<VarId, Fault> {
        let built_in = self.built_in(name);
        if let Some(row) = built_in
            && row.write.is_none()
        {
            return Err(duplicate(name));
        }
        let id = self.number(name);
        let source = self.family(name).or_else(|| built_in.map(|row| Source::BuiltIn { row, suffix: "".into() }));
        let entry = &mut self.entries[id.0 as usize];
        if entry.source.is_none() {
            entry.cached = source.is_none();
            entry.source = Some(source.unwrap_or(Source::Assigned));
        }
        Ok(id)
    }

    /// What an assigned variable reads until it is assigned, where it has no other source.
    pub fn initially(&mut self, id: VarId, read: Arc<dyn Fn(&Request) -> Value + Send + Sync>) {
        let entry = &mut self.entries[id.0 as usize];
        if matches!(entry.source, Some(Source::Assigned)) {
            entry.source = Some(Source::Computed(read));
        }
    }

    /// Declares a variable that a directive computes.
    pub fn computed(
        &mut self,
        name: &str,
        cached: bool,
        read: Arc<dyn Fn(&Request) -> Value + Send + Sync>,
    ) -> Result<VarId, Fault> {
        if self.built_in(name).is_some_and(|row| row.write.is_none()) {
            return Err(duplicate(name));
        }
        let id = self.number(name);
        let entry = &mut self.entries[id.0 as usize];
        entry.source = Some(Source::Computed(read));
        entry.cached = cached;
        Ok(id)
    }

    fn number(&mut self, name: &str) -> VarId {
        let name = name.to_ascii_lowercase();
        if let Some(id) = self.numbers.get(name.as_str()) {
            return *id;
        }
        let id = VarId(u32::try_from(self.entries.len()).expect("fewer than 2^32 variables are named"));
        self.entries.push(Entry {
            name: name.as_str().into(),
            source: None,
            cached: true,
            used_at: None,
            uses: 0,
            is_optional: false,
        });
        self.numbers.insert(name.into(), id);
        id
    }

    fn built_in(&self, name: &str) -> Option<&'static VariableRow> {
        self.registry.variables().find(|row| !row.name.ends_with('_') && row.name.eq_ignore_ascii_case(name))
    }

    fn family(&self, name: &str) -> Option<Source> {
        let name = name.to_ascii_lowercase();
        let families = self.registry.variables().filter(|row| row.name.ends_with('_'));
        let row = families.filter(|row| name.starts_with(row.name)).max_by_key(|row| row.name.len())?;
        Some(match &name[row.name.len()..] {
            // The bare name of a family is known, and names nothing.
            "" => Source::Computed(Arc::new(|_| None)),
            suffix => Source::BuiltIn { row, suffix: suffix.into() },
        })
    }

    /// Gives every variable its source; what has none is reported.
    pub(super) fn finish(&mut self, has_servers: bool, diagnostics: &mut Vec<Diagnostic>) -> Vec<Variable> {
        let mut done = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let built_in =
                || self.built_in(&entry.name).map(|row| (Source::BuiltIn { row, suffix: "".into() }, row.cached));
            let family = || self.family(&entry.name).map(|source| (source, false));
            let own = entry.source.clone().map(|source| (source, entry.cached));
            let may_miss = entry.is_optional || !has_servers && entry.uses == 0;
            let missing = || may_miss.then_some((Source::Assigned, true));
            let Some((source, cached)) = own.or_else(built_in).or_else(family).or_else(missing) else {
                let message = format!("unknown \"{}\" variable", entry.name);
                diagnostics.push(
                    self.suggest(Diagnostic::emerg("unknown-variable", message).near(entry.used_at), &entry.name),
                );
                continue;
            };
            done.push(Variable { name: entry.name.clone(), source, cached });
        }
        done
    }

    fn suggest(&self, diagnostic: Diagnostic, name: &str) -> Diagnostic {
        let built_in = self.registry.variables().map(|row| row.name);
        let own = self.entries.iter().filter(|entry| entry.source.is_some()).map(|entry| &*entry.name);
        let nearest = built_in
            .chain(own)
            .map(|known| (strsim::damerau_levenshtein(name, known), known))
            .filter(|(distance, _)| *distance <= name.len().div_ceil(4))
            .min();
        match nearest {
            None => diagnostic,
            Some((_, known)) => diagnostic.help(format!("did you mean \"${known}\"?")),
        }
    }
}

fn duplicate(name: &str) -> Fault {
    Fault::new(format!("the duplicate \"{name}\" variable")).code("duplicate-variable")
}

/// The name that a word such as `$name` gives, for directives that define a variable.
pub fn name_of(word: &[u8]) -> Result<String, Fault> {
    let text = String::from_utf8_lossy(word);
    match text.strip_prefix('$') {
        Some(name) => Ok(name.to_owned()),
        None => Err(Fault::new(format!("invalid variable name \"{text}\""))),
    }
}
