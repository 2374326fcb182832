//! The forms of a listing, byte by byte as nginx writes them.

use std::cmp::Ordering;
use std::io::Write;

use crate::http::wire::date::{http_date, time_iso8601};
use crate::http::wire::escape::{Escape, JsonDigits, escape, escape_html, push_json};
use crate::server::local_time;

/// What is in a folder. Folders go before the rest, names by their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) name: Vec<u8>,
    pub(super) mtime: i64,
    pub(super) size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
    Other,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |entry: &Self| entry.kind != Kind::Folder;
        place(self).cmp(&place(other)).then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Folder => "directory",
            Self::File => "file",
            Self::Other => "other",
        }
    }
}

/// The room for a name in a page.
const NAME_WIDTH: usize = 50;

/// How a page is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Sizes to the byte.
    pub exact_size: bool,
    /// Times in the machine's zone.
    pub local: bool,
    /// Names are measured by characters.
    pub utf8: bool,
}

/// A page.
pub(super) fn html(entries: &[Entry], uri: &[u8], style: Style) -> Vec<u8> {
    let uri = escape_html(uri);
    let mut out = Vec::with_capacity(256 + 160 * entries.len());
    out.extend_from_slice(b"<html>\r\n<head><title>Index of ");
    out.extend_from_slice(&uri);
    out.extend_from_slice(b"</title></head>\r\n<body>\r\n<h1>Index of ");
    out.extend_from_slice(&uri);
    out.extend_from_slice(b"</h1><hr><pre><a href=\"../\">../</a>\r\n");
    for entry in entries {
        html_line(&mut out, entry, style);
    }
    out.extend_from_slice(b"</pre><hr></body>\r\n</html>\r\n");
    out
}

fn html_line(out: &mut Vec<u8>, entry: &Entry, style: Style) {
    let is_folder = entry.kind == Kind::Folder;
    out.extend_from_slice(b"<a href=\"");
    out.extend_from_slice(&escape(&entry.name, Escape::UriComponent));
    if is_folder {
        out.push(b'/');
    }
    out.extend_from_slice(b"\">");
    let text = std::str::from_utf8(&entry.name).ok().filter(|_| style.utf8);
    let length = text.map_or(entry.name.len(), |text| text.chars().count());
    if length > NAME_WIDTH {
        let kept = text.and_then(|text| text.char_indices().nth(NAME_WIDTH - 3)).map_or(NAME_WIDTH - 3, |(at, _)| at);
        out.extend_from_slice(&escape_html(&entry.name[..kept]));
        out.extend_from_slice(b"..&gt;</a>");
    } else {
        let has_slash = is_folder && length < NAME_WIDTH;
        out.extend_from_slice(&escape_html(&entry.name));
        if has_slash {
            out.push(b'/');
        }
        out.extend_from_slice(b"</a>");
        out.resize(out.len() + NAME_WIDTH - length - usize::from(has_slash), b' ');
    }
    let zone = if style.local { local_time::now(entry.mtime).zone_minutes() } else { 0 };
    let size = match (is_folder, style.exact_size) {
        (true, _) => "-".to_owned(),
        (false, true) => entry.size.to_string(),
        (false, false) => rounded(entry.size),
    };
    let width = if style.exact_size { 19 } else { 7 };
    write_line(out, format_args!(" {} {size:>width$}\r\n", day_and_time(entry.mtime, zone)));
}

/// Writes to memory, which has no way to fail.
fn write_line(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes all that is written to it");
}

/// `20-Oct-2018 01:46`
fn day_and_time(seconds: i64, zone_minutes: i32) -> String {
    let date = crate::http::wire::date::time_local(seconds, zone_minutes);
    // `20/Oct/2018:01:46:40 +0000`
    let part = |range: std::ops::Range<usize>| String::from_utf8_lossy(&date[range]).into_owned();
    format!("{}-{}-{} {}", part(0..2), part(3..6), part(7..11), part(12..17))
}

/// A size in at most four digits and a unit; halves are rounded up.
fn rounded(size: u64) -> String {
    const UNITS: [(u64, char); 3] = [(1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')];
    let least = [(1 << 30) - 1, (1 << 20) - 1, 9999];
    let unit = UNITS.iter().zip(least).find(|(_, least)| size > *least);
    match unit {
        Some(((unit, letter), _)) => format!("{}{letter}", size / unit + u64::from(size % unit > unit / 2 - 1)),
        None => format!("{size}"),
    }
}

/// JSON; with a function's name, as the argument of its call.
pub(super) fn json(entries: &[Entry], callback: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + 120 * entries.len());
    if let Some(name) = callback {
        out.extend_from_slice(b"/* callback */\r\n");
        out.extend_from_slice(name);
        out.push(b'(');
    }
    out.push(b'[');
    for (number, entry) in entries.iter().enumerate() {
        out.extend_from_slice(if number == 0 { b"\r\n{ \"name\":\"" } else { b",\r\n{ \"name\":\"" });
        push_json(&mut out, &entry.name, JsonDigits::Upper);
        let date = http_date(entry.mtime);
        let (kind, date) = (entry.kind.word(), String::from_utf8_lossy(&date));
        write_line(&mut out, format_args!("\", \"type\":\"{kind}\", \"mtime\":\"{date}\""));
        if entry.kind == Kind::File {
            write_line(&mut out, format_args!(", \"size\":{}", entry.size));
        }
        out.extend_from_slice(b" }");
    }
    out.extend_from_slice(b"\r\n]");
    if callback.is_some() {
        out.extend_from_slice(b");");
    }
    out
}

/// XML.
pub(super) fn xml(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + 100 * entries.len());
    out.extend_from_slice(b"<?xml version=\"1.0\"?>\r\n<list>\r\n");
    for entry in entries {
        let date = time_iso8601(entry.mtime, 0);
        let (kind, date) = (entry.kind.word(), String::from_utf8_lossy(&date[..19]));
        write_line(&mut out, format_args!("<{kind} mtime=\"{date}Z\""));
        if entry.kind == Kind::File {
            write_line(&mut out, format_args!(" size=\"{}\"", entry.size));
        }
        out.push(b'>');
        out.extend_from_slice(&escape_html(&entry.name));
        write_line(&mut out, format_args!("</{kind}>\r\n"));
    }
    out.extend_from_slice(b"</list>\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let entry = |kind, name: &str, size| Entry { kind, name: name.as_bytes().to_vec(), mtime: 1_540_000_000, size };
        let mut entries = vec![
            entry(Kind::File, "b.txt", 5),
            entry(Kind::File, "a <&>\".html", 10_000),
            entry(Kind::Folder, "zdir", 4096),
            entry(Kind::Other, "pipe", 0),
            entry(Kind::File, &"n".repeat(51), 4),
        ];
        entries.sort_unstable();
        entries
    }

    fn check(text: Vec<u8>, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&text).replace("\r\n", "\n"), expected);
    }

    fn style(exact_size: bool, utf8: bool) -> Style {
        Style { exact_size, local: false, utf8 }
    }

    #[test]
    fn letters_of_several_bytes_take_one_column() {
        let line = |name: &str, utf8: bool| {
            let mut out = Vec::new();
            html_line(
                &mut out,
                &Entry { kind: Kind::File, name: name.into(), mtime: 1_540_000_000, size: 1 },
                style(false, utf8),
            );
            let line = String::from_utf8_lossy(&out).into_owned();
            line.split_once('>').expect("a link").1.split(" 20-Oct").next().unwrap_or_default().to_owned()
        };
        assert_eq!(line("äß", true), format!("äß</a>{}", " ".repeat(48)));
        assert_eq!(line("äß", false), format!("äß</a>{}", " ".repeat(46)));
        assert_eq!(line(&"ф".repeat(50), true), format!("{}</a>", "ф".repeat(50)));
        assert_eq!(line(&"ф".repeat(51), true), format!("{}..&gt;</a>", "ф".repeat(47)));
    }

    #[test]
    fn pages() {
        let spaces = |count| " ".repeat(count);
        let listing = |size: &dyn Fn(&str) -> String| {
            format!(
                "<html>\n<head><title>Index of /l&lt;/</title></head>\n<body>\n\
                 <h1>Index of /l&lt;/</h1><hr><pre><a href=\"../\">../</a>\n\
                 <a href=\"zdir/\">zdir/</a>{} 20-Oct-2018 01:46 {}\n\
                 <a href=\"a%20%3C%26%3E%22.html\">a &lt;&amp;&gt;&quot;.html</a>{} 20-Oct-2018 01:46 {}\n\
                 <a href=\"b.txt\">b.txt</a>{} 20-Oct-2018 01:46 {}\n\
                 <a href=\"{}\">{}..&gt;</a> 20-Oct-2018 01:46 {}\n\
                 <a href=\"pipe\">pipe</a>{} 20-Oct-2018 01:46 {}\n\
                 </pre><hr></body>\n</html>\n",
                spaces(45),
                size("-"),
                spaces(39),
                size("10000"),
                spaces(45),
                size("5"),
                "n".repeat(51),
                "n".repeat(47),
                size("4"),
                spaces(46),
                size("0"),
            )
        };
        check(html(&entries(), b"/l</", style(true, false)), &listing(&|size| format!("{size:>19}")));
        let rounded = |size: &str| format!("{:>7}", if size == "10000" { "10K" } else { size });
        check(html(&entries(), b"/l</", style(false, false)), &listing(&rounded));
    }

    #[test]
    fn sizes() {
        let check = |size, expected: &str| assert_eq!(rounded(size), expected);
        check(0, "0");
        check(9999, "9999");
        check(10_000, "10K");
        check(10_751, "10K");
        check(10_752, "11K");
        check((1 << 20) - 1, "1024K");
        check(1 << 20, "1M");
        check(3 << 29, "2G");
    }

    #[test]
    fn data() {
        let two = &entries()[..2];
        let date = "Sat, 20 Oct 2018 01:46:40 GMT";
        let list = format!(
            "[\n{{ \"name\":\"zdir\", \"type\":\"directory\", \"mtime\":\"{date}\" }},\n\
             {{ \"name\":\"a <&>\\\".html\", \"type\":\"file\", \"mtime\":\"{date}\", \"size\":10000 }}\n]"
        );
        check(json(two, None), &list);
        check(json(two, Some(b"f")), &format!("/* callback */\nf({list});"));
        check(json(&[], None), "[\n]");
        check(
            xml(two),
            "<?xml version=\"1.0\"?>\n<list>\n<directory mtime=\"2018-10-20T01:46:40Z\">zdir</directory>\n\
             <file mtime=\"2018-10-20T01:46:40Z\" size=\"10000\">a &lt;&amp;&gt;&quot;.html</file>\n</list>\n",
        );
    }

    #[test]
    fn control_characters_in_json() {
        let mut out = Vec::new();
        push_json(&mut out, b"\x01\x08\\\n\xff", JsonDigits::Upper);
        assert_eq!(out, b"\\u0001\\b\\\\\\n\xff");
    }
}
