//! ngx_http_secure_link_module: whether a link was made by who knows a secret, and until when it holds.

use std::cell::RefCell;

use base64::alphabet;
use bytes::Bytes;
use md5::{Digest, Md5};

use crate::config::value::{Template, Text, parse_number};
use crate::config::{Declarations, Diagnostic, Merge, Section, SectionRow, Slot, Value, VariableRow};
use crate::http::wire::authorization::decode_base64;
use crate::http::{Module, Request};
use crate::server::clock;
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_secure_link",
        sections: &[Link::ROW, SectionRow::of::<Mixed>(&[])],
        commands: &[],
        variables: VARIABLES,
    },
    ..Module::EMPTY
};

settings! {
    /// What makes a link.
    pub struct Link {
        /// The digest that the link has, in base64url, and after a comma the time until which it holds, in seconds since
        /// 1970.
        ///
        /// Example: `secure_link $arg_md5,$arg_expires;`
        "secure_link" HTTP_ALL = "" => link: Option<Template>,
        /// The text whose MD5 digest is compared with it: the secret is part of it.
        ///
        /// Example: `secure_link_md5 "$secure_link_expires$uri$remote_addr secret";`
        "secure_link_md5" HTTP_ALL = "" => md5: Option<Template>,
        /// The secret of links of the form `/PREFIX/DIGEST/LINK`, where the digest is MD5 of link and secret, in
        /// hexadecimal.
        "secure_link_secret" HTTP_ALL = "" => secret: Option<Text>,
    }
}

const VARIABLES: &[VariableRow] = &[
    VariableRow::new(
        "secure_link",
        secure_link,
        "`1` for a link that holds, `0` for one that did, empty for one that is none; with `secure_link_secret` the \
         link itself.",
    ),
    VariableRow::new(
        "secure_link_expires",
        |request, _| request.kept::<Expires>()?.0.borrow().clone(),
        "Until when the link holds, once `$secure_link` was read or while it is.",
    )
    .volatile(),
];

/// Both forms in one block are refused.
#[derive(Debug)]
pub struct Mixed;

impl Section for Mixed {
    type Raw = ();
    const ALWAYS: bool = true;

    fn merge((): &(), _: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        let secret = cx.first("secure_link_secret");
        if secret.is_some() && (cx.first("secure_link").is_some() || cx.first("secure_link_md5").is_some()) {
            let message = "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\"";
            cx.report(Diagnostic::emerg("mixed-secure-link", message).near(secret));
        }
        Self
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// What `$secure_link_expires` tells.
#[derive(Debug, Default)]
struct Expires(RefCell<Value>);

fn secure_link(request: &Request, _: &str) -> Value {
    let settings = request.settings::<Link>();
    if let Some(secret) = settings.secret.as_ref().filter(|secret| !secret.is_empty()) {
        return old(request.head.request_uri(), secret).map(Bytes::copy_from_slice);
    }
    let (link, md5) = settings.link.as_ref().zip(settings.md5.as_ref())?;
    let link = request.eval(link);
    let (digest, expires) = match memchr::memchr(b',', &link) {
        None => (link, None),
        Some(comma) => (link.slice(..comma), Some(link.slice(comma + 1..))),
    };
    let until = match &expires {
        None => None,
        Some(text) => Some(parse_number(text).filter(|until| *until > 0)?),
    };
    if let Some(text) = expires {
        request.keep::<Expires>().0.replace(Some(text));
    }
    let digest = (digest.len() <= LONGEST).then(|| decode_base64(&digest, &alphabet::URL_SAFE)).flatten()?;
    if digest != Md5::digest(request.eval(md5))[..] {
        return None;
    }
    let now = u64::try_from(clock::unix_seconds()).unwrap_or_default();
    let is_over = until.is_some_and(|until| until < now);
    Some(Bytes::from_static(if is_over { b"0" } else { b"1" }))
}

/// Sixteen bytes in base64, padded.
const LONGEST: usize = 24;

/// The link of a path `/PREFIX/DIGEST/LINK`, if that is its digest.
fn old<'u>(uri: &'u [u8], secret: &[u8]) -> Option<&'u [u8]> {
    let mut parts = uri.get(1..)?.splitn(3, |byte| *byte == b'/');
    let (_, digest, link) = (parts.next()?, parts.next()?, parts.next()?);
    let made = Md5::new().chain_update(link).chain_update(secret).finalize();
    let hex: String = made.iter().map(|byte| format!("{byte:02x}")).collect();
    (!link.is_empty() && digest.eq_ignore_ascii_case(hex.as_bytes())).then_some(link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn links_of_the_old_form() {
        let check = |uri: &str, expected: Option<&str>| {
            assert_eq!(old(uri.as_bytes(), b"segredo"), expected.map(str::as_bytes), "{uri}");
        };
        // echo -n 'linksegredo' | md5sum
        check("/p/fb43feefb3c0a5825a5ec7e1240d604a/link", Some("link"));
        check("/p/FB43FEEFB3C0A5825A5EC7E1240D604A/link", Some("link"));
        check("/p/fb43feefb3c0a5825a5ec7e1240d604a/links", None);
        check("/p/fb43feefb3c0a5825a5ec7e1240d604a/", None);
        check("/p/fb43feefb3c0a5825a5ec7e1240d604a", None);
        check("/", None);
        check("", None);
    }

    #[test]
    fn words() {
        let mixed = "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\"";
        assert_eq!(findings("server { secure_link_secret a; secure_link_md5 b; }"), [mixed]);
        assert_eq!(
            findings("server { secure_link $args; secure_link_md5 b; location / { secure_link_secret c; } }"),
            [""; 0]
        );
    }
}
