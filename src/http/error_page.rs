//! What a client gets for an error: `error_page`, or the server's own page.

use bytes::Bytes;

use super::module::Jump;
use super::request::Request;
use super::response::Response;
use super::settings::{Pages, ServerTokens};
use super::wire::header::Known;
use super::wire::method::Method;
use super::wire::pages::{self, PageStyle};
use super::wire::user_agent::Browser;
use crate::config::value::{Template, parse_number};
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot};

/// The name of the program in `Server` and in pages.
pub const PRODUCT: &str = "pushgate";
/// The same with its version.
pub const PRODUCT_VERSION: &str = concat!("pushgate/", env!("CARGO_PKG_VERSION"));

/// The statuses that end the connection without an answer: nginx's own for that, a client that took too long, and one
/// that has gone.
const SILENT: [u16; 3] = [444, 408, 499];

/// The rows that this file brings.
pub const COMMANDS: &[Directive] = &[Directive {
    name: "error_page",
    contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION),
    args: Args::at_least(2),
    syntax: "code ... [=[response]] uri",
    doc: "Names what is answered in place of the page for a status: a path of this server (found anew, as a GET), a \
          named location, or a URL to redirect to. `=code` changes the status, `=` alone leaves it to what answers. \
          The whole list is inherited where a block names none.\n\nExample: `error_page 404 /404.html;`",
    file: file!(),
    apply: error_page,
    ..Directive::BASE
}];

/// The pages that hold in a block.
#[derive(Clone, Debug)]
pub struct ErrorPages {
    pages: Vec<ErrorPage>,
}

/// One `error_page` for one status.
#[derive(Clone, Debug)]
pub struct ErrorPage {
    status: u16,
    overwrite: Overwrite,
    target: Template,
}

#[derive(Clone, Copy, Debug)]
enum Overwrite {
    Keep,
    Whatever,
    With(u16),
}

impl Section for ErrorPages {
    type Raw = Vec<ErrorPage>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        match parent {
            Some(parent) if raw.is_empty() => parent.clone(),
            _ => Self { pages: raw.clone() },
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn error_page(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let last = call.len() - 1;
    let mut codes = last;
    let mut overwrite = Overwrite::Keep;
    if let Some(code) = call.bytes(last - 1).strip_prefix(b"=") {
        if last == 1 {
            return Err(Fault::new(format!("invalid value \"{}\"", call.text(last - 1))).word(last - 1));
        }
        codes -= 1;
        overwrite = match (code, parse_number(code)) {
            (b"", _) => Overwrite::Whatever,
            (_, Some(code)) => Overwrite::With(u16::try_from(code).unwrap_or(u16::MAX)),
            (_, None) => return Err(Fault::new(format!("invalid value \"{}\"", call.text(last - 1))).word(last - 1)),
        };
    }
    let target = Template::word(call, last, cx)?;
    for index in 0..codes {
        let word = call.text(index);
        let invalid = || Fault::new(format!("invalid value \"{word}\"")).word(index);
        let status = parse_number(call.bytes(index)).ok_or_else(invalid)?;
        if status == 499 {
            return Err(invalid());
        }
        let status = u16::try_from(status).ok().filter(|status| (300..=599).contains(status));
        let status =
            status.ok_or_else(|| Fault::new(format!("value \"{word}\" must be between 300 and 599")).word(index))?;
        // The first entry for a status wins; 494 to 497 are kinds of 400 that have pages of their own.
        cx.edit::<ErrorPages>().push(ErrorPage { status, overwrite, target: target.clone() });
    }
    Ok(())
}

/// What becomes of an error.
pub(super) enum Special {
    /// This page.
    Page(Box<Response>),
    /// Another place inside the server makes the page.
    Jump(Jump),
}

impl Request {
    /// Whether `error_page` says something of a status.
    pub(super) fn has_error_page(&self, status: u16) -> bool {
        self.settings::<ErrorPages>().pages.iter().any(|page| page.status == status)
    }

    /// Turns a status into its page.
    pub(super) fn special(&mut self, status: u16) -> Special {
        self.is_told_to_continue = true;
        if SILENT.contains(&status) || self.connection.is_lost.get() {
            return Special::Page(Box::new(Response { silent: true, ..Response::new(status) }));
        }
        self.error_status = Some(pages::visible_status(status));
        self.drop_carried_type();
        if matches!(status, 400 | 413 | 414 | 494..=497 | 500 | 501) {
            self.must_close = true;
        }
        let pages = &self.settings::<ErrorPages>().pages;
        let (is_last, has_pages) = (self.is_error_page || self.uri_changes == 0, !pages.is_empty());
        let page = pages.iter().find(|page| !is_last && page.status == status).cloned();
        // The one that has pages decides for what comes after it, whether or not this status is among them.
        if has_pages && !is_last && !*self.settings::<Pages>().recursive_error_pages {
            self.is_error_page = true;
        }
        let Some(page) = page else {
            return Special::Page(Box::new(built_in(self, status)));
        };
        match page.overwrite {
            Overwrite::Keep => {}
            Overwrite::Whatever => self.error_status = None,
            Overwrite::With(status) => self.error_status = Some(status),
        }
        let target = self.eval(&page.target);
        match target.first() {
            Some(b'/') => {
                let (uri, args) = split_args(&target);
                if self.method != Method::Head {
                    self.method = Method::Get;
                    self.method_name = Bytes::from_static(b"GET");
                }
                Special::Jump(Jump::Redirect { uri, args })
            }
            Some(b'@') => Special::Jump(Jump::Named(target)),
            _ => {
                let status = self.error_status.filter(|status| matches!(status, 301 | 302 | 303 | 307 | 308));
                let status = status.unwrap_or(302);
                self.error_status = Some(status);
                let mut response = built_in(self, status);
                response.location = Some(target);
                Special::Page(Box::new(response))
            }
        }
    }
}

/// The server's own page.
pub(super) fn built_in(request: &Request, status: u16) -> Response {
    let agent = request.head.known(Known::UserAgent).unwrap_or_default();
    let settings = request.settings::<Pages>();
    let padded =
        *settings.msie_padding && request.head.version() >= 1000 && Browser::from_user_agent(agent).is_padded();
    let signature = signature(settings);
    let visible = pages::visible_status(status);
    match pages::error_page(status, &PageStyle { signature, padded }) {
        Some(page) => Response::with(visible, Bytes::from_static(b"text/html"), page),
        None => {
            let is_304 = status == 304;
            Response { content_length: is_304.then_some(0), disable_not_modified: is_304, ..Response::new(visible) }
        }
    }
}

/// What `server_tokens` lets the client know.
pub fn signature(settings: &Pages) -> &'static str {
    match settings.server_tokens {
        ServerTokens::Off => PRODUCT,
        ServerTokens::On | ServerTokens::Build => PRODUCT_VERSION,
    }
}

/// Cuts `path?arguments`.
pub fn split_args(uri: &Bytes) -> (Bytes, Bytes) {
    match memchr::memchr(b'?', uri) {
        Some(mark) => (uri.slice(..mark), uri.slice(mark + 1..)),
        None => (uri.clone(), Bytes::new()),
    }
}
