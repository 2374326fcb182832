//! nginx's own pages for errors and redirects, byte for byte.

use super::escape::{Escape, escape};

/// What the built-in page of a status looks like.
#[derive(Clone, Copy, Debug)]
struct Page {
    title: &'static str,
    heading: &'static str,
    /// A line below the heading, for the kinds of 400 that have statuses of their own inside nginx.
    note: &'static str,
}

/// What [`error_page`] depends on besides the status.
#[derive(Clone, Copy, Debug)]
pub struct PageStyle<'a> {
    /// The last line: `nginx`, `nginx/1.28.0` or a longer one (`server_tokens`).
    pub signature: &'a str,
    /// `msie_padding`, with a browser that [`needs it`](super::user_agent::Browser::is_padded) and HTTP/1.0 or later.
    pub padded: bool,
}

/// The built-in page of a status; `None` if it has none, and is answered with an empty body without type.
pub fn error_page(status: u16, style: &PageStyle<'_>) -> Option<Vec<u8>> {
    let Page { title, heading, note } = page(status)?;
    let mut out = Vec::with_capacity(256);
    let mut put = |parts: &[&str]| {
        for part in parts {
            out.extend_from_slice(part.as_bytes());
        }
    };
    put(&["<html>\r\n<head><title>", title, "</title></head>\r\n<body>\r\n"]);
    put(&["<center><h1>", heading, "</h1></center>\r\n"]);
    if !note.is_empty() {
        put(&["<center>", note, "</center>\r\n"]);
    }
    put(&["<hr><center>", style.signature, "</center>\r\n</body>\r\n</html>\r\n"]);
    if style.padded && status >= 400 {
        for _ in 0..6 {
            put(&["<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n"]);
        }
    }
    Some(out)
}

/// The page that `msie_refresh` sends to MSIE with 200 instead of a 301 or 302.
pub fn refresh_page(location: &[u8]) -> Vec<u8> {
    let mut out = b"<html><head><meta http-equiv=\"Refresh\" content=\"0; URL=".to_vec();
    out.extend_from_slice(&escape(location, Escape::Refresh));
    out.extend_from_slice(b"\"></head><body></body></html>\r\n");
    out
}

/// The status that the client sees: 494 to 497 are kinds of 400.
pub fn visible_status(status: u16) -> u16 {
    match status {
        494..=497 => 400,
        _ => status,
    }
}

fn page(status: u16) -> Option<Page> {
    let title = match status {
        301 => "301 Moved Permanently",
        302 => "302 Found",
        303 => "303 See Other",
        307 => "307 Temporary Redirect",
        308 => "308 Permanent Redirect",
        400 => "400 Bad Request",
        401 => "401 Authorization Required",
        402 => "402 Payment Required",
        403 => "403 Forbidden",
        404 | 498 => "404 Not Found",
        405 => "405 Not Allowed",
        406 => "406 Not Acceptable",
        408 => "408 Request Time-out",
        409 => "409 Conflict",
        410 => "410 Gone",
        411 => "411 Length Required",
        412 => "412 Precondition Failed",
        413 => "413 Request Entity Too Large",
        414 => "414 Request-URI Too Large",
        415 => "415 Unsupported Media Type",
        416 => "416 Requested Range Not Satisfiable",
        421 => "421 Misdirected Request",
        429 => "429 Too Many Requests",
        494 => return Some(bad_request("400 Request Header Or Cookie Too Large")),
        495 => return Some(bad_request("400 The SSL certificate error")),
        496 => return Some(bad_request("400 No required SSL certificate was sent")),
        497 => {
            return Some(bad_request("400 The plain HTTP request was sent to HTTPS port"));
        }
        500 => "500 Internal Server Error",
        501 => "501 Not Implemented",
        502 => "502 Bad Gateway",
        503 => "503 Service Temporarily Unavailable",
        504 => "504 Gateway Time-out",
        505 => "505 HTTP Version Not Supported",
        507 => "507 Insufficient Storage",
        _ => return None,
    };
    Some(Page { title, heading: title, note: "" })
}

/// A 400 whose title says more than its heading.
fn bad_request(title: &'static str) -> Page {
    Page { title, heading: "400 Bad Request", note: title.trim_start_matches("400 ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, padded: bool, expected: &str) {
        let style = PageStyle { signature: "nginx/1.28.0", padded };
        let page = error_page(status, &style).expect("a status with a page");
        assert_eq!(String::from_utf8_lossy(&page), expected.replace('\n', "\r\n"));
    }

    #[test]
    fn recorded() {
        check(
            404,
            false,
            "<html>
<head><title>404 Not Found</title></head>
<body>
<center><h1>404 Not Found</h1></center>
<hr><center>nginx/1.28.0</center>
</body>
</html>
",
        );
        check(
            497,
            false,
            "<html>
<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>
<body>
<center><h1>400 Bad Request</h1></center>
<center>The plain HTTP request was sent to HTTPS port</center>
<hr><center>nginx/1.28.0</center>
</body>
</html>
",
        );
    }

    #[test]
    fn padding_is_for_errors_only() {
        let style = PageStyle { signature: "nginx", padded: true };
        let length = |status| error_page(status, &style).map(|page| page.len());
        assert_eq!(length(404), Some(146 + 6 * 67));
        assert_eq!(length(302), Some(138));
    }

    #[test]
    fn statuses_without_a_page() {
        let style = PageStyle { signature: "nginx", padded: true };
        for status in [204, 304, 407, 417, 428, 451, 499, 506, 599] {
            assert_eq!(error_page(status, &style), None, "{status}");
        }
    }

    #[test]
    fn refreshing() {
        assert_eq!(
            refresh_page(b"http://a/\"b%20"),
            b"<html><head><meta http-equiv=\"Refresh\" content=\"0; URL=http://a/%22b%20\"></head><body></body></html>\r\n"
        );
    }
}
