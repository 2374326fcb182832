//! The names in a certificate, as OpenSSL writes them.

use super::der::{BMP, OID, Reader, SEQUENCE, SET, UNIVERSAL, UTF8, dotted};

/// A part of a name: which, and its value.
struct Part<'d> {
    oid: &'d [u8],
    tag: u8,
    value: &'d [u8],
    whole: &'d [u8],
}

/// The parts of a name, which may be in groups.
fn parts(name: &[u8]) -> Vec<Vec<Part<'_>>> {
    let mut groups = Vec::new();
    let mut reader = Reader::new(name);
    while let Some(mut group) = reader.inside(SET) {
        let mut parts = Vec::new();
        while let Some(mut part) = group.inside(SEQUENCE) {
            let (Some(oid), Some(value)) = (part.tagged(OID), part.element()) else { break };
            parts.push(Part { oid, tag: value.tag, value: value.value, whole: value.whole });
        }
        groups.push(parts);
    }
    groups
}

/// The common names in it.
pub(super) fn common(name: &[u8]) -> Vec<Vec<u8>> {
    let parts = parts(name).into_iter().flatten();
    parts.filter(|part| part.oid == COMMON_NAME).map(|part| utf8(part.tag, part.value)).collect()
}

/// commonName
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// `CN=client,O=Example`: the last part first, as RFC 2253 has it.
pub(super) fn rfc2253(name: &[u8]) -> String {
    let mut text = String::new();
    for group in parts(name).iter().rev() {
        for (number, part) in group.iter().rev().enumerate() {
            match (text.is_empty(), number) {
                (true, _) => {}
                (false, 0) => text.push(','),
                (false, _) => text.push('+'),
            }
            match short_name(part.oid) {
                Some(short) => {
                    text.push_str(short);
                    text.push('=');
                    escape(&utf8(part.tag, part.value), &mut text);
                }
                None => {
                    text.push_str(&dotted(part.oid));
                    text.push_str("=#");
                    part.whole.iter().for_each(|byte| text.push_str(&format!("{byte:02X}")));
                }
            }
        }
    }
    text
}

/// `/O=Example/CN=client`: the older form.
pub(super) fn oneline(name: &[u8]) -> String {
    let mut text = String::new();
    for (number, part) in parts(name).iter().flat_map(|group| group.iter().enumerate()) {
        text.push(if number == 0 { '/' } else { '+' });
        match short_name(part.oid) {
            Some(short) => text.push_str(short),
            None => text.push_str(&dotted(part.oid)),
        }
        text.push('=');
        for byte in part.value.iter().filter(|byte| !matches!(part.tag, BMP | UNIVERSAL) || **byte != 0) {
            match byte {
                b'/' | b'+' => text.extend(['\\', char::from(*byte)]),
                b' '..=b'~' => text.push(char::from(*byte)),
                _ => text.push_str(&format!("\\x{byte:02X}")),
            }
        }
    }
    text
}

/// A value in UTF-8.
fn utf8(tag: u8, value: &[u8]) -> Vec<u8> {
    let text = |units: &mut dyn Iterator<Item = u32>| {
        units.map(|unit| char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>().into_bytes()
    };
    match tag {
        UTF8 => value.to_vec(),
        BMP => text(&mut value.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))),
        UNIVERSAL => {
            text(&mut value.chunks_exact(4).map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]])))
        }
        // The other kinds are taken for Latin-1, as OpenSSL does.
        _ => text(&mut value.iter().map(|byte| u32::from(*byte))),
    }
}

fn escape(value: &[u8], text: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.iter().enumerate() {
        let is_marked = match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => true,
            b'#' => at == 0,
            b' ' => at == 0 || at == last,
            _ => false,
        };
        match byte {
            b' '..=b'~' => {
                if is_marked {
                    text.push('\\');
                }
                text.push(char::from(*byte));
            }
            _ => text.push_str(&format!("\\{byte:02X}")),
        }
    }
}

/// OpenSSL's short name of a part.
fn short_name(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        [0x55, 4, number] => match number {
            3 => "CN",
            4 => "SN",
            5 => "serialNumber",
            6 => "C",
            7 => "L",
            8 => "ST",
            9 => "street",
            10 => "O",
            11 => "OU",
            12 => "title",
            13 => "description",
            15 => "businessCategory",
            17 => "postalCode",
            20 => "telephoneNumber",
            41 => "name",
            42 => "GN",
            43 => "initials",
            44 => "generationQualifier",
            46 => "dnQualifier",
            65 => "pseudonym",
            97 => "organizationIdentifier",
            _ => return None,
        },
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 2] => "unstructuredName",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x3c, 2, 1, 1] => "jurisdictionL",
        [0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x3c, 2, 1, 2] => "jurisdictionST",
        [0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x3c, 2, 1, 3] => "jurisdictionC",
        _ => return None,
    })
}
