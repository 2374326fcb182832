//! ngx_http_autoindex_module: lists folders.

mod format;

use std::cell::Cell;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;

use self::format::{Entry, Kind, Style};
use crate::config::Declarations;
use crate::config::value::Flag;
use crate::http::file::Failure;
use crate::http::wire::escape::{Unescape, unescape};
use crate::http::wire::lookup::argument;
use crate::http::wire::method::Method;
use crate::http::{Body, BodyStream, Module, Next, Phase, Request, Response, root};
use crate::server::log::{Level, shown};
use crate::{choice, settings};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_autoindex", sections: &[Autoindex::ROW], commands: &[], variables: &[] },
    phases: &[(Phase::Content, list)],
    ..Module::EMPTY
};

settings! {
    /// Listings of folders.
    pub struct Autoindex {
        /// Whether a folder without an index file is listed. Names that begin with a dot are left out.
        "autoindex" HTTP_ALL = "off" => pub enabled: Flag,
        /// The form of the listing: `html`, `xml`, `json` or `jsonp` (with the argument `callback`).
        "autoindex_format" HTTP_ALL = "html" => pub format: Format,
        /// Whether an HTML listing has times of the machine's zone rather than UTC.
        "autoindex_localtime" HTTP_ALL = "off" => pub localtime: Flag,
        /// Whether an HTML listing has sizes to the byte rather than rounded.
        "autoindex_exact_size" HTTP_ALL = "on" => pub exact_size: Flag,
    }
}

choice! {
    /// `autoindex_format`
    pub enum Format {
        /// A page.
        "html" => Html,
        /// JSON.
        "json" => Json,
        /// JSON as the argument of a function's call.
        "jsonp" => Jsonp,
        /// XML.
        "xml" => Xml,
    }
}

/// The longest name of a function that JSONP calls.
const MAX_CALLBACK: usize = 128;

fn list(request: &mut Request) -> Next<'_> {
    let settings = request.settings::<Autoindex>();
    if !request.uri.ends_with(b"/") || !*settings.enabled || !matches!(request.method, Method::Get | Method::Head) {
        return Next::Declined;
    }
    let callback = match callback(request, settings.format) {
        Ok(callback) => callback,
        Err(status) => return Next::Status(status),
    };
    let path = root::map_uri(request);
    let mut entries = match read(request, &path) {
        Ok(entries) => entries,
        Err(status) => return Next::Status(status),
    };
    entries.sort_unstable();
    let (content_type, text) = match settings.format {
        Format::Html => return Next::answer(page(request, &entries)),
        Format::Xml => ("text/xml", format::xml(&entries)),
        Format::Json => ("application/json", format::json(&entries, None)),
        Format::Jsonp if callback.is_none() => ("application/json", format::json(&entries, None)),
        Format::Jsonp => ("application/javascript", format::json(&entries, callback.as_deref())),
    };
    Next::answer(Response {
        charset: (settings.format == Format::Xml).then_some(Bytes::from_static(b"utf-8")),
        hides_length: true,
        body: Body::Full(text.into()),
        ..Response::with(200, content_type, Bytes::new())
    })
}

/// A page. Where names have letters of several bytes, its columns depend on the charset.
fn page(request: &Request, entries: &[Entry]) -> Response {
    let settings = request.settings::<Autoindex>();
    let (exact_size, local) = (*settings.exact_size, *settings.localtime);
    let text = |utf8| Bytes::from(format::html(entries, &request.uri, Style { exact_size, local, utf8 }));
    let response = Response { hides_length: true, ..Response::with(200, "text/html", text(false)) };
    if entries.iter().all(|entry| entry.name.is_ascii()) {
        return response;
    }
    let is_utf8 = Rc::<Cell<bool>>::default();
    let forms = Some([text(false), text(true)]);
    let body = Body::Stream(Box::new(ByCharset { is_utf8: Rc::clone(&is_utf8), forms }));
    Response { body, is_utf8: Some(is_utf8), ..response }
}

/// A text in two forms, of which the second is for UTF-8.
struct ByCharset {
    is_utf8: Rc<Cell<bool>>,
    forms: Option<[Bytes; 2]>,
}

impl BodyStream for ByCharset {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + '_>> {
        let form = self.forms.take().map(|[plain, utf8]| Ok(if self.is_utf8.get() { utf8 } else { plain }));
        Box::pin(std::future::ready(form))
    }
}

/// The function that JSONP calls; an error is the status for a name that is none.
fn callback(request: &Request, format: Format) -> Result<Option<Vec<u8>>, u16> {
    if format != Format::Jsonp {
        return Ok(None);
    }
    let Some(name) = argument(&request.args, b"callback") else { return Ok(None) };
    let sent = shown(name);
    if name.len() > MAX_CALLBACK {
        request.log(Level::Info, &format!("client sent too long callback name: \"{sent}\""));
        return Err(400);
    }
    let name = unescape(name, Unescape::All);
    if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')) {
        request.log(Level::Info, &format!("client sent invalid callback name: \"{sent}\""));
        return Err(400);
    }
    Ok((!name.is_empty()).then(|| name.into_owned()))
}

/// What is in a folder; an error is the status to answer with.
fn read(request: &Request, path: &Path) -> Result<Vec<Entry>, u16> {
    let fail = |failure: Failure, path: &Path| {
        failure.log(request, path);
        failure.status()
    };
    let folder = std::fs::read_dir(path).map_err(|error| fail(Failure::new("opendir", error), path))?;
    let mut entries = Vec::new();
    for item in folder {
        let item = item.map_err(|error| fail(Failure::new("readdir", error), path))?;
        let name = item.file_name();
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        let path = item.path();
        // A link that leads nowhere is listed as itself.
        let metadata = match std::fs::metadata(&path).or_else(|_| item.metadata()) {
            Ok(metadata) => metadata,
            Err(error) => {
                fail(Failure::new("stat", error), &path);
                continue;
            }
        };
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => Kind::Folder,
            kind if kind.is_file() => Kind::File,
            _ => Kind::Other,
        };
        entries.push(Entry { kind, name: name.as_bytes().to_vec(), mtime: metadata.mtime(), size: metadata.len() });
    }
    Ok(entries)
}
