//! `fastcgi_pass`, `uwsgi_pass`, `scgi_pass` and `memcached_pass`: the address, which has no path, of servers that requests are passed to.

use std::sync::Arc;

use bytes::Bytes;

use super::{Servers, Url, at_request, find};
use crate::config::value::Template;
use crate::config::{Call, Contexts, Cx, Fault, Merge, Position, Section, Slot};
use crate::http::content::Content;
use crate::http::upstream::Upstream;
use crate::http::{Handler, Request};
use crate::server::log::Level;

/// A handler that passes requests to an address.
#[derive(Debug)]
pub struct Passer {
    /// Answers a location's requests.
    pub handler: Handler,
    /// What the error log writes before an address: `fastcgi://` and its like.
    pub schema: &'static str,
    /// The same for a connection by TLS. Where it is known, either may be written before the address.
    pub secure_schema: Option<&'static str>,
    /// Whether it may have variables.
    pub variables: Variables,
}

/// Whether an address may have variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variables {
    /// No: a dollar sign is a letter like any other.
    No,
    /// It may. A location whose name ends with a slash does not get the requests without it then.
    Yes,
    /// It may, and such a location gets them.
    YesWithRedirect,
}

/// Where a location's requests go, by the last of the directives that say so.
#[derive(Clone, Debug)]
pub struct Pass(Option<To>);

#[derive(Clone, Debug)]
enum To {
    Fixed { servers: Servers, schema: &'static str, tls_host: Option<Bytes> },
    Variable(Template, &'static Passer),
}

/// What a block says by one of the directives.
#[derive(Debug)]
pub struct RawPass {
    passer: &'static Passer,
    written: Written,
}

#[derive(Debug)]
enum Written {
    Fixed(Address, Position),
    Variable(Template),
}

/// An address as it was read.
#[derive(Debug)]
struct Address {
    url: Url,
    schema: &'static str,
    is_tls: bool,
}

impl RawPass {
    /// Whether requests may go there by TLS.
    pub fn may_be_tls(&self) -> bool {
        match &self.written {
            Written::Fixed(address, _) => address.is_tls,
            Written::Variable(_) => self.passer.secure_schema.is_some(),
        }
    }
}

impl Section for Pass {
    type Raw = Vec<RawPass>;
    const ALWAYS: bool = true;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        let mut to = None;
        for RawPass { passer, written } in raw {
            to = Some(match written {
                Written::Variable(template) => To::Variable(template.clone(), passer),
                Written::Fixed(address, at) => To::Fixed {
                    servers: Servers::find(&address.url, *at, cx),
                    schema: address.schema,
                    tls_host: address.tls_host(),
                },
            });
        }
        let inside = Contexts::IF_LOCATION | Contexts::LIMIT_EXCEPT;
        Self(to.or_else(|| parent.filter(|_| inside.contains(cx.context)).and_then(|parent| parent.0.clone())))
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

impl Address {
    /// Reads one. It has no port unless one is written.
    fn parse(text: &str, passer: &Passer) -> Result<Self, String> {
        let schemas = passer.secure_schema.map(|secure| [(passer.schema, false), (secure, true)]);
        let starts = |schema: &str| text.get(..schema.len()).is_some_and(|start| start.eq_ignore_ascii_case(schema));
        let written = schemas.into_iter().flatten().find(|(schema, _)| starts(schema));
        let rest = written.map_or(text, |(schema, _)| &text[schema.len()..]);
        let (schema, is_tls) = written.unwrap_or((passer.schema, false));
        let url = Url::parse(rest, 0).map_err(|fault| fault.0);
        match url.and_then(|url| if url.uri.is_empty() { Ok(url) } else { Err("invalid host") }) {
            Ok(url) => Ok(Self { url, schema, is_tls }),
            Err(why) => Err(format!("{why} in upstream \"{rest}\"")),
        }
    }

    /// Whom a certificate must name.
    fn tls_host(&self) -> Option<Bytes> {
        self.is_tls.then(|| Bytes::copy_from_slice(self.url.host.as_bytes()))
    }
}

/// Carries out one of the directives.
pub fn pass_to(cx: &mut Cx<'_>, call: &Call<'_>, passer: &'static Passer) -> Result<(), Fault> {
    if cx.edit::<Pass>().iter().any(|raw| std::ptr::eq(raw.passer, passer)) {
        return Err(call.duplicate());
    }
    let has_variables = passer.variables != Variables::No && memchr::memchr(b'$', call.bytes(0)).is_some();
    let ends_with_slash = cx.location().is_some_and(|location| location.name.ends_with('/'));
    let content = cx.edit::<Content>();
    content.handler = Some(passer.handler);
    content.auto_redirect = ends_with_slash && (!has_variables || passer.variables == Variables::YesWithRedirect);
    let written = match has_variables {
        true => Written::Variable(Template::word(call, 0, cx)?),
        false => {
            let address = Address::parse(&call.text(0), passer).map_err(|why| Fault::new(why).word(0))?;
            Written::Fixed(address, call.at())
        }
    };
    cx.edit::<Pass>().push(RawPass { passer, written });
    Ok(())
}

/// Where one request goes.
#[derive(Debug)]
pub struct Destination {
    /// The servers.
    pub upstream: Arc<Upstream>,
    /// What the error log writes before their addresses.
    pub schema: &'static str,
    /// Whom a certificate must name; `None`: the connection is plain.
    pub tls_host: Option<Bytes>,
}

impl Pass {
    /// Whether requests may go there by TLS.
    pub fn may_be_tls(&self) -> bool {
        match &self.0 {
            None => false,
            Some(To::Fixed { tls_host, .. }) => tls_host.is_some(),
            Some(To::Variable(_, passer)) => passer.secure_schema.is_some(),
        }
    }

    /// Where a request goes; an error is the status for it.
    pub async fn find(request: &Request) -> Result<Destination, u16> {
        let config = &request.compiled.config;
        let (template, passer) = match &request.settings::<Self>().0 {
            None => return Err(500),
            Some(To::Fixed { servers, schema, tls_host }) => {
                let upstream = servers.get(config).cloned().ok_or(500u16)?;
                return Ok(Destination { upstream, schema, tls_host: tls_host.clone() });
            }
            Some(To::Variable(template, passer)) => (template, passer),
        };
        let text = request.eval(template);
        let address = Address::parse(&String::from_utf8_lossy(&text), passer).map_err(|why| {
            request.log(Level::Error, &why);
            500u16
        })?;
        let (url, tls_host) = (&address.url, address.tls_host());
        let upstream = match find(config, &url.host) {
            Some(upstream) => Arc::clone(upstream),
            None if url.port == 0 && !url.host.starts_with("unix:") => {
                request.log(Level::Error, &format!("no port in upstream \"{}\"", url.host));
                return Err(500);
            }
            // Boxed, so that a request to a fixed server does not keep room for a name's resolution: 20 KB.
            None => Box::pin(at_request(request, url)).await.map(Arc::new).ok_or(502u16)?,
        };
        Ok(Destination { upstream, schema: address.schema, tls_host })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn addresses() {
        let check = |directives: &str, expected: &[&str]| {
            assert_eq!(findings(&format!("server {{ location / {{ {directives}; }} }}")), expected, "{directives}");
        };
        check("fastcgi_pass 127.0.0.1:9000", &[]);
        check("scgi_pass unix:/run/php.sock", &[]);
        check("uwsgi_pass $host:9000", &[]);
        check("fastcgi_pass 127.0.0.1", &["no port in upstream \"127.0.0.1\""]);
        check("fastcgi_pass 127.0.0.1:9000/x", &["invalid host in upstream \"127.0.0.1:9000/x\""]);
        check("fastcgi_pass a:9000; fastcgi_pass b:9000", &["\"fastcgi_pass\" directive is duplicate"]);
        check("fastcgi_pass 127.0.0.1:9000; uwsgi_pass 127.0.0.1:9001", &[]);
        check("uwsgi_pass UWSGI://127.0.0.1:9000", &[]);
        check("uwsgi_pass suwsgi://127.0.0.1:9000", &[]);
        check("uwsgi_pass suwsgi://127.0.0.1", &["no port in upstream \"127.0.0.1\""]);
        check("uwsgi_pass http://127.0.0.1:9000", &["invalid port in upstream \"http://127.0.0.1:9000\""]);
        check("scgi_pass scgi://127.0.0.1:9000", &["invalid port in upstream \"scgi://127.0.0.1:9000\""]);
    }
}
