//! `proxy_pass`: the URL.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::redirect::Redirects;
use crate::config::value::Template;
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, LocationKind, Merge, Position, Section, Slot};
use crate::http::Request;
use crate::http::content::Content;
use crate::http::upstream::Upstream;
use crate::modules::upstream::{self, Servers, Url};
use crate::server::log::{Level, shown};

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "proxy_pass",
    contexts: Contexts::LOCATION.union(Contexts::IF_LOCATION).union(Contexts::LIMIT_EXCEPT),
    args: Args::ONE,
    syntax: "URL",
    doc: "Passes a location's requests to an HTTP server, or to those of an `upstream`. A path in the URL takes the place \
          of the part of the request's path that is the location's name; without one the path goes as it came. With \
          variables, a path is the whole path.\n\nExamples: `proxy_pass http://127.0.0.1:8080;`, \
          `proxy_pass http://app/api/;`, `proxy_pass http://unix:/run/app.sock;`",
    file: file!(),
    apply: proxy_pass,
    ..Directive::BASE
}];

/// Where a location's requests go.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub(super) to: Option<To>,
}

#[derive(Clone, Debug)]
pub(super) enum To {
    /// A URL without variables.
    Fixed(Arc<Fixed>),
    /// One with variables.
    Variable(Template),
}

/// A URL without variables, with all that follows from it.
#[derive(Debug)]
pub(super) struct Fixed {
    servers: Servers,
    place: Arc<Place>,
}

/// What a URL says.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) is_tls: bool,
    /// `$proxy_host`
    pub(super) host: Bytes,
    /// `$proxy_port`
    pub(super) port: Bytes,
    pub(super) uri: Bytes,
    /// The location's name, which the URL's path takes the place of.
    pub(super) location: Bytes,
}

/// What a block says.
#[derive(Debug, Default)]
pub(super) struct RawPass {
    to: Option<Written>,
}

impl RawPass {
    /// Whether requests may go to a URL with `https`.
    pub(super) fn may_be_tls(&self) -> bool {
        match &self.to {
            Some(Written::Fixed { is_tls, .. }) => *is_tls,
            Some(Written::Variable(_)) => true,
            None => false,
        }
    }
}

#[derive(Debug)]
enum Written {
    Fixed { url: Url, is_tls: bool, location: Bytes, at: Position },
    Variable(Template),
}

impl Section for Pass {
    type Raw = RawPass;
    const ALWAYS: bool = true;

    fn merge(raw: &RawPass, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        let to = match &raw.to {
            Some(Written::Variable(template)) => Some(To::Variable(template.clone())),
            Some(Written::Fixed { url, is_tls, location, at }) => {
                let servers = Servers::find(url, *at, cx);
                let place = Arc::new(Place::new(url, *is_tls, location.clone()));
                Some(To::Fixed(Arc::new(Fixed { servers, place })))
            }
            None => {
                let inside = Contexts::IF_LOCATION | Contexts::LIMIT_EXCEPT;
                parent.filter(|_| inside.contains(cx.context)).and_then(|parent| parent.to.clone())
            }
        };
        Self { to }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

impl Place {
    fn new(url: &Url, is_tls: bool, location: Bytes) -> Self {
        let port = if is_tls { 443 } else { 80 };
        Self {
            is_tls,
            host: url.host_header(port).into(),
            port: url.port_text().into(),
            uri: Bytes::copy_from_slice(url.uri.as_bytes()),
            location,
        }
    }
}

/// Cuts the scheme off; says whether it is TLS.
fn scheme(text: &str) -> Option<(bool, &str)> {
    let is = |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if is("http://") {
        Some((false, &text["http://".len()..]))
    } else if is("https://") {
        Some((true, &text["https://".len()..]))
    } else {
        None
    }
}

fn proxy_pass(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if cx.edit::<Pass>().to.is_some() {
        return Err(call.duplicate());
    }
    let (name, kind) = cx.location().map(|location| (location.name.clone(), location.kind.clone())).unzip();
    let ends_with_slash = name.as_ref().is_some_and(|name| name.ends_with('/'));
    let content = cx.edit::<Content>();
    content.handler = Some(super::request::handle);
    content.auto_redirect = ends_with_slash;
    if memchr::memchr(b'$', call.bytes(0)).is_some() {
        let template = Template::word(call, 0, cx)?;
        cx.edit::<Pass>().to = Some(Written::Variable(template));
        cx.edit::<Redirects>().url = Some(None);
        return Ok(());
    }
    let text = call.text(0).into_owned();
    let Some((is_tls, rest)) = scheme(&text) else { return Err(Fault::new("invalid URL prefix").word(0)) };
    let url = Url::parse(rest, if is_tls { 443 } else { 80 })
        .map_err(|fault| Fault::new(format!("{} in upstream \"{rest}\"", fault.0)).word(0))?;
    let has_path = matches!(kind, Some(LocationKind::Prefix { .. } | LocationKind::Exact(_)));
    if !has_path && !url.uri.is_empty() {
        return Err(Fault::new(
            "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named location, or \
             inside \"if\" statement, or inside \"limit_except\" block",
        )
        .word(0));
    }
    let location = match kind {
        Some(LocationKind::Prefix { path, .. } | LocationKind::Exact(path)) => Bytes::from(path),
        _ => Bytes::new(),
    };
    let back = match url.uri.is_empty() {
        true => (format!("{text}/").into_bytes(), Bytes::from_static(b"/")),
        false => (text.clone().into_bytes(), location.clone()),
    };
    cx.edit::<Redirects>().url = Some(Some((back.0.into(), back.1)));
    cx.edit::<Pass>().to = Some(Written::Fixed { url, is_tls, location, at: call.at() });
    Ok(())
}

/// Where a request goes; an error is the status for it.
pub(super) async fn find(request: &Request) -> Result<(Arc<Upstream>, Arc<Place>), u16> {
    match &request.settings::<Pass>().to {
        None => Err(500),
        Some(To::Fixed(fixed)) => {
            let Some(upstream) = fixed.servers.get(&request.compiled.config) else {
                request.log(Level::Error, &format!("no port in upstream \"{}\"", shown(&fixed.place.host)));
                return Err(500);
            };
            Ok((Arc::clone(upstream), Arc::clone(&fixed.place)))
        }
        // Boxed, so that a request to a fixed server does not keep room for a name's resolution: 20 KB.
        Some(To::Variable(template)) => Box::pin(variable(request, template)).await,
    }
}

async fn variable(request: &Request, template: &Template) -> Result<(Arc<Upstream>, Arc<Place>), u16> {
    let bytes = request.eval(template);
    // A path may be any bytes: then each is taken for a character, and made a byte again.
    let (text, is_bytes) = match std::str::from_utf8(&bytes) {
        Ok(text) => (Cow::Borrowed(text), false),
        Err(_) => (Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()), true),
    };
    let Some((is_tls, rest)) = scheme(&text).filter(|(_, rest)| !rest.is_empty()) else {
        request.log(Level::Error, &format!("invalid URL prefix in \"{text}\""));
        return Err(500);
    };
    let url = Url::parse(rest, if is_tls { 443 } else { 80 }).map_err(|fault| {
        request.log(Level::Error, &format!("{} in upstream \"{rest}\"", fault.0));
        500u16
    })?;
    let mut place = Place::new(&url, is_tls, Bytes::new());
    if is_bytes {
        place.uri = url.uri.chars().map(|char| u8::try_from(char).unwrap_or(b'?')).collect();
    }
    let place = Arc::new(place);
    if let Some(upstream) = upstream::find(&request.compiled.config, &url.host) {
        return Ok((Arc::clone(upstream), place));
    }
    match upstream::at_request(request, &url).await {
        Some(upstream) => Ok((Arc::new(upstream), place)),
        None => Err(502),
    }
}
