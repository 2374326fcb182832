//! A recorded case as it stands in its file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One file under `cases/`: a configuration, what is done to a server that runs it, and what was observed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    #[serde(rename = "purpose")]
    _purpose: String,
    pub(crate) area: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "note")]
    _note: Option<String>,
    #[serde(default)]
    original_is_unsafe: bool,
    #[serde(default)]
    original_is_wrong: bool,
    /// The configuration has no `daemon off`.
    #[serde(default)]
    pub(crate) daemon: bool,
    /// Used only when a case is recorded.
    #[serde(rename = "loose")]
    _loose: Option<toml::Value>,
    #[serde(default)]
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) sql: Vec<String>,
    #[serde(default)]
    pub(crate) sql_after: Vec<String>,
    #[serde(default, rename = "file")]
    pub(crate) files: Vec<File>,
    #[serde(default, rename = "backend")]
    pub(crate) backends: Vec<Backend>,
    #[serde(default, rename = "step")]
    pub(crate) steps: Vec<Step>,
    #[serde(default, rename = "check")]
    pub(crate) checks: Vec<Check>,
    /// The whole file, to see which placeholders it uses.
    #[serde(skip)]
    pub(crate) source_text: String,
}

impl Case {
    /// All cases below a folder, in the order of their paths.
    pub(crate) fn load_all(folder: &Path) -> Result<Vec<Self>, String> {
        let mut paths: Vec<PathBuf> = glob::glob(&format!("{}/*/*.toml", folder.display()))
            .map_err(|e| e.to_string())?
            .filter_map(Result::ok)
            .collect();
        paths.sort();
        paths.iter().map(|path| Self::load(path)).collect()
    }

    fn load(path: &Path) -> Result<Self, String> {
        let describe = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| describe(&e))?;
        let mut case: Self = toml::from_str(&text).map_err(|e| describe(&e))?;
        case.source_text = text;
        Ok(case)
    }

    /// Why a difference from the original is allowed, if it is.
    pub(crate) fn lenient(&self) -> Option<&'static str> {
        if self.original_is_unsafe {
            Some("unsafe")
        } else if self.original_is_wrong {
            Some("wrong")
        } else {
            None
        }
    }

    pub(crate) fn needs_postgres(&self) -> bool {
        self.source_text.contains("%%PG_")
    }
}

/// A file, or folder, to put into the prefix.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) text: String,
    /// Seconds since 1970.
    pub(crate) mtime: Option<u64>,
    /// In octal: `0600`.
    pub(crate) mode: Option<String>,
    #[serde(default)]
    pub(crate) folder: bool,
}

/// A scripted server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backend {
    pub(crate) name: String,
    /// The name of its port: `PORT1`.
    pub(crate) port: String,
    /// One for each request in turn; the last is repeated.
    pub(crate) replies: Vec<String>,
    /// Seconds to wait before each reply.
    #[serde(default)]
    pub(crate) delay: f64,
    /// Keep the connection open after a reply.
    #[serde(default)]
    pub(crate) keep: bool,
}

/// A configuration for `-t`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) config: String,
    pub(crate) expect: Observed,
}

/// One step; which fields count depends on `verb`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    #[serde(rename = "do")]
    pub(crate) verb: Verb,
    pub(crate) about: Option<String>,
    pub(crate) conn: Option<String>,
    #[serde(default = "default_port")]
    pub(crate) port: String,
    pub(crate) request: Option<String>,
    pub(crate) raw: Option<String>,
    pub(crate) method: Option<String>,
    #[serde(default)]
    pub(crate) stream: bool,
    #[serde(default)]
    pub(crate) watch_close: bool,
    #[serde(default)]
    pub(crate) capture: BTreeMap<String, String>,
    /// Seconds.
    pub(crate) within: Option<f64>,
    /// Seconds.
    pub(crate) quiet: Option<f64>,
    #[serde(default)]
    pub(crate) frames: Vec<Frame>,
    pub(crate) query: Option<String>,
    pub(crate) seconds: Option<f64>,
    pub(crate) until: Option<String>,
    pub(crate) signal: Option<String>,
    #[serde(default)]
    pub(crate) wait: bool,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) to: String,
    #[serde(default)]
    pub(crate) backend: String,
    #[serde(default)]
    pub(crate) expect: Observed,
}

fn default_port() -> String {
    "PORT".into()
}

/// What a step does.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verb {
    Http,
    Send,
    Read,
    WsSend,
    WsRecv,
    Close,
    Sql,
    Sleep,
    Signal,
    Run,
    Write,
    Rename,
    File,
    BackendGot,
}

/// What was observed in a step: as recorded, or as seen now.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Observed {
    pub(crate) status: Option<String>,
    pub(crate) headers: Option<Vec<String>>,
    pub(crate) body: Option<String>,
    pub(crate) frames: Option<Vec<Frame>>,
    pub(crate) ended: Option<bool>,
    pub(crate) closed: Option<bool>,
    pub(crate) exit: Option<i32>,
    pub(crate) stderr: Option<Vec<String>>,
    pub(crate) stdout: Option<Vec<String>>,
    pub(crate) rows: Option<Vec<Vec<String>>>,
    pub(crate) requests: Option<Vec<String>>,
    pub(crate) missing: Option<bool>,
    pub(crate) error: Option<String>,
    /// Bytes of the decoded body, for `%%LENGTH%%`.
    #[serde(skip)]
    pub(crate) length: Option<usize>,
}

/// A WebSocket frame. Fields appear only when they are not as usual.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Frame {
    pub(crate) op: String,
    pub(crate) fin: Option<bool>,
    pub(crate) rsv: Option<u8>,
    pub(crate) masked: Option<bool>,
    pub(crate) data: Option<String>,
    pub(crate) code: Option<u16>,
    pub(crate) reason: Option<String>,
}
