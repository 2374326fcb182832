//! FastCGI's records: what a request is put into, and what an answer is taken from.

use std::ops::Range;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// The length of a record's header.
const HEADER: usize = 8;

/// The most that a record may hold.
pub const MAX_RECORD: usize = 65_535;

/// The beginning of a request to a responder; the connection is to be kept after it, or not.
pub fn put_begin(keeps: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&header(BEGIN_REQUEST, 8));
    out.extend_from_slice(&[0, 1, keeps.into(), 0, 0, 0, 0, 0]);
}

/// Puts parameters into a record, and ends their list; `false`: they are too long.
pub fn put_params(params: &[u8], out: &mut Vec<u8>) -> bool {
    if params.len() > MAX_RECORD {
        return false;
    }
    if !params.is_empty() {
        out.extend_from_slice(&header(PARAMS, params.len()));
        out.extend_from_slice(params);
        out.resize(out.len() + padding(params.len()), 0);
    }
    out.extend_from_slice(&header(PARAMS, 0));
    true
}

/// Writes a name and its value.
pub fn put_param(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for length in [name.len(), value.len()] {
        match u8::try_from(length) {
            Ok(short @ ..=127) => out.push(short),
            _ => {
                let long = u32::try_from(length).unwrap_or(u32::MAX) | 1 << 31;
                out.extend_from_slice(&long.to_be_bytes());
            }
        }
    }
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// What stands before so much of a request's body; nothing is its end.
pub const fn stdin_header(length: usize) -> [u8; HEADER] {
    header(STDIN, length)
}

/// How many bytes follow so much content.
pub const fn padding(length: usize) -> usize {
    (8 - length % 8) % 8
}

const fn header(kind: u8, length: usize) -> [u8; HEADER] {
    let [.., high, low] = length.to_be_bytes();
    [1, kind, 0, 1, high, low, padding(length) as u8, 0]
}

/// What a piece of input held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A part of the answer, at this place in the input; go on after it.
    Output(Range<usize>),
    /// A part of what the application complains of.
    Complaint(Range<usize>),
    /// The answer is whole, up to this place; go on there for the end of the request.
    Closed(usize),
    /// The request ended before this place.
    End(usize),
    /// The whole input is used up and more is to come.
    More,
    /// It is no good; nginx's words for the log.
    Bad(String),
}

/// Takes an answer out of its records, which come in pieces cut anywhere.
#[derive(Clone, Debug, Default)]
pub struct Records {
    header: [u8; HEADER],
    /// How much of the header has come.
    have: usize,
    content: usize,
    padding: usize,
}

impl Records {
    /// What comes in `input` from `at` on: call again with the place that it says.
    pub fn step(&mut self, input: &[u8], mut at: usize) -> Step {
        loop {
            if self.content > 0 {
                let take = self.content.min(input.len() - at);
                if take == 0 {
                    return Step::More;
                }
                self.content -= take;
                let range = at..at + take;
                match self.header[1] {
                    STDOUT => return Step::Output(range),
                    STDERR => return Step::Complaint(range),
                    _ => at = range.end,
                }
                continue;
            }
            let skip = self.padding.min(input.len() - at);
            self.padding -= skip;
            at += skip;
            if self.padding > 0 {
                return Step::More;
            }
            if self.have == HEADER {
                if self.header[1] == END_REQUEST {
                    return Step::End(at);
                }
                self.have = 0;
            }
            while self.have < HEADER {
                let Some(&byte) = input.get(at) else { return Step::More };
                if let Some(why) = fault(self.have, byte) {
                    return Step::Bad(why);
                }
                self.header[self.have] = byte;
                self.have += 1;
                at += 1;
            }
            self.content = usize::from(u16::from_be_bytes([self.header[4], self.header[5]]));
            self.padding = self.header[6].into();
            if self.header[1] == STDOUT && self.content == 0 {
                return Step::Closed(at);
            }
        }
    }
}

/// What is wrong with a byte of a header.
fn fault(place: usize, byte: u8) -> Option<String> {
    match (place, byte) {
        (0, 1) | (1, STDOUT | STDERR | END_REQUEST) | (2, 0) | (3, 1) | (4.., _) => None,
        (0, _) => Some(format!("upstream sent unsupported FastCGI protocol version: {byte}")),
        (1, _) => Some(format!("upstream sent invalid FastCGI record type: {byte}")),
        (2, _) => Some(format!("upstream sent unexpected FastCGI request id high byte: {byte}")),
        (3, _) => Some(format!("upstream sent unexpected FastCGI request id low byte: {byte}")),
    }
}

/// Holds what must be true of any input; for the fuzzer.
pub fn fuzz_records(data: &[u8]) {
    let whole = decode(&[data]);
    let cut = data.first().map_or(0, |&byte| usize::from(byte) % (data.len() + 1));
    let (left, right) = data.split_at(cut);
    assert_eq!(whole, decode(&[left, right]), "the same however it is cut");
}

/// Output, complaints, and how it ended.
fn decode(pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>, String) {
    let mut records = Records::default();
    let (mut output, mut complaint, mut end) = (Vec::new(), Vec::new(), String::new());
    for piece in pieces {
        let mut at = 0;
        loop {
            match records.step(piece, at) {
                Step::Output(range) => {
                    at = range.end;
                    output.extend_from_slice(&piece[range]);
                }
                Step::Complaint(range) => {
                    at = range.end;
                    complaint.extend_from_slice(&piece[range]);
                }
                Step::Closed(place) => {
                    at = place;
                    end.push_str("closed ");
                }
                Step::More => break,
                Step::End(_) => return (output, complaint, end + "ended"),
                Step::Bad(why) => return (output, complaint, end + &why),
            }
        }
    }
    (output, complaint, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        [&header(kind, content.len())[..], content, &vec![0; padding(content.len())]].concat()
    }

    #[test]
    fn answers() {
        let check = |input: &[u8], output: &str, complaint: &str, end: &str| {
            let (got, said, ended) = decode(&[input]);
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!((text(got), text(said), ended), (output.into(), complaint.into(), end.to_owned()));
            fuzz_records(input);
        };
        let whole = [
            record(STDOUT, b"hello "),
            record(STDERR, b"oh"),
            record(STDOUT, b"world"),
            record(STDOUT, b""),
            record(END_REQUEST, &[0; 8]),
        ];
        check(&whole.concat(), "hello world", "oh", "closed ended");
        check(&whole[..2].concat(), "hello ", "oh", "");
        check(b"HTTP/1.1 200", "", "", "upstream sent unsupported FastCGI protocol version: 72");
        check(&[1, 9], "", "", "upstream sent invalid FastCGI record type: 9");
        check(&[1, 6, 1], "", "", "upstream sent unexpected FastCGI request id high byte: 1");
        check(&[1, 6, 0, 2], "", "", "upstream sent unexpected FastCGI request id low byte: 2");
    }

    #[test]
    fn params() {
        let mut params = Vec::new();
        put_param(b"A", b"bc", &mut params);
        assert_eq!(params, [1, 2, b'A', b'b', b'c']);
        let mut out = Vec::new();
        assert!(put_params(&params, &mut out));
        assert_eq!(out, [1, 4, 0, 1, 0, 5, 3, 0, 1, 2, b'A', b'b', b'c', 0, 0, 0, 1, 4, 0, 1, 0, 0, 0, 0]);
        assert!(!put_params(&vec![0; MAX_RECORD + 1], &mut out));
        params.clear();
        put_param(b"A", &[b'x'; 300], &mut params);
        assert_eq!(params[..5], [1, 0x80, 0, 1, 44]);
    }
}
