//! ngx_http_static_module: answers with files, and what ngx_http_core_module says of files.

use bytes::Bytes;

use super::http_core::content_type;
use crate::config::{Declarations, Directive, SectionRow};
use crate::http::file::{Files, Opened};
use crate::http::open_files::{self, OpenFiles, Trust};
use crate::http::settings::Pages;
use crate::http::symlinks::{self, Symlinks};
use crate::http::wire::escape::{Escape, escape};
use crate::http::wire::method::Method;
use crate::http::{Module, Next, Phase, Request, Response, file, root};
use crate::server::log::Level;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_static",
        sections: &[Files::ROW, SectionRow::of::<OpenFiles>(&[]), Trust::ROW, SectionRow::of::<Symlinks>(&[])],
        commands: COMMANDS,
        variables: &[],
    },
    phases: &[(Phase::Content, answer)],
    follow: Some(|_, _| open_files::forget()),
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[open_files::COMMAND, symlinks::COMMAND];

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
