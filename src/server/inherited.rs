//! Sockets that a program leaves to the one that takes its place, by the variable `NGINX` of the environment: their
//! numbers, each followed by a semicolon or colon. So nginx itself can be what comes before, or after.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use socket2::{SockAddr, SockRef};

use super::sockets::{Bound, reason};
use crate::config::ListenAddress;
use crate::sys;

/// The variable's name.
pub(super) const VARIABLE: &str = "NGINX";

/// The sockets that are there, with their addresses.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    sockets: Vec<(ListenAddress, OwnedFd)>,
    /// What could not be used; lines for the log.
    pub(super) faults: Vec<String>,
}

impl Inherited {
    /// Takes them. To be called once, as they are then ours.
    pub(super) fn take(variable: &str) -> Self {
        let (numbers, mut faults) = numbers(variable);
        let mut sockets = Vec::new();
        for number in numbers {
            let found = sys::inherited(number).and_then(|socket| Ok((SockRef::from(&socket).local_addr()?, socket)));
            match found {
                Ok((address, socket)) => sockets.extend(listen_address(&address).map(|address| (address, socket))),
                Err(error) => {
                    let reason = reason(&error);
                    faults.push(format!("getsockname() of the inherited socket #{number} failed ({reason})"));
                }
            }
        }
        Self { sockets, faults }
    }

    /// Those of an address.
    pub(super) fn of(&mut self, address: &ListenAddress) -> Vec<OwnedFd> {
        self.sockets.extract_if(.., |(other, _)| other == address).map(|(_, socket)| socket).collect()
    }
}

/// The numbers in the variable, and what is wrong with the rest of it.
fn numbers(variable: &str) -> (Vec<RawFd>, Vec<String>) {
    let mut numbers = Vec::new();
    let mut words = variable.split([':', ';']).peekable();
    while let Some(word) = words.next() {
        let is_last = words.peek().is_none();
        match word.parse() {
            Ok(number) if !is_last && !word.starts_with(['+', '-']) => numbers.push(number),
            _ if is_last && word.is_empty() => {}
            _ => {
                let message = format!(
                    "invalid socket number \"{word}\" in {VARIABLE} environment variable, ignoring the rest of the variable"
                );
                return (numbers, vec![message]);
            }
        }
    }
    (numbers, Vec::new())
}

/// The variable's value for some sockets.
pub(super) fn variable(sockets: &[RawFd]) -> String {
    sockets.iter().map(|number| format!("{number};")).collect()
}

/// The numbers of what is listened on: of sockets in the file system, which are one and the same, only the first.
pub(super) fn descriptors(listening: &[Bound]) -> Vec<RawFd> {
    let of = |bound: &Bound| match *bound.address {
        ListenAddress::Ip(_) => bound.sockets.len(),
        ListenAddress::Unix(_) => 1,
    };
    listening.iter().flat_map(|bound| bound.sockets.iter().take(of(bound)).map(AsRawFd::as_raw_fd)).collect()
}

fn listen_address(address: &SockAddr) -> Option<ListenAddress> {
    match address.as_socket() {
        Some(ip) => Some(ListenAddress::Ip(ip)),
        None => address.as_pathname().map(|path| ListenAddress::Unix(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let check = |text: &str, expected: &[RawFd], wrong: Option<&str>| {
            let faults = wrong.map(|word| {
                format!(
                    "invalid socket number \"{word}\" in NGINX environment variable, ignoring the rest of the variable"
                )
            });
            assert_eq!(numbers(text), (expected.to_vec(), faults.into_iter().collect()), "{text}");
        };
        check("", &[], None);
        check("6;7;8;", &[6, 7, 8], None);
        check("6:7:", &[6, 7], None);
        check("6;x;8;", &[6], Some("x"));
        check("6;;8;", &[6], Some(""));
        check("6;-7;", &[6], Some("-7"));
        check("6;7", &[6], Some("7"));
        assert_eq!(variable(&[6, 7]), "6;7;");
    }
}
