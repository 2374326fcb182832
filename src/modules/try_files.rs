//! ngx_http_try_files_module: the first of some files that exists, or else somewhere else.

use bytes::{Bytes, BytesMut};

use crate::config::value::{Template, parse_number};
use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot};
use crate::http::error_page::split_args;
use crate::http::root::{self, Alias};
use crate::http::{Jump, Module, Next, Phase, Request, Response, file};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_try_files",
        sections: &[SectionRow::of::<TryFiles>(&[])],
        commands: COMMANDS,
        variables: &[],
    },
    phases: &[(Phase::Precontent, try_files)],
    acts: Some(|settings| !matches!(settings.get::<TryFiles>().fallback, Fallback::None)),
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[Directive {
    name: "try_files",
    contexts: Contexts::SERVER.union(Contexts::LOCATION),
    args: Args::at_least(2),
    once: true,
    syntax: "file ... uri | file ... =code",
    doc: "Looks for files below `root` or `alias`, and goes on with the first that exists as the request's path; a name \
          that ends with a slash is a folder's. If there is none, goes to the last word: another path by an internal \
          redirect, a named location, or a status.\n\nExample: `try_files $uri $uri/ /index.html;`",
    file: file!(),
    apply: directive,
    ..Directive::BASE
}];

/// What a location tries. It is not inherited.
#[derive(Clone, Debug)]
pub struct TryFiles {
    files: Vec<Candidate>,
    fallback: Fallback,
}

#[derive(Clone, Debug)]
struct Candidate {
    name: Template,
    is_folder: bool,
}

#[derive(Clone, Debug)]
enum Fallback {
    /// A path, with arguments, or the name of a location.
    Uri(Template),
    Status(u16),
    /// Nothing is tried.
    None,
}

impl Section for TryFiles {
    type Raw = Option<Self>;
    const ALWAYS: bool = true;

    fn merge(raw: &Self::Raw, _: Option<&Self>, _: &mut Merge<'_>) -> Self {
        raw.clone().unwrap_or(Self { files: Vec::new(), fallback: Fallback::None })
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn directive(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let last = call.len() - 1;
    let mut files = Vec::with_capacity(last);
    for (number, word) in call.words().take(last).enumerate() {
        let (word, is_folder) = word.strip_suffix(b"/").map_or((word, false), |word| (word, true));
        let at = Some(call.word_at(number));
        let name = Template::compile(word, cx, at).map_err(|fault| fault.word(number))?;
        files.push(Candidate { name, is_folder });
    }
    let code = match call.bytes(last).strip_prefix(b"=") {
        None => 0,
        Some(code) => {
            let code = parse_number(code).filter(|code| *code <= 999).and_then(|code| u16::try_from(code).ok());
            code.ok_or_else(|| Fault::new(format!("invalid code \"{}\"", call.text(last))).word(last))?
        }
    };
    let fallback = match code {
        // So it is in nginx for `=0`, too.
        0 => Fallback::Uri(Template::word(call, last, cx)?),
        code => Fallback::Status(code),
    };
    *cx.edit::<TryFiles>() = Some(TryFiles { files, fallback });
    Ok(())
}

fn try_files(request: &mut Request) -> Next<'_> {
    let settings = request.settings::<TryFiles>();
    if matches!(settings.fallback, Fallback::None) {
        return Next::Declined;
    }
    let alias = root::alias(request);
    let folder = root::document_root(request);
    for candidate in &settings.files {
        let name = below_alias(request.eval(&candidate.name), request, alias);
        let path = root::join(&folder, &name);
        match file::stat(request, &path) {
            Ok(metadata) if metadata.is_dir() == candidate.is_folder => {
                let is_folder = candidate.is_folder;
                found(request, name, alias, is_folder);
                return Next::Declined;
            }
            Ok(_) => {}
            Err(failure) if failure.status() == 404 => {}
            Err(failure) => failure.log_critical(request, &path),
        }
    }
    match &settings.fallback {
        Fallback::None => Next::Declined,
        Fallback::Status(status @ (201 | 204 | 300..)) => Next::Status(*status),
        // nginx takes it that somebody has answered.
        Fallback::Status(_) => Next::answer(Response { silent: true, ..Response::default() }),
        Fallback::Uri(uri) => {
            let uri = request.eval(uri);
            if uri.first() == Some(&b'@') {
                return Next::Jump(Jump::Named(uri));
            }
            let (uri, args) = split_args(&uri);
            Next::Jump(Jump::Redirect { uri, args })
        }
    }
}

/// A name without the part of the path that an alias stands for.
fn below_alias(name: Bytes, request: &Request, alias: Alias) -> Bytes {
    match alias {
        Alias::Prefix(length) if request.uri.get(..length).is_some_and(|prefix| name.starts_with(prefix)) => {
            name.slice(length..)
        }
        _ => name,
    }
}

/// Makes what was found the request's path.
fn found(request: &mut Request, name: Bytes, alias: Alias, is_folder: bool) {
    match alias {
        Alias::None => request.uri = name,
        Alias::Whole => {
            if !is_folder {
                request.uri = name;
            }
            root::add_path_to_alias(request);
        }
        Alias::Prefix(length) => {
            let mut uri = BytesMut::with_capacity(length + name.len());
            uri.extend_from_slice(request.uri.get(..length).unwrap_or_default());
            uri.extend_from_slice(&name);
            request.uri = uri.freeze();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{findings, load_http};

    #[test]
    fn words() {
        let check = |words: &str, expected: &str| {
            let config = load_http(&format!("server {{ try_files {words}; location / {{ }} }}"));
            let tried = config.settings(config.built.model.servers[0].scope).get::<TryFiles>();
            let text = |template: &Template| String::from_utf8_lossy(template.constant().unwrap_or(b"$")).into_owned();
            let files = tried.files.iter().map(|file| text(&file.name) + if file.is_folder { "/" } else { "" });
            let fallback = match &tried.fallback {
                Fallback::Uri(uri) => text(uri),
                Fallback::Status(status) => format!("={status}"),
                Fallback::None => String::new(),
            };
            assert_eq!(format!("{} | {fallback}", files.collect::<Vec<_>>().join(" ")), expected, "{words}");
            // A location does not take the server's.
            let inner = config.settings(config.built.model.locations[0].scope).get::<TryFiles>();
            assert!(matches!(inner.fallback, Fallback::None));
        };
        check("$uri /a /b/ /c?x", "$ /a /b/ | /c?x");
        check("/a/ /b/", "/a/ | /b/");
        check("/a =404", "/a | =404");
        check("/a @x", "/a | @x");
    }

    #[test]
    fn wrong_words() {
        let check = |code: &str| {
            let expected = format!("invalid code \"{code}\"");
            assert_eq!(findings(&format!("server {{ try_files a {code}; }}")), [expected]);
        };
        check("=abc");
        check("=1000");
        check("=");
    }
}
