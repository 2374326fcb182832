//! The configuration under construction: the blocks met so far, and the hands that directives edit them with.

use std::path::{Path, PathBuf};

use super::call::Call;
use super::diagnostic::{Diagnostic, Fault, Severity};
use super::directive::{Contexts, Directive};
use super::model::{LocationDef, Model, ServerDef, UpstreamDef};
use super::registry::Registry;
use super::section::{RawSections, Section, Settings};
use super::source::{Position, Sources};
use super::variable::VariableTable;

/// Names one block of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeId(pub(crate) u32);

impl ScopeId {
    /// Its place among the blocks.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

/// One block: what it is, what it says.
#[derive(Debug)]
pub struct Scope {
    /// What kind of block it is.
    pub context: Contexts,
    /// The block around it.
    pub parent: Option<ScopeId>,
    /// Where its opening directive stands; `None` for the file itself.
    pub at: Option<Position>,
    /// The directives that stand in it, in order.
    pub applied: Vec<Applied>,
    pub(super) raw: RawSections,
}

/// A directive that took effect in a block.
#[derive(Clone, Copy, Debug)]
pub struct Applied {
    /// Its row.
    pub row: &'static Directive,
    /// Where it was written.
    pub at: Position,
}

/// What a load is asked to do, beside the file.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// nginx's prefix (`-p`): what relative paths of logs and roots hang on.
    pub prefix: PathBuf,
    /// The configuration file (`-c`); its folder is what includes hang on.
    pub file: PathBuf,
    /// The log that holds where the configuration names none (`-e`); `None`: `logs/error.log`.
    pub error_log: Option<PathBuf>,
    /// The file of the process's id where the configuration names none; `None`: `logs/nginx.pid`.
    pub pid: Option<PathBuf>,
    /// Directives of the command line (`-g`).
    pub globals: Option<String>,
    /// Whether nothing outside the configuration may be touched (`check`): no users looked up, no names resolved, no
    /// logs opened, no certificates read.
    pub offline: bool,
}

impl LoadOptions {
    /// A path as nginx completes it: relative ones hang on the prefix.
    pub fn full_path(&self, path: &str) -> PathBuf {
        self.prefix.join(path)
    }

    /// A path as nginx completes it for `include`, and for files named in the configuration's own folder.
    pub fn conf_path(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or_else(|| Path::new("")).join(path)
    }
}

/// Everything a load gathers.
#[derive(Debug)]
pub struct Builder {
    /// The texts read so far.
    pub sources: Sources,
    /// What was found wrong, in nginx's order.
    pub diagnostics: Vec<Diagnostic>,
    /// The blocks, parents before children.
    pub scopes: Vec<Scope>,
    /// Servers, locations, upstreams.
    pub model: Model,
    /// The variables named so far.
    pub variables: VariableTable,
    /// What the load was asked to do.
    pub options: LoadOptions,
    pub(super) registry: &'static Registry,
    pub(super) include_depth: usize,
}

/// A directive's hand on the configuration: the block it stands in, and what is around.
#[derive(Debug)]
pub struct Cx<'b> {
    pub(super) builder: &'b mut Builder,
    pub(super) scope: ScopeId,
}

impl Cx<'_> {
    /// The block that the directive stands in.
    pub fn scope(&self) -> ScopeId {
        self.scope
    }

    /// What kind of block the directive stands in.
    pub fn context(&self) -> Contexts {
        self.builder.scope(self.scope).context
    }

    /// What this block says of a section.
    pub fn edit<S: Section>(&mut self) -> &mut S::Raw {
        self.builder.scope_mut(self.scope).raw.edit::<S>()
    }

    /// What this block has said of a section so far.
    pub fn peek<S: Section>(&self) -> Option<&S::Raw> {
        self.builder.scope(self.scope).raw.peek::<S>()
    }

    /// What the upstreams have said of a section so far.
    pub fn peek_upstreams<S: Section>(&self) -> impl Iterator<Item = &S::Raw> {
        self.builder.model.upstreams.iter().filter_map(|upstream| self.builder.peek::<S>(upstream.scope))
    }

    /// What one of them has said of it.
    pub fn peek_upstream<S: Section>(&self, name: &str) -> Option<&S::Raw> {
        self.builder.peek::<S>(self.builder.model.upstream(name)?.1.scope)
    }

    /// What an enclosing block, or this one, has said of a section: the nearest of the given kind.
    pub fn edit_around<S: Section>(&mut self, context: Contexts) -> Option<&mut S::Raw> {
        let scope = self.enclosing(context)?;
        Some(self.builder.scope_mut(scope).raw.edit::<S>())
    }

    /// The nearest enclosing block of a kind, this one included.
    pub fn enclosing(&self, context: Contexts) -> Option<ScopeId> {
        self.builder.enclosing(self.scope, context)
    }

    /// Where a directive was written earlier in this block.
    pub fn first(&self, name: &str) -> Option<Position> {
        self.builder.scope(self.scope).applied.iter().find(|applied| applied.row.name == name).map(|applied| applied.at)
    }

    /// Whether a directive was written earlier in this block.
    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// Opens a block of a kind and walks what is in it.
    pub fn block(&mut self, context: Contexts, call: &Call<'_>) -> ScopeId {
        let scope = self.builder.open(context, Some(self.scope), Some(call.at()));
        self.walk(scope, call);
        scope
    }

    /// Opens a block of a kind without walking it yet.
    pub fn open(&mut self, context: Contexts, call: &Call<'_>) -> ScopeId {
        self.builder.open(context, Some(self.scope), Some(call.at()))
    }

    /// Walks what is in a directive's block, as part of a scope.
    pub fn walk(&mut self, scope: ScopeId, call: &Call<'_>) {
        super::check::walk(self.builder, scope, call.source, call.block());
    }

    /// Walks a data block (`types`, `map` …): hands each entry to `entry`, with the files it includes.
    pub fn entries(&mut self, call: &Call<'_>, entry: &mut dyn FnMut(&mut Cx<'_>, &Call<'_>) -> Result<(), Fault>) {
        super::check::entries(self.builder, self.scope, call.source, call.block(), entry);
    }

    /// Adds a warning that nginx prints too, at this directive.
    pub fn warn(&mut self, code: &'static str, message: impl Into<String>, call: &Call<'_>) {
        self.report(Diagnostic::new(Severity::Warn, code, message).at(call.at()));
    }

    /// Adds a finding.
    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.builder.diagnostics.push(diagnostic);
    }

    /// What the load was asked to do.
    pub fn options(&self) -> &LoadOptions {
        &self.builder.options
    }

    /// The variables named so far.
    pub fn variables(&mut self) -> &mut VariableTable {
        &mut self.builder.variables
    }

    /// Servers, locations and upstreams met so far.
    pub fn model(&mut self) -> &mut Model {
        &mut self.builder.model
    }

    /// The server around this directive.
    pub fn server(&mut self) -> Option<&mut ServerDef> {
        let scope = self.enclosing(Contexts::SERVER)?;
        self.builder.model.servers.iter_mut().rev().find(|server| server.scope == scope)
    }

    /// The location whose block this directive stands in (not one further out).
    pub fn location(&mut self) -> Option<&mut LocationDef> {
        let number = self.location_number()?;
        self.builder.model.locations.get_mut(number)
    }

    /// The number of the location whose block this directive stands in, or is an `if` of.
    pub fn location_number(&self) -> Option<usize> {
        // Scopes are numbered as they are opened, and a location is added when its own is.
        self.builder.model.locations.binary_search_by_key(&self.scope, |location| location.scope).ok()
    }

    /// The upstream whose block this directive stands in.
    pub fn upstream(&mut self) -> Option<&mut UpstreamDef> {
        let scope = self.scope;
        self.builder.model.upstreams.iter_mut().rev().find(|upstream| upstream.scope == scope)
    }
}

impl Builder {
    /// An empty configuration.
    pub(super) fn new(options: LoadOptions, registry: &'static Registry) -> Self {
        let mut builder = Self {
            sources: Sources::default(),
            diagnostics: Vec::new(),
            scopes: Vec::new(),
            model: Model::default(),
            variables: VariableTable::new(registry),
            options,
            registry,
            include_depth: 0,
        };
        builder.open(Contexts::MAIN, None, None);
        builder
    }

    /// The block of the file itself.
    pub const MAIN: ScopeId = ScopeId(0);

    pub(super) fn open(&mut self, context: Contexts, parent: Option<ScopeId>, at: Option<Position>) -> ScopeId {
        let id = ScopeId(u32::try_from(self.scopes.len()).expect("fewer than 2^32 blocks fit into memory"));
        self.scopes.push(Scope { context, parent, at, applied: Vec::new(), raw: RawSections::default() });
        id
    }

    /// A block.
    pub fn scope(&self, id: ScopeId) -> &Scope {
        &self.scopes[id.0 as usize]
    }

    /// What a block says of a section.
    pub fn peek<S: Section>(&self, scope: ScopeId) -> Option<&S::Raw> {
        self.scope(scope).raw.peek::<S>()
    }

    /// What the block of a number says of a section.
    pub fn peek_number<S: Section>(&self, number: usize) -> Option<&S::Raw> {
        self.scopes.get(number)?.raw.peek::<S>()
    }

    pub(super) fn scope_mut(&mut self, id: ScopeId) -> &mut Scope {
        &mut self.scopes[id.0 as usize]
    }

    fn enclosing(&self, scope: ScopeId, context: Contexts) -> Option<ScopeId> {
        let mut next = Some(scope);
        while let Some(id) = next {
            if context.contains(self.scope(id).context) {
                return Some(id);
            }
            next = self.scope(id).parent;
        }
        None
    }

    /// Merges every block's settings with those around it, parents first.
    pub(super) fn merge(&mut self) -> Vec<Settings> {
        let mut merged: Vec<Settings> = Vec::with_capacity(self.scopes.len());
        for scope in &self.scopes {
            let parent = scope.parent.map(|parent| &merged[parent.0 as usize]);
            let mut cx = Merge {
                options: &self.options,
                model: &self.model,
                context: scope.context,
                scope,
                diagnostics: &mut self.diagnostics,
            };
            merged.push(Settings::merge(self.registry.sections(), &scope.raw, parent, &mut cx));
        }
        merged
    }
}

/// What a merge can see and say.
#[derive(Debug)]
pub struct Merge<'b> {
    /// What the load was asked to do.
    pub options: &'b LoadOptions,
    /// Servers, locations, upstreams.
    pub model: &'b Model,
    /// The kind of block whose settings are made.
    pub context: Contexts,
    scope: &'b Scope,
    diagnostics: &'b mut Vec<Diagnostic>,
}

impl Merge<'_> {
    /// Where a directive stands in this block.
    pub fn first(&self, name: &str) -> Option<Position> {
        self.scope.applied.iter().find(|applied| applied.row.name == name).map(|applied| applied.at)
    }

    /// Adds a finding.
    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Another section of this block, by what the block itself says.
    pub fn said<S: Section>(&mut self) -> S {
        let nothing = S::Raw::default();
        let scope = self.scope;
        S::merge(scope.raw.peek::<S>().unwrap_or(&nothing), None, self)
    }
}
