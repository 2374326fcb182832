//! Stage 1: the syntax tree becomes a checked, typed, merged configuration.
//!
//! [`load`] reads the file and what it includes, checks every directive against its row ([`Directive`]), lets it store
//! what it means ([`Cx`]), and merges the settings of each block with those around it ([`Section`]). Faults are
//! collected ([`Diagnostic`]) in the order in which nginx would meet them; nothing here opens, binds, resolves or spawns.

mod builder;
mod call;
pub mod catalogue;
mod check;
mod diagnostic;
mod directive;
mod model;
mod registry;
mod section;
mod source;
mod suggest;
#[cfg(test)]
pub(crate) mod testing;
pub mod value;
mod variable;

use pushgate_parser as ast;

pub use builder::{Applied, Builder, Cx, LoadOptions, Merge, Scope, ScopeId};
pub use call::Call;
pub use diagnostic::{Diagnostic, Fault, Note, Severity};
pub use directive::{Apply, Args, Body, Contexts, Directive, Status};
pub use model::{
    FolderDef, Keepalive, ListenAddress, ListenDef, ListenOptions, LocationDef, LocationKind, Model, ServerDef,
    ServerName, UpstreamDef,
};
pub use registry::{Declarations, Registry};
pub use section::{Section, SectionRow, Settings, Slot};
pub use source::{Position, Source as SourceText, SourceId, Sources};
pub use variable::{Read, Source, Value, VarId, Variable, VariableRow, VariableTable, Write, name_of};

/// A configuration that was read: whole if no diagnostic refuses it.
#[derive(Debug)]
pub struct Config {
    /// What was gathered: texts, blocks, servers, locations, findings.
    pub built: Builder,
    /// The final settings of each block, by its number.
    pub settings: Vec<Settings>,
    /// The variables, by their number.
    pub variables: Vec<Variable>,
}

impl Config {
    /// The settings of a block.
    pub fn settings(&self, scope: ScopeId) -> &Settings {
        &self.settings[scope.0 as usize]
    }

    /// The settings of the file itself.
    pub fn main(&self) -> &Settings {
        self.settings(Builder::MAIN)
    }

    /// Whether a server may start with it.
    pub fn is_good(&self) -> bool {
        !self.built.diagnostics.iter().any(|diagnostic| diagnostic.refuses)
    }
}

/// Reads a configuration from its file.
pub fn load(options: LoadOptions) -> Config {
    let file = options.file.clone();
    load_with(options, |builder| match builder.sources.read(&file, None) {
        Ok(read) => Some(read),
        Err((operation, error)) => {
            builder.diagnostics.push(check::cannot_read(operation, &file, &error, None));
            None
        }
    })
}

/// Reads a configuration from a text, as if it were the content of `options.file`.
pub fn load_text(options: LoadOptions, text: &[u8]) -> Config {
    let file = options.file.clone();
    load_with(options, |builder| Some(builder.sources.add(Some(file), text.to_vec(), None)))
}

fn load_with(options: LoadOptions, read: impl FnOnce(&mut Builder) -> Option<(SourceId, ast::Ast)>) -> Config {
    let mut builder = Builder::new(options, Registry::get());
    if let Some(globals) = builder.options.globals.clone() {
        let (source, tree) = builder.sources.add(None, globals.into_bytes(), None);
        check::walk(&mut builder, Builder::MAIN, source, &tree.items);
    }
    if let Some((source, tree)) = read(&mut builder) {
        check::walk(&mut builder, Builder::MAIN, source, &tree.items);
    }
    finish(builder)
}

/// What can only be said when the whole file is known.
fn finish(mut builder: Builder) -> Config {
    for module in crate::modules::MODULES {
        if let Some(finish) = module.finish {
            finish(&mut builder);
        }
    }
    let settings = builder.merge();
    let mut diagnostics = std::mem::take(&mut builder.diagnostics);
    let variables = builder.variables.finish(!builder.model.servers.is_empty(), &mut diagnostics);
    builder.diagnostics = diagnostics;
    Config { built: builder, settings, variables }
}
