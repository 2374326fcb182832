//! Percent-escaping with nginx's tables, and its reverse.

use std::borrow::Cow;

use super::ascii::hex_value;

/// Which characters are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// What may not stand in a path.
    Uri,
    /// Also what has a meaning in arguments.
    Args,
    /// Everything but letters, digits, `-`, `.`, `_` and `~`.
    UriComponent,
    /// What would end an attribute of a page.
    Html,
    /// For a `Refresh` page: like `Html`, but leaves escapes alone.
    Refresh,
    /// Blank, `%` and control characters.
    Memcached,
}

impl Escape {
    /// Printable characters to escape. All but `Memcached` also escape the control characters and what is not ASCII.
    const fn printable(self) -> &'static [u8] {
        match self {
            Self::Uri => b" \"#%<>?\\^`{|}",
            Self::Args => b" \"#%&+;<>?\\^`{|}",
            Self::UriComponent => b" !\"#$%&'()*+,/:;<=>?@[\\]^`{|}",
            Self::Html => b" \"#%'<>\\^`{|}",
            // nginx's table has `~` here where one would expect `}`.
            Self::Refresh => b" \"'<>\\^`{|~",
            Self::Memcached => b" %",
        }
    }

    const fn table(self) -> [bool; 256] {
        let mut table = [false; 256];
        let mut ch = 0;
        while ch < 256 {
            table[ch] = ch < 0x20 || (ch >= 0x7f && !matches!(self, Self::Memcached));
            ch += 1;
        }
        let printable = self.printable();
        let mut at = 0;
        while at < printable.len() {
            table[printable[at] as usize] = true;
            at += 1;
        }
        table
    }

    fn is_escaped(self, ch: u8) -> bool {
        const TABLES: [[bool; 256]; 6] = [
            Escape::Uri.table(),
            Escape::Args.table(),
            Escape::UriComponent.table(),
            Escape::Html.table(),
            Escape::Refresh.table(),
            Escape::Memcached.table(),
        ];
        TABLES[self as usize][usize::from(ch)]
    }
}

/// `text` with the characters that `kind` names written as `%XX`.
pub fn escape(text: &[u8], kind: Escape) -> Cow<'_, [u8]> {
    let Some(first) = text.iter().position(|&ch| kind.is_escaped(ch)) else {
        return Cow::Borrowed(text);
    };
    let mut out = Vec::with_capacity(text.len() + 16);
    out.extend_from_slice(&text[..first]);
    for &ch in &text[first..] {
        if kind.is_escaped(ch) {
            out.extend_from_slice(&[b'%', HEX[usize::from(ch >> 4)], HEX[usize::from(ch & 15)]]);
        } else {
            out.push(ch);
        }
    }
    Cow::Owned(out)
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// `text` as it stands in a page: `<`, `>`, `&` and `"` by name.
pub fn escape_html(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|ch| b"<>&\"".contains(ch)) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len() + 16);
    for &ch in text {
        match ch {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            _ => out.push(ch),
        }
    }
    Cow::Owned(out)
}

/// How far [`unescape`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unescape {
    /// Everything is decoded.
    All,
    /// Decoding stops at the first `?`, written or escaped; the rest stays as it is.
    Uri,
    /// As `Uri`, and what could not stand in a `Location` stays escaped.
    Redirect,
}

/// `text` with its `%XX` decoded. A `%` that begins no escape is dropped, and its wrong second digit too, as nginx does.
pub fn unescape(text: &[u8], kind: Unescape) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let (mut out, at) = decode(text, kind);
    out.extend_from_slice(&text[at..]);
    Cow::Owned(out)
}

/// `text` with its `%XX` decoded as a URI of which only the path is wanted: it ends with the first `?`, written or escaped.
/// Where nothing is decoded before that, it stays as it is, all of it.
pub fn unescape_uri(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let (out, at) = decode(text, Unescape::Uri);
    if out.len() == at { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

/// Decodes as far as `kind` goes; tells how far that was.
fn decode(text: &[u8], kind: Unescape) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&ch) = text.get(at) {
        at += 1;
        if ch != b'%' {
            out.push(ch);
            if ch == b'?' && kind != Unescape::All {
                break;
            }
            continue;
        }
        let Some(&high) = text.get(at) else { break };
        at += 1;
        let Some(high) = hex_value(high) else {
            out.push(high);
            continue;
        };
        let Some(&low) = text.get(at) else { break };
        at += 1;
        let Some(low) = hex_value(low) else { continue };
        let decoded = high << 4 | low;
        if kind == Unescape::Redirect && !(b'&'..0x7f).contains(&decoded) {
            out.extend_from_slice(&text[at - 3..at]);
            continue;
        }
        out.push(decoded);
        if decoded == b'?' && kind != Unescape::All {
            break;
        }
    }
    (out, at)
}

/// The digits of a JSON escape such as `\u001F`, in which nginx and its modules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonDigits {
    /// nginx's own: upper case.
    Upper,
    /// set-misc's: lower case.
    Lower,
}

/// Appends `text` as the inside of a JSON string, escaped as nginx does; bytes that are no UTF-8 stay as they are.
pub fn push_json(out: &mut Vec<u8>, text: &[u8], digits: JsonDigits) {
    let mut plain = 0;
    for (index, &byte) in text.iter().enumerate() {
        if !matches!(byte, b'"' | b'\\' | 0..0x20) {
            continue;
        }
        out.extend_from_slice(&text[plain..index]);
        plain = index + 1;
        match byte {
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..0x20 => {
                let low = HEX[usize::from(byte & 15)];
                let low = if digits == JsonDigits::Lower { low.to_ascii_lowercase() } else { low };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], low]);
            }
            _ => out.extend_from_slice(&[b'\\', byte]),
        }
    }
    out.extend_from_slice(&text[plain..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escaping() {
        let all: Vec<u8> = (0x20..0x80).collect();
        for (kind, expected) in [
            (
                Escape::Uri,
                "%20!%22%23$%25&'()*+,-./0123456789:;%3C=%3E%3F@ABCDEFGHIJKLMNOPQRSTUVWXYZ[%5C]%5E_%60abcdefghijklmnopqrstuvwxyz%7B%7C%7D~%7F",
            ),
            (
                Escape::Args,
                "%20!%22%23$%25%26'()*%2B,-./0123456789:%3B%3C=%3E%3F@ABCDEFGHIJKLMNOPQRSTUVWXYZ[%5C]%5E_%60abcdefghijklmnopqrstuvwxyz%7B%7C%7D~%7F",
            ),
            (
                Escape::UriComponent,
                "%20%21%22%23%24%25%26%27%28%29%2A%2B%2C-.%2F0123456789%3A%3B%3C%3D%3E%3F%40ABCDEFGHIJKLMNOPQRSTUVWXYZ%5B%5C%5D%5E_%60abcdefghijklmnopqrstuvwxyz%7B%7C%7D~%7F",
            ),
            (
                Escape::Html,
                "%20!%22%23$%25&%27()*+,-./0123456789:;%3C=%3E?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[%5C]%5E_%60abcdefghijklmnopqrstuvwxyz%7B%7C%7D~%7F",
            ),
            (
                Escape::Refresh,
                "%20!%22#$%&%27()*+,-./0123456789:;%3C=%3E?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[%5C]%5E_%60abcdefghijklmnopqrstuvwxyz%7B%7C}%7E%7F",
            ),
            (
                Escape::Memcached,
                "%20!\"#$%25&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~\x7f",
            ),
        ] {
            assert_eq!(String::from_utf8_lossy(&escape(&all, kind)), expected, "{kind:?}");
        }
        assert_eq!(&*escape(b"/\xff\n", Escape::Uri), b"/%FF%0A");
    }

    #[test]
    fn pages() {
        assert_eq!(&*escape_html(b"<a href=\"b\">&"), b"&lt;a href=&quot;b&quot;&gt;&amp;");
    }

    #[test]
    fn unescaping() {
        for (kind, text, expected) in [
            (Unescape::All, "a%20b%3fc%2", "a b?c"),
            (Unescape::All, "%zz%4x!", "zz!"),
            (Unescape::Uri, "%61?%61", "a?%61"),
            (Unescape::Uri, "%3f%61", "?%61"),
            (Unescape::Redirect, "%2f%20%e4%7f%26?%41", "/%20%e4%7f&?%41"),
        ] {
            let found = unescape(text.as_bytes(), kind);
            assert_eq!(String::from_utf8_lossy(&found), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_unescaped(text in prop::collection::vec(any::<u8>(), 0..30)) {
            for kind in [Escape::Uri, Escape::Args, Escape::UriComponent, Escape::Memcached] {
                let there = escape(&text, kind).into_owned();
                prop_assert_eq!(&*unescape(&there, Unescape::All), &text[..]);
            }
        }
    }
}
