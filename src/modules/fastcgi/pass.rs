//! `fastcgi_pass`: where requests go.

use std::sync::Arc;

use crate::config::value::Template;
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Position, Section, Slot};
use crate::http::Request;
use crate::http::content::Content;
use crate::http::upstream::Upstream;
use crate::modules::upstream::{self, Servers, Url};
use crate::server::log::Level;

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "fastcgi_pass",
    contexts: Contexts::LOCATION.union(Contexts::IF_LOCATION),
    args: Args::ONE,
    syntax: "address",
    doc: "Passes a location's requests to a FastCGI server, or to those of an `upstream`. It may have variables.\n\n\
          Examples: `fastcgi_pass 127.0.0.1:9000;`, `fastcgi_pass unix:/run/php/php-fpm.sock;`",
    file: file!(),
    apply: fastcgi_pass,
    ..Directive::BASE
}];

/// Where a location's requests go.
#[derive(Clone, Debug)]
pub(super) struct Pass(Option<To>);

#[derive(Clone, Debug)]
enum To {
    Fixed(Servers),
    Variable(Template),
}

/// What a block says.
#[derive(Debug)]
pub(super) enum Written {
    Fixed(Url, Position),
    Variable(Template),
}

impl Section for Pass {
    type Raw = Option<Written>;
    const ALWAYS: bool = true;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        Self(match raw {
            Some(Written::Variable(template)) => Some(To::Variable(template.clone())),
            Some(Written::Fixed(url, at)) => Some(To::Fixed(Servers::find(url, *at, cx))),
            None => {
                let inside = Contexts::IF_LOCATION | Contexts::LIMIT_EXCEPT;
                parent.filter(|_| inside.contains(cx.context)).and_then(|parent| parent.0.clone())
            }
        })
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// An address has no port unless one is written, and no path.
fn parse(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text, 0).map_err(|fault| fault.0)?;
    if url.uri.is_empty() { Ok(url) } else { Err("invalid host") }
}

fn fastcgi_pass(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if cx.edit::<Pass>().is_some() {
        return Err(call.duplicate());
    }
    let ends_with_slash = cx.location().is_some_and(|location| location.name.ends_with('/'));
    let content = cx.edit::<Content>();
    content.handler = Some(super::request::handle);
    content.auto_redirect = ends_with_slash;
    let written = match memchr::memchr(b'$', call.bytes(0)) {
        Some(_) => Written::Variable(Template::word(call, 0, cx)?),
        None => {
            let text = call.text(0);
            let url = parse(&text).map_err(|why| Fault::new(format!("{why} in upstream \"{text}\"")).word(0))?;
            Written::Fixed(url, call.at())
        }
    };
    *cx.edit::<Pass>() = Some(written);
    Ok(())
}

/// Where a request goes; an error is the status for it.
pub(super) async fn find(request: &Request) -> Result<Arc<Upstream>, u16> {
    let config = &request.compiled.config;
    let template = match &request.settings::<Pass>().0 {
        None => return Err(500),
        Some(To::Fixed(servers)) => return servers.get(config).cloned().ok_or(500),
        Some(To::Variable(template)) => template,
    };
    let text = request.eval(template);
    let text = String::from_utf8_lossy(&text);
    let url = parse(&text).map_err(|why| {
        request.log(Level::Error, &format!("{why} in upstream \"{text}\""));
        500u16
    })?;
    if let Some(upstream) = upstream::find(config, &url.host) {
        return Ok(Arc::clone(upstream));
    }
    if url.port == 0 && !url.host.starts_with("unix:") {
        request.log(Level::Error, &format!("no port in upstream \"{}\"", url.host));
        return Err(500);
    }
    // Boxed, so that a request to a fixed server does not keep room for a name's resolution: 20 KB.
    Box::pin(upstream::at_request(request, &url)).await.map(Arc::new).ok_or(502)
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn addresses() {
        let check = |address: &str, expected: &[&str]| {
            assert_eq!(
                findings(&format!("server {{ location / {{ fastcgi_pass {address}; }} }}")),
                expected,
                "{address}"
            );
        };
        check("127.0.0.1:9000", &[]);
        check("unix:/run/php.sock", &[]);
        check("$host:9000", &[]);
        check("127.0.0.1", &["no port in upstream \"127.0.0.1\""]);
        check("127.0.0.1:9000/x", &["invalid host in upstream \"127.0.0.1:9000/x\""]);
        check("a:9000; fastcgi_pass b:9000", &["\"fastcgi_pass\" directive is duplicate"]);
    }
}
