//! The directives and sections of all modules, found by name.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::directive::Directive;
use super::section::SectionRow;
use super::variable::VariableRow;

/// What one module brings to the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Declarations {
    /// The module's name, without `ngx_` and `_module`.
    pub module: &'static str,
    /// Its settings, whose fields are directives.
    pub sections: &'static [SectionRow],
    /// Its other directives.
    pub commands: &'static [Directive],
    /// Its variables.
    pub variables: &'static [VariableRow],
}

/// All of them.
#[derive(Debug)]
pub struct Registry {
    by_name: HashMap<&'static str, Vec<&'static Directive>>,
    modules: Vec<Declarations>,
    sections: Vec<SectionRow>,
}

impl Registry {
    /// The registry of the program's own list of modules.
    pub fn get() -> &'static Self {
        static REGISTRY: LazyLock<Registry> =
            LazyLock::new(|| Registry::new(crate::modules::MODULES.iter().map(|module| module.declares).collect()));
        &REGISTRY
    }

    fn new(modules: Vec<Declarations>) -> Self {
        let sections: Vec<SectionRow> = modules.iter().flat_map(|module| module.sections).copied().collect();
        for (number, section) in sections.iter().enumerate() {
            section.number(number);
        }
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        for module in &modules {
            for row in module.directives() {
                by_name.entry(row.name).or_default().push(row);
            }
        }
        Self { by_name, modules, sections }
    }

    /// The rows of a name, one for each kind of block that gives it a meaning of its own.
    pub fn named(&self, name: &str) -> Option<&[&'static Directive]> {
        self.by_name.get(name).map(Vec::as_slice)
    }

    /// What each module declares, in the order of the list.
    pub fn modules(&self) -> &[Declarations] {
        &self.modules
    }

    /// Every directive, in the order of the modules.
    pub fn directives(&self) -> impl Iterator<Item = &'static Directive> {
        self.modules.iter().flat_map(Declarations::directives)
    }

    /// Every built-in variable, in the order of the modules.
    pub fn variables(&self) -> impl Iterator<Item = &'static VariableRow> {
        self.modules.iter().flat_map(|module| module.variables)
    }

    pub(super) fn sections(&self) -> &[SectionRow] {
        &self.sections
    }
}

impl Declarations {
    /// Its directives: the settings first.
    pub fn directives(&self) -> impl Iterator<Item = &'static Directive> + use<> {
        self.sections.iter().flat_map(|section| section.directives()).chain(self.commands)
    }
}
