//! What the browser's name means for the answer: old MSIE needs padding, no keep-alive after POST, no gzip.

use memchr::memmem;

/// The browsers that nginx treats in their own way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Browser {
    /// Any MSIE.
    pub msie: bool,
    /// MSIE 4, 5, or 6 before its second service pack (`gzip_disable msie6`).
    pub msie6: bool,
    /// Chrome (and all that call themselves so).
    pub chrome: bool,
    /// Safari on a Mac (`keepalive_disable safari`).
    pub safari: bool,
}

impl Browser {
    /// Reads the value of `User-Agent`.
    pub fn from_user_agent(name: &[u8]) -> Self {
        let mut browser = Self::default();
        let has = |what: &[u8]| memmem::find(name, what).is_some();
        if let Some(place) = memmem::find(name, b"MSIE ") {
            let version = &name[place + 5..];
            if version.len() > 2 {
                browser.msie = true;
                browser.msie6 = version[1] == b'.'
                    && match version[0] {
                        b'4' | b'5' => true,
                        b'6' => memmem::find(&version[2..], b"SV1").is_none(),
                        _ => false,
                    };
            }
        }
        if has(b"Opera") {
            return Self::default();
        }
        if !browser.msie && !has(b"Gecko/") {
            browser.chrome = has(b"Chrome/");
            browser.safari = !browser.chrome && has(b"Safari/") && has(b"Mac OS X");
        }
        browser
    }

    /// Whether `msie_padding` pads its error pages.
    pub fn is_padded(self) -> bool {
        self.msie || self.chrome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers() {
        for (name, expected) in [
            ("Mozilla/4.0 (compatible; MSIE 6.0)", "msie msie6"),
            ("Mozilla/4.0 (compatible; MSIE 6.0; SV1)", "msie"),
            ("Mozilla/4.0 (compatible; MSIE 8.0)", "msie"),
            ("Mozilla/4.0 (compatible; MSIE 6.0) Opera 8", ""),
            ("Mozilla/5.0 (X11) AppleWebKit/537 (KHTML, like Gecko) Chrome/99 Safari/537", "chrome"),
            ("Mozilla/5.0 (Mac OS X) (KHTML, like Gecko) Safari/9", "safari"),
            ("Mozilla/5.0 (X11) Gecko/2010 Firefox/9", ""),
            ("MSIE ", ""),
            ("curl/8", ""),
        ] {
            let found = Browser::from_user_agent(name.as_bytes());
            let flags =
                [(found.msie, "msie"), (found.msie6, "msie6"), (found.chrome, "chrome"), (found.safari, "safari")];
            let words: Vec<_> = flags.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
            assert_eq!(words.join(" "), expected, "{name}");
        }
    }
}
