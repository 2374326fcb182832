//! The particulars that nginx adds to a message about a request.

use super::request::Request;
use super::wire::header::Known;
use crate::server::log::shown;

/// `MESSAGE, client: …, server: …, request: "…", host: "…"`
pub(super) fn with_particulars(request: &Request, message: &str) -> String {
    let mut line = format!("{message}, client: {}, server: {}", request.peer.text(), {
        String::from_utf8_lossy(&request.server().name)
    });
    let head = &request.head;
    line.push_str(&format!(", request: \"{}\"", shown(head.request_line())));
    if !request.is_main() {
        line.push_str(&format!(", subrequest: \"{}\"", shown(&request.uri)));
    }
    if let Some(host) = head.known(Known::Host) {
        line.push_str(&format!(", host: \"{}\"", shown(host)));
    }
    if let Some(referer) = head.known(Known::Referer) {
        line.push_str(&format!(", referrer: \"{}\"", shown(referer)));
    }
    line
}
