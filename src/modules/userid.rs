//! ngx_http_userid_filter_module: a cookie by which a client is known again.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::config::value::{Number, Text, Value, parse_sec};
use crate::config::{Args, Call, Cx, Declarations, Fault, Value as Read, VarId, VariableRow};
use crate::http::wire::authorization::decode_base64;
use crate::http::wire::date::http_date;
use crate::http::wire::lookup;
use crate::http::{Module, Request, Response};
use crate::server::clock;
use crate::server::log::{Level, shown};
use crate::{choice, settings};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_userid_filter",
        sections: &[UserId::ROW],
        commands: &[],
        variables: VARIABLES,
    },
    filter: Some(filter),
    acts: Some(|settings| matches!(settings.get::<UserId>().cookies.mode, Mode::On | Mode::V1)),
    ..Module::EMPTY
};

settings! {
    /// The cookie by which a client is known again.
    pub struct UserId {
        /// Whether clients get a cookie: of the second version (`on`), of the first (`v1`), or none, and a cookie that comes is
        /// read for the log (`log`) or not (`off`).
        "userid" HTTP_ALL = "off" => cookies: Cookies,
        /// The cookie's name.
        "userid_name" HTTP_ALL = "uid" => name: Text,
        /// The domain that it is for.
        "userid_domain" HTTP_ALL = "none" => domain: Optional,
        /// The path that it is for.
        "userid_path" HTTP_ALL = "/" => path: Text,
        /// How long a client keeps it: a time, `max` (the end of 2037), or `off`, until the browser is closed.
        "userid_expires" HTTP_ALL = "off" => expires: Expires,
        /// Its flags: `secure`, `httponly`, `samesite=strict`, `samesite=lax`, `samesite=none`, or `off`.
        "userid_flags" HTTP_ALL = "off" => flags: Flags,
        /// A letter or digit in place of the first `=` of a cookie; one without it is sent anew with it. `off`: none.
        "userid_mark" HTTP_ALL = "off" => mark: Mark,
        /// The value of the header `P3P` beside the cookie; `none`: no header.
        "userid_p3p" HTTP_ALL = "none" => p3p: Optional,
        /// The number of the server that gives cookies, 0 without one in `v1`, and else its address.
        "userid_service" HTTP_ALL = "" => service: Option<Number>,
    }
}

choice! {
    /// `userid`
    pub enum Mode {
        /// No cookies.
        "off" => Off,
        /// Those that come are read.
        "log" => Log,
        /// Clients without get one of the first version.
        "v1" => V1,
        /// Clients without get one.
        "on" => On,
    }
}

/// `userid`, and the variable by which a configuration has numbers renewed.
#[derive(Clone, Copy, Debug)]
pub struct Cookies {
    mode: Mode,
    reset: Option<VarId>,
}

impl Value for Cookies {
    const SYNTAX: &'static str = Mode::SYNTAX;

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(Self { mode: Mode::parse(call, cx)?, reset: Some(cx.variables().wanted("uid_reset")) })
    }

    fn from_default(text: &'static str) -> Self {
        Self { mode: Mode::from_default(text), reset: None }
    }
}

/// A text, or `none`.
#[derive(Clone, Debug)]
pub struct Optional(Option<Bytes>);

impl Value for Optional {
    const SYNTAX: &'static str = "text | none";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(Self((call.bytes(0) != b"none").then(|| Bytes::copy_from_slice(call.bytes(0)))))
    }

    fn from_default(_: &'static str) -> Self {
        Self(None)
    }
}

/// `userid_expires`
#[derive(Clone, Copy, Debug)]
pub enum Expires {
    /// With the browser.
    Off,
    /// At the end of what 32 bits hold.
    Max,
    /// After so many seconds.
    After(u64),
}

impl Value for Expires {
    const SYNTAX: &'static str = "time | max | off";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(match call.bytes(0) {
            b"max" => Self::Max,
            b"off" => Self::Off,
            text => Self::After(parse_sec(text).ok_or_else(|| call.invalid_value())?),
        })
    }

    fn from_default(_: &'static str) -> Self {
        Self::Off
    }
}

/// `userid_flags`, as they are written into the cookie.
#[derive(Clone, Debug)]
pub struct Flags(String);

impl Value for Flags {
    const ARGS: Args = Args::between(1, 3);
    const SYNTAX: &'static str = "off | flag ...";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        let (mut secure, mut http_only, mut same_site) = ("", "", "");
        for (index, word) in call.words().enumerate() {
            match word.to_ascii_lowercase().as_slice() {
                b"off" if call.len() == 1 => {}
                b"secure" => secure = "; secure",
                b"httponly" => http_only = "; httponly",
                b"samesite=strict" => same_site = "; samesite=strict",
                b"samesite=lax" => same_site = "; samesite=lax",
                b"samesite=none" => same_site = "; samesite=none",
                _ => return Err(Fault::new(format!("invalid value \"{}\"", call.text(index))).word(index)),
            }
        }
        Ok(Self([secure, http_only, same_site].concat()))
    }

    fn from_default(_: &'static str) -> Self {
        Self(String::new())
    }
}

/// `userid_mark`
#[derive(Clone, Copy, Debug)]
pub struct Mark(Option<u8>);

impl Value for Mark {
    const SYNTAX: &'static str = "letter | digit | = | off";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        match call.bytes(0) {
            b"off" => Ok(Self(None)),
            [mark] if mark.is_ascii_alphanumeric() || *mark == b'=' => Ok(Self(Some(*mark))),
            _ => Err(call.fault("value must be \"off\" or a single letter, digit or \"=\"").word(0)),
        }
    }

    fn from_default(_: &'static str) -> Self {
        Self(None)
    }
}

const VARIABLES: &[VariableRow] = &[
    VariableRow::new(
        "uid_got",
        |request, _| shown_id(request, came(request)?.id),
        "The cookie's name and the client's number that came, in hexadecimal.",
    )
    .volatile(),
    VariableRow::new("uid_set", |request, _| shown_id(request, given(request)?), "The same of a cookie that is sent.")
        .volatile(),
    VariableRow::new(
        "uid_reset",
        |request, _| Some(request.kept::<Client>().map(|client| client.reset.borrow().clone()).unwrap_or_default()),
        "Set to anything but 0, it has a client that has a number get another one; `log` has that logged too.",
    )
    .writable(|request, value| *request.keep::<Client>().reset.borrow_mut() = value),
];

/// A client's number: four numbers, as they lie in memory.
type Id = [u8; 16];

/// What is known of a request's client.
#[derive(Debug, Default)]
struct Client {
    came: OnceCell<Option<Came>>,
    /// The number that it was given.
    given: Cell<Option<Id>>,
    /// `$uid_reset`
    reset: RefCell<Bytes>,
}

/// A cookie that came.
#[derive(Clone, Copy, Debug)]
struct Came {
    id: Id,
    /// What follows the number: the mark and `=`.
    end: Option<[u8; 2]>,
}

fn shown_id(request: &Request, id: Id) -> Read {
    Some(id_text(&request.settings::<UserId>().name, id).into())
}

fn id_text(name: &[u8], id: Id) -> String {
    let numbers = id.chunks_exact(4).map(|part| u32::from_ne_bytes([part[0], part[1], part[2], part[3]]));
    let hex: String = numbers.map(|number| format!("{number:08X}")).collect();
    format!("{}={hex}", shown(name))
}

/// The cookie that came.
fn came(request: &Request) -> Option<Came> {
    let settings = request.settings::<UserId>();
    if settings.cookies.mode == Mode::Off {
        return None;
    }
    *request.keep::<Client>().came.get_or_init(|| read(request, &settings.name))
}

fn read(request: &Request, name: &[u8]) -> Option<Came> {
    let cookie = lookup::cookie(request.head.all(b"cookie"), name)?;
    let refuse = |how: &str| {
        let is_in = |line: &&[u8]| lookup::cookie(std::iter::once(*line), name).is_some();
        let line = request.head.all(b"cookie").find(is_in).unwrap_or_default();
        request.log(Level::Error, &format!("client sent {how} userid cookie \"{}\"", shown(line)));
    };
    let Some((encoded, end)) = cookie.split_at_checked(ENCODED) else {
        refuse("too short");
        return None;
    };
    // What follows may be a mark, or rubbish that old clients send.
    let Some(id) = decode_base64(encoded, &base64::alphabet::STANDARD).and_then(|id| Id::try_from(id).ok()) else {
        refuse("invalid");
        return None;
    };
    (id[12..] != [0; 4]).then(|| Came { id, end: end.first_chunk().copied() })
}

/// A number in base64, without padding.
const ENCODED: usize = 22;

/// The number that goes to the client; `None`: it has one.
fn given(request: &Request) -> Option<Id> {
    let settings = request.settings::<UserId>();
    if !matches!(settings.cookies.mode, Mode::On | Mode::V1) {
        return None;
    }
    let client = request.keep::<Client>();
    if client.given.get().is_none() {
        client.given.set(match came(request) {
            Some(came) if !is_reset(request, settings, came.id) => {
                let lacks = |mark| came.end != Some([mark, b'=']);
                settings.mark.0.is_some_and(lacks).then_some(came.id)
            }
            _ => Some(made(request, settings)),
        });
    }
    client.given.get()
}

/// Whether `$uid_reset` wants another number for a client that has one.
fn is_reset(request: &Request, settings: &UserId, id: Id) -> bool {
    let reset = settings.cookies.reset.and_then(|reset| request.variable(reset)).unwrap_or_default();
    if reset == b"log"[..] {
        request.log(Level::Notice, &format!("userid cookie \"{}\" was reset", id_text(&settings.name, id)));
    }
    !matches!(&reset[..], b"" | b"0")
}

/// Makes a number: the server's, the time, the process's, and one that counts.
fn made(request: &Request, settings: &UserId) -> Id {
    static SEQUENCE_V1: AtomicU32 = AtomicU32::new(1);
    static SEQUENCE_V2: AtomicU32 = AtomicU32::new(0x0303_0302);
    let service = settings.service.map(|service| u32::try_from(*service).unwrap_or(u32::MAX));
    let time = u32::try_from(clock::unix_seconds()).unwrap_or(u32::MAX);
    let start = (clock::unix_time().subsec_micros() / 20) << 16 | (std::process::id() & 0xffff);
    let (service, parts) = if settings.cookies.mode == Mode::V1 {
        let sequence = SEQUENCE_V1.fetch_add(0x100, Ordering::Relaxed);
        (service.unwrap_or(0).to_ne_bytes(), [time, start, sequence].map(u32::to_ne_bytes))
    } else {
        let sequence = SEQUENCE_V2.fetch_add(0x100, Ordering::Relaxed);
        let service = service.map_or_else(|| address(request), u32::to_be_bytes);
        (service, [time, start, sequence].map(u32::to_be_bytes))
    };
    let mut id = [0; 16];
    for (place, part) in id.chunks_exact_mut(4).zip([service, parts[0], parts[1], parts[2]]) {
        place.copy_from_slice(&part);
    }
    id
}

/// The last four bytes of the address that the client connected to.
fn address(request: &Request) -> [u8; 4] {
    match request.connection.local.map(|local| local.ip()) {
        Some(std::net::IpAddr::V4(address)) => address.octets(),
        Some(std::net::IpAddr::V6(address)) => {
            let octets = address.octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
        None => [0; 4],
    }
}

fn filter(request: &mut Request, response: &mut Response) {
    if !request.is_main() {
        return;
    }
    let Some(id) = given(request) else { return };
    let settings = request.settings::<UserId>();
    let mut encoded = STANDARD.encode(id).into_bytes();
    if let Some(mark) = settings.mark.0 {
        encoded[ENCODED] = mark;
    }
    let mut cookie = [&settings.name[..], b"=", &encoded].concat();
    let now = clock::unix_seconds();
    match settings.expires {
        Expires::Off => {}
        Expires::Max => cookie.extend_from_slice(b"; expires=Thu, 31-Dec-37 23:55:55 GMT"),
        Expires::After(seconds) => {
            let until = now.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX));
            cookie.extend_from_slice(b"; expires=");
            cookie.extend_from_slice(&cookie_date(&http_date(until)));
        }
    }
    for (name, value) in [("domain", settings.domain.0.as_deref()), ("path", Some(&settings.path[..]))] {
        if let Some(value) = value {
            cookie.extend_from_slice(format!("; {name}=").as_bytes());
            cookie.extend_from_slice(value);
        }
    }
    cookie.extend_from_slice(settings.flags.0.as_bytes());
    let p3p = settings.p3p.0.clone();
    response.header("Set-Cookie", cookie);
    if let Some(p3p) = p3p {
        response.header("P3P", p3p);
    }
}

/// `Thu, 31-Dec-37 23:55:55 GMT`, of `Thu, 31 Dec 2037 23:55:55 GMT`: years after 2037 have four digits.
fn cookie_date(date: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(date);
    let words: Vec<&str> = text.split(' ').collect();
    match words.as_slice() {
        [weekday, day, month, year, time, zone] => {
            let short = if *year > "2037" { year } else { year.get(2..).unwrap_or(year) };
            format!("{weekday} {day}-{month}-{short} {time} {zone}").into_bytes()
        }
        _ => date.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn dates() {
        let check = |date: &str, expected: &str| assert_eq!(cookie_date(date.as_bytes()), expected.as_bytes());
        check("Sat, 20 Oct 2018 01:46:40 GMT", "Sat, 20-Oct-18 01:46:40 GMT");
        check("Fri, 01 Jan 2038 00:00:00 GMT", "Fri, 01-Jan-2038 00:00:00 GMT");
    }

    #[test]
    fn words() {
        let check = |directives: &str, expected: &[&str]| assert_eq!(findings(directives), expected, "{directives}");
        check("userid on; userid_expires 1d; userid_flags secure httponly samesite=lax; userid_mark a;", &[]);
        check("userid maybe;", &["invalid value \"maybe\""]);
        check("userid_flags fast;", &["invalid value \"fast\""]);
        check(
            "userid_mark ab;",
            &["\"userid_mark\" directive value must be \"off\" or a single letter, digit or \"=\""],
        );
    }
}
