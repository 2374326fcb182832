//! Whether a client takes an answer compressed: what ngx_http_core_module knows of gzip, for the modules that compress,
//! uncompress, or have compressed files; and whether the gzip filter would compress an answer, for those who make it.

use crate::config::value::{Flag, MimeTypes, Number, Regex, Size};
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot};
use crate::http::wire::date::parse_http_date;
use crate::http::wire::header::Known;
use crate::http::wire::user_agent::Browser;
use crate::http::{Request, Response};
use crate::server::clock;
use crate::server::log::Level;
use crate::{choice, settings};

settings! {
    /// Who gets compressed answers.
    pub struct Acceptance {
        /// Whether answers that depend on what the client accepts say so to caches: `Vary: Accept-Encoding`.
        "gzip_vary" HTTP_ALL = "off" => pub vary: Flag,
        /// The least version of HTTP that a compressed answer goes to.
        "gzip_http_version" HTTP_ALL = "1.1" => version: Version,
    }
}

settings! {
    /// Compressing answers. `modules/gzip` lists them.
    pub struct Gzip {
        /// Whether answers are compressed, for clients that accept it: those with status 200, 403 and 404, of one of the
        /// `gzip_types`, and not encoded already.
        "gzip" HTTP_ALL_IF = "off" => pub on: Flag,
        /// How thoroughly, 1 to 9. Differs from nginx in speed: level 1 compresses about as well as nginx's 2 and is
        /// faster than its 1.
        "gzip_comp_level" HTTP_ALL = "1" => pub comp_level: CompLevel,
        /// The least length of an answer that is compressed, where the length is known beforehand.
        "gzip_min_length" HTTP_ALL = "20" => min_length: Size,
    }
}

choice! {
    /// `gzip_http_version`
    pub enum Version {
        /// HTTP/1.0
        "1.0" => V10,
        /// HTTP/1.1
        "1.1" => V11,
    }
}

/// `gzip_comp_level`
#[derive(Clone, Copy, Debug)]
pub struct CompLevel(pub u8);

impl crate::config::value::Value for CompLevel {
    const SYNTAX: &'static str = "level";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let level = *Number::parse(call, cx)?;
        match u8::try_from(level) {
            Ok(level @ 1..=9) => Ok(Self(level)),
            _ => Err(Fault::new("value must be between 1 and 9").word(0)),
        }
    }

    fn from_default(_: &'static str) -> Self {
        Self(1)
    }
}

/// The rows of ngx_http_core_module that this file brings beside.
pub const CORE_COMMANDS: &[Directive] = &[
    Directive {
        name: "gzip_proxied",
        contexts: Contexts::HTTP_ALL,
        args: Args::SOME,
        syntax: "off | expired | no-cache | no-store | private | no_last_modified | no_etag | auth | any ...",
        default: "off",
        doc: "Which answers are compressed for requests that came by a proxy, as `Via` tells: `any`; those to requests \
              with `Authorization` (`auth`); those that a cache would not keep, by their `Expires` or `Cache-Control`; \
              those without `Last-Modified` or `ETag`.",
        file: file!(),
        apply: proxied,
        ..Directive::BASE
    },
    Directive {
        name: "gzip_disable",
        contexts: Contexts::HTTP_ALL,
        args: Args::SOME,
        syntax: "regex ...",
        doc: "Browsers that get nothing compressed: their `User-Agent` matches one of these expressions, whatever the \
              case. `msie6` is MSIE 4 to 6 without its second service pack.",
        file: file!(),
        apply: disable,
        ..Directive::BASE
    },
];

/// The row of the gzip filter that this file brings beside.
pub const COMMANDS: &[Directive] = &[Directive {
    name: "gzip_types",
    contexts: Contexts::HTTP_ALL,
    args: Args::SOME,
    syntax: "type ... | *",
    default: "text/html",
    doc: "The content types that are compressed; `*` is all. `text/html` always is. push_stream's event sources have \
          the type `\"text/event-stream; charset=utf-8\"`, as it stands here.",
    file: file!(),
    apply: types,
    ..Directive::BASE
}];

/// The content types that are compressed.
#[derive(Clone, Debug)]
pub struct Types(MimeTypes);

impl Section for Types {
    type Raw = Option<MimeTypes>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        match (raw, parent) {
            (Some(own), _) => Self(own.clone()),
            (None, Some(parent)) => parent.clone(),
            (None, None) => Self(MimeTypes::of(&["text/html"])),
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn types(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let mut types = cx.edit::<Types>().take();
    MimeTypes::add(&mut types, cx, call);
    *cx.edit::<Types>() = types;
    Ok(())
}

bitflags::bitflags! {
    /// `gzip_proxied`: which answers are compressed for a proxy.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Proxied: u16 {
        /// None.
        const OFF = 1;
        /// What is out of date already.
        const EXPIRED = 1 << 1;
        /// What must be asked for anew.
        const NO_CACHE = 1 << 2;
        /// What must not be stored.
        const NO_STORE = 1 << 3;
        /// What is one user's.
        const PRIVATE = 1 << 4;
        /// What has no time of change.
        const NO_LAST_MODIFIED = 1 << 5;
        /// What has no tag.
        const NO_ETAG = 1 << 6;
        /// What was asked for with authorization.
        const AUTH = 1 << 7;
        /// All.
        const ANY = 1 << 8;
    }
}

const PROXIED: [(&str, Proxied); 9] = [
    ("off", Proxied::OFF),
    ("expired", Proxied::EXPIRED),
    ("no-cache", Proxied::NO_CACHE),
    ("no-store", Proxied::NO_STORE),
    ("private", Proxied::PRIVATE),
    ("no_last_modified", Proxied::NO_LAST_MODIFIED),
    ("no_etag", Proxied::NO_ETAG),
    ("auth", Proxied::AUTH),
    ("any", Proxied::ANY),
];

/// Which clients get nothing compressed, and which answers a proxy gets so.
#[derive(Clone, Debug)]
pub struct Exceptions {
    proxied: Proxied,
    msie6: bool,
    browsers: Vec<Regex>,
}

/// What a block says of them.
#[derive(Debug, Default)]
pub struct RawExceptions {
    proxied: Option<Proxied>,
    msie6: bool,
    browsers: Option<Vec<Regex>>,
}

impl Section for Exceptions {
    type Raw = RawExceptions;

    fn merge(raw: &RawExceptions, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self {
            proxied: raw.proxied.or_else(|| parent.map(|parent| parent.proxied)).unwrap_or(Proxied::OFF),
            msie6: raw.msie6 || parent.is_some_and(|parent| parent.msie6),
            browsers: raw.browsers.as_ref().or_else(|| Some(&parent?.browsers)).cloned().unwrap_or_default(),
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn proxied(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    for index in 0..call.len() {
        let word = call.text(index);
        let Some((_, bit)) = PROXIED.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)) else {
            return Err(Fault::new(format!("invalid value \"{word}\"")).word(index));
        };
        let said = cx.edit::<Exceptions>().proxied.get_or_insert(Proxied::empty());
        if said.contains(*bit) {
            cx.warn("duplicate-value", format!("duplicate value \"{word}\""), call);
        } else {
            said.insert(*bit);
        }
    }
    Ok(())
}

fn disable(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    cx.edit::<Exceptions>().browsers.get_or_insert_default();
    for index in 0..call.len() {
        if call.bytes(index) == b"msie6" {
            cx.edit::<Exceptions>().msie6 = true;
            continue;
        }
        let regex = Regex::compile(&call.text(index), true, cx).map_err(|fault| fault.word(index))?;
        cx.edit::<Exceptions>().browsers.get_or_insert_default().push(regex);
    }
    Ok(())
}

/// What was found of compression while a request was worked on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tested {
    /// The answer would be another one for a client that accepts other encodings.
    pub(super) varies: bool,
    /// Whether this client takes gzip: asked once, as in nginx.
    accepted: Option<bool>,
}

impl Request {
    /// Says that the answer depends on what encodings the client accepts.
    pub fn varies_by_encoding(&mut self) {
        self.gzip.varies = true;
    }

    /// Whether the client takes the answer compressed with gzip. The first answer of this function holds.
    pub fn accepts_gzip(&mut self, response: &Response) -> bool {
        match self.gzip.accepted {
            Some(accepted) => accepted,
            None => {
                let accepted = is_accepted(self, response);
                self.gzip.accepted = Some(accepted);
                accepted
            }
        }
    }

    /// Whether the gzip filter is to compress an answer; at which level. Notes that it varies.
    pub fn gzip_level(&mut self, response: &Response) -> Option<CompLevel> {
        let settings = self.settings::<Gzip>();
        let level = settings.comp_level;
        if !*settings.on
            || !matches!(response.status, 200 | 403 | 404)
            || is_encoded(response)
            || response.length().is_some_and(|length| length < *settings.min_length)
            || !has_type(self, response)
        {
            return None;
        }
        self.varies_by_encoding();
        self.accepts_gzip(response).then_some(level)
    }
}

fn has_type(request: &Request, response: &Response) -> bool {
    let types = &request.settings::<Types>().0;
    *types == MimeTypes::All || response.content_type.as_ref().is_some_and(|kind| types.contain(kind))
}

/// Whether an answer has an encoding already.
fn is_encoded(response: &Response) -> bool {
    headers(response, "Content-Encoding").any(|value| !value.is_empty())
}

fn headers<'r>(response: &'r Response, name: &'static str) -> impl Iterator<Item = &'r [u8]> {
    let named = response.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name.as_bytes()));
    named.map(|(_, value)| &value[..])
}

fn is_accepted(request: &Request, response: &Response) -> bool {
    let head = &request.head;
    let Some(accepted) = head.known(Known::AcceptEncoding).filter(|_| request.is_main()) else { return false };
    if !names_gzip(accepted) {
        return false;
    }
    let exceptions = request.settings::<Exceptions>();
    let agent = head.known_bytes(Known::UserAgent);
    if exceptions.msie6 && agent.as_ref().is_some_and(|agent| Browser::from_user_agent(agent).msie6) {
        return false;
    }
    let least = match request.settings::<Acceptance>().version {
        Version::V10 => 1000,
        Version::V11 => 1001,
    };
    if head.version() < least {
        return false;
    }
    if head.known(Known::Via).is_some() {
        let has_authorization = head.known(Known::Authorization).is_some();
        if !is_for_proxies(exceptions.proxied, response, has_authorization, clock::unix_seconds()) {
            return false;
        }
    }
    let Some(agent) = agent else { return true };
    // An expression that gives up counts as one that matches.
    !exceptions.browsers.iter().any(|browser| {
        browser.is_match(&agent).unwrap_or_else(|error| {
            request.log(Level::Alert, &format!("gzip_disable: an expression was given up: {error}"));
            true
        })
    })
}

/// Whether an answer is compressed that goes to a proxy.
fn is_for_proxies(proxied: Proxied, response: &Response, has_authorization: bool, now: i64) -> bool {
    if proxied.contains(Proxied::OFF) {
        return false;
    }
    if proxied.contains(Proxied::ANY) || (has_authorization && proxied.contains(Proxied::AUTH)) {
        return true;
    }
    if let Some(expires) = headers(response, "Expires").next() {
        let date = headers(response, "Date").next().map_or(Some(now), parse_http_date);
        let is_over = parse_http_date(expires).zip(date).is_some_and(|(expires, date)| expires < date);
        return proxied.contains(Proxied::EXPIRED) && is_over;
    }
    let mut control = headers(response, "Cache-Control").peekable();
    if control.peek().is_some() {
        let words: [(Proxied, &[u8]); 3] =
            [(Proxied::NO_CACHE, b"no-cache"), (Proxied::NO_STORE, b"no-store"), (Proxied::PRIVATE, b"private")];
        // A word is looked for as nginx does: it ends a part between commas, and has no value.
        let mut parts = control.flat_map(|value| value.split(|byte| *byte == b','));
        return parts.any(|part| {
            let last = part.rsplit(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            words.iter().any(|(bit, word)| proxied.contains(*bit) && last.eq_ignore_ascii_case(word))
        });
    }
    !(proxied.contains(Proxied::NO_LAST_MODIFIED) && response.last_modified.is_some()
        || proxied.contains(Proxied::NO_ETAG) && response.etag.is_some())
}

/// Whether `Accept-Encoding` names gzip, with a weight that is not zero.
fn names_gzip(accepted: &[u8]) -> bool {
    if accepted.starts_with(b"gzip,") {
        return true;
    }
    let starts = |at: usize| at == 0 || matches!(accepted[at - 1], b',' | b' ');
    let mut places = accepted.windows(4).enumerate();
    let Some((at, _)) = places.find(|(at, word)| word.eq_ignore_ascii_case(b"gzip") && starts(*at)) else {
        return false;
    };
    let rest = skip_blanks(&accepted[at + 4..]);
    match rest.split_first() {
        None | Some((b',', _)) => true,
        Some((b';', rest)) => match skip_blanks(rest).split_first() {
            None => true,
            Some((b'q' | b'Q', [b'=', weight @ ..])) => has_weight(weight),
            Some(_) => false,
        },
        Some(_) => false,
    }
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| **byte == b' ').count();
    &text[blanks..]
}

/// Whether a weight is one, and more than nothing: `1`, `0.5`, three digits after the point at most. A blank or comma
/// ends it. The digits are only added up, as in nginx.
fn has_weight(text: &[u8]) -> bool {
    let end = text.iter().position(|byte| matches!(byte, b',' | b' ')).unwrap_or(text.len());
    let (whole, rest) = match &text[..end] {
        [whole @ (b'0' | b'1'), rest @ ..] => (u32::from(*whole - b'0') * 100, rest),
        _ => return false,
    };
    let digits = match rest {
        [] => return whole > 0,
        [b'.', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return false,
    };
    let weight = digits.iter().fold(whole, |sum, digit| sum + u32::from(digit - b'0'));
    digits.len() <= 3 && (1..=100).contains(&weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn accepted_encodings() {
        for (accepted, expected) in [
            ("gzip", true),
            ("gzip,", true),
            ("gzip, deflate", true),
            ("deflate, GZip", true),
            ("br,gzip;q=0.5", true),
            ("gzip ; q=1", true),
            ("gzip;", true),
            ("gzip;q=1.000", true),
            ("gzip;q=0.001", true),
            ("gzip;q=0.001,x", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip;q=0, gzip", false),
            ("gzip;q=1.5", false),
            ("gzip;q=1.0001", false),
            ("gzip;q=2", false),
            ("gzip;q=", false),
            ("gzip;q =1", false),
            ("gzip;q= 1", false),
            ("gzip;x=1", false),
            ("gzip;q=0.x", false),
            ("gzip;q=1x", false),
            ("xgzip", false),
            ("xgzip, gzip", true),
            ("gzipx", false),
            ("gzip x", false),
            ("*", false),
            ("gzi", false),
            ("", false),
        ] {
            assert_eq!(names_gzip(accepted.as_bytes()), expected, "{accepted:?}");
        }
    }

    #[test]
    fn answers_for_proxies() {
        let now = 784_111_777;
        let check = |proxied: Proxied, headers: &[(&'static str, &'static str)], expected: bool| {
            let mut response = Response::new(200);
            headers.iter().for_each(|(name, value)| response.header(name, *value));
            let found = is_for_proxies(proxied, &response, false, now);
            assert_eq!(found, expected, "{proxied:?} {headers:?}");
        };
        let (past, now_text) = ("Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 1994 08:49:37 GMT");
        check(Proxied::OFF, &[], false);
        check(Proxied::OFF | Proxied::ANY, &[], false);
        check(Proxied::ANY, &[("Expires", now_text)], true);
        check(Proxied::EXPIRED, &[("Expires", past)], true);
        check(Proxied::EXPIRED, &[("Expires", now_text)], false);
        check(Proxied::EXPIRED, &[("Expires", past), ("Date", past)], false);
        check(Proxied::EXPIRED, &[("Expires", "0")], false);
        check(Proxied::NO_CACHE, &[("Expires", past)], false);
        check(Proxied::NO_CACHE, &[("Cache-Control", "max-age=0, no-cache")], true);
        check(Proxied::NO_CACHE, &[("Cache-Control", "no-store")], false);
        check(Proxied::NO_STORE, &[("Cache-Control", "public"), ("Cache-Control", "No-Store")], true);
        check(Proxied::PRIVATE, &[("Cache-Control", "private")], true);
        check(Proxied::PRIVATE, &[("Cache-Control", "private=\"x\"")], false);
        check(Proxied::PRIVATE, &[("Cache-Control", "private; x, x; private , y")], true);
        check(Proxied::EXPIRED, &[("Cache-Control", "private")], false);
        check(Proxied::EXPIRED, &[], true);
        let response = Response { last_modified: Some(0), etag: Some("\"a\"".into()), ..Response::new(200) };
        assert!(!is_for_proxies(Proxied::NO_LAST_MODIFIED, &response, false, now));
        assert!(!is_for_proxies(Proxied::NO_ETAG, &response, false, now));
        assert!(is_for_proxies(Proxied::AUTH, &response, true, now));
        assert!(is_for_proxies(Proxied::AUTH, &response, false, now));
    }

    #[test]
    fn words() {
        let check = |directives: &str, expected: &[&str]| assert_eq!(findings(directives), expected, "{directives}");
        check("gzip_proxied expired No-Cache; gzip_proxied auth;", &[]);
        check("gzip_proxied any any;", &["duplicate value \"any\""]);
        check("gzip_proxied some;", &["invalid value \"some\""]);
        check("gzip_http_version 1.2;", &["invalid value \"1.2\""]);
        check("gzip_disable msie6 \"opera\" ~; gzip_disable \"MSIE [4-6]\\.\";", &[]);
        check("gzip_disable \"(\";", &["pcre2_compile() failed: missing closing parenthesis in \"(\""]);
        check("gzip_comp_level 0;", &["value must be between 1 and 9"]);
        check("gzip_comp_level x;", &["\"gzip_comp_level\" directive invalid number"]);
        check("gzip_types a/b *; gzip_types text/html;", &[]);
    }
}
