//! The path of a URI, decoded and made simple, as `ngx_http_parse_complex_uri` does it.

use std::borrow::Cow;

use super::ascii::hex_value;
use super::escape::{Unescape, unescape};

/// A path and where its arguments are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalized<'a> {
    /// The path: percent-decoded, without `.`, `..` and (if asked for) doubled slashes. Borrowed if nothing changed.
    pub path: Cow<'a, [u8]>,
    /// What stands between `?` and `#` or the end, raw; empty if there is none.
    pub args: &'a [u8],
}

/// The path escapes the root, or a `%` is followed by anything but two hexadecimal digits, or by `00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client sent invalid request")]
pub struct InvalidUri;

/// Where the decoder stands, for the byte that comes next.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Within a segment that is no dot segment.
    Usual,
    /// After a slash.
    Slash,
    /// After `/.`
    Dot,
    /// After `/..`
    DotDot,
}

/// Normalizes `uri`, which begins with `/`, or with `?` when the path is empty and `/` is meant.
///
/// A decoded slash or dot counts like a written one; a decoded `?`, `#` or `%` is part of the path.
pub fn normalize(uri: &[u8], merge_slashes: bool) -> Result<Normalized<'_>, InvalidUri> {
    if let Some(simple) = simple(uri) {
        return Ok(simple);
    }
    let mut path = Vec::with_capacity(uri.len() + 1);
    let mut state = State::Usual;
    if uri.first() != Some(&b'/') {
        path.push(b'/');
        state = State::Slash;
    }
    let mut at = 0;
    let end = loop {
        let Some(&raw) = uri.get(at) else { break at };
        at += 1;
        let mut ch = raw;
        match raw {
            b'?' | b'#' => break at - 1,
            b'%' => {
                ch = decode(uri.get(at..at + 2).ok_or(InvalidUri)?).ok_or(InvalidUri)?;
                at += 2;
                match ch {
                    0 => return Err(InvalidUri),
                    b'%' | b'#' | b'?' => {
                        state = State::Usual;
                        path.push(ch);
                        continue;
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        state = match (state, ch) {
            (State::Usual, b'/') => {
                path.push(ch);
                State::Slash
            }
            (State::Slash, b'/') => {
                if !merge_slashes {
                    path.push(ch);
                }
                State::Slash
            }
            (State::Dot, b'/') => {
                path.pop();
                State::Slash
            }
            (State::DotDot, b'/') => {
                parent(&mut path)?;
                State::Slash
            }
            (State::Slash, b'.') => {
                path.push(ch);
                State::Dot
            }
            (State::Dot, b'.') => {
                path.push(ch);
                State::DotDot
            }
            _ => {
                path.push(ch);
                State::Usual
            }
        };
    };
    match state {
        State::Dot => {
            path.pop();
        }
        State::DotDot => parent(&mut path)?,
        State::Usual | State::Slash => {}
    }
    Ok(Normalized { path: Cow::Owned(path), args: arguments(&uri[end..]) })
}

/// The common case: nothing to decode, no dot or slash after a slash.
fn simple(uri: &[u8]) -> Option<Normalized<'_>> {
    let end = memchr::memchr2(b'?', b'#', uri).unwrap_or(uri.len());
    let path = &uri[..end];
    let plain = path.first() == Some(&b'/')
        && memchr::memchr(b'%', path).is_none()
        && !path.windows(2).any(|pair| matches!(pair, b"//" | b"/."));
    plain.then(|| Normalized { path: Cow::Borrowed(path), args: arguments(&uri[end..]) })
}

/// The arguments of what follows the path: nothing, `?...` or `#...`.
fn arguments(rest: &[u8]) -> &[u8] {
    match rest.split_first() {
        Some((b'?', args)) => &args[..memchr::memchr(b'#', args).unwrap_or(args.len())],
        _ => &[],
    }
}

fn decode(digits: &[u8]) -> Option<u8> {
    let &[high, low] = digits else { return None };
    Some(hex_value(high)? << 4 | hex_value(low)?)
}

/// Takes the `/..` off the end of `path`, and the segment before it.
fn parent(path: &mut Vec<u8>) -> Result<(), InvalidUri> {
    let slash = path.len().checked_sub(3).ok_or(InvalidUri)?;
    let before = memchr::memrchr(b'/', &path[..slash]).ok_or(InvalidUri)?;
    path.truncate(before + 1);
    Ok(())
}

/// Takes apart a URI that something behind us gave (`X-Accel-Redirect`, an include), as `ngx_http_parse_unsafe_uri`
/// does: decoded but not normalized, and refused if it climbs or holds a NUL.
pub fn parse_unsafe(uri: &[u8]) -> Result<Normalized<'_>, InvalidUri> {
    let end = memchr::memchr(b'?', uri).unwrap_or(uri.len());
    let (path, args) = (&uri[..end], uri.get(end + 1..).unwrap_or_default());
    let decoded = unescape(path, Unescape::All);
    let climbs = |path: &[u8]| path.split(|&ch| ch == b'/').any(|part| part == b"..");
    if path.is_empty() || decoded.contains(&0) || climbs(path) || climbs(&decoded) {
        return Err(InvalidUri);
    }
    Ok(Normalized { path: decoded, args })
}

/// Holds what must be true of any input; for the fuzzer.
pub fn fuzz_uri(data: &[u8]) {
    for merge_slashes in [false, true] {
        let Ok(found) = normalize(data, merge_slashes) else {
            continue;
        };
        assert_eq!(found.path.first(), Some(&b'/'), "a path is absolute");
        assert!(data.contains(&0) || !found.path.contains(&0), "no decoded NUL");
        assert!(found.path.len() <= data.len() + 1, "a path never grows");
        let climbs = found.path.split(|&ch| ch == b'/').any(|part| part == b"..");
        assert!(!climbs, "no dot segments");
        if merge_slashes {
            assert!(!found.path.windows(2).any(|pair| pair == b"//"), "no doubled slashes");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn show(uri: &str, merge_slashes: bool) -> String {
        match normalize(uri.as_bytes(), merge_slashes) {
            Ok(found) => format!("{}|{}", found.path.escape_ascii(), found.args.escape_ascii()),
            Err(InvalidUri) => "400".into(),
        }
    }

    #[test]
    fn recorded() {
        for (uri, expected) in [
            ("/a//b", "/a/b|"),
            ("/a/./b", "/a/b|"),
            ("/a/../b", "/b|"),
            ("/a/b/..", "/a/|"),
            ("/%61", "/a|"),
            ("/a%2Fb", "/a/b|"),
            ("/a%20b", "/a b|"),
            ("/..%2fb", "400"),
            ("/a;b", "/a;b|"),
            ("/a?b/../c", "/a|b/../c"),
            ("/a#frag", "/a|"),
            ("/%e4", "/\\xe4|"),
            ("/a/.../b", "/a/.../b|"),
            ("/.a", "/.a|"),
            ("/../x", "400"),
            ("/a/../../x", "400"),
            ("/%00", "400"),
            ("/a%00b", "400"),
            ("/%2e%2e/%2e%2e/x", "400"),
            ("/%zz", "400"),
        ] {
            assert_eq!(show(uri, true), expected, "{uri}");
        }
    }

    #[test]
    fn corners() {
        for (uri, expected) in [
            ("?x", "/|x"),
            ("/.", "/|"),
            ("/..", "400"),
            ("/a/.", "/a/|"),
            ("/a/..", "/|"),
            ("/a/..?x", "/|x"),
            ("/a/..#x", "/|"),
            ("/a?b#c", "/a|b"),
            ("/a%3Fb", "/a?b|"),
            ("/a%23b", "/a#b|"),
            ("/a%2561", "/a%61|"),
            ("/.%2e/", "400"),
            ("/a/%2e%2e/b", "/b|"),
            ("/a%2f/b", "/a/b|"),
            ("/%", "400"),
            ("/%4", "400"),
            ("/a//../b", "/b|"),
        ] {
            assert_eq!(show(uri, true), expected, "{uri}");
        }
    }

    #[test]
    fn without_merging_slashes() {
        for (uri, expected) in
            [("/a//b", "/a//b|"), ("//x", "//x|"), ("///x", "///x|"), ("/x", "/x|"), ("/a//../b", "/a/b|")]
        {
            assert_eq!(show(uri, false), expected, "{uri}");
        }
    }

    #[test]
    fn unsafe_ones() {
        for (uri, expected) in [
            ("/a/b?c=%20", "/a/b|c=%20"),
            ("/a%20b", "/a b|"),
            ("a", "a|"),
            ("/a/./b//c", "/a/./b//c|"),
            ("/a..", "/a..|"),
            ("/a?..", "/a|.."),
            ("", "400"),
            ("?x", "400"),
            ("..", "400"),
            ("../a", "400"),
            ("/a/../b", "400"),
            ("/a/%2e%2e", "400"),
            ("/a%00", "400"),
        ] {
            let found = match parse_unsafe(uri.as_bytes()) {
                Ok(found) => format!("{}|{}", found.path.escape_ascii(), found.args.escape_ascii()),
                Err(InvalidUri) => "400".into(),
            };
            assert_eq!(found, expected, "{uri}");
        }
    }

    #[test]
    fn nothing_to_do_borrows() {
        let found = normalize(b"/a/b.c?d", true).expect("a plain path");
        assert!(matches!(found.path, Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn any_bytes(mut data in prop::collection::vec(any::<u8>(), 0..40)) {
            data.insert(0, b'/');
            fuzz_uri(&data);
        }

        #[test]
        fn any_mix_of_the_special(text in "/(/|\\.|\\.\\.|%2e|%2F|%25|%00|\\?|#|a){0,12}") {
            fuzz_uri(text.as_bytes());
        }
    }
}
