//! A tree back to text.

use crate::{
    ast::{Ast, Body, Directive, Item, Quote, Word},
    lex::{BUFFER, is_escapable},
};

/// Prints a tree so that it parses to the same tree, but for places and errors: one item on a line,
/// blocks indented.
///
/// Words keep their quotes. In a tree made by hand, a word that can't stand without quotes gets
/// some, and it is the maker's affair that words fit into nginx's buffer and comments on a line.
pub fn print(ast: &Ast) -> Vec<u8> {
    let mut out = Vec::new();
    print_items(&mut out, &ast.items, 0);
    out
}

fn print_items(out: &mut Vec<u8>, items: &[Item], depth: usize) {
    for item in items {
        match item {
            Item::Directive(directive) => print_directive(out, directive, depth),
            Item::Comment(comment) => {
                indent(out, depth);
                out.push(b'#');
                out.extend_from_slice(&comment.text);
                out.push(b'\n');
            }
            Item::Error(_) => {}
        }
    }
}

fn print_directive(out: &mut Vec<u8>, directive: &Directive, depth: usize) {
    indent(out, depth);
    let mut last = Printed::new(&directive.name);
    out.extend_from_slice(&last.text);
    for arg in &directive.args {
        let word = Printed::new(arg);
        if !word.is_bracket_behind(&last) {
            out.push(b' ');
        }
        out.extend_from_slice(&word.text);
        last = word;
    }
    match &directive.body {
        Body::Semicolon => out.extend_from_slice(b";\n"),
        Body::Block(items) => {
            // The space, too, has to fit into nginx's buffer.
            if last.text.len() + 1 < BUFFER {
                out.push(b' ');
            }
            out.push(b'{');
            if items.iter().any(|item| !matches!(item, Item::Error(_))) {
                out.push(b'\n');
                print_items(out, items, depth + 1);
                indent(out, depth);
            }
            out.extend_from_slice(b"}\n");
        }
    }
}

fn indent(out: &mut Vec<u8>, depth: usize) {
    out.resize(out.len() + 4 * depth, b' ');
}

/// A word as it is to stand in the text.
struct Printed {
    text: Vec<u8>,
    is_quoted: bool,
}

impl Printed {
    fn new(word: &Word) -> Self {
        let quote = match word.quote {
            Quote::None => match bare(&word.value) {
                Some(text) => {
                    return Self { text, is_quoted: false };
                }
                None => b'"',
            },
            Quote::Single => b'\'',
            Quote::Double => b'"',
        };
        let readable = string(&word.value, quote, true);
        let text = if readable.len() < BUFFER { readable } else { string(&word.value, quote, false) };
        Self { text, is_quoted: true }
    }

    /// Whether this is the second word of `"a")`, which are commonly written without a space
    /// between them.
    fn is_bracket_behind(&self, last: &Self) -> bool {
        last.is_quoted && !self.is_quoted && self.text.starts_with(b")")
    }
}

/// A string with the fewest escapes that it needs, and with some more if it is to be readable.
fn string(value: &[u8], quote: u8, is_readable: bool) -> Vec<u8> {
    let mut text = vec![quote];
    let mut rest = value;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'\\' => rest = backslash(&mut text, tail),
            b'\t' if is_readable => text.extend_from_slice(br"\t"),
            b'\r' if is_readable => text.extend_from_slice(br"\r"),
            // Only the last: a text of several lines is easier to read as such.
            b'\n' if is_readable && tail.is_empty() => text.extend_from_slice(br"\n"),
            _ if *byte == quote => text.extend_from_slice(&[b'\\', quote]),
            _ => text.push(*byte),
        }
    }
    text.push(quote);
    text
}

/// A word without quotes around it; `None` if this value can't be one.
fn bare(value: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(value.len());
    match value.first()? {
        b'#' | b'}' => return None,
        b'"' | b'\'' => text.push(b'\\'),
        _ => {}
    }
    let mut is_variable = false;
    let mut rest = value;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            // Here `\$` would leave the brace alone, and so end the word.
            b'\\' if tail.starts_with(b"${") => text.extend_from_slice(br"\\"),
            b'\\' => rest = backslash(&mut text, tail),
            b'\t' => text.extend_from_slice(br"\t"),
            b'\r' => text.extend_from_slice(br"\r"),
            b'\n' => text.extend_from_slice(br"\n"),
            b'{' if is_variable => text.push(b'{'),
            b' ' | b';' | b'{' => return None,
            _ => text.push(*byte),
        }
        is_variable = *byte == b'$' || (*byte == b'{' && is_variable);
    }
    Some(text)
}

/// Prints a backslash, and the byte behind it where the two are a pair without a meaning, as in
/// `\.php$`. Returns what is still to be printed.
fn backslash<'a>(text: &mut Vec<u8>, tail: &'a [u8]) -> &'a [u8] {
    text.push(b'\\');
    match tail {
        [byte, rest @ ..] if !is_escapable(*byte) => {
            text.push(*byte);
            rest
        }
        _ => {
            text.push(b'\\');
            tail
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(parse(source.as_bytes()).to_string(), expected);
    }

    #[test]
    fn items_stand_on_lines() {
        check(
            "http{#first\nserver  {\tlisten 80;}} events { }\r\n # end ",
            "http {\n    #first\n    server {\n        listen 80;\n    }\n}\nevents {}\n# end\n",
        );
        check("log_format # why\n a 'b';", "# why\nlog_format a 'b';\n");
    }

    #[test]
    fn errors_are_left_out() {
        check("a;; b } c \"d\"e; f { g", "a;\nf {}\n");
    }

    #[test]
    fn words_keep_their_quotes() {
        check("a 'b' \"c\" d '';", "a 'b' \"c\" d '';\n");
        check(r#"if ("$a"   =  'b' ) { }"#, "if (\"$a\" = 'b') {}\n");
        check(r#"a "'\"" '\'"' \"b'c";"#, "a \"'\\\"\" '\\'\"' \\\"b'c\";\n");
    }

    #[test]
    fn backslashes_are_doubled_only_where_they_must_be() {
        check(r"location ~ \.php$ {}", "location ~ \\.php$ {}\n");
        check(r"a \\. \\n \\\\ \\ b\ c\;;", "a \\. \\\\n \\\\\\\\ \\\\ b\\ c\\;;\n");
        check(r"a \\${b} '\\${b}' \$b ${b};", "a \\\\${b} '\\${b}' \\$b ${b};\n");
    }

    #[test]
    fn control_characters_are_printed_readably() {
        check("a '\tb\r\nc\n' \\td\\n;", "a '\\tb\\r\nc\\n' \\td\\n;\n");
    }

    #[test]
    fn a_long_string_is_printed_as_short_as_it_was() {
        let source = format!("a \"{}\";\n", "\t".repeat(4000));
        check(&source, &source);
    }

    #[test]
    fn a_value_that_needs_quotes_gets_them() {
        for (value, expected) in [
            ("", "\"\";\n"),
            ("a b", "\"a b\";\n"),
            ("#", "\"#\";\n"),
            ("}", "\"}\";\n"),
            ("a{2}", "\"a{2}\";\n"),
            ("a}", "a};\n"),
        ] {
            let mut ast = parse(b"a;");
            if let Some(Item::Directive(directive)) = ast.items.first_mut() {
                directive.name.value = value.into();
            }
            assert_eq!(ast.to_string(), expected);
        }
    }
}
