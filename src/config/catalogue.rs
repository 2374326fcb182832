//! Every directive of nginx 1.28 and of the three modules' generations: what is known, whether or not we have it.

use std::collections::HashMap;
use std::sync::LazyLock;

/// One directive as nginx declares it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// The module that it belongs to.
    pub module: &'static str,
    /// The blocks it may stand in, as nginx's documentation writes them.
    pub contexts: &'static str,
    /// How many words it takes: `1`, `1 2`, `1+`, `flag`.
    pub arguments: &'static str,
    /// The kind of value, where nginx has one reader for all of it; empty: it has a reader of its own.
    pub value: &'static str,
}

impl Known {
    /// Whether so many words may follow the name.
    pub fn takes(&self, count: usize) -> bool {
        let mut allowed = self.arguments.split(' ');
        allowed.any(|word| match (word, word.strip_suffix('+')) {
            ("", _) => true,
            ("flag", _) => count == 1,
            (_, Some(least)) => least.parse().is_ok_and(|least: usize| count >= least),
            (exact, None) => exact.parse() == Ok(count),
        })
    }
}

static TABLE: &str = include_str!("directives.tsv");

static BY_NAME: LazyLock<HashMap<&'static str, Vec<Known>>> = LazyLock::new(|| {
    let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
    for known in all() {
        by_name.entry(known.name).or_default().push(known);
    }
    by_name
});

/// All of them, in the order of the table.
pub fn all() -> impl Iterator<Item = Known> {
    TABLE.lines().skip(1).filter_map(|line| {
        let mut cells = line.split('\t');
        let name = cells.next()?;
        let module = cells.next()?;
        let _source = cells.next()?;
        // Entries without a context are commands of SSI and fields of logs, which nginx keeps in tables of the same shape.
        let contexts = cells.next().filter(|contexts| !contexts.is_empty())?;
        let arguments = cells.next()?;
        let value = cells.nth(1).unwrap_or_default();
        Some(Known { name, module, contexts, arguments, value })
    })
}

/// The first entry of a name.
pub fn find(name: &str) -> Option<Known> {
    named(name).first().copied()
}

/// Every entry of a name: `server`, `listen`, `upstream` mean different things by block.
pub fn named(name: &str) -> &'static [Known] {
    BY_NAME.get(name).map_or(&[], Vec::as_slice)
}
