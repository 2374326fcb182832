//! ngx_http_static_module: answers with files, and what ngx_http_core_module says of files.

use bytes::Bytes;

use super::http_core::content_type;
use crate::config::value::{Flag, Number, Sec, parse_number, parse_sec};
use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, Status};
use crate::http::file::Files;
use crate::http::settings::Pages;
use crate::http::wire::escape::{Escape, escape};
use crate::http::wire::method::Method;
use crate::http::{Module, Next, Phase, Request, Response, file, root};
use crate::server::log::Level;
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_static",
        sections: &[Files::ROW, Ignored::ROW],
        commands: COMMANDS,
        variables: &[],
    },
    phases: &[(Phase::Content, answer)],
    ..Module::EMPTY
};

const KERNEL_CACHES: Status = Status::Ignored("files are opened anew; the kernel caches what matters");

settings! {
    /// What tunes nginx's cache of open files.
    pub struct Ignored {
        /// Whether nginx's cache of open files remembers failures too.
        @KERNEL_CACHES; "open_file_cache_errors" HTTP_ALL = "off" => pub errors: Flag,
        /// Whether nginx lets the kernel tell it that a file in the cache changed.
        @KERNEL_CACHES; "open_file_cache_events" HTTP_ALL = "off" => pub events: Flag,
        /// How often a file must be asked for to stay in the cache.
        @KERNEL_CACHES; "open_file_cache_min_uses" HTTP_ALL = "1" => pub min_uses: Number,
        /// How long nginx trusts what its cache says.
        @KERNEL_CACHES; "open_file_cache_valid" HTTP_ALL = "60s" => pub valid: Sec,
    }
}

const COMMANDS: &[Directive] = &[
    Directive {
        name: "open_file_cache",
        contexts: Contexts::HTTP_ALL,
        args: Args::between(1, 2),
        once: true,
        syntax: "off | max=number [inactive=time]",
        default: "off",
        status: KERNEL_CACHES,
        doc: "How many open files nginx keeps, and for how long without use.",
        file: file!(),
        apply: open_file_cache,
        ..Directive::BASE
    },
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

fn open_file_cache(_: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let mut has_max = false;
    let mut is_off = false;
    for (index, word) in call.words().enumerate() {
        let is_right = match word {
            b"off" => {
                is_off = true;
                true
            }
            _ if word.starts_with(b"max=") => {
                has_max = true;
                parse_number(&word[4..]).is_some_and(|max| max > 0)
            }
            _ => word.strip_prefix(b"inactive=").and_then(parse_sec).is_some(),
        };
        if !is_right {
            let message = format!("invalid \"open_file_cache\" parameter \"{}\"", call.text(index));
            return Err(Fault::new(message).word(index));
        }
    }
    if has_max || is_off { Ok(()) } else { Err(Fault::new("\"open_file_cache\" must have the \"max\" parameter")) }
}

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
    let (file, metadata) = match file::open(&path) {
        Ok(opened) => opened,
        Err(failure) => {
            if failure.status() != 404 || *request.settings::<Pages>().log_not_found {
                failure.log(request, &path);
            }
            return Next::Status(failure.status());
        }
    };
    if metadata.is_dir() {
        return Next::Answer(slash_redirect(request));
    }
    if !metadata.is_file() {
        request.log(Level::Crit, &format!("\"{}\" is not a regular file", path.display()));
        return Next::Status(404);
    }
    if request.method == Method::Post {
        return Next::Status(405);
    }
    let kind = content_type(request);
    Next::Answer(Response { ranges: true, ..file::answer(request, file, &metadata, kind) })
}

/// The redirect from a folder's name to the same with a slash.
fn slash_redirect(request: &mut Request) -> Response {
    let mut location = escape(&request.uri, Escape::Uri).into_owned();
    location.push(b'/');
    if !request.args.is_empty() {
        location.push(b'?');
        location.extend_from_slice(&request.args);
    }
    let mut response = request.plain_page(301);
    response.location = Some(Bytes::from(location));
    response
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn words() {
        let check = |directive: &str, expected: &[&str]| assert_eq!(findings(directive), expected, "{directive}");
        check("open_file_cache max=10 inactive=20s;", &[]);
        check("open_file_cache off;", &[]);
        check("open_file_cache inactive=20s;", &["\"open_file_cache\" must have the \"max\" parameter"]);
        check("open_file_cache max=0;", &["invalid \"open_file_cache\" parameter \"max=0\""]);
        check("disable_symlinks off;", &[]);
        check("disable_symlinks on from=$host;", &["\"disable_symlinks on\" is not supported"]);
        check("disable_symlinks maybe;", &["invalid parameter \"maybe\""]);
    }
}
