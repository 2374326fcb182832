//! The PROXY protocol: what a balancer says of the client before it passes its bytes on.
//!
//! Both versions, with nginx's words for what is wrong. Addresses of the first version are kept as they were written.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What the second version begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The part of it that says how long the rest is.
const HEAD: usize = 16;

/// The longest header that is read.
const MAX_LENGTH: usize = 4096;

/// Types of fields, by nginx's names for them.
const FIELDS: &[(&str, u8)] =
    &[("alpn", 0x01), ("authority", 0x02), ("unique_id", 0x05), ("ssl", SSL), ("netns", 0x30)];

/// The same of the fields inside `ssl`.
const SSL_FIELDS: &[(&str, u8)] =
    &[("version", 0x21), ("cn", 0x22), ("cipher", 0x23), ("sig_alg", 0x24), ("key_alg", 0x25)];

/// The field that holds others, after five bytes of its own: what the client has, and four of `verify`.
const SSL: u8 = 0x20;

/// What was said of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// Who connected.
    pub source: End,
    /// Where to.
    pub destination: End,
    fields: Box<[u8]>,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Its address, as text.
    pub address: Box<str>,
    /// Its port.
    pub port: u16,
}

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A header, so far.
    More,
    /// A header, of this length. It may say nothing: the balancer connected for itself, or by other means than TCP.
    Header(usize, Option<Proxied>),
    /// No header; nginx's words for it.
    Bad(String),
}

/// Reads a header from the beginning of a connection's bytes; `is_all`: no more will come.
pub fn read(input: &[u8], is_all: bool) -> Step {
    let step = if begins(SIGNATURE, input) { second(input) } else { first(input) };
    match step {
        Step::More if input.len() >= MAX_LENGTH => Step::Bad(broken(input)),
        Step::More if is_all => Step::Bad(broken(input)),
        step => step,
    }
}

/// Whether the input begins as expected, as far as it goes.
fn begins(expected: &[u8], input: &[u8]) -> bool {
    input.iter().zip(expected).all(|(byte, expected)| byte == expected)
}

/// `broken header: "GET / HTTP/1.1"`
fn broken(input: &[u8]) -> String {
    let line = input.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    format!("broken header: \"{}\"", String::from_utf8_lossy(line))
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 50000 443`
fn first(input: &[u8]) -> Step {
    if !begins(b"PROXY ", input) {
        return Step::Bad(broken(input));
    }
    let Some(end) = input.iter().position(|byte| *byte == b'\r') else {
        // A line of TCP4 or TCP6 has no other end; one of UNKNOWN may say anything.
        let is_hopeless = input.contains(&b'\n') && !begins(b"PROXY UNKNOWN", input);
        return if is_hopeless { Step::Bad(broken(input)) } else { Step::More };
    };
    let (line, rest) = (&input[..end], &input[end + 1..]);
    if line.starts_with(b"PROXY UNKNOWN") {
        return match input.windows(2).position(|pair| pair == b"\r\n") {
            Some(at) => Step::Header(at + 2, None),
            None => Step::More,
        };
    }
    match (rest.first(), tcp(line)) {
        (None, Some(_)) => Step::More,
        (Some(b'\n'), Some(proxied)) => Step::Header(end + 2, Some(proxied)),
        _ => Step::Bad(broken(input)),
    }
}

fn tcp(line: &[u8]) -> Option<Proxied> {
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("PROXY TCP4 ").or_else(|| line.strip_prefix("PROXY TCP6 "))?;
    let mut words = rest.split(' ');
    let [source, destination] = [words.next()?, words.next()?];
    let is_address = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':'));
    let port = |word: &str| word.parse().ok().filter(|_: &u16| !word.starts_with('+'));
    let (source_port, port) = (port(words.next()?)?, port(words.next()?)?);
    let is_good = is_address(source) && is_address(destination) && words.next().is_none();
    is_good.then(|| Proxied {
        source: End { address: source.into(), port: source_port },
        destination: End { address: destination.into(), port },
        fields: Box::default(),
    })
}

fn second(input: &[u8]) -> Step {
    let Some(head) = input.get(..HEAD) else { return Step::More };
    let (version, command) = (head[12] >> 4, head[12] & 15);
    if version != 2 {
        return Step::Bad(format!("unknown PROXY protocol version: {version}"));
    }
    let end = HEAD + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if end > MAX_LENGTH {
        return Step::Bad("header is too large".to_owned());
    }
    let Some(body) = input.get(HEAD..end) else { return Step::More };
    const PROXY: u8 = 1;
    const TCP4: u8 = 0x11;
    const TCP6: u8 = 0x21;
    let proxied = match (command, head[13]) {
        (PROXY, TCP4) => addresses(body, |octets: [u8; 4]| Ipv4Addr::from(octets).to_string()),
        (PROXY, TCP6) => addresses(body, |octets: [u8; 16]| Ipv6Addr::from(octets).to_string()),
        _ => return Step::Header(end, None),
    };
    match proxied {
        Some(proxied) => Step::Header(end, Some(proxied)),
        None => Step::Bad("header is too short".to_owned()),
    }
}

/// Two addresses, two ports, and the fields.
fn addresses<const N: usize>(body: &[u8], text: fn([u8; N]) -> String) -> Option<Proxied> {
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (port, fields) = rest.split_first_chunk::<2>()?;
    let end = |octets, port| End { address: text(octets).into(), port: u16::from_be_bytes(port) };
    Some(Proxied { source: end(*source, *source_port), destination: end(*destination, *port), fields: fields.into() })
}

impl Proxied {
    /// A field by nginx's name for it, or by its number (`0xea`): the second version's, and those inside `ssl` by
    /// `ssl_version` and the like. An error is nginx's line for the log.
    pub fn field(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>, String> {
        let Some(inner) = name.strip_prefix("ssl_") else { return find(&self.fields, FIELDS, name, name) };
        let Some(ssl) = find_type(&self.fields, SSL.into())? else { return Ok(None) };
        let Some(([_, verify @ ..], fields)) = ssl.split_first_chunk::<5>() else { return Err(BROKEN.to_owned()) };
        match inner {
            "verify" => Ok(Some(u32::from_be_bytes(*verify).to_string().into_bytes().into())),
            inner => find(fields, SSL_FIELDS, inner, name),
        }
    }
}

const BROKEN: &str = "broken PROXY protocol TLV";

fn find<'f>(fields: &'f [u8], names: &[(&str, u8)], name: &str, whole: &str) -> Result<Option<Cow<'f, [u8]>>, String> {
    let kind = match name.strip_prefix("0x") {
        Some(digits) => {
            let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = u64::from_str_radix(digits, 16).ok().filter(|_| is_hex);
            number.ok_or_else(|| format!("invalid PROXY protocol TLV \"{whole}\""))?
        }
        None => match names.iter().find(|(known, _)| *known == name) {
            Some((_, kind)) => (*kind).into(),
            None => return Err(format!("unknown PROXY protocol TLV \"{whole}\"")),
        },
    };
    Ok(find_type(fields, kind)?.map(Cow::Borrowed))
}

fn find_type(mut fields: &[u8], wanted: u64) -> Result<Option<&[u8]>, String> {
    while !fields.is_empty() {
        let Some(([kind, length @ ..], rest)) = fields.split_first_chunk::<3>() else { return Err(BROKEN.to_owned()) };
        let Some((value, rest)) = rest.split_at_checked(u16::from_be_bytes(*length).into()) else {
            return Err(BROKEN.to_owned());
        };
        if u64::from(*kind) == wanted {
            return Ok(Some(value));
        }
        fields = rest;
    }
    Ok(None)
}

/// For fuzzing: a header that comes in pieces is the same header or refusal, and its fields can be looked up.
#[doc(hidden)]
pub fn fuzz_proxy_protocol(input: &[u8]) {
    let whole = read(input, true);
    let piecewise = (0..=input.len()).map(|length| read(&input[..length], false)).find(|step| *step != Step::More);
    match (&whole, piecewise) {
        (Step::More, _) => panic!("all has come, and more is waited for"),
        (Step::Bad(_), None | Some(Step::Bad(_))) => {}
        (whole, step) => assert_eq!(Some(whole), step.as_ref()),
    }
    if let Step::Header(length, Some(proxied)) = whole {
        assert!(length <= input.len());
        for name in ["alpn", "ssl", "ssl_verify", "ssl_cn", "0xea", "ssl_0x21", "0x", "x"] {
            drop(proxied.field(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(source: (&str, u16), destination: (&str, u16), fields: &[u8]) -> Option<Proxied> {
        let end = |(address, port): (&str, u16)| End { address: address.into(), port };
        Some(Proxied { source: end(source), destination: end(destination), fields: fields.into() })
    }

    #[test]
    fn lines() {
        let check = |line: &str, expected: Step| {
            assert_eq!(read(line.as_bytes(), false), expected, "{line:?}");
            fuzz_proxy_protocol(line.as_bytes());
        };
        let good = |length, source, destination| Step::Header(length, proxied(source, destination, b""));
        check("PROXY TCP4 1.2.3.4 5.6.7.8 1 65535\r\nGET", good(36, ("1.2.3.4", 1), ("5.6.7.8", 65535)));
        check("PROXY TCP6 ::1 fe80::A 0 2\r\n", good(28, ("::1", 0), ("fe80::A", 2)));
        // nginx does not look closer either.
        check("PROXY TCP4 1.2.3 f:f 1 2\r\n", good(26, ("1.2.3", 1), ("f:f", 2)));
        check("PROXY TCP4  5.6.7.8 1 2\r\n", good(25, ("", 1), ("5.6.7.8", 2)));
        check("PROXY UNKNOWN\r\nGET", Step::Header(15, None));
        check("PROXY UNKNOWN any\rthing\nat all\r\n", Step::Header(32, None));
        for more in [
            "",
            "PRO",
            "PROXY ",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r",
            "PROXY UNKNOWN\r",
        ] {
            check(more, Step::More);
        }
        for bad in [
            "GET / HTTP/1.1",
            "PROXY UDP4 1.2.3.4 5.6.7.8 1 2",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ",
            "PROXY TCP4 example.org 5.6.7.8 1 2",
        ] {
            check(&format!("{bad}\r\n"), Step::Bad(format!("broken header: \"{bad}\"")));
        }
        check(
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            Step::Bad("broken header: \"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\"".into()),
        );
        check(
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rx",
            Step::Bad("broken header: \"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\"".into()),
        );
        assert_eq!(read(b"PROXY TCP4 1", true), Step::Bad("broken header: \"PROXY TCP4 1\"".into()));
        let long = format!("PROXY UNKNOWN {}", "x".repeat(MAX_LENGTH));
        assert_eq!(read(long.as_bytes(), false), Step::Bad(format!("broken header: \"{long}\"")));
    }

    fn header(version: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("a short body");
        [SIGNATURE, &[version, family][..], &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn binary_headers() {
        let check = |header: Vec<u8>, expected: Step| {
            assert_eq!(read(&header, false), expected, "{header:?}");
            fuzz_proxy_protocol(&header);
        };
        let four = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 0];
        let mut six = [0; 36];
        (six[15], six[31], six[33]) = (1, 2, 9);
        check(header(0x21, 0x11, &four), Step::Header(28, proxied(("1.2.3.4", 80), ("5.6.7.8", 256), b"")));
        check(header(0x21, 0x21, &six), Step::Header(52, proxied(("::1", 9), ("::2", 0), b"")));
        let with_fields = [&four[..], &[1, 0, 1, b'x']].concat();
        let expected = proxied(("1.2.3.4", 80), ("5.6.7.8", 256), &[1, 0, 1, b'x']);
        check([&header(0x21, 0x11, &with_fields)[..], b"GET"].concat(), Step::Header(32, expected));
        // LOCAL, UDP, a socket of the file system, and nothing.
        for (version, family) in [(0x20, 0x11), (0x21, 0x12), (0x21, 0x31), (0x21, 0)] {
            check(header(version, family, &four), Step::Header(28, None));
        }
        check(header(0x21, 0x11, &four)[..27].to_vec(), Step::More);
        check(header(0x21, 0x11, &four)[..15].to_vec(), Step::More);
        check(header(0x21, 0x11, &four[..11]), Step::Bad("header is too short".into()));
        check(header(0x11, 0x11, &four), Step::Bad("unknown PROXY protocol version: 1".into()));
        check(header(0x21, 0x11, &[0; 5000])[..HEAD].to_vec(), Step::Bad("header is too large".into()));
    }

    #[test]
    fn fields() {
        let inner = [&[7, 0, 0, 1, 2][..], &[0x21, 0, 3], b"1.3", &[0x22, 0, 1], b"n"].concat();
        let inner_length = u8::try_from(inner.len()).expect("it is short");
        let ssl = [&[0x20, 0, inner_length], &inner[..]].concat();
        let fields = [&[0x01, 0, 2][..], b"h2", &[0xea, 0, 0], &ssl].concat();
        let proxied = proxied(("", 0), ("", 0), &fields).expect("it was made");
        let check = |name: &str, expected: Result<Option<&[u8]>, &str>| {
            let field = proxied.field(name);
            assert_eq!(field.as_ref().map(Option::as_deref).map_err(String::as_str), expected, "{name}");
        };
        check("alpn", Ok(Some(b"h2")));
        check("0x1", Ok(Some(b"h2")));
        check("0xEA", Ok(Some(b"")));
        check("authority", Ok(None));
        check("0x0123456", Ok(None));
        check("ssl", Ok(Some(&inner)));
        check("ssl_verify", Ok(Some(b"258")));
        check("ssl_version", Ok(Some(b"1.3")));
        check("ssl_0x22", Ok(Some(b"n")));
        check("ssl_cipher", Ok(None));
        check("cipher", Err("unknown PROXY protocol TLV \"cipher\""));
        check("ssl_alpn", Err("unknown PROXY protocol TLV \"ssl_alpn\""));
        check("0x", Err("invalid PROXY protocol TLV \"0x\""));
        check("0xx", Err("invalid PROXY protocol TLV \"0xx\""));
        let broken = Proxied { fields: [0x02, 0, 9].into(), ..proxied.clone() };
        assert_eq!(broken.field("alpn"), Err(BROKEN.into()));
        let short = Proxied { fields: [0x20, 0, 1, 0].into(), ..proxied };
        assert_eq!(short.field("ssl_verify"), Err(BROKEN.into()));
    }
}
