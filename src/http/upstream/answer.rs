//! From the head of an upstream's answer to the response for the client.

use bytes::{Bytes, BytesMut};

use super::body::{Cut, Decoder};
use super::family::Ignorable;
use super::pass::{Arrived, Passing, Protocol};
use super::pool;
use super::reading::{Broken, Buffered, Direct};
use super::source::{Manner, Source, Unread};
use super::store::Storing;
use super::stream::Link;
use crate::config::value::parse_number;
use crate::http::wire::method::Method;
use crate::http::wire::upstream_head::{Field, UpstreamHead};
use crate::http::wire::uri::parse_unsafe;
use crate::http::{Body, Jump, Next, Request, Response};
use crate::server::log::{Level, shown};

impl Passing<'_> {
    /// Makes the answer of what came.
    pub(super) fn answer(self, request: &mut Request, protocol: &dyn Protocol, arrived: Arrived) -> Next<'static> {
        let Arrived { head, link, lease, is_asked } = arrived;
        let exchange = self.plan.exchange;
        let mut response = Response::default();
        let mut carried = Vec::new();
        let status = head.status();
        let rate = head.field_bytes(Field::AccelLimitRate).and_then(|rate| parse_number(&rate));
        if let Some(rate) = rate.filter(|_| exchange.ignored.heed(Ignorable::AccelLimitRate)) {
            request.limit_rate = Some(rate);
        }
        let redirect = head.field_bytes(Field::AccelRedirect);
        let redirect = redirect.filter(|_| exchange.ignored.heed(Ignorable::AccelRedirect));
        let is_intercepted =
            redirect.is_none() && status >= 300 && *exchange.intercept_errors && request.has_error_page(status);
        self.headers(request, protocol, &head, &mut response);
        if redirect.is_some() {
            carried = response.headers.split_off(0);
            carried.retain(|(name, _)| Field::from_name(name).is_some_and(survives_redirect));
        } else if is_intercepted {
            carried = response.headers.split_off(0);
            carried.retain(|(name, _)| status == 401 && Field::from_name(name) == Some(Field::WwwAuthenticate));
        }
        if let Some(to) = redirect {
            self.record.borrow_mut().carry(response.content_type.take(), carried);
            self.leave(&head, protocol, link, lease, is_asked);
            self.record.borrow_mut().head = Some(head);
            return accel_redirect(request, to);
        }
        if is_intercepted {
            self.record.borrow_mut().carry(None, carried);
            self.leave(&head, protocol, link, lease, is_asked);
            self.record.borrow_mut().head = Some(head);
            return Next::Status(status);
        }
        response.status = status;
        response.disable_not_modified = true;
        if head.version() == 9 {
            response.headless = true;
        } else {
            response.status_line = Some(head.status_line());
        }
        if status == 101 && request.head.known(crate::http::wire::header::Known::Upgrade).is_some() {
            self.record.borrow_mut().head = Some(head);
            response.body = Body::Tunnel(Box::new(super::tunnel::Tunnel::new(self, link, lease)));
            return Next::answer(response);
        }
        let decoder = protocol.decoder(&head);
        response.content_length = head.content_length();
        let closes = head.closes() || !is_asked;
        self.record.borrow_mut().head = Some(head);
        // As in nginx all counts that came behind the head, be it content or what frames it.
        let begun = link.buffer.len() + decoder.begun();
        let before = link.received.saturating_sub(begun as u64);
        self.content(request, &mut response, Unread { link, decoder, closes, lease, before });
        Next::answer(response)
    }

    /// Takes over the headers that go on to the client.
    fn headers(&self, request: &Request, protocol: &dyn Protocol, head: &UpstreamHead, response: &mut Response) {
        let exchange = self.plan.exchange;
        let ranges = *self.plan.buffering.force_ranges;
        (response.ranges, response.one_range) = (ranges, ranges);
        for (name, value, field) in head.headers() {
            if (protocol.hides(name, field) || exchange.hide.contain(name)) && !exchange.pass.contain(name) {
                continue;
            }
            if let Some(Field::ContentLength | Field::TransferEncoding | Field::Connection | Field::KeepAlive) = field {
                continue;
            }
            let (name, value) = (head.share(name), head.share(value));
            let value = match field {
                Some(Field::AcceptRanges) if ranges => continue,
                Some(Field::ContentType) => {
                    put_type(response, value);
                    continue;
                }
                Some(Field::Location) => match protocol.rewrite(request, Field::Location, &value) {
                    // What became a path of this server is completed to a URL where nginx does so.
                    Some(path) if path.first() == Some(&b'/') => {
                        response.location = Some(path);
                        continue;
                    }
                    rewritten => rewritten.unwrap_or(value),
                },
                Some(field @ (Field::Refresh | Field::SetCookie)) => {
                    protocol.rewrite(request, field, &value).unwrap_or(value)
                }
                Some(Field::Date) => {
                    response.own_date = true;
                    value
                }
                Some(Field::Server) => {
                    response.own_server = true;
                    value
                }
                _ => value,
            };
            response.headers.push((name, value));
        }
        // nginx makes up an empty one of these where the upstream sent none.
        for (field, name) in [(Field::Server, &b"Server"[..]), (Field::Date, b"Date")] {
            if exchange.pass.contain(name) && head.field(field).is_none() && head.version() != 9 {
                response.own_server |= field == Field::Server;
                response.own_date |= field == Field::Date;
                response.headers.push((Bytes::from_static(name), Bytes::new()));
            }
        }
        let charset = head.field_bytes(Field::AccelCharset).filter(|_| exchange.ignored.heed(Ignorable::AccelCharset));
        response.override_charset = charset.filter(|charset| !charset.is_empty());
    }

    /// Ends with an answer whose body nobody wants.
    fn leave(
        &self,
        head: &UpstreamHead,
        protocol: &dyn Protocol,
        mut link: Box<Link>,
        lease: super::Lease,
        is_asked: bool,
    ) {
        let mut decoder = protocol.decoder(head);
        let is_whole = matches!(decoder.cut(&mut link.buffer), Cut::End);
        if is_whole && decoder.leaves_connection() && !head.closes() && is_asked {
            self.keep(&lease, link);
        }
        self.note(|_| {});
    }

    /// Keeps a connection whose answer was read.
    fn keep(&self, lease: &super::Lease, link: Box<Link>) {
        if let Some(keepalive) = &self.plan.upstream.keepalive {
            pool::put(&self.plan.upstream.name, keepalive, &lease.chosen.target.address, link);
        }
    }

    /// How the body is read: ahead of the client, or as the client takes it.
    fn manner(&self, request: &Request) -> Manner {
        let (exchange, buffering) = (self.plan.exchange, self.plan.buffering);
        let record = self.record.borrow();
        let said = record.head.as_ref().and_then(|head| head.field(Field::AccelBuffering));
        let said = said.filter(|_| exchange.ignored.heed(Ignorable::AccelBuffering));
        let is_buffered = match said {
            Some(word) if word.eq_ignore_ascii_case(b"yes") => true,
            Some(word) if word.eq_ignore_ascii_case(b"no") => false,
            _ => *buffering.buffering,
        };
        let (piece, rate) =
            if is_buffered { (buffering.buffers.size, buffering.limit_rate.of(request)) } else { (0, 0) };
        Manner { is_buffered, patience: *exchange.read_timeout, piece, rate }
    }

    /// Begins to store the answer, if it is to be stored.
    fn storing(&self, request: &Request) -> Option<Storing> {
        let record = self.record.borrow();
        let head = record.head.as_ref().filter(|_| self.plan.cache.store.is_on())?;
        Storing::begin(request, head, self.plan.cache, self.plan.buffering).unwrap_or_else(|error| {
            request.log(Level::Crit, &format!("{error} while reading upstream"));
            None
        })
    }

    /// Gives the response its body: in memory if all of it came with the head, else as it comes.
    fn content(self, request: &Request, response: &mut Response, mut unread: Unread) {
        let mut first = Bytes::new();
        let mut more: Option<BytesMut> = None;
        let manner = self.manner(request);
        let storing = if manner.is_buffered { self.storing(request) } else { None };
        let doing = if manner.is_buffered { "reading upstream" } else { super::pass::READING };
        while unread.has_enough(manner.piece) {
            match unread.decoder.cut(&mut unread.link.buffer) {
                Cut::Data(data) if first.is_empty() => first = data,
                Cut::Data(data) => more.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&data),
                Cut::End => {
                    let body = more.map_or(first, BytesMut::freeze);
                    let length = unread.link.received.saturating_sub(unread.before);
                    unread.decoder.settle(&self.record);
                    self.note(|last| (last.length, last.received) = (length, unread.link.received));
                    if !unread.link.buffer.is_empty() {
                        // Nothing behind the head is looked at for HEAD, if there is a head.
                        if request.method != Method::Head || response.headless {
                            request.log(Level::Warn, &format!("{} while {doing}", unread.decoder.excess()));
                        }
                    } else if unread.decoder.leaves_connection() && !unread.closes {
                        self.keep(&unread.lease, unread.link);
                    }
                    if let Some(storing) = storing {
                        storing.keep(&body, &request.later_log());
                    }
                    response.hides_length = response.content_length.is_none();
                    response.body = if body.is_empty() { Body::Empty } else { Body::Full(body) };
                    return;
                }
                Cut::More => break,
                Cut::Note(level, message) => request.log(level, &format!("{message} while {doing}")),
                Cut::Bad(why) => {
                    // nginx has not sent the head yet where chunks are bad.
                    request.log(Level::Error, &format!("{why} while {doing}"));
                    let length = unread.link.received.saturating_sub(unread.before);
                    self.note(|last| last.length = length);
                    response.silent = !matches!(unread.decoder, Decoder::Records(_));
                    response.body = Body::Stream(Box::new(Broken));
                    return;
                }
            }
        }
        let begun = more.map_or(first, BytesMut::freeze);
        response.ends_with_client = self.is_watched(request);
        let log = request.later_log();
        let room = manner.is_buffered.then(|| self.plan.buffering.room());
        let source = Source::new(self, begun.len(), unread, manner, log);
        response.body = Body::Stream(match room {
            Some(room) => Box::new(Buffered::new(begun, source, room, storing)),
            None => Box::new(Direct::new(begun, source)),
        });
    }
}

/// Whether a header goes with what is answered after `X-Accel-Redirect`.
fn survives_redirect(field: Field) -> bool {
    matches!(
        field,
        Field::SetCookie | Field::ContentDisposition | Field::CacheControl | Field::Expires | Field::AcceptRanges
    )
}

/// Cuts a charset off a content type, and keeps the whole where they would not be put together as they were.
fn put_type(response: &mut Response, value: Bytes) {
    let Some((name, charset)) = split_type(&value) else {
        response.content_type = Some(value);
        return;
    };
    let is_plain = value.len() == name.len() + b"; charset=".len() + charset.len()
        && value[name.len()..].starts_with(b"; charset=");
    response.content_type = Some(value.slice_ref(name));
    response.charset = Some(value.slice_ref(charset));
    response.whole_type = (!is_plain).then_some(value);
}

/// A content type and its charset.
fn split_type(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    while let Some(semicolon) = memchr::memchr(b';', &value[at..]) {
        let end = at + semicolon;
        at = end + 1;
        while value.get(at) == Some(&b' ') {
            at += 1;
        }
        let parameter = &value[at..];
        if parameter.len() >= 8 && parameter[..8].eq_ignore_ascii_case(b"charset=") {
            let charset = &parameter[8..];
            let charset = charset.strip_prefix(b"\"").unwrap_or(charset);
            return Some((&value[..end], charset.strip_suffix(b"\"").unwrap_or(charset)));
        }
    }
    None
}

/// Goes on where `X-Accel-Redirect` says.
fn accel_redirect(request: &mut Request, to: Bytes) -> Next<'static> {
    if to.first() == Some(&b'@') {
        return Next::Jump(Jump::Named(to));
    }
    let Ok(found) = parse_unsafe(&to) else {
        request.log(Level::Error, &format!("unsafe URI \"{}\" was detected", shown(&to)));
        return Next::Status(404);
    };
    let (uri, args) = (Bytes::copy_from_slice(&found.path), Bytes::copy_from_slice(found.args));
    if request.method != Method::Head {
        request.method = Method::Get;
        request.method_name = Bytes::from_static(b"GET");
    }
    Next::Jump(Jump::Redirect { uri, args })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let check = |value: &'static str, name: &str, charset: Option<&str>, is_whole: bool| {
            let mut response = Response::default();
            put_type(&mut response, Bytes::from_static(value.as_bytes()));
            assert_eq!(response.content_type.as_deref(), Some(name.as_bytes()), "{value}");
            assert_eq!(response.charset.as_deref(), charset.map(str::as_bytes), "{value}");
            assert_eq!(response.whole_type.is_some(), is_whole, "{value}");
        };
        check("text/html", "text/html", None, false);
        check("text/html; charset=utf-8", "text/html", Some("utf-8"), false);
        check("text/html;charset=utf-8", "text/html", Some("utf-8"), true);
        check("text/html; Charset=\"utf-8\"", "text/html", Some("utf-8"), true);
        check("text/plain; a=b; charset=x", "text/plain; a=b", Some("x"), false);
        check("text/plain; a=b", "text/plain; a=b", None, false);
    }
}
