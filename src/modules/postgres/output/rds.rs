//! `rds`: the binary form that nginx's rds modules read, in the byte order of x86.

use std::sync::Arc;

use bytes::BufMut;

use super::{RdsStyle, Summary, Values};
use crate::pg::connection::Column;

const VERSION: u32 = 3;
const COMMAND_OK: u16 = 1;
const TUPLES_OK: u16 = 2;
const NULL: u32 = u32::MAX;

/// The types that the form has numbers for; others are plain strings.
const STANDARD: [(u32, u16); 21] = [
    (20, 0x0001),
    (1560, 0x8002),
    (1562, 0x8003),
    (16, 0xc004),
    (18, 0x8005),
    (19, 0x8006),
    (25, 0x8006),
    (1043, 0x8006),
    (1082, 0x8007),
    (701, 0x4008),
    (23, 0x0009),
    (1186, 0x400a),
    (1700, 0x400b),
    (700, 0x400c),
    (21, 0x000d),
    (1266, 0x800e),
    (1083, 0x800f),
    (1184, 0x8010),
    (1114, 0x8011),
    (142, 0x8012),
    (17, 0x8013),
];
const STRING: u16 = 0x8000;

/// Rows with their lengths.
#[derive(Debug)]
pub(in crate::modules::postgres) struct Rds {
    /// The head, until it is written.
    head: Option<Vec<u8>>,
    has_end: bool,
}

impl Rds {
    pub(super) fn new(style: RdsStyle, columns: &Arc<[Column]>, result: &Summary) -> Self {
        let mut head = Vec::new();
        head.put_u8(0);
        head.put_u32_le(VERSION);
        head.put_u8(0);
        head.put_u16_le(0);
        head.put_u16_le(if columns.is_empty() { COMMAND_OK } else { TUPLES_OK });
        head.put_u16_le(0);
        head.put_u64_le(result.affected.unwrap_or(0));
        head.put_u64_le(u64::from(result.oid));
        head.put_u16_le(u16::try_from(columns.len()).unwrap_or(u16::MAX));
        for column in columns.iter() {
            let standard = STANDARD.iter().find(|(oid, _)| *oid == column.oid).map_or(STRING, |(_, number)| *number);
            head.put_u16_le(standard);
            head.put_u16_le((column.oid & 0xffff) as u16);
            head.put_u16_le(u16::try_from(column.name.len()).unwrap_or(u16::MAX));
            head.extend_from_slice(&column.name);
        }
        Self { head: Some(head), has_end: !columns.is_empty() || style == RdsStyle::New }
    }

    pub(super) fn row(&mut self, values: &Values<'_>, out: &mut Vec<u8>) {
        self.begin(out);
        out.put_u8(1);
        for value in values {
            match value {
                None => out.put_u32_le(NULL),
                Some(value) => {
                    out.put_u32_le(u32::try_from(value.len()).unwrap_or(NULL - 1));
                    out.extend_from_slice(value);
                }
            }
        }
    }

    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        if self.has_end {
            out.put_u8(0);
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(head) = self.head.take() {
            out.extend_from_slice(&head);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::postgres::output::{Output, RdsStyle, testing::encode};

    fn check(style: RdsStyle, columns: &[(&str, u32)], rows: &[&[Option<&str>]], expected: &str) {
        let got = encode(&Output::Rds(style), columns, rows);
        assert_eq!(got.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
    }

    #[test]
    fn rows() {
        check(
            RdsStyle::Old,
            &[("a", 23)],
            &[&[Some("5")], &[None]],
            "0003000000000000020000000000000000000000000000000000000001000900170001006101010000003501ffffffff00",
        );
        check(
            RdsStyle::Old,
            &[("a", 23)],
            &[],
            "0003000000000000020000000000000000000000000000000000000001000900170001006100",
        );
    }

    #[test]
    fn commands() {
        let head = "000300000000000001000000000000000000000000000000000000000000";
        check(RdsStyle::Old, &[], &[], head);
        check(RdsStyle::New, &[], &[], &format!("{head}00"));
    }
}
