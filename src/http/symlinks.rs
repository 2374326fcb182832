//! `disable_symlinks`: files are opened folder by folder, so that no symbolic link on the way is followed.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::file::Failure;
use super::request::Request;
use crate::config::value::Template;
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot};
use crate::sys::open_at;

/// The row.
pub const COMMAND: Directive = Directive {
    name: "disable_symlinks",
    contexts: Contexts::HTTP_ALL,
    args: Args::between(1, 2),
    once: true,
    syntax: "off | on [from=part] | if_not_owner [from=part]",
    default: "off",
    doc: "Which symbolic links in the path of a file are not followed: all (`on`), or those whose owner is not the owner \
          of what they lead to (`if_not_owner`). Folders up to `from`, which may have variables, are not looked at; it has \
          no effect where the path does not begin with it. Holds for files that are answered with, `index`, `try_files`, \
          `gzip_static` and the tests of `if`. As in nginx, the client gets 403 for a link to a file, and 404 for one on \
          the way under `on`.\n\nExample: `disable_symlinks on from=$document_root;`",
    file: file!(),
    apply: disable_symlinks,
    ..Directive::BASE
};

/// What a block says of links.
#[derive(Clone, Debug)]
pub struct Symlinks {
    rule: Rule,
    from: Option<Template>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// All are followed.
    Off,
    /// None is.
    On,
    /// Those are that have the owner of what they lead to.
    IfNotOwner,
}

impl Section for Symlinks {
    type Raw = Option<Self>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        raw.as_ref().or(parent).cloned().unwrap_or(Self { rule: Rule::Off, from: None })
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn disable_symlinks(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let (mut rule, mut from) = (None, None);
    for (index, word) in call.words().enumerate() {
        match word {
            b"off" => rule = Some(Rule::Off),
            b"on" => rule = Some(Rule::On),
            b"if_not_owner" => rule = Some(Rule::IfNotOwner),
            _ => {
                let invalid = || Fault::new(format!("invalid parameter \"{}\"", call.text(index))).word(index);
                let part = word.strip_prefix(b"from=").ok_or_else(invalid)?;
                let at = Some(call.word_at(index));
                from = Some(Template::compile(part, cx, at).map_err(|fault| fault.word(index))?);
            }
        }
    }
    let Some(rule) = rule else {
        let message = format!("\"{}\" must have \"off\", \"on\" or \"if_not_owner\" parameter", call.name());
        return Err(Fault::new(message));
    };
    if call.len() == 2 && from.is_none() {
        return Err(Fault::new(format!("duplicate parameters \"{} {}\"", call.text(0), call.text(1))).word(1));
    }
    if rule == Rule::Off && from.is_some() {
        return Err(Fault::new("\"from=\" cannot be used with \"off\" parameter"));
    }
    *cx.edit::<Symlinks>() = Some(Symlinks { rule, from });
    Ok(())
}

/// How one path is to be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Follow {
    rule: Rule,
    /// How much of the path is followed in any case. A slash comes next, if it is not 0.
    from: usize,
}

impl Follow {
    /// All links, as where nothing is said.
    pub(super) const ANY: Self = Self { rule: Rule::Off, from: 0 };

    /// No link at all.
    #[cfg(test)]
    pub(super) const NONE: Self = Self { rule: Rule::On, from: 0 };

    /// What the request's location says of a path.
    pub(super) fn of(request: &Request, path: &Path) -> Self {
        let Symlinks { rule, from } = request.settings::<Symlinks>();
        match from {
            Some(from) if *rule != Rule::Off => Self::from(*rule, &request.eval(from), path),
            _ => Self { rule: *rule, from: 0 },
        }
    }

    fn from(rule: Rule, from: &[u8], path: &Path) -> Self {
        let path = path.as_os_str().as_encoded_bytes();
        match path.strip_prefix(from) {
            Some([]) if !from.is_empty() => Self::ANY,
            Some([b'/', ..]) => Self { rule, from: from.len() },
            Some(_) if from.ends_with(b"/") => Self { rule, from: from.len() - 1 },
            _ => Self { rule, from: 0 },
        }
    }

    /// Whether any link is followed, so that a path can be left to the kernel.
    pub(super) fn is_any(self) -> bool {
        self.rule == Rule::Off
    }

    /// Opens whatever a path names, to read.
    pub(super) fn open(self, path: &Path) -> Result<File, Failure> {
        let path = path.as_os_str().as_encoded_bytes();
        let (mut folder, rest) = self.start(path)?;
        let (folders, name) = match rest.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => rest.split_at(slash + 1),
            None => (&b""[..], rest),
        };
        for name in folders.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            folder = Some(self.step(folder.as_ref(), name, SEARCH).map_err(not_opened)?);
        }
        let opened = match name {
            b"" => open_at(folder.as_ref(), b".", READ),
            _ => self.step(folder.as_ref(), name, READ),
        };
        opened.map_err(not_opened)
    }

    /// The folder that the walk begins in, and the path from there.
    fn start(self, path: &[u8]) -> Result<(Option<File>, &[u8]), Failure> {
        if self.from > 0 {
            let folder = open_at(None, &path[..self.from], SEARCH).map_err(|error| Failure::new("open", error))?;
            return Ok((Some(folder), &path[self.from + 1..]));
        }
        match path.strip_prefix(b"/") {
            Some(rest) => Ok((Some(open_at(None, b"/", SEARCH).map_err(not_opened)?), rest)),
            None => Ok((None, path)),
        }
    }

    fn step(self, folder: Option<&File>, name: &[u8], flags: libc::c_int) -> io::Result<File> {
        if self.rule == Rule::On {
            return open_at(folder, name, flags | libc::O_NOFOLLOW);
        }
        let target = open_at(folder, name, flags)?;
        // Another one may take the name's place between the two calls: so the owners count also where it is no link.
        let link = open_at(folder, name, libc::O_PATH | libc::O_NOFOLLOW)?;
        match target.metadata()?.uid() == link.metadata()?.uid() {
            true => Ok(target),
            false => Err(io::Error::from_raw_os_error(libc::ELOOP)),
        }
    }
}

/// For a folder on the way. With `O_NOFOLLOW` a link there is no folder.
const SEARCH: libc::c_int = libc::O_PATH | libc::O_DIRECTORY;

const READ: libc::c_int = libc::O_RDONLY | libc::O_NONBLOCK;

fn not_opened(error: io::Error) -> Failure {
    Failure::new("openat", error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn words() {
        let check = |directive: &str, expected: &[&str]| assert_eq!(findings(directive), expected, "{directive}");
        for right in ["off", "on", "if_not_owner", "on from=", "from=$host if_not_owner"] {
            check(&format!("disable_symlinks {right};"), &[]);
        }
        let missing = "\"disable_symlinks\" must have \"off\", \"on\" or \"if_not_owner\" parameter";
        check("disable_symlinks from=/x;", &[missing]);
        check("disable_symlinks from=/x from=/y;", &[missing]);
        check("disable_symlinks on off;", &["duplicate parameters \"on off\""]);
        check("disable_symlinks off from=/x;", &["\"from=\" cannot be used with \"off\" parameter"]);
        check("disable_symlinks on maybe;", &["invalid parameter \"maybe\""]);
        check("disable_symlinks on from=$nope;", &["unknown \"nope\" variable"]);
    }

    #[test]
    fn from_counts_by_whole_folders() {
        let check = |from: &str, expected: (Rule, usize)| {
            let follow = Follow::from(Rule::On, from.as_bytes(), Path::new("/srv/www/a"));
            assert_eq!((follow.rule, follow.from), expected, "{from}");
        };
        check("", (Rule::On, 0));
        check("/srv", (Rule::On, 4));
        check("/srv/", (Rule::On, 4));
        check("/srv/w", (Rule::On, 0));
        check("/srv/www/a", (Rule::Off, 0));
        check("/srv/www/a/", (Rule::On, 0));
        check("/", (Rule::On, 0));
        check("/home", (Rule::On, 0));
    }

    #[test]
    fn a_path_is_walked_folder_by_folder() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("d/file"), "text").unwrap();
        std::os::unix::fs::symlink("file", path("d/link")).unwrap();
        std::os::unix::fs::symlink("d", path("l")).unwrap();
        let root = std::fs::canonicalize(root.path()).unwrap();
        let open = |rule: Rule, name: &str| {
            let opened = Follow { rule, from: 0 }.open(Path::new(&format!("{}/{name}", root.display())));
            opened.map_or_else(|failure| failure.errno(), |_| 0)
        };
        for (name, errno) in [
            ("d/file", 0),
            ("d//file", 0),
            ("d/", 0),
            ("d", 0),
            ("d/link", libc::ELOOP),
            ("l", libc::ELOOP),
            ("l/", libc::ENOTDIR),
            ("l/file", libc::ENOTDIR),
            ("d/file/", libc::ENOTDIR),
            ("d/none", libc::ENOENT),
        ] {
            assert_eq!(open(Rule::On, name), errno, "{name}");
            let is_link = name.starts_with('l') || name == "d/link";
            assert_eq!(open(Rule::IfNotOwner, name), if is_link { 0 } else { errno }, "if_not_owner {name}");
        }
    }
}
