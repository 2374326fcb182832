//! ngx_http_static_module: answers with files, and what ngx_http_core_module says of files.

use bytes::Bytes;

use super::http_core::content_type;
use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, SectionRow, Status};
use crate::http::file::{Files, Opened};
use crate::http::open_files::{self, OpenFiles, Trust};
use crate::http::settings::Pages;
use crate::http::wire::escape::{Escape, escape};
use crate::http::wire::method::Method;
use crate::http::{Module, Next, Phase, Request, Response, file, root};
use crate::server::log::Level;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_static",
        sections: &[Files::ROW, SectionRow::of::<OpenFiles>(&[]), Trust::ROW],
        commands: COMMANDS,
        variables: &[],
    },
    phases: &[(Phase::Content, answer)],
    follow: Some(|_, _| open_files::forget()),
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[
    open_files::COMMAND,
    Directive {
        name: "disable_symlinks",
        contexts: Contexts::HTTP_ALL,
        args: Args::between(1, 2),
        once: true,
        syntax: "off | on | if_not_owner [from=part]",
        default: "off",
        status: Status::Partly("only `off` is supported"),
        doc: "Whether symbolic links in the path of a file are refused.",
        file: file!(),
        apply: disable_symlinks,
        ..Directive::BASE
    },
];

fn disable_symlinks(_: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    for (index, word) in call.words().enumerate() {
        match word {
            b"off" => {}
            b"on" | b"if_not_owner" => {
                // To take it and follow links all the same would open what it is meant to close.
                let message = format!("\"disable_symlinks {}\" is not supported", call.text(index));
                return Err(Fault::new(message).word(index).code("unsupported-value"));
            }
            _ if word.starts_with(b"from=") => {}
            _ => return Err(Fault::new(format!("invalid parameter \"{}\"", call.text(index))).word(index)),
        }
    }
    Ok(())
}

/// Answers with the file that the path names.
fn answer(request: &mut Request) -> Next<'_> {
    if !matches!(request.method, Method::Get | Method::Head | Method::Post) {
        return Next::Status(405);
    }
    if request.uri.ends_with(b"/") {
        return Next::Declined;
    }
    let path = root::map_uri(request);
    let Opened { file, metadata } = match file::open(request, &path) {
        Ok(opened) => opened,
        Err(failure) => {
            if failure.status() != 404 || *request.settings::<Pages>().log_not_found {
                failure.log(request, &path);
            }
            return Next::Status(failure.status());
        }
    };
    if metadata.is_dir() {
        return Next::Redirect { status: 301, location: with_slash(request) };
    }
    let Some(file) = file else {
        request.log(Level::Crit, &format!("\"{}\" is not a regular file", path.display()));
        return Next::Status(404);
    };
    if request.method == Method::Post {
        return Next::Status(405);
    }
    let kind = content_type(request);
    Next::answer(Response { ranges: true, ..file::answer(request, file, &metadata, kind) })
}

/// Where a folder's name is redirected to: the same with a slash.
fn with_slash(request: &Request) -> Bytes {
    let mut location = escape(&request.uri, Escape::Uri).into_owned();
    location.push(b'/');
    if !request.args.is_empty() {
        location.push(b'?');
        location.extend_from_slice(&request.args);
    }
    location.into()
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn words() {
        let check = |directive: &str, expected: &[&str]| assert_eq!(findings(directive), expected, "{directive}");
        check("disable_symlinks off;", &[]);
        check("disable_symlinks on from=$host;", &["\"disable_symlinks on\" is not supported"]);
        check("disable_symlinks maybe;", &["invalid parameter \"maybe\""]);
    }
}
