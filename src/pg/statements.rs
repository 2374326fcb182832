//! The prepared statements of one connection, the least recently used forgotten first.

use std::collections::HashMap;
use std::sync::Arc;

use super::connection::Column;

/// A backend keeps a plan in memory for each.
const CAPACITY: usize = 256;

/// What is prepared on a connection.
pub(crate) struct Statements {
    /// What the names begin with. Behind a pooler several connections share a backend, and none of them may find
    /// another's statement under a name of its own.
    prefix: u64,
    by_sql: HashMap<Box<str>, Vec<Prepared>>,
    count: usize,
    uses: u64,
    named: u64,
}

impl Default for Statements {
    fn default() -> Self {
        Self { prefix: rand::random(), by_sql: HashMap::new(), count: 0, uses: 0, named: 0 }
    }
}

/// One prepared statement. The same text with other parameter types is another statement.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) name: Arc<str>,
    /// Known once the server has described it.
    pub(crate) columns: Option<Arc<[Column]>>,
    types: Box<[u32]>,
    last_use: u64,
}

impl Statements {
    /// The statement, if it is prepared.
    pub(crate) fn find(&mut self, sql: &str, types: &[u32]) -> Option<&Prepared> {
        self.uses += 1;
        let found = self.by_sql.get_mut(sql)?.iter_mut().find(|prepared| *prepared.types == *types)?;
        found.last_use = self.uses;
        Some(found)
    }

    /// A name for a new statement, and the name of the one to be closed for it.
    pub(crate) fn add(&mut self, sql: &str, types: &[u32]) -> (Arc<str>, Option<Arc<str>>) {
        let evicted = if self.count >= CAPACITY { self.oldest() } else { None };
        if let Some(name) = &evicted {
            self.remove(name);
        }
        self.named += 1;
        self.uses += 1;
        self.count += 1;
        let name: Arc<str> = format!("s{:x}_{}", self.prefix, self.named).into();
        self.by_sql.entry(sql.into()).or_default().push(Prepared {
            name: Arc::clone(&name),
            columns: None,
            types: types.into(),
            last_use: self.uses,
        });
        (name, evicted)
    }

    /// Notes what the server said of a statement.
    pub(crate) fn describe(&mut self, name: &str, columns: &Arc<[Column]>) {
        let mut all = self.by_sql.values_mut().flatten();
        if let Some(prepared) = all.find(|prepared| &*prepared.name == name) {
            prepared.columns = Some(Arc::clone(columns));
        }
    }

    /// Forgets a statement.
    pub(crate) fn remove(&mut self, name: &str) {
        self.by_sql.retain(|_, prepared| {
            prepared.retain(|prepared| &*prepared.name != name);
            !prepared.is_empty()
        });
        self.count = self.by_sql.values().map(Vec::len).sum();
    }

    fn oldest(&self) -> Option<Arc<str>> {
        let all = self.by_sql.values().flatten();
        all.min_by_key(|prepared| prepared.last_use).map(|prepared| Arc::clone(&prepared.name))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_parameter_is_part_of_the_key() {
        let mut statements = Statements::default();
        let (text, _) = statements.add("select $1", &[25]);
        assert!(statements.find("select $1", &[23]).is_none());
        assert_eq!(statements.find("select $1", &[25]).unwrap().name, text);
    }

    #[test]
    fn names_are_unlike_those_of_other_connections() {
        let [(first, _), (second, _)] = [(); 2].map(|()| Statements::default().add("select 1", &[]));
        assert_ne!(first, second);
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut statements = Statements::default();
        let mut names = Vec::new();
        for number in 0..CAPACITY {
            let (name, evicted) = statements.add(&number.to_string(), &[]);
            assert_eq!(evicted, None);
            names.push(name);
        }
        assert!(statements.find("0", &[]).is_some());
        let (_, evicted) = statements.add("new", &[]);
        assert_eq!(evicted.as_ref(), Some(&names[1]));
        assert!(statements.find("1", &[]).is_none());
        assert_eq!(statements.count, CAPACITY);
    }
}
