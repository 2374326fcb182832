//! Values by name inside one text: cookies and arguments.

/// `$cookie_name`: the value of the first cookie of this name, whatever its case, in the values of the `Cookie` headers.
pub fn cookie<'a>(headers: impl IntoIterator<Item = &'a [u8]>, name: &[u8]) -> Option<&'a [u8]> {
    headers.into_iter().find_map(|header| in_cookie_header(header, name))
}

/// `$upstream_cookie_name`: the value that an answer's `Set-Cookie` headers give the cookie.
pub fn set_cookie<'a>(headers: impl IntoIterator<Item = &'a [u8]>, name: &[u8]) -> Option<&'a [u8]> {
    headers.into_iter().find_map(|header| cookie_value(header, name))
}

fn in_cookie_header<'a>(mut rest: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    while !rest.is_empty() {
        if let Some(value) = cookie_value(rest, name) {
            return Some(value);
        }
        let end = memchr::memchr2(b';', b',', rest)?;
        rest = skip_blanks(&rest[end + 1..]);
    }
    None
}

/// The value, if `text` begins with the cookie `name`.
fn cookie_value<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(name.len())?;
    if !start.eq_ignore_ascii_case(name) {
        return None;
    }
    let value = skip_blanks(skip_blanks(rest).strip_prefix(b"=")?);
    Some(&value[..memchr::memchr(b';', value).unwrap_or(value.len())])
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|&&ch| ch == b' ').count();
    &text[blanks..]
}

/// `$arg_name`: the raw value of the first argument of this name, whatever its case. An argument without `=` is none.
pub fn argument<'a>(args: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    args.split(|&ch| ch == b'&').find_map(|arg| {
        let (start, rest) = arg.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b"=")?;
        start.eq_ignore_ascii_case(name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(found: Option<&[u8]>) -> Option<&str> {
        found.map(|value| std::str::from_utf8(value).expect("a test's text"))
    }

    #[test]
    fn cookies() {
        for (headers, name, expected) in [
            (&["a=1; b=2"][..], "a", Some("1")),
            (&["a=1; b=2"], "b", Some("2")),
            (&["a=1;B=2"], "b", Some("2")),
            (&["a=1,b=2"], "b", Some("2")),
            (&["a=1,b=2"], "a", Some("1,b=2")),
            (&["a = 1 ; b=2"], "a", Some("1 ")),
            (&["aa=1; a=2"], "a", Some("2")),
            (&["x=a=1; a=2"], "a", Some("2")),
            (&["x=1", "a=3"], "a", Some("3")),
            (&["a"], "a", None),
            (&["a="], "a", Some("")),
            (&[], "a", None),
        ] {
            let found = cookie(headers.iter().map(|header| header.as_bytes()), name.as_bytes());
            assert_eq!(text(found), expected, "{headers:?} {name}");
        }
    }

    #[test]
    fn arguments() {
        for (args, name, expected) in [
            ("a=1&b=2", "a", Some("1")),
            ("a=1&b=2", "b", Some("2")),
            ("A=1", "a", Some("1")),
            ("aa=1&a=2&a=3", "a", Some("2")),
            ("a&a=2", "a", Some("2")),
            ("a=", "a", Some("")),
            ("a=b=c", "a", Some("b=c")),
            ("x=a=1", "a", None),
            ("a", "a", None),
            ("", "a", None),
        ] {
            assert_eq!(text(argument(args.as_bytes(), name.as_bytes())), expected, "{args} {name}");
        }
    }
}
