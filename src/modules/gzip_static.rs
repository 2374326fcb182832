//! ngx_http_gzip_static_module: answers with files that are compressed already, beside the plain ones: `page.html.gz`.

use super::http_core::content_type;
use crate::config::Declarations;
use crate::http::file::Opened;
use crate::http::gzip::Acceptance;
use crate::http::wire::method::Method;
use crate::http::{Module, Next, Phase, Request, Response, file, root};
use crate::server::log::Level;
use crate::{choice, settings};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_gzip_static", sections: &[GzipStatic::ROW], commands: &[], variables: &[] },
    phases: &[(Phase::Content, answer)],
    ..Module::EMPTY
};

settings! {
    /// Files that are compressed already.
    pub struct GzipStatic {
        /// Whether a file is answered with the one that has `.gz` after its name, where that exists: to clients that
        /// accept it (`on`), or to all (`always`: with `gunzip`, or where only compressed files are there).
        "gzip_static" HTTP_ALL = "off" => mode: Mode,
    }
}

choice! {
    /// `gzip_static`
    pub enum Mode {
        /// No.
        "off" => Off,
        /// To those who accept it.
        "on" => On,
        /// To all.
        "always" => Always,
    }
}

fn answer(request: &mut Request) -> Next<'_> {
    let mode = request.settings::<GzipStatic>().mode;
    let is_file = matches!(request.method, Method::Get | Method::Head) && !request.uri.ends_with(b"/");
    if mode == Mode::Off || !is_file {
        return Next::Declined;
    }
    let is_accepted = mode == Mode::Always || request.accepts_gzip(&Response::new(200));
    // Whether the file is there must be known where the plain one is to say that there are two.
    if !is_accepted && !*request.settings::<Acceptance>().vary {
        return Next::Declined;
    }
    let mut path = root::map_uri(request).into_os_string();
    path.push(".gz");
    let path = std::path::PathBuf::from(path);
    let Opened { file, metadata } = match file::open(request, &path) {
        Ok(opened) => opened,
        Err(failure) => {
            if failure.status() != 404 {
                failure.log(request, &path);
            }
            return Next::Declined;
        }
    };
    if mode == Mode::On {
        request.varies_by_encoding();
    }
    if !is_accepted || metadata.is_dir() {
        return Next::Declined;
    }
    let Some(file) = file else {
        request.log(Level::Crit, &format!("\"{}\" is not a regular file", path.display()));
        return Next::Status(404);
    };
    let kind = content_type(request);
    let mut response = file::answer(request, file, &metadata, kind);
    response.header("Content-Encoding", &b"gzip"[..]);
    Next::answer(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(Mode::of("always"), Some(Mode::Always));
        assert_eq!(Mode::of("maybe"), None);
    }
}
