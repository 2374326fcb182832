//! ngx_http_index_module: the file that stands for a folder.

use std::path::Path;

use bytes::{Bytes, BytesMut};

use crate::config::value::Template;
use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot};
use crate::http::file::{self, Failure};
use crate::http::settings::Pages;
use crate::http::wire::method::Method;
use crate::http::{Jump, Module, Next, Phase, Request, root};
use crate::server::log::Level;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_index",
        sections: &[SectionRow::of::<Index>(&[])],
        commands: COMMANDS,
        variables: &[],
    },
    phases: &[(Phase::Content, redirect)],
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[Directive {
    name: "index",
    contexts: Contexts::HTTP_ALL,
    args: Args::SOME,
    syntax: "file ...",
    default: "index.html",
    doc: "The files that may stand for a folder, tried in order; the first that exists is answered with, by an \
          internal redirect to it. One that begins with a slash is a path of this server, and is not looked for. The \
          whole list is inherited where a block names none.\n\nExample: `index index.$host.html index.html;`",
    file: file!(),
    apply: index,
    ..Directive::BASE
}];

/// The files that may stand for a folder.
#[derive(Clone, Debug)]
pub struct Index {
    names: Vec<Template>,
}

impl Section for Index {
    type Raw = Vec<Template>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        match parent {
            Some(parent) if raw.is_empty() => parent.clone(),
            None if raw.is_empty() => Self { names: vec![Template::literal("index.html")] },
            _ => Self { names: raw.clone() },
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn index(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    for (number, word) in call.words().enumerate() {
        if word.starts_with(b"/") && number + 1 < call.len() {
            cx.warn("index", "only the last index in \"index\" directive should be absolute", call);
        }
        if word.is_empty() {
            return Err(
                Fault::new(format!("index \"{}\" in \"index\" directive is invalid", call.text(number))).word(number)
            );
        }
        let name = Template::word(call, number, cx)?;
        cx.edit::<Index>().push(name);
    }
    Ok(())
}

/// Sends the request of a folder on to the file that stands for it.
fn redirect(request: &mut Request) -> Next<'_> {
    if !request.uri.ends_with(b"/") || !matches!(request.method, Method::Get | Method::Head | Method::Post) {
        return Next::Declined;
    }
    let folder = root::map_uri(request);
    let mut folder_tested = false;
    for name in &request.settings::<Index>().names {
        let name = request.eval(name);
        if name.first() == Some(&b'/') {
            return to(request, name);
        }
        let path = root::join(folder.as_os_str().as_encoded_bytes(), &name);
        let Err(failure) = file::stat(request, &path) else {
            let mut uri = BytesMut::with_capacity(request.uri.len() + name.len());
            uri.extend_from_slice(&request.uri);
            uri.extend_from_slice(&name);
            return to(request, uri.freeze());
        };
        if matches!(failure.errno(), libc::ELOOP | libc::EMLINK) {
            return Next::Status(403);
        }
        if matches!(failure.errno(), libc::ENOTDIR | libc::ENAMETOOLONG | libc::EACCES) {
            return Next::Status(not_there(request, &path, &failure));
        }
        if !folder_tested {
            if let Err(status) = test_folder(request, &folder, &path) {
                return Next::Status(status);
            }
            folder_tested = true;
        }
        if failure.errno() != libc::ENOENT {
            failure.log(request, &path);
            return Next::Status(failure.status());
        }
    }
    Next::Declined
}

fn to(request: &Request, uri: Bytes) -> Next<'static> {
    Next::Jump(Jump::Redirect { uri, args: request.args.clone() })
}

/// Whether the folder is there, once a file in it was not.
fn test_folder(request: &Request, folder: &Path, path: &Path) -> Result<(), u16> {
    match file::stat(request, folder) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => {
            request.log(Level::Alert, &format!("\"{}\" is not a directory", folder.display()));
            Err(500)
        }
        Err(failure) if failure.errno() == libc::ENOENT => Err(not_there(request, path, &failure)),
        // The file was looked for without this error, so the folder may be searched.
        Err(failure) if failure.errno() == libc::EACCES => Ok(()),
        Err(failure) => {
            failure.log(request, folder);
            Err(failure.status())
        }
    }
}

fn not_there(request: &Request, path: &Path, failure: &Failure) -> u16 {
    let (path, reason) = (path.display(), failure.reason());
    if failure.errno() == libc::EACCES {
        request.log(Level::Error, &format!("\"{path}\" is forbidden {reason}"));
        return 403;
    }
    if *request.settings::<Pages>().log_not_found {
        request.log(Level::Error, &format!("\"{path}\" is not found {reason}"));
    }
    404
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{findings, load_http};

    #[test]
    fn lists_are_inherited_whole() {
        let check = |directives: &str, expected: &[&str]| {
            let config = load_http(directives);
            let scope = config.built.model.servers[0].scope;
            let names = &config.settings(scope).get::<Index>().names;
            let names: Vec<_> = names.iter().map(|name| name.constant().unwrap_or(b"$")).collect();
            assert_eq!(names, expected.iter().map(|name| name.as_bytes()).collect::<Vec<_>>(), "{directives}");
        };
        check("server { }", &["index.html"]);
        check("index a b; server { }", &["a", "b"]);
        check("index a b; server { index c; index $host; }", &["c", "$"]);
    }

    #[test]
    fn words() {
        let absolute = "only the last index in \"index\" directive should be absolute";
        assert_eq!(findings("index /a b;"), [absolute]);
        assert_eq!(findings("index a /b;"), [""; 0]);
        assert_eq!(findings("index '';"), ["index \"\" in \"index\" directive is invalid"]);
    }
}
