//! DNS messages (RFC 1035): questions for addresses, and what answers say. Pure: bytes in, values out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Hosts and ports of a service.
    Srv,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
            Self::Srv => 33,
        }
    }
}

/// A question that was sent.
#[derive(Clone, Debug)]
pub(super) struct Question<'n> {
    /// Its number, which the answer must have.
    pub(super) id: u16,
    /// The name, in small letters, without a dot at its end.
    pub(super) name: &'n str,
    /// What is asked for.
    pub(super) kind: Kind,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// It is no answer to the question.
    Foreign,
    /// The answer was too long for a datagram.
    Cut,
    /// The server's code for why it has no answer.
    Failed(u8),
    /// The answer.
    Answer(Answer),
}

/// What a server knows of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The addresses, in the server's order.
    pub(super) addresses: Vec<IpAddr>,
    /// Who has the service, in the server's order.
    pub(super) services: Vec<Service>,
    /// For how many seconds this holds.
    pub(super) ttl: u32,
    /// If there are no addresses: the other name that it is.
    pub(super) alias: Option<String>,
}

/// Where a service is to be had (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The lowest is to be used before all others.
    pub priority: u16,
    /// Its share among those of its priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host's name.
    pub host: String,
}

const CLASS_IN: u16 = 1;
const CNAME: u16 = 5;

/// The longest name, as it is sent.
const MAX_NAME: usize = 255;

/// How many records of an answer are looked at.
const MAX_RECORDS: u16 = 512;

/// How many names lead from one to the next in an answer at most.
const MAX_ALIASES: usize = 16;

impl Question<'_> {
    /// The message that asks it; `None`: there can be no such name.
    pub(super) fn message(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(self.name.len() + 18);
        out.extend(self.id.to_be_bytes());
        // Recursion desired; one question.
        out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in self.name.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
            out.push(length);
            out.extend(label.as_bytes());
        }
        out.push(0);
        if out.len() > 12 + MAX_NAME {
            return None;
        }
        out.extend(self.kind.number().to_be_bytes());
        out.extend(CLASS_IN.to_be_bytes());
        Some(out)
    }

    /// Reads a message that came. What does not repeat the question and its number is not ours.
    pub(super) fn read(&self, message: &[u8]) -> Reading {
        self.parse(message).unwrap_or(Reading::Foreign)
    }

    fn parse(&self, message: &[u8]) -> Option<Reading> {
        let mut cursor = Cursor { message, at: 0 };
        let (id, flags, questions) = (cursor.number()?, cursor.number()?, cursor.number()?);
        let records = cursor.number()?;
        cursor.skip(4)?;
        let is_answer = flags & 0x8000 != 0;
        if id != self.id || !is_answer || questions != 1 || cursor.name()? != self.name {
            return None;
        }
        if (cursor.number()?, cursor.number()?) != (self.kind.number(), CLASS_IN) {
            return None;
        }
        if flags & 0x0200 != 0 {
            return Some(Reading::Cut);
        }
        match u8::try_from(flags & 15).ok()? {
            0 => {}
            code => return Some(Reading::Failed(code)),
        }
        let found = (0..records.min(MAX_RECORDS)).map(|_| cursor.record(self.kind)).collect::<Option<Vec<_>>>()?;
        Some(Reading::Answer(self.follow(&found)))
    }

    /// Goes from the name to the names that it is, up to addresses.
    fn follow(&self, records: &[Record]) -> Answer {
        let mut name = self.name;
        let mut ttl = u32::MAX;
        for _ in 0..MAX_ALIASES {
            let (mut addresses, mut services) = (Vec::new(), Vec::new());
            let mut alias = None;
            for record in records.iter().filter(|record| record.owner == name) {
                match &record.data {
                    Data::Address(address) => addresses.push(*address),
                    Data::Service(service) => services.push(service.clone()),
                    Data::Alias(to) => alias = Some(to),
                    Data::Other => continue,
                }
                ttl = ttl.min(record.ttl);
            }
            match alias {
                _ if !addresses.is_empty() || !services.is_empty() => {
                    return Answer { addresses, services, ttl, alias: None };
                }
                Some(to) => name = to,
                None => break,
            }
        }
        Answer { ttl, alias: (name != self.name).then(|| name.to_owned()), ..Answer::default() }
    }
}

struct Record {
    owner: String,
    ttl: u32,
    data: Data,
}

enum Data {
    Address(IpAddr),
    Service(Service),
    Alias(String),
    Other,
}

struct Cursor<'m> {
    message: &'m [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.message.get(self.at..self.at + N)?.try_into().ok()?;
        self.at += N;
        Some(bytes)
    }

    fn number(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.at += length;
        (self.at <= self.message.len()).then_some(())
    }

    /// A name in small letters. Pointers lead only back, so that there is an end.
    fn name(&mut self) -> Option<String> {
        let mut name = Vec::new();
        let (mut at, mut end, mut earliest) = (self.at, None, self.at);
        loop {
            let length = usize::from(*self.message.get(at)?);
            match length {
                0 => break,
                1..64 => {
                    if !name.is_empty() {
                        name.push(b'.');
                    }
                    name.extend(self.message.get(at + 1..at + 1 + length)?.iter().map(u8::to_ascii_lowercase));
                    at += 1 + length;
                    if name.len() > MAX_NAME {
                        return None;
                    }
                }
                192.. => {
                    let target = (length & 63) << 8 | usize::from(*self.message.get(at + 1)?);
                    if target >= earliest {
                        return None;
                    }
                    end.get_or_insert(at + 2);
                    (at, earliest) = (target, target);
                }
                _ => return None,
            }
        }
        self.at = end.unwrap_or(at + 1);
        Some(String::from_utf8_lossy(&name).into_owned())
    }

    fn record(&mut self, kind: Kind) -> Option<Record> {
        let owner = self.name()?;
        let (number, class) = (self.number()?, self.number()?);
        // A time over the half of what fits is none (RFC 2181).
        let ttl = Some(u32::from_be_bytes(self.take()?)).filter(|ttl| *ttl <= u32::MAX / 2).unwrap_or(0);
        let length = usize::from(self.number()?);
        let next = self.at + length;
        let data = match number {
            _ if class != CLASS_IN => Data::Other,
            CNAME => Data::Alias(self.name()?),
            1 if kind == Kind::A && length == 4 => Data::Address(Ipv4Addr::from(self.take::<4>()?).into()),
            33 if kind == Kind::Srv => {
                let (priority, weight, port) = (self.number()?, self.number()?, self.number()?);
                Data::Service(Service { priority, weight, port, host: self.name()? })
            }
            28 if kind == Kind::Aaaa && length == 16 => Data::Address(Ipv6Addr::from(self.take::<16>()?).into()),
            _ => Data::Other,
        };
        self.at = next;
        (next <= self.message.len()).then_some(Record { owner, ttl, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUESTION: Question<'static> = Question { id: 7, name: "a.test", kind: Kind::A };

    /// The question's message as an answer with so many records behind it.
    fn answer(flags: u16, records: &[&[u8]]) -> Vec<u8> {
        let mut message = QUESTION.message().expect("a name");
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[7] = u8::try_from(records.len()).expect("few");
        message.extend(records.concat());
        message
    }

    #[test]
    fn answers() {
        // The owner is a pointer to the question's name.
        let address = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01";
        let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\x05\0\x04\x01B\xc0\x0e";
        let of_alias = b"\x01b\xc0\x0e\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x02";
        let check = |flags, records: &[&[u8]], expected| assert_eq!(QUESTION.read(&answer(flags, records)), expected);
        let found = |last: &[u8], ttl| {
            let addresses = last.iter().map(|last| IpAddr::from([127, 0, 0, *last])).collect();
            Reading::Answer(Answer { addresses, ttl, ..Answer::default() })
        };
        check(0x8180, &[address], found(&[1], 60));
        check(0x8180, &[of_alias, alias], found(&[2], 5));
        check(0x8180, &[of_alias], found(&[], u32::MAX));
        let alias_only = Answer { ttl: 5, alias: Some("b.test".into()), ..Answer::default() };
        check(0x8180, &[alias], Reading::Answer(alias_only));
        check(0x8183, &[], Reading::Failed(3));
        check(0x8380, &[], Reading::Cut);
        check(0x0180, &[address], Reading::Foreign);
        let mut other = answer(0x8180, &[address]);
        other[1] = 8;
        assert_eq!(QUESTION.read(&other), Reading::Foreign);
    }

    #[test]
    fn services() {
        let question = Question { kind: Kind::Srv, ..QUESTION };
        let mut message = question.message().expect("a name");
        (message[2], message[7]) = (0x81, 1);
        message.extend(b"\xc0\x0c\0\x21\0\x01\0\0\0\x05\0\x0a\0\x01\0\x02\0\x50\x01B\xc0\x0e");
        let service = Service { priority: 1, weight: 2, port: 80, host: "b.test".into() };
        let expected = Answer { services: vec![service], ttl: 5, ..Answer::default() };
        assert_eq!(question.read(&message), Reading::Answer(expected));
    }

    #[test]
    fn names_that_cannot_be() {
        let long = "a".repeat(64);
        for name in ["", "a..b", ".a", &long, &["abcdefg"; 40].join(".")] {
            assert_eq!(Question { name, ..QUESTION }.message(), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn anything_may_come(mut message in prop::collection::vec(any::<u8>(), 0..200)) {
            let head = answer(0x8180, &[]);
            let _any = QUESTION.read(&message);
            message.splice(0..0, head);
            message[7] = 9;
            let _any = QUESTION.read(&message);
        }
    }
}
