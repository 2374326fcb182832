//! ngx_http_split_clients_module: variables whose values are dealt out by a hash.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::value::Template;
use crate::config::{Args, Body, Call, Contexts, Cx, Declarations, Directive, Fault, Value, name_of};
use crate::http::Module;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_split_clients", sections: &[], commands: COMMANDS, variables: &[] },
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[Directive {
    name: "split_clients",
    contexts: Contexts::HTTP,
    args: Args::exactly(2),
    body: Body::Block,
    syntax: "string $variable",
    doc: "Makes a variable that has each of some values for a share of all texts, always the same for one text: \
          `0.5% value;`, and `* value;` for the rest. The hash is nginx's, MurmurHash2.\n\n\
          Example: `split_clients $remote_addr $variant { 50% a; * b; }`",
    file: file!(),
    apply: split_clients,
    ..Directive::BASE
}];

/// Hundredths of a percent in the whole.
const WHOLE: u32 = 10_000;

/// A value, and its share in hundredths of a percent; `None`: the rest.
type Part = (Option<u32>, Bytes);

fn split_clients(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let source = Template::word(call, 0, cx)?;
    let name = name_of(call.bytes(1)).map_err(|fault| fault.word(1))?;
    let mut parts = Vec::new();
    cx.entries(call, &mut |_, entry| {
        parts.push(part(entry)?);
        Ok(())
    });
    let bounds = bounds(&parts)?;
    let read = move |request: &crate::http::Request| pick(&bounds, &request.eval(&source));
    cx.variables().computed(&name, true, Arc::new(read))?;
    Ok(())
}

fn part(entry: &Call<'_>) -> Result<Part, Fault> {
    if entry.len() != 1 {
        return Err(Fault::new("invalid number of the split_clients parameters"));
    }
    let value = Bytes::copy_from_slice(entry.bytes(0));
    let share = match entry.name_bytes() {
        b"*" => None,
        word => {
            let share = word.strip_suffix(b"%").and_then(hundredths).filter(|share| *share > 0);
            Some(share.ok_or_else(|| Fault::new(format!("invalid percent value \"{}\"", entry.name())))?)
        }
    };
    Ok((share, value))
}

/// A number with at most two digits after the point, times a hundred.
fn hundredths(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || fraction.len() > 2 || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    format!("{whole}{fraction:0<2}").parse().ok()
}

/// The values, each with the hash that its share ends before; the rest has no end.
fn bounds(parts: &[Part]) -> Result<Vec<(Option<u32>, Bytes)>, Fault> {
    let (mut sum, mut end) = (0u32, 0u32);
    let mut bounds = Vec::with_capacity(parts.len());
    for (share, value) in parts {
        sum = share.map_or(WHOLE, |share| sum.saturating_add(share));
        if sum > WHOLE {
            return Err(Fault::new("percent total is greater than 100%"));
        }
        let bound = share.map(|share| {
            // Never past the largest hash, as the shares are no more than the whole.
            let width = u64::from(share) * u64::from(u32::MAX) / u64::from(WHOLE);
            end = end.saturating_add(u32::try_from(width).unwrap_or(u32::MAX));
            end
        });
        bounds.push((bound, value.clone()));
    }
    Ok(bounds)
}

#[allow(clippy::unnecessary_wraps, reason = "a variable may have no value")]
fn pick(bounds: &[(Option<u32>, Bytes)], text: &[u8]) -> Value {
    let hash = murmur2(text);
    let found = bounds.iter().find(|(bound, _)| bound.is_none_or(|bound| hash < bound));
    Some(found.map_or_else(Bytes::new, |(_, value)| value.clone()))
}

/// MurmurHash2 by Austin Appleby, seeded with 0.
fn murmur2(text: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    // nginx hashes the low 32 bits of the length; no variable is longer.
    #[allow(clippy::cast_possible_truncation, reason = "see above")]
    let mut hash = text.len() as u32;
    let (words, rest) = text.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_text};

    #[test]
    fn messages() {
        let check = |entries: &str, expected: &[&str]| {
            let text = format!("events {{}} http {{ split_clients $host $x {{ {entries} }} }}");
            let config = load_text(LoadOptions { offline: true, ..LoadOptions::default() }, text.as_bytes());
            let got: Vec<_> = config.built.diagnostics.iter().map(|finding| &finding.message).collect();
            assert_eq!(got, expected, "{entries}");
        };
        check("10% a; 20.5% b; .05% c; * d;", &[]);
        check("100% a;", &[]);
        check("60% a; 60% b;", &["percent total is greater than 100%"]);
        for wrong in ["abc%", "0.001%", "0%", "5", "%", "-1%", "1.2.3%"] {
            check(&format!("{wrong} a;"), &[&*format!("invalid percent value \"{wrong}\"")]);
        }
        check("10% a b;", &["invalid number of the split_clients parameters"]);
    }

    #[test]
    fn recorded() {
        let part = |share, value: &'static str| (share, Bytes::from_static(value.as_bytes()));
        let bounds =
            bounds(&[part(Some(1000), "ten"), part(Some(2050), "twenty"), part(None, "rest")]).expect("the shares fit");
        for (text, expected) in
            [("", "ten"), ("b", "rest"), ("c", "twenty"), ("user1", "ten"), ("user2", "twenty"), ("user3", "rest")]
        {
            assert_eq!(pick(&bounds, text.as_bytes()), Some(Bytes::from_static(expected.as_bytes())), "{text}");
        }
    }
}
