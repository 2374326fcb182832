//! As much of HTTP/1.1 as the generator reads: the head of an answer, and where the answer ends.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use memchr::memmem;

use crate::frames::{HEAD, payload};

/// A whole answer at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// Bytes of its head, with the empty line.
    pub(crate) head: usize,
    /// Bytes of head and body.
    pub(crate) len: usize,
}

impl Answer {
    /// Reads it; `None` if more bytes are to come.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, Box<dyn Error>> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = str::from_utf8(&bytes[..end])?;
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| format!("not an answer: {status_line:?}"))?;
        let mut body = (status < 200 || status == 204).then_some(0);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                body = Some(value.trim().parse::<usize>()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                let Some(len) = chunks(&bytes[end + 4..])? else { return Ok(None) };
                body = Some(len);
            } else if name.eq_ignore_ascii_case("connection") && value.trim().eq_ignore_ascii_case("close") {
                return Err(format!("the server closes a keep-alive connection ({status_line})").into());
            }
        }
        let body = body.ok_or_else(|| format!("no content-length ({status_line})"))?;
        let len = end + 4 + body;
        Ok((len <= bytes.len()).then_some(Self { status, head: end + 4, len }))
    }
}

/// The length of a body in chunks, all of its lines included; `None` if more bytes are to come.
fn chunks(body: &[u8]) -> Result<Option<usize>, Box<dyn Error>> {
    let mut at = 0;
    loop {
        let Some(line) = body.get(at..).and_then(|rest| memmem::find(rest, b"\r\n")) else {
            return Ok(None);
        };
        let size = usize::from_str_radix(str::from_utf8(&body[at..at + line])?, 16)?;
        // The line of its size, the chunk, and its line feed.
        at += line + 2 + size + 2;
        if size == 0 {
            return Ok((at <= body.len()).then_some(at));
        }
    }
}

/// The keep-alive connection that publishes.
pub(crate) struct Publisher {
    stream: TcpStream,
    answers: Vec<u8>,
}

impl Publisher {
    /// Connects.
    pub(crate) fn connect(server: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream, answers: Vec::new() })
    }

    /// Publishes messages of these channels and numbers, all in one write (a pipeline keeps their order), and waits for nothing.
    pub(crate) fn publish(
        &mut self,
        messages: impl Iterator<Item = (String, u64)>,
        size: usize,
    ) -> Result<(), Box<dyn Error>> {
        let mut requests = Vec::new();
        for (channel, number) in messages {
            let (body, length) = (payload(number, size), size.max(HEAD));
            write!(requests, "POST /pub?id={channel} HTTP/1.1\r\nHost: bench\r\nContent-Length: {length}\r\n\r\n")?;
            requests.extend(body);
        }
        Ok(self.stream.write_all(&requests)?)
    }

    /// Asks for these paths, pipelined, and waits for nothing.
    pub(crate) fn ask(&mut self, paths: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
        let requests: String = paths.map(|path| format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n")).collect();
        Ok(self.stream.write_all(requests.as_bytes())?)
    }

    /// Reads that many answers; any but a 2xx is an error.
    pub(crate) fn answers(&mut self, count: u64) -> Result<(), Box<dyn Error>> {
        for _ in 0..count {
            let answer = loop {
                if let Some(answer) = Answer::parse(&self.answers)? {
                    break answer;
                }
                let mut piece = [0; 4096];
                let n = self.stream.read(&mut piece).map_err(|error| format!("no answer to a request: {error}"))?;
                if n == 0 {
                    return Err("the server closed the publisher's connection".into());
                }
                self.answers.extend_from_slice(&piece[..n]);
            };
            if !(200..300).contains(&answer.status) {
                let text = String::from_utf8_lossy(&self.answers[answer.head..answer.len]).into_owned();
                return Err(format!("a request was answered {} {text:?}", answer.status).into());
            }
            self.answers.drain(..answer.len);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &str, expected: &str) {
        let seen = match Answer::parse(bytes.as_bytes()) {
            Ok(Some(Answer { status, head, len })) => format!("{status} {head} {len}"),
            Ok(None) => "more".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(seen, expected, "{bytes:?}");
    }

    #[test]
    fn an_answer_ends_where_it_says() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1", "200 38 40");
        check("HTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\no", "more");
        check("HTTP/1.1 200 OK\r\nContent-Le", "more");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n0\r\n";
        check(&format!("{chunked}0\r\n\r\nHTTP"), "200 47 58");
        check(&format!("{chunked}0\r\n"), "more");
        check(&format!("{chunked}a\r\n"), "more");
        check("HTTP/1.1 204 No Content\r\n\r\n", "204 27 27");
        check("HTTP/1.1 101 Switching Protocols\r\n\r\n\u{1}", "101 36 36");
    }

    #[test]
    fn what_would_spoil_the_measurement_is_an_error() {
        check("HTTP/1.0 200 OK\r\n\r\n", r#"not an answer: "HTTP/1.0 200 OK""#);
        check("HTTP/1.1 200 OK\r\n\r\nto the end", "no content-length (HTTP/1.1 200 OK)");
        check(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "the server closes a keep-alive connection (HTTP/1.1 200 OK)",
        );
    }
}
