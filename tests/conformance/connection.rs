//! A client's connection, byte by byte: HTTP answers, streamed bodies, WebSocket frames.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::case::Frame;
use crate::text::{Values, show, substitute, unshow};

/// How the body of an answer ends.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Framing {
    /// Nothing known: bytes as they come.
    Raw,
    Chunked,
    /// So many bytes are still to come.
    Length(usize),
    /// With the connection.
    Close,
    /// There is none.
    None,
    WebSocket,
}

/// The head of an answer, or why there is none.
pub(crate) enum Head {
    Came { status: String, headers: Vec<(String, String)> },
    Closed,
    Timeout,
}

pub(crate) struct Connection {
    stream: TcpStream,
    /// Received, not yet looked at.
    pub(crate) buffer: Vec<u8>,
    pub(crate) eof: bool,
    pub(crate) framing: Framing,
    /// The body of the answer is complete.
    pub(crate) ended: bool,
    /// Methods of the requests that are still to be answered.
    pub(crate) methods: Vec<String>,
}

impl Connection {
    pub(crate) fn open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        let (buffer, methods) = (Vec::new(), Vec::new());
        Ok(Self { stream, buffer, eof: false, framing: Framing::Raw, ended: false, methods })
    }

    /// Sends; that the other side has closed already shows in what it answers.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _closed = self.stream.write_all(bytes);
    }

    /// Receives once. False when nothing came within the time.
    pub(crate) fn fill(&mut self, time: Duration) -> bool {
        if self.eof {
            return false;
        }
        let _open = self.stream.set_read_timeout(Some(time.max(Duration::from_millis(1))));
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.eof = true,
            Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            // A machine that is frozen and goes on interrupts whoever waits.
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.eof = true,
        }
        true
    }

    /// Receives once, before `deadline`.
    fn fill_until(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        !left.is_zero() && self.fill(left)
    }

    /// The next answer's status line and headers.
    pub(crate) fn head(&mut self, deadline: Instant) -> Head {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n")
                && self.buffer.starts_with(b"HTTP/")
            {
                break end;
            }
            if self.eof {
                return Head::Closed;
            }
            if !self.fill_until(deadline) {
                return Head::Timeout;
            }
        };
        let text = show(&self.buffer[..end]);
        self.buffer.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let status = lines.next().unwrap_or_default().to_owned();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
        });
        Head::Came { status, headers: headers.collect() }
    }

    /// Gets ready for the body that follows a head.
    pub(crate) fn begin(&mut self, status: &str, headers: &[(String, String)], method: &str) {
        let Some(code) = status.split_whitespace().nth(1).and_then(|code| code.parse::<u16>().ok()) else {
            return;
        };
        let length = header(headers, "content-length").and_then(|n| n.parse().ok());
        self.ended = false;
        self.framing = if code == 101 {
            Framing::WebSocket
        } else if method == "HEAD" || code < 200 || matches!(code, 204 | 304) {
            self.ended = true;
            Framing::None
        } else if header(headers, "transfer-encoding").is_some_and(|value| value.to_lowercase().contains("chunked")) {
            Framing::Chunked
        } else if let Some(length) = length {
            self.ended = length == 0;
            Framing::Length(length)
        } else {
            Framing::Close
        };
    }

    /// Takes the decoded bytes of the body out of what was received.
    pub(crate) fn pump(&mut self) -> Vec<u8> {
        match self.framing {
            Framing::Raw | Framing::Close | Framing::None | Framing::WebSocket => {
                self.ended |= self.eof;
                std::mem::take(&mut self.buffer)
            }
            Framing::Length(left) => {
                let n = left.min(self.buffer.len());
                self.framing = Framing::Length(left - n);
                self.ended |= n == left || self.eof;
                self.buffer.drain(..n).collect()
            }
            Framing::Chunked => self.pump_chunks(),
        }
    }

    fn pump_chunks(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while !self.ended {
            let Some(line) = find(&self.buffer, b"\r\n") else {
                break;
            };
            let digits = show(&self.buffer[..line]);
            let digits = digits.split(';').next().unwrap_or_default().trim();
            match usize::from_str_radix(digits, 16) {
                Err(_) => {
                    out.extend_from_slice(format!("<bad chunk size {digits}>").as_bytes());
                    self.ended = true;
                }
                Ok(0) => {
                    let Some(end) = find(&self.buffer, b"\r\n\r\n") else {
                        break;
                    };
                    self.buffer.drain(..end + 4);
                    self.ended = true;
                }
                Ok(size) if self.buffer.len() >= line + 2 + size + 2 => {
                    out.extend_from_slice(&self.buffer[line + 2..line + 2 + size]);
                    self.buffer.drain(..line + 2 + size + 2);
                }
                Ok(_) => break,
            }
        }
        if self.eof && !self.ended {
            out.extend_from_slice(b"<connection closed inside the chunked body>");
            self.ended = true;
        }
        out
    }

    /// The body, and whether it came whole before the deadline.
    pub(crate) fn body(&mut self, deadline: Instant) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        loop {
            out.extend(self.pump());
            if self.ended {
                return (out, true);
            }
            if !self.fill_until(deadline) {
                return (out, false);
            }
        }
    }

    /// Whether the other side closes within the time.
    pub(crate) fn closes(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while !self.eof {
            if !self.fill_until(deadline) {
                return false;
            }
        }
        true
    }

    /// Takes one WebSocket frame out of what was received, if it is there whole.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        let b = &self.buffer;
        let (first, second) = (*b.first()?, *b.get(1)?);
        let (size, mut at) = match second & 127 {
            126 => (usize::from(u16::from_be_bytes(b.get(2..4)?.try_into().ok()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(b.get(2..10)?.try_into().ok()?)).ok()?, 10),
            small => (usize::from(small), 2),
        };
        let masked = second & 128 != 0;
        let mask: [u8; 4] = if masked {
            at += 4;
            b.get(at - 4..at)?.try_into().ok()?
        } else {
            [0; 4]
        };
        let data = xor(b.get(at..at.checked_add(size)?)?, mask);
        self.buffer.drain(..at + size);

        let op = first & 15;
        let mut frame = Frame {
            op: OPCODES
                .iter()
                .find(|(_, number)| *number == op)
                .map_or_else(|| op.to_string(), |(name, _)| (*name).into()),
            fin: (first & 128 == 0).then_some(false),
            rsv: (first & 0x70 != 0).then_some((first & 0x70) >> 4),
            masked: masked.then_some(true),
            ..Frame::default()
        };
        match (frame.op.as_str(), data.split_first_chunk::<2>()) {
            ("close", Some((code, reason))) => {
                frame.code = Some(u16::from_be_bytes(*code));
                frame.reason = (!reason.is_empty()).then(|| show(reason));
            }
            ("text" | "binary", _) => frame.data = Some(show(&data)),
            _ => frame.data = (!data.is_empty()).then(|| show(&data)),
        }
        Some(frame)
    }
}

const OPCODES: [(&str, u8); 6] =
    [("continuation", 0), ("text", 1), ("binary", 2), ("close", 8), ("ping", 9), ("pong", 10)];

/// The bytes of a frame that a client sends.
pub(crate) fn encode(frame: &Frame, values: &Values) -> Vec<u8> {
    let mut data = unshow(&substitute(frame.data.as_deref().unwrap_or_default(), values));
    if let Some(code) = frame.code {
        data = code.to_be_bytes().to_vec();
        data.extend(unshow(&substitute(frame.reason.as_deref().unwrap_or_default(), values)));
    }
    let number = OPCODES.iter().find(|(name, _)| *name == frame.op).map(|(_, number)| *number);
    let mut first = number.or_else(|| frame.op.parse().ok()).expect("the op of a frame is a known word or a number");
    first |= u8::from(frame.fin.unwrap_or(true)) << 7;
    first |= frame.rsv.unwrap_or(0) << 4;
    let masked = frame.masked.unwrap_or(true);

    let mut out = vec![first];
    let mask_bit = u8::from(masked) << 7;
    if let Ok(small @ 0..126) = u8::try_from(data.len()) {
        out.push(mask_bit | small);
    } else if let Ok(middle) = u16::try_from(data.len()) {
        out.push(mask_bit | 126);
        out.extend(middle.to_be_bytes());
    } else {
        out.push(mask_bit | 127);
        out.extend((data.len() as u64).to_be_bytes());
    }
    if masked {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        out.extend(mask);
        data = xor(&data, mask);
    }
    out.extend(data);
    out
}

fn xor(data: &[u8], mask: [u8; 4]) -> Vec<u8> {
    data.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

/// The value of a header, by its name in any case; the last one counts.
pub(crate) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}
