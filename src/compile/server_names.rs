//! Which server a host name belongs to: exact names, then `*.suffix`, then `prefix.*`, then expressions, then the
//! default of the address.

use bytes::Bytes;

use super::ServerId;
use super::hash::Table;
use crate::config::ServerName;
use crate::config::value::{Captures, Regex};

/// The servers of one address, by name; or whatever else host names stand for.
#[derive(Clone, Debug)]
pub struct ServerNames<T = ServerId> {
    exact: Table<T>,
    suffixes: Table<T>,
    prefixes: Table<T>,
    regexes: Vec<(Regex, T)>,
}

impl<T> Default for ServerNames<T> {
    fn default() -> Self {
        Self { exact: Table::default(), suffixes: Table::default(), prefixes: Table::default(), regexes: Vec::new() }
    }
}

impl<T: Copy + PartialEq> ServerNames<T> {
    /// Adds a name. The first server that has it keeps it: `false` says that another one does.
    pub fn add(&mut self, name: &ServerName, server: T) -> bool {
        let (map, key) = match name {
            ServerName::Exact(name) => (&mut self.exact, name),
            ServerName::Suffix(name) => (&mut self.suffixes, name),
            ServerName::Prefix(name) => (&mut self.prefixes, name),
            ServerName::Regex(regex) => {
                self.regexes.push((regex.clone(), server));
                return true;
            }
        };
        match map.entry(key.as_bytes().into()) {
            std::collections::hash_map::Entry::Occupied(taken) => *taken.get() == server,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(server);
                true
            }
        }
    }

    /// Whether there is a name to look for at all.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() && self.regexes.is_empty()
    }

    /// The server of a name in lower case, with the expression and its captures if one found it.
    pub fn find(&self, name: &Bytes) -> Option<(T, Option<(&Regex, Captures)>)> {
        if let Some(server) = self.exact.get(&name[..]) {
            return Some((*server, None));
        }
        self.by_suffix(name)
            .or_else(|| self.by_prefix(name))
            .map(|server| (server, None))
            .or_else(|| self.by_regex(name))
    }

    fn by_suffix(&self, name: &[u8]) -> Option<T> {
        if self.suffixes.is_empty() {
            return None;
        }
        // The longest suffix is the one after the first dot.
        memchr::memchr_iter(b'.', name).find_map(|dot| self.suffixes.get(&name[dot + 1..])).copied()
    }

    fn by_prefix(&self, name: &[u8]) -> Option<T> {
        if self.prefixes.is_empty() {
            return None;
        }
        memchr::memrchr_iter(b'.', name).find_map(|dot| self.prefixes.get(&name[..dot])).copied()
    }

    fn by_regex(&self, name: &Bytes) -> Option<(T, Option<(&Regex, Captures)>)> {
        // A match that is given up counts as none: the default server then answers.
        self.regexes.iter().find_map(|(regex, server)| match regex.captures(name) {
            Ok(Some(captures)) => Some((*server, Some((regex, captures)))),
            Ok(None) | Err(_) => None,
        })
    }
}

/// The names that `*.name`, `name.*`, `.name` and `name` stand for; `None`: it is none of these.
pub fn host_names(text: &str) -> Option<Vec<ServerName>> {
    if text.contains("..") || text.contains('\0') || text.matches('*').count() > 1 {
        return None;
    }
    if let Some(name) = text.strip_prefix('.').filter(|name| !name.is_empty()) {
        return (!name.contains('*'))
            .then(|| vec![ServerName::Exact(name.to_owned()), ServerName::Suffix(name.to_owned())]);
    }
    if let Some(name) = text.strip_prefix("*.").filter(|name| !name.is_empty()) {
        return Some(vec![ServerName::Suffix(name.to_owned())]);
    }
    if let Some(name) = text.strip_suffix(".*").filter(|name| !name.is_empty()) {
        return Some(vec![ServerName::Prefix(name.to_owned())]);
    }
    (!text.contains('*')).then(|| vec![ServerName::Exact(text.to_owned())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_then_suffix_then_prefix() {
        let mut names = ServerNames::default();
        names.add(&ServerName::Exact("www.a.org".into()), ServerId(0));
        names.add(&ServerName::Suffix("a.org".into()), ServerId(1));
        names.add(&ServerName::Suffix("b.a.org".into()), ServerId(2));
        names.add(&ServerName::Prefix("www".into()), ServerId(3));
        let check = |name: &'static str, expected: Option<u32>| {
            let found = names.find(&Bytes::from_static(name.as_bytes()));
            assert_eq!(found.map(|(server, _)| server.0), expected, "{name}");
        };
        check("www.a.org", Some(0));
        check("x.a.org", Some(1));
        check("x.b.a.org", Some(2));
        check("a.org", None);
        check("www.c.org", Some(3));
        check("c.org", None);
        assert!(!names.add(&ServerName::Exact("www.a.org".into()), ServerId(4)));
    }
}
