//! The names that `$name::type` knows: those of PostgreSQL's C sources without `OID`, in any case, and plain numbers.

use super::variable::Cast;

/// What `::name` asks for; none if it is no type that the module names.
pub(crate) fn parameter(name: &[u8]) -> Option<Cast> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    if name == "id" {
        return Some(Cast::Identifier);
    }
    if let Ok(oid) = name.parse() {
        return Some(Cast::Bind(oid));
    }
    let found = TYPES.iter().find(|(known, _)| *known == name);
    found.map(|(_, oid)| Cast::Bind(*oid))
}

/// PostgreSQL's name for a type's number, of those that have one of their own here.
#[must_use]
pub fn type_name(oid: u32) -> Option<String> {
    let (name, _) = TYPES.iter().find(|(_, known)| *known == oid)?;
    Some(name.strip_suffix("array").map_or_else(|| format!("\"{name}\""), |item| format!("\"{item}\"[]")))
}

/// `text`
pub(crate) const TEXT: u32 = 25;

const TYPES: &[(&str, u32)] = &[
    ("bool", 16),
    ("bytea", 17),
    ("char", 18),
    ("name", 19),
    ("int8", 20),
    ("int2", 21),
    ("int2vector", 22),
    ("int4", 23),
    ("regproc", 24),
    ("text", 25),
    ("oid", 26),
    ("tid", 27),
    ("xid", 28),
    ("cid", 29),
    ("oidvector", 30),
    ("json", 114),
    ("xml", 142),
    ("xid8", 5069),
    ("point", 600),
    ("lseg", 601),
    ("path", 602),
    ("box", 603),
    ("polygon", 604),
    ("line", 628),
    ("float4", 700),
    ("float8", 701),
    ("unknown", 705),
    ("circle", 718),
    ("money", 790),
    ("cash", 790),
    ("macaddr", 829),
    ("inet", 869),
    ("cidr", 650),
    ("macaddr8", 774),
    ("aclitem", 1033),
    ("bpchar", 1042),
    ("varchar", 1043),
    ("date", 1082),
    ("time", 1083),
    ("timestamp", 1114),
    ("timestamptz", 1184),
    ("interval", 1186),
    ("timetz", 1266),
    ("bit", 1560),
    ("varbit", 1562),
    ("numeric", 1700),
    ("refcursor", 1790),
    ("regprocedure", 2202),
    ("regoper", 2203),
    ("regoperator", 2204),
    ("regclass", 2205),
    ("regtype", 2206),
    ("regrole", 4096),
    ("regnamespace", 4089),
    ("uuid", 2950),
    ("pg_lsn", 3220),
    ("tsvector", 3614),
    ("gtsvector", 3642),
    ("tsquery", 3615),
    ("regconfig", 3734),
    ("regdictionary", 3769),
    ("jsonb", 3802),
    ("jsonpath", 4072),
    ("txid_snapshot", 2970),
    ("int4range", 3904),
    ("numrange", 3906),
    ("tsrange", 3908),
    ("tstzrange", 3910),
    ("daterange", 3912),
    ("int8range", 3926),
    ("record", 2249),
    ("cstring", 2275),
    ("any", 2276),
    ("boolarray", 1000),
    ("byteaarray", 1001),
    ("chararray", 1002),
    ("namearray", 1003),
    ("int8array", 1016),
    ("int2array", 1005),
    ("int4array", 1007),
    ("textarray", 1009),
    ("oidarray", 1028),
    ("jsonarray", 199),
    ("jsonbarray", 3807),
    ("xmlarray", 143),
    ("pointarray", 1017),
    ("float4array", 1021),
    ("float8array", 1022),
    ("moneyarray", 791),
    ("macaddrarray", 1040),
    ("inetarray", 1041),
    ("cidrarray", 651),
    ("bpchararray", 1014),
    ("varchararray", 1015),
    ("datearray", 1182),
    ("timearray", 1183),
    ("timestamparray", 1115),
    ("timestamptzarray", 1185),
    ("intervalarray", 1187),
    ("timetzarray", 1270),
    ("bitarray", 1561),
    ("varbitarray", 1563),
    ("numericarray", 1231),
    ("uuidarray", 2951),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parameter(b"INT4"), Some(Cast::Bind(23)));
        assert_eq!(parameter(b"1043"), Some(Cast::Bind(1043)));
        assert_eq!(parameter(b"ID"), Some(Cast::Identifier));
        assert_eq!(parameter(b"integer"), None);
    }
}
