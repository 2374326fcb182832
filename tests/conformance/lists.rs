//! The two lists of cases that are not expected to be as recorded: `differences.toml` and `later.toml`.

use std::path::Path;

use serde::Deserialize;

/// Cases that differ on purpose, and cases whose directives a later issue brings.
pub(crate) struct Lists {
    differences: Vec<Difference>,
    later: Vec<Later>,
}

/// What is said about a case.
pub(crate) enum Listed<'a> {
    /// It differs on purpose; for this reason.
    Differs(&'a str),
    /// An issue brings what it needs.
    Later(u32),
    /// Nothing: it is to be as recorded.
    No,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    case: String,
    why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Later {
    issue: u32,
    #[serde(rename = "why")]
    _why: String,
    /// Names, where `*` stands for anything.
    cases: Vec<String>,
    /// Names among them that are to be as recorded already.
    #[serde(default)]
    except: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DifferencesFile {
    #[serde(default)]
    differs: Vec<Difference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LaterFile {
    #[serde(default)]
    later: Vec<Later>,
}

impl Lists {
    /// Reads both lists; an entry that fits none of `names` is a mistake.
    pub(crate) fn load(folder: &Path, names: &[String]) -> Result<Self, String> {
        let differences: DifferencesFile = read(&folder.join("differences.toml"))?;
        let later: LaterFile = read(&folder.join("later.toml"))?;
        let this = Self { differences: differences.differs, later: later.later };
        let patterns = this.differences.iter().map(|entry| ("differences.toml", &entry.case));
        let later_patterns = this.later.iter().flat_map(|entry| entry.cases.iter().chain(&entry.except));
        for (list, pattern) in patterns.chain(later_patterns.map(|pattern| ("later.toml", pattern))) {
            if !names.iter().any(|name| fits(pattern, name)) {
                return Err(format!("{list}: there is no case {pattern:?}"));
            }
        }
        Ok(this)
    }

    pub(crate) fn about(&self, name: &str) -> Listed<'_> {
        if let Some(entry) = self.differences.iter().find(|entry| fits(&entry.case, name)) {
            return Listed::Differs(&entry.why);
        }
        let any = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, name));
        match self.later.iter().find(|entry| any(&entry.cases) && !any(&entry.except)) {
            Some(entry) => Listed::Later(entry.issue),
            None => Listed::No,
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Whether a name is what a pattern says; names of checks contain brackets, so only `*` is special.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    name.strip_prefix(start)
        .is_some_and(|tail| tail.char_indices().any(|(at, _)| fits(rest, &tail[at..])) || rest.is_empty())
}
