//! The host that a request names, in `Host` or in its line.

/// The length of the name in `host`, without port and final dot; `None` if it is no host that nginx takes.
///
/// The rules are `ngx_http_validate_host`'s and loose: it keeps out what is dangerous in a path or a log, not what DNS
/// forbids.
pub fn validate(host: &[u8]) -> Option<usize> {
    let mut end = host.len();
    let mut last_dot = None;
    let mut state = State::Usual;
    for (at, &ch) in host.iter().enumerate() {
        if IS_PLAIN[usize::from(ch)] {
            continue;
        }
        match ch {
            b'.' => {
                if at > 0 && last_dot == Some(at - 1) {
                    return None;
                }
                last_dot = Some(at);
            }
            b':' if state == State::Usual => {
                end = at;
                state = State::Rest;
            }
            b'[' if at == 0 => state = State::Literal,
            b']' if state == State::Literal => {
                end = at + 1;
                state = State::Rest;
            }
            b'/' | 0x7f | 0..=b' ' => return None,
            _ => {}
        }
    }
    if end > 0 && last_dot == Some(end - 1) {
        end -= 1;
    }
    (end > 0).then_some(end)
}

/// Letters and digits, which mean nothing but themselves.
const IS_PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut ch = 0;
    while ch < 128 {
        table[ch] = (ch as u8).is_ascii_alphanumeric();
        ch += 1;
    }
    table
};

#[derive(PartialEq)]
enum State {
    Usual,
    Literal,
    Rest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (input, expected) in [
            ("a", Some("a")),
            ("a:80", Some("a")),
            ("a.b.", Some("a.b")),
            ("a.:80", Some("a")),
            ("a:b:c", Some("a")),
            ("[::1]:80", Some("[::1]")),
            ("[::1", Some("[::1")),
            (".a", Some(".a")),
            ("a_b-c.d", Some("a_b-c.d")),
            ("a\\b", Some("a\\b")),
            ("a%20b", Some("a%20b")),
            ("", None),
            (".", None),
            (":80", None),
            ("a..b", None),
            ("a/b", None),
            ("a b", None),
            ("a\x7f", None),
        ] {
            let found = validate(input.as_bytes()).map(|end| &input[..end]);
            assert_eq!(found, expected, "{input:?}");
        }
    }
}
