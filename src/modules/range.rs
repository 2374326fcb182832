//! ngx_http_range_header_filter_module: parts of an answer.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::config::Declarations;
use crate::config::value::Number;
use crate::http::wire::conditional::Validators;
use crate::http::wire::date::parse_http_date;
use crate::http::wire::header::Known;
use crate::http::wire::range::{
    ByteRange, Ranges, if_range_holds, last_boundary, multipart_content_type, parse, part_head, unsatisfied_range,
};
use crate::http::{Body, BodyStream, Module, Piece, Request, Response};
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_range_header_filter",
        sections: &[MaxRanges::ROW],
        commands: &[],
        variables: &[],
    },
    filter: Some(filter),
    ..Module::EMPTY
};

settings! {
    /// Parts of answers.
    pub struct MaxRanges {
        /// How many parts of an answer a client may ask for at once; with more it gets the whole. 0: no parts at all.
        "max_ranges" HTTP_ALL = "2147483647" => pub max_ranges: Number,
    }
}

fn filter(request: &mut Request, response: &mut Response) {
    if !response.ranges || response.status != 200 || !request.is_main() || request.head.version() < 1000 {
        return;
    }
    let max = *request.settings::<MaxRanges>().max_ranges;
    let Some(length) = response.length().filter(|_| max > 0) else { return };
    let max = if response.one_range { 1 } else { usize::try_from(max).unwrap_or(usize::MAX) };
    match wanted(request, response, length, max) {
        Ranges::Whole => response.header("Accept-Ranges", &b"bytes"[..]),
        Ranges::Unsatisfiable => {
            response.header("Content-Range", unsatisfied_range(length));
            response.refused = Some(416);
        }
        Ranges::Parts(ranges) => match ranges.as_slice() {
            [range] => {
                response.header("Content-Range", range.content_range(length));
                let body = std::mem::take(&mut response.body);
                response.body = part(body, range);
                response.content_length = Some(range.end - range.start);
                response.status = 206;
            }
            ranges => several(response, ranges, length),
        },
    }
}

/// What the request asks for.
fn wanted(request: &Request, response: &Response, length: u64, max: usize) -> Ranges {
    let Some(range) = request.head.known(Known::Range) else { return Ranges::Whole };
    if let Some(condition) = request.head.known(Known::IfRange) {
        // Those of an upstream stand among the listed ones.
        let listed = |name: &[u8]| {
            let header = response.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            header.map(|(_, value)| &value[..])
        };
        let last_modified = response.last_modified.or_else(|| parse_http_date(listed(b"Last-Modified")?));
        let validators = Validators { last_modified, etag: response.etag.as_deref().or_else(|| listed(b"ETag")) };
        if !if_range_holds(condition, &validators) {
            return Ranges::Whole;
        }
    }
    parse(range, length, Some(max))
}

/// One part of a body.
fn part(body: Body, range: &ByteRange) -> Body {
    match body {
        Body::File(mut file) => {
            file.range = within(&file.range, range);
            Body::File(file)
        }
        Body::Full(bytes) => Body::Full(cut(&bytes, range)),
        Body::Stream(source) => Body::Stream(Box::new(Window { source, at: 0, range: *range })),
        body => body,
    }
}

/// A part of what comes with time.
struct Window {
    source: Box<dyn BodyStream>,
    /// How much has come.
    at: u64,
    range: ByteRange,
}

impl BodyStream for Window {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + '_>> {
        Box::pin(async {
            while self.at < self.range.end {
                let piece = match self.source.next().await? {
                    Ok(piece) => piece,
                    Err(error) => return Some(Err(error)),
                };
                let of = |place: u64| place.saturating_sub(self.at);
                let piece_range = ByteRange { start: of(self.range.start), end: of(self.range.end) };
                self.at += piece.len() as u64;
                let wanted = cut(&piece, &piece_range);
                if !wanted.is_empty() {
                    return Some(Ok(wanted));
                }
            }
            None
        })
    }

    fn flushes(&self) -> bool {
        self.source.flushes()
    }

    fn waits_for_content(&self) -> bool {
        self.source.waits_for_content()
    }
}

/// Several parts, each with a head of its own.
fn several(response: &mut Response, ranges: &[ByteRange], length: u64) {
    let source = match std::mem::take(&mut response.body) {
        Body::File(file) => Piece::File(file.file, file.range),
        Body::Full(bytes) => Piece::Bytes(bytes),
        body => {
            response.body = body;
            return;
        }
    };
    let boundary = next_boundary();
    let mut content_type = response.content_type.take().unwrap_or_default().to_vec();
    if let Some(charset) = response.charset.take() {
        content_type.extend_from_slice(b"; charset=");
        content_type.extend_from_slice(&charset);
    }
    let mut pieces = Vec::with_capacity(2 * ranges.len() + 1);
    for range in ranges {
        pieces.push(Piece::Bytes(part_head(boundary, &content_type, range, length).into()));
        pieces.push(match &source {
            Piece::Bytes(bytes) => Piece::Bytes(cut(bytes, range)),
            Piece::File(file, whole) => Piece::File(Rc::clone(file), within(whole, range)),
        });
    }
    pieces.push(Piece::Bytes(last_boundary(boundary).into()));
    response.status = 206;
    response.content_type = Some(multipart_content_type(boundary).into());
    response.content_length = None;
    response.body = Body::Pieces(pieces);
}

/// A part of what is itself a part of a file.
fn within(whole: &Range<u64>, range: &ByteRange) -> Range<u64> {
    whole.start + range.start..whole.start + range.end
}

fn cut(bytes: &Bytes, range: &ByteRange) -> Bytes {
    let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(bytes.len());
    let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
    bytes.slice(start..end)
}

/// A number that no earlier answer of the process had as its boundary.
fn next_boundary() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ranges: &[(u64, u64)], expected: &str) {
        let mut response = Response::with(200, "text/plain", "0123456789");
        response.charset = Some("utf-8".into());
        let ranges: Vec<_> = ranges.iter().map(|(start, end)| ByteRange { start: *start, end: *end }).collect();
        several(&mut response, &ranges, 10);
        let content_type = response.content_type.expect("a multipart answer has a type");
        let boundary = content_type.rsplit(|byte| *byte == b'=').next().expect("a boundary").to_vec();
        let Body::Pieces(pieces) = response.body else { panic!("not several pieces") };
        let text: String = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Piece::File(..) => panic!("not from a file"),
            })
            .collect();
        let text = text.replace(&*String::from_utf8_lossy(&boundary), "B").replace('\r', "");
        assert_eq!(text, expected);
    }

    #[test]
    fn several_parts_of_bytes_in_memory() {
        check(
            &[(0, 2), (5, 6)],
            "\n--B\nContent-Type: text/plain; charset=utf-8\nContent-Range: bytes 0-1/10\n\n01\
             \n--B\nContent-Type: text/plain; charset=utf-8\nContent-Range: bytes 5-5/10\n\n5\n--B--\n",
        );
    }

    #[test]
    fn parts_of_parts() {
        assert_eq!(within(&(100..200), &ByteRange { start: 5, end: 7 }), 105..107);
    }
}
