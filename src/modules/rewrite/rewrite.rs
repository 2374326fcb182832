//! `rewrite`

use bytes::{Bytes, BytesMut};

use super::Settings;
use super::return_::is_url;
use crate::config::value::{Captures, Part, Regex, Template};
use crate::config::{Call, Cx, Fault};
use crate::http::rewrite::{Flow, Step, push_step};
use crate::http::wire::escape::{Escape, Unescape, escape, unescape};
use crate::http::{Next, Request};
use crate::server::log::{Level, shown};

struct Rewrite {
    regex: Regex,
    replacement: Vec<Piece>,
    /// Whether the replacement is written with arguments.
    has_args: bool,
    /// Whether the request's arguments follow those of the replacement.
    keep_args: bool,
    then: Then,
}

/// A piece of a replacement.
enum Piece {
    /// Text or a variable, taken as it is.
    Part(Template),
    Capture(u8),
    /// The question mark: what follows are arguments.
    Args,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The next step; the location is found anew at the end.
    On,
    /// `last`
    Last,
    /// `break`
    Break,
    /// `redirect`, `permanent`, or a URL.
    Redirect(u16),
}

/// Adds the step.
pub(super) fn rewrite(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if call.bytes(1).is_empty() {
        return Err(Fault::new("empty replacement").word(1));
    }
    let regex = Regex::compile(&call.text(0), false, cx).map_err(|fault| fault.word(0))?;
    let (written, keep_args) = match call.bytes(1).strip_suffix(b"?") {
        Some(written) => (written, false),
        None => (call.bytes(1), true),
    };
    let redirect = |status| Then::Redirect(status);
    let then = match call.bytes(2) {
        _ if call.len() == 2 => {
            if is_url(written) {
                redirect(302)
            } else {
                Then::On
            }
        }
        // A URL stays a redirect whatever the flag says.
        b"last" | b"break" if is_url(written) => redirect(302),
        b"last" => Then::Last,
        b"break" => Then::Break,
        b"redirect" => redirect(302),
        b"permanent" => redirect(301),
        _ => {
            return Err(Fault::new(format!("invalid parameter \"{}\"", call.text(2)))
                .word(2)
                .help("it may be: last, break, redirect, permanent"));
        }
    };
    let template = Template::compile(written, cx, Some(call.word_at(1))).map_err(|fault| fault.word(1))?;
    let replacement = pieces(&template, matches!(then, Then::Redirect(_)));
    let has_args = template.parts().iter().any(|part| matches!(part, Part::Literal(text) if text.contains(&b'?')));
    push_step(cx, Rewrite { regex, replacement, has_args, keep_args, then });
    Ok(())
}

/// Cuts a replacement at its question marks, which begin the arguments. A redirect's stay as they are.
fn pieces(template: &Template, is_redirect: bool) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for part in template.parts() {
        match part {
            Part::Capture(number) => pieces.push(Piece::Capture(*number)),
            Part::Literal(text) if !is_redirect => {
                for (index, text) in text.split(|byte| *byte == b'?').enumerate() {
                    if index > 0 {
                        pieces.push(Piece::Args);
                    }
                    pieces.push(Piece::Part(Template::literal(Bytes::copy_from_slice(text))));
                }
            }
            part => pieces.push(Piece::Part(Template::part(part.clone()))),
        }
    }
    pieces
}

impl Step for Rewrite {
    fn run(&self, request: &mut Request) -> Flow {
        let uri = request.uri.clone();
        match matches(request, &self.regex, &uri) {
            Err(_) => return Flow::End(Next::Status(500)),
            Ok(false) => return Flow::On,
            Ok(true) => {}
        }
        let (text, args_at) = self.replace(request);
        match self.then {
            Then::Redirect(status) => Flow::End(self.redirect(request, status, &text)),
            Then::On | Then::Last | Then::Break => self.change(request, text, args_at),
        }
    }
}

impl Rewrite {
    /// The replacement's text, and where its arguments begin.
    fn replace(&self, request: &Request) -> (BytesMut, Option<usize>) {
        let mut text = BytesMut::new();
        let mut args_at = None;
        // Captures come from the decoded path; where they stand in arguments they are escaped again.
        let was_escaped = has_escapes(request);
        for piece in &self.replacement {
            match piece {
                Piece::Part(part) => text.extend_from_slice(&request.eval(part)),
                Piece::Args => args_at = Some(text.len()),
                Piece::Capture(number) => {
                    let capture = request.capture(usize::from(*number)).unwrap_or_default();
                    let quoted = args_at.is_some() || matches!(self.then, Then::Redirect(_));
                    if quoted && was_escaped {
                        text.extend_from_slice(&escape(&capture, Escape::Args));
                    } else {
                        text.extend_from_slice(&capture);
                    }
                }
            }
        }
        (text, args_at)
    }

    fn redirect(&self, request: &Request, status: u16, text: &[u8]) -> Next<'static> {
        let mut location = unescape(text, Unescape::Redirect).into_owned();
        if self.keep_args && !request.args.is_empty() {
            location.push(if self.has_args { b'&' } else { b'?' });
            location.extend_from_slice(&request.args);
        }
        log(request, || format!("rewritten redirect: \"{}\"", shown(&location)));
        Next::Redirect { status, location: location.into() }
    }

    /// Puts the replacement in the place of the path and the arguments.
    fn change(&self, request: &mut Request, mut text: BytesMut, args_at: Option<usize>) -> Flow {
        request.is_internal = true;
        request.is_uri_as_sent = false;
        if self.then == Then::Break {
            request.is_in_location = false;
        }
        request.uri_changed = self.then != Then::Break;
        match args_at {
            Some(at) => {
                let mut args = text.split_off(at);
                if self.keep_args && !request.args.is_empty() {
                    args.extend_from_slice(b"&");
                    args.extend_from_slice(&request.args);
                }
                request.args = args.freeze();
            }
            None if !self.keep_args => request.args = Bytes::new(),
            None => {}
        }
        request.uri = text.freeze();
        log(request, || format!("rewritten data: \"{}\", args: \"{}\"", shown(&request.uri), shown(&request.args)));
        if request.uri.is_empty() {
            request.log(Level::Error, "the rewritten URI has a zero length");
            return Flow::End(Next::Status(500));
        }
        if self.then == Then::On { Flow::On } else { Flow::Stop }
    }
}

/// Whether the path was sent with something that decoding has changed.
fn has_escapes(request: &Request) -> bool {
    let path = request.head.request_uri().split(|byte| *byte == b'?').next().unwrap_or_default();
    memchr::memchr2(b'%', b'+', path).is_some()
}

/// Matches a text for a step: the captures of earlier ones go, whether it fits or not.
pub(super) fn matches(request: &Request, regex: &Regex, subject: &Bytes) -> Result<bool, pcre2::Error> {
    let fits = request.matches(regex, subject)?;
    if !fits {
        request.set_captures(Captures::default());
    }
    log(request, || {
        let verb = if fits { "matches" } else { "does not match" };
        format!("\"{}\" {verb} \"{}\"", regex.pattern(), shown(subject))
    });
    Ok(fits)
}

/// Writes what `rewrite_log` asks for.
fn log(request: &Request, message: impl FnOnce() -> String) {
    if *request.settings::<Settings>().log {
        request.log(Level::Notice, &message());
    }
}
