//! `root` and `alias`: where the files of a location are.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use bytes::Bytes;

use super::request::Request;
use crate::config::value::Template;
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot};

/// The rows that this file brings.
pub const COMMANDS: &[Directive] = &[
    Directive {
        name: "root",
        contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION),
        syntax: "path",
        default: "html",
        doc: "The folder that a request's path is added to. A relative one hangs on the prefix.",
        file: file!(),
        apply: root,
        ..Directive::BASE
    },
    Directive {
        name: "alias",
        contexts: Contexts::LOCATION,
        args: Args::ONE,
        syntax: "path",
        doc: "What replaces the location's own path in a request's, to make a file's name. In a location given by an \
              expression it is the whole name, and may use the captures.",
        file: file!(),
        apply: root,
        ..Directive::BASE
    },
];

/// Where files are.
#[derive(Clone, Debug)]
pub struct Root {
    path: Template,
    /// The length of the location's name, which the path stands for; `None` for `root`.
    alias: Option<usize>,
    /// Whether the whole name is the path (`alias` in a location given by an expression).
    whole: bool,
}

/// What a block says.
#[derive(Debug, Default)]
pub struct RawRoot {
    own: Option<Root>,
}

impl Section for Root {
    type Raw = RawRoot;

    fn merge(raw: &RawRoot, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        raw.own.clone().or_else(|| parent.cloned()).unwrap_or_else(|| {
            let html = cx.options.full_path("html");
            Self { path: Template::literal(html.into_os_string().into_vec()), alias: None, whole: false }
        })
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn root(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let is_alias = call.name() == "alias";
    if let Some(before) = &cx.edit::<Root>().own {
        let before = if before.alias.is_some() { "alias" } else { "root" };
        return Err(match (before == "alias") == is_alias {
            true => call.duplicate(),
            false => call.fault(&format!("is duplicate, \"{before}\" directive was specified earlier")),
        });
    }
    let text = call.text(0);
    if text.contains("$document_root") || text.contains("${document_root}") {
        return Err(Fault::new(format!(
            "the $document_root variable cannot be used in the \"{}\" directive",
            call.name()
        ))
        .word(0));
    }
    if text.contains("$realpath_root") || text.contains("${realpath_root}") {
        return Err(Fault::new(format!(
            "the $realpath_root variable cannot be used in the \"{}\" directive",
            call.name()
        ))
        .word(0));
    }
    let text = text.strip_suffix('/').filter(|_| !is_alias).unwrap_or(&text);
    let full = if text.starts_with('$') { text.into() } else { cx.options().full_path(text) };
    let path = Template::compile(full.as_os_str().as_encoded_bytes(), cx, Some(call.word_at(0)))?;
    let location = cx.location().map(|location| (location.name.len(), location.kind.clone()));
    let (alias, whole) = match location {
        Some((_, crate::config::LocationKind::Regex(_))) if is_alias => (Some(0), true),
        Some((length, _)) if is_alias => (Some(length), false),
        _ => (None, false),
    };
    cx.edit::<Root>().own = Some(Root { path, alias, whole });
    Ok(())
}

/// How `alias` changes the way from a path to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alias {
    /// Not at all: `root`.
    None,
    /// It stands for so many bytes at the path's beginning.
    Prefix(usize),
    /// It is the whole file name.
    Whole,
}

/// Kept with a request of a location whose alias is the whole file name, when the path is to be added to it all the
/// same: `try_files` found it that way.
#[derive(Debug, Default)]
struct PathAdded;

/// How `alias` holds for a request.
pub fn alias(request: &Request) -> Alias {
    match request.settings::<Root>() {
        Root { alias: None, .. } => Alias::None,
        Root { whole: true, .. } => Alias::Whole,
        Root { alias: Some(length), .. } => Alias::Prefix(*length),
    }
}

/// Lets the path be added to an alias that is a whole file name, until the next jump.
pub fn add_path_to_alias(request: &mut Request) {
    request.note_mut::<PathAdded>();
}

/// The folder that holds for a request: `$document_root`.
pub fn document_root(request: &Request) -> Bytes {
    let path = request.eval(&request.settings::<Root>().path);
    if path.first() == Some(&b'/') {
        return path;
    }
    let full = request.compiled.config.built.options.prefix.join(OsStr::from_bytes(&path));
    full.into_os_string().into_vec().into()
}

/// The file that a request's path names.
pub fn map_uri(request: &Request) -> PathBuf {
    let rest = match alias(request) {
        Alias::None => &request.uri[..],
        Alias::Prefix(length) => request.uri.get(length..).unwrap_or_default(),
        Alias::Whole if request.note::<PathAdded>().is_some() => &request.uri[..],
        Alias::Whole => &[],
    };
    join(&document_root(request), rest)
}

/// A name below a folder.
pub fn join(folder: &[u8], name: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(folder.len() + name.len() + 1);
    path.extend_from_slice(folder);
    path.extend_from_slice(name);
    PathBuf::from(OsString::from_vec(path))
}
