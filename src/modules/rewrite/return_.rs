//! `return`

use bytes::Bytes;

use crate::config::value::{Template, parse_number};
use crate::config::{Call, Cx, Fault};
use crate::http::rewrite::{Flow, Step, push_step};
use crate::http::{Next, Request, Response};
use crate::modules::http_core;

#[derive(Debug)]
struct Return {
    status: u16,
    text: Template,
}

/// Adds the step.
pub(super) fn return_(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let (status, text) = match (parse_number(call.bytes(0)), call.len()) {
        (Some(code), length) => (u16::try_from(code).ok().filter(|code| *code <= 999), (length > 1).then_some(1)),
        (None, 1) if is_url(call.bytes(0)) => (Some(302), Some(0)),
        (None, _) => (None, None),
    };
    let status = status.ok_or_else(|| {
        Fault::new(format!("invalid return code \"{}\"", call.text(0)))
            .word(0)
            .help("a code is a number up to 999; without one, a URL begins with http://, https:// or $scheme")
    })?;
    let text = text.map_or_else(|| Ok(Template::default()), |index| Template::word(call, index, cx))?;
    push_step(cx, Return { status, text });
    Ok(())
}

/// Whether a replacement or a lone word leads away from this server.
pub(super) fn is_url(text: &[u8]) -> bool {
    [&b"http://"[..], b"https://", b"$scheme"].iter().any(|start| text.starts_with(start))
}

impl Step for Return {
    fn run(&self, request: &mut Request) -> Flow {
        if self.status >= 400 && self.text.parts().is_empty() {
            return Flow::End(Next::Status(self.status));
        }
        // `$status` in the text is that which is answered.
        let status = request.error_status.unwrap_or(self.status);
        let before = std::mem::replace(&mut request.sent.status, status);
        request.pass_body();
        let text = request.eval(&self.text);
        request.sent.status = before;
        Flow::End(match self.status {
            status @ (301 | 302 | 303 | 307 | 308) => Next::Redirect { status, location: text },
            status => Next::answer(answer(request, status, text)),
        })
    }
}

fn answer(request: &Request, status: u16, text: Bytes) -> Response {
    let response = Response::with(status, http_core::content_type(request), text);
    Response { disable_not_modified: status == 304, ..response }
}
