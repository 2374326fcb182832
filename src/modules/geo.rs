//! ngx_http_geo_module: variables whose values depend on an address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;

use crate::config::value::{parse_ip, parse_network};
use crate::config::{Args, Body, Call, Contexts, Cx, Declarations, Directive, Fault, Value, VarId, name_of};
use crate::http::{Module, Request};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_geo", sections: &[], commands: COMMANDS, variables: &[] },
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[Directive {
    name: "geo",
    contexts: Contexts::HTTP,
    args: Args::between(1, 2),
    body: Body::Block,
    syntax: "[$address] $variable",
    doc: "Makes a variable whose value is that of the smallest network with the client's address, or with the one in \
          `$address`: `network value;`, `default value;`, `delete network;`. After `ranges;` the entries are \
          `first-last value;` and for IPv4 only. With `proxy network;` the address comes from `X-Forwarded-For` for \
          clients in that network, with `proxy_recursive;` its last one that is not in such a network.\n\n\
          Example: `geo $inside { default 0; 10.0.0.0/8 1; }`",
    file: file!(),
    apply: geo,
    ..Directive::BASE
}];

/// One `geo`.
struct Geo {
    /// The variable with the address; `None`: the client's.
    source: Option<VarId>,
    table: Table,
}

/// What the block says.
#[derive(Default)]
struct Table {
    nets: Nets,
    /// `None`: the entries are networks.
    ranges: Option<Ranges>,
    default: Option<Bytes>,
    proxies: Vec<IpNet>,
    recursive: bool,
}

fn geo(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let first = name_of(call.bytes(0)).map_err(|fault| fault.word(0))?;
    let (source, name) = match call.len() {
        1 => (None, first),
        _ => {
            let source = cx.variables().used(&first, Some(call.word_at(0)));
            (Some(source), name_of(call.bytes(1)).map_err(|fault| fault.word(1))?)
        }
    };
    let mut table = Table::default();
    cx.entries(call, &mut |cx, entry| table.entry(cx, entry));
    let geo = Geo { source, table };
    cx.variables().computed(&name, true, Arc::new(move |request| geo.value(request)))?;
    Ok(())
}

impl Table {
    fn entry(&mut self, cx: &mut Cx<'_>, entry: &Call<'_>) -> Result<(), Fault> {
        match (entry.name_bytes(), entry.len()) {
            (b"ranges", 0) => {
                if !self.nets.is_empty() || (self.ranges.is_none() && self.default.is_some()) {
                    let message = "the \"ranges\" directive must be the first directive inside \"geo\" block";
                    return Err(Fault::new(message));
                }
                self.ranges.get_or_insert_default();
            }
            (b"proxy_recursive", 0) => self.recursive = true,
            (b"proxy", 1) => self.proxies.push(network(cx, entry, &entry.text(0))?),
            (b"default", 1) => self.set_default(cx, entry),
            (b"delete", 1) => self.delete(cx, entry)?,
            (_, 1) => self.add(cx, entry)?,
            _ => return Err(Fault::new("invalid number of the geo parameters")),
        }
        Ok(())
    }

    fn set_default(&mut self, cx: &mut Cx<'_>, entry: &Call<'_>) {
        let value = Bytes::copy_from_slice(entry.bytes(0));
        if let Some(old) = self.default.replace(value) {
            let (old, new) = (String::from_utf8_lossy(&old), entry.text(0));
            let message = match self.ranges {
                Some(_) => format!("duplicate default geo range value: \"{new}\", old value: \"{old}\""),
                None => duplicate("network", "default", &new, &old),
            };
            cx.warn("duplicate-geo", message, entry);
        }
    }

    fn add(&mut self, cx: &mut Cx<'_>, entry: &Call<'_>) -> Result<(), Fault> {
        let (key, value) = (entry.name(), Bytes::copy_from_slice(entry.bytes(0)));
        let (kind, old) = match &mut self.ranges {
            None => ("network", self.nets.insert(network(cx, entry, &key)?, value)),
            Some(ranges) => {
                let (first, last) = range(&key)?;
                let overlaps = |other| Fault::new(format!("range \"{key}\" overlaps \"{other}\""));
                ("range", ranges.insert(first, last, value).map_err(overlaps)?)
            }
        };
        if let Some(old) = old {
            let message = duplicate(kind, &key, &entry.text(0), &String::from_utf8_lossy(&old));
            cx.warn("duplicate-geo", message, entry);
        }
        Ok(())
    }

    fn delete(&mut self, cx: &mut Cx<'_>, entry: &Call<'_>) -> Result<(), Fault> {
        let key = entry.text(0);
        let (kind, was_there) = match &mut self.ranges {
            None => ("network", self.nets.remove(network(cx, entry, &key)?)),
            Some(ranges) => {
                let (first, last) = range(&key)?;
                ("address range", ranges.remove(first, last))
            }
        };
        if !was_there {
            cx.warn("nothing-to-delete", format!("no {kind} \"{key}\" to delete"), entry);
        }
        Ok(())
    }

    /// The value of an address; `None` is one that can't be read, which only the default fits.
    fn find(&self, address: Option<IpAddr>) -> Bytes {
        let found = match (&self.ranges, address.map(|address| address.to_canonical())) {
            (None, Some(address)) => self.nets.find(address),
            (Some(ranges), Some(IpAddr::V4(address))) => ranges.find(u32::from(address)),
            _ => None,
        };
        found.or(self.default.as_ref()).cloned().unwrap_or_default()
    }
}

fn duplicate(kind: &str, key: &str, new: &str, old: &str) -> String {
    format!("duplicate {kind} \"{key}\", value: \"{new}\", old value: \"{old}\"")
}

fn network(cx: &mut Cx<'_>, entry: &Call<'_>, word: &str) -> Result<IpNet, Fault> {
    let (network, has_low_bits) =
        parse_network(word).ok_or_else(|| Fault::new(format!("invalid network \"{word}\"")))?;
    if has_low_bits {
        cx.warn("low-address-bits", format!("low address bits of {word} are meaningless"), entry);
    }
    Ok(network)
}

fn range(word: &str) -> Result<(u32, u32), Fault> {
    let ends = word.split_once('-').and_then(|(first, last)| {
        match (parse_ip(first.as_bytes())?, parse_ip(last.as_bytes())?) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Some((u32::from(first), u32::from(last))),
            _ => None,
        }
    });
    ends.filter(|(first, last)| first <= last).ok_or_else(|| Fault::new(format!("invalid range \"{word}\"")))
}

impl Geo {
    fn value(&self, request: &Request) -> Value {
        Some(self.table.find(self.address(request)))
    }

    fn address(&self, request: &Request) -> Option<IpAddr> {
        let address = match self.source {
            None => request.peer.ip()?,
            Some(variable) => std::str::from_utf8(&request.variable(variable)?).ok()?.parse().ok()?,
        };
        if self.table.proxies.is_empty() {
            return Some(address);
        }
        let headers: Vec<&[u8]> = request.head.all(b"x-forwarded-for").collect();
        Some(forwarded(address, &headers, &self.table.proxies, self.table.recursive))
    }
}

/// Who a trusted proxy says that it asks for; with `recursive`, the last one who is no such proxy.
fn forwarded(mut address: IpAddr, headers: &[&[u8]], proxies: &[IpNet], recursive: bool) -> IpAddr {
    let entries = headers.iter().rev().flat_map(|header| header.rsplit(|byte| matches!(byte, b' ' | b',')));
    for entry in entries.filter(|entry| !entry.is_empty()) {
        if !proxies.iter().any(|proxy| proxy.contains(&address.to_canonical())) {
            break;
        }
        let text = String::from_utf8_lossy(entry);
        let named = text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
        let Ok(named) = named else { break };
        address = named;
        if !recursive {
            break;
        }
    }
    address
}

/// Networks with values. IPv4 ones are kept in the part of IPv6 that stands for them, so that one table is enough.
#[derive(Default)]
struct Nets {
    /// The networks of each length of prefix, the longest first.
    by_length: Vec<(u8, HashMap<u128, Bytes>)>,
}

/// The length of the prefix of all IPv4 addresses among those of IPv6.
const MAPPED: u8 = 96;

impl Nets {
    fn is_empty(&self) -> bool {
        self.by_length.is_empty()
    }

    /// Adds a network; gives the value that it had.
    fn insert(&mut self, network: IpNet, value: Bytes) -> Option<Bytes> {
        let (length, bits) = key(network);
        let index = self.by_length.partition_point(|(other, _)| *other > length);
        if self.by_length.get(index).is_none_or(|(other, _)| *other != length) {
            self.by_length.insert(index, (length, HashMap::new()));
        }
        self.by_length[index].1.insert(bits, value)
    }

    fn remove(&mut self, network: IpNet) -> bool {
        let (length, bits) = key(network);
        let nets = self.by_length.iter_mut().find(|(other, _)| *other == length);
        nets.is_some_and(|(_, nets)| nets.remove(&bits).is_some())
    }

    /// The value of the smallest network that an address is in.
    fn find(&self, address: IpAddr) -> Option<&Bytes> {
        let bits = bits(address);
        // A network of IPv6 that happens to hold the IPv4 part says nothing of IPv4.
        let shortest = if address.is_ipv4() { MAPPED } else { 0 };
        let mut candidates = self.by_length.iter().take_while(|(length, _)| *length >= shortest);
        candidates.find_map(|(length, nets)| nets.get(&masked(bits, *length)))
    }
}

fn key(network: IpNet) -> (u8, u128) {
    let length = network.prefix_len() + if network.addr().is_ipv4() { MAPPED } else { 0 };
    (length, masked(bits(network.addr()), length))
}

fn bits(address: IpAddr) -> u128 {
    u128::from(match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    })
}

fn masked(bits: u128, length: u8) -> u128 {
    bits & u128::MAX.checked_shl(u32::from(128 - length)).unwrap_or(0)
}

/// Ranges of IPv4 addresses with values: in order, and none overlaps another.
#[derive(Default)]
struct Ranges {
    ranges: Vec<Range>,
}

struct Range {
    first: u32,
    last: u32,
    value: Bytes,
}

impl Ranges {
    /// Adds a range, cutting it out of one around it; gives the value that the very same one had. An error names the
    /// range that it overlaps.
    fn insert(&mut self, first: u32, last: u32, value: Bytes) -> Result<Option<Bytes>, String> {
        let index = self.ranges.partition_point(|range| range.last < first);
        let new = Range { first, last, value };
        let Some(old) = self.ranges.get_mut(index).filter(|old| old.first <= last) else {
            self.ranges.insert(index, new);
            return Ok(None);
        };
        if (old.first, old.last) == (first, last) {
            return Ok(Some(std::mem::replace(&mut old.value, new.value)));
        }
        if old.first > first || old.last < last {
            return Err(format!("{}-{}", Ipv4Addr::from(old.first), Ipv4Addr::from(old.last)));
        }
        let before = (old.first < first).then(|| Range { first: old.first, last: first - 1, value: old.value.clone() });
        let after = (last < old.last).then(|| Range { first: last + 1, last: old.last, value: old.value.clone() });
        self.ranges.splice(index..=index, [before, Some(new), after].into_iter().flatten());
        Ok(None)
    }

    fn remove(&mut self, first: u32, last: u32) -> bool {
        let found = self.ranges.iter().position(|range| (range.first, range.last) == (first, last));
        found.is_some_and(|index| {
            self.ranges.remove(index);
            true
        })
    }

    fn find(&self, address: u32) -> Option<&Bytes> {
        let index = self.ranges.partition_point(|range| range.last < address);
        self.ranges.get(index).filter(|range| range.first <= address).map(|range| &range.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::load_http;
    use proptest::prelude::*;

    #[test]
    fn messages() {
        let check = |block: &str, expected: &[&str]| {
            let config = load_http(block);
            let got: Vec<_> = config.built.diagnostics.iter().map(|finding| &finding.message).collect();
            assert_eq!(got, expected, "{block}");
        };
        check("geo $x { default a; 10.0.0.0/8 b; ::1 c; proxy 127.0.0.1; proxy_recursive; }", &[]);
        check("geo $arg_a $x { ranges; default a; 10.0.0.0-10.0.0.5 b; 10.0.0.2-10.0.0.3 c; }", &[]);
        check("geo $x { 010.000.001.002/031 b; }", &[]);
        check("geo $x { ranges; 010.0.0.0-10.0.0.005 b; }", &[]);
        check("geo x { }", &["invalid variable name \"x\""]);
        check("geo $x { 10.0.0.0/99 a; }", &["invalid network \"10.0.0.0/99\""]);
        check("geo $x { 10.0.0.1/8 a; }", &["low address bits of 10.0.0.1/8 are meaningless"]);
        check("geo $x { ranges; 10.0.0.9-10.0.0.5 a; }", &["invalid range \"10.0.0.9-10.0.0.5\""]);
        check("geo $x { 10.0.0.0/8 a b; }", &["invalid number of the geo parameters"]);
        check(
            "geo $x { 10.0.0.0/8 a; ranges; }",
            &["the \"ranges\" directive must be the first directive inside \"geo\" block"],
        );
        check(
            "geo $x { 10.0.0.0/8 a; 10.0.0.0/8 b; }",
            &["duplicate network \"10.0.0.0/8\", value: \"b\", old value: \"a\""],
        );
        check("geo $x { delete 10.0.0.0/8; }", &["no network \"10.0.0.0/8\" to delete"]);
        check(
            "geo $x { ranges; 10.0.0.0-10.0.0.5 a; 10.0.0.3-10.0.0.9 b; }",
            &["range \"10.0.0.3-10.0.0.9\" overlaps \"10.0.0.0-10.0.0.5\""],
        );
    }

    #[test]
    fn the_smallest_network_wins() {
        let mut nets = Nets::default();
        for (network, value) in [
            ("10.0.0.0/8", "ten"),
            ("10.1.0.0/16", "ten-one"),
            ("10.1.2.3/32", "host"),
            ("2001:db8::/32", "doc"),
            ("::/0", "six"),
        ] {
            nets.insert(network.parse().expect("a test's network"), Bytes::from_static(value.as_bytes()));
        }
        let check = |address: &str, expected: Option<&str>| {
            let found = nets.find(address.parse().expect("a test's address"));
            assert_eq!(found.map(|value| String::from_utf8_lossy(value)).as_deref(), expected, "{address}");
        };
        check("10.200.0.1", Some("ten"));
        check("10.1.0.1", Some("ten-one"));
        check("10.1.2.3", Some("host"));
        check("8.8.8.8", None);
        check("2001:db8::1", Some("doc"));
        check("2001:db9::1", Some("six"));
    }

    #[test]
    fn proxies() {
        let check = |client: &str, headers: &[&str], recursive: bool, expected: &str| {
            let proxies = ["10.0.0.0/8".parse().expect("a test's network")];
            let headers: Vec<&[u8]> = headers.iter().map(|header| header.as_bytes()).collect();
            let client = client.parse().expect("a test's address");
            assert_eq!(forwarded(client, &headers, &proxies, recursive).to_string(), expected, "{headers:?}");
        };
        check("10.0.0.1", &["1.1.1.1, 2.2.2.2"], false, "2.2.2.2");
        check("1.2.3.4", &["1.1.1.1"], false, "1.2.3.4");
        check("10.0.0.1", &["1.1.1.1, 10.0.0.2"], false, "10.0.0.2");
        check("10.0.0.1", &["1.1.1.1, 10.0.0.2"], true, "1.1.1.1");
        check("10.0.0.1", &["1.1.1.1", "10.0.0.2:80 "], true, "1.1.1.1");
        check("10.0.0.1", &["1.1.1.1, unknown"], true, "10.0.0.1");
        check("10.0.0.1", &["10.0.0.3"], true, "10.0.0.3");
    }

    proptest! {
        /// Each address has the value of the last range that was put around it.
        #[test]
        fn ranges_are_cut(added in prop::collection::vec((0u32..40, 0u32..40), 0..12)) {
            let mut ranges = Ranges::default();
            let mut expected = [None; 40];
            for (number, (a, b)) in added.into_iter().enumerate() {
                let (first, last) = (a.min(b), a.max(b));
                let value = Bytes::from(number.to_string());
                if ranges.insert(first, last, value).is_ok() {
                    expected[first as usize..=last as usize].fill(Some(number));
                }
            }
            for (address, expected) in (0u32..).zip(expected) {
                let found = ranges.find(address).map(|value| String::from_utf8_lossy(value).into_owned());
                prop_assert_eq!(found, expected.map(|number| number.to_string()));
            }
        }
    }
}
