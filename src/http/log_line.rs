//! The particulars that nginx adds to a message about a request.

use super::request::Request;
use super::wire::header::Known;

/// `MESSAGE, client: …, server: …, request: "…", host: "…"`
pub(super) fn with_particulars(request: &Request, message: &str) -> String {
    let mut line = format!("{message}, client: {}, server: {}", request.peer.text(), {
        String::from_utf8_lossy(&request.server().name)
    });
    let head = &request.head;
    line.push_str(&format!(", request: \"{}\"", head.request_line().escape_ascii()));
    if !request.is_main() {
        line.push_str(&format!(", subrequest: \"{}\"", request.uri.escape_ascii()));
    }
    if let Some(host) = head.known(Known::Host) {
        line.push_str(&format!(", host: \"{}\"", host.escape_ascii()));
    }
    if let Some(referer) = head.known(Known::Referer) {
        line.push_str(&format!(", referrer: \"{}\"", referer.escape_ascii()));
    }
    line
}
