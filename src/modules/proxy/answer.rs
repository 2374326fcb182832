//! How the answers of HTTP servers are read, and what is changed in them.

use bytes::{Bytes, BytesMut};

use super::cookie::Cookies;
use super::redirect::Redirects;
use super::{Exchange, Settings};
use crate::http::Request;
use crate::http::upstream::{Decoder, Parsed, Protocol, Trailed};
use crate::http::wire::body::{Chunked, Counted};
use crate::http::wire::upstream_head::{Field, HeadParser, Progress, UpstreamHead};
use crate::server::log::{Level, shown};

/// HTTP/1 as upstreams speak it.
pub(super) struct Http {
    parser: HeadParser,
    is_head: bool,
    /// How trailers are read; `None`: they are skipped.
    trailed: Option<Box<Trailed>>,
}

impl Http {
    /// For the answer to a request; that to HEAD has no body.
    pub(super) fn new(request: &Request, is_head: bool) -> Self {
        let trailed = || Box::new(Trailed::new(&request.settings::<Exchange>().0, is_hidden));
        let trailed = request.settings::<Settings>().trailers.then(trailed);
        Self { parser: HeadParser::default(), is_head, trailed }
    }
}

impl Protocol for Http {
    fn reset(&mut self) {
        self.parser = HeadParser::default();
    }

    fn parse(&mut self, request: &Request, input: &mut BytesMut) -> Parsed {
        const READING: &str = "while reading response header from upstream";
        match self.parser.parse(input) {
            Progress::Incomplete => Parsed::More,
            Progress::Bare => {
                request.log(Level::Error, &format!("upstream sent no valid HTTP/1.0 header {READING}"));
                Parsed::Head(Box::new(UpstreamHead::bare()))
            }
            Progress::Bad(reason) => {
                request.log(Level::Error, &format!("{} {READING}", shown(&reason)));
                Parsed::Bad
            }
            Progress::Complete(length) => {
                let (head, warnings) = self.parser.take(input.split_to(length).freeze());
                for warning in warnings {
                    request.log(Level::Warn, &format!("{} {READING}", shown(&warning)));
                }
                Parsed::Head(head)
            }
        }
    }

    fn decoder(&self, head: &UpstreamHead) -> Decoder {
        if self.is_head || matches!(head.status(), 204 | 304) {
            return Decoder::Empty;
        }
        match head.content_length() {
            _ if head.is_chunked() => match &self.trailed {
                Some(trailed) => Decoder::Trailed(trailed.clone()),
                None => Decoder::Chunked(Chunked::default()),
            },
            Some(length) => Decoder::Counted(Counted::new(length)),
            None => Decoder::UntilClose,
        }
    }

    fn hides(&self, name: &[u8], field: Option<Field>) -> bool {
        is_hidden(name, field)
    }

    fn rewrite(&self, request: &Request, field: Field, value: &Bytes) -> Option<Bytes> {
        match field {
            Field::Location => request.settings::<Redirects>().rewrite(request, value, 0),
            Field::Refresh => {
                let at = value.windows(4).position(|word| word.eq_ignore_ascii_case(b"url="))? + 4;
                request.settings::<Redirects>().rewrite(request, value, at)
            }
            Field::SetCookie => request.settings::<Cookies>().rewrite(request, value),
            _ => None,
        }
    }
}

fn is_hidden(name: &[u8], field: Option<Field>) -> bool {
    match field {
        Some(field) => field.is_accel() || matches!(field, Field::Date | Field::Server),
        None => name.eq_ignore_ascii_case(b"X-Pad"),
    }
}
