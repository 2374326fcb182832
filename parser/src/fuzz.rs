//! What holds for every text whatsoever: used by the fuzz target and by the tests below.

use crate::{
    ast::{Body, Directive, Item, Span, Word},
    lex::BUFFER,
    lines::LineIndex,
    parse::{parse, parse_parameter},
    print::print,
};

/// Parses `source` as a file and as a parameter, and panics if something doesn't hold.
pub fn check(source: &[u8]) {
    let mut ast = parse(source);
    for ast in [&ast, &parse_parameter(source)] {
        check_spans(&ast.items, source, Span::new(0, source.len()));
        if let Some(error) = ast.errors().next() {
            let line_feeds = source.iter().take(error.offset as usize).filter(|&&byte| byte == b'\n');
            assert_eq!(LineIndex::new(source).line(error.offset) as usize, 1 + line_feeds.count());
        }
    }

    forget_places(&mut ast.items);
    let mut again = parse(&print(&ast));
    assert_eq!(again.errors().next(), None, "what is printed has no errors");
    forget_places(&mut again.items);
    assert_eq!(again, ast, "what is printed parses to the same");
}

fn check_spans(items: &[Item], source: &[u8], within: Span) {
    let byte = |place: u32| source.get(place as usize).copied();
    let mut from = within.start;
    for item in items {
        match item {
            Item::Directive(directive) => {
                let Directive { name, args, body, end, span } = directive;
                assert!(from <= span.start && span.end <= within.end, "{span:?} is in {within:?} and behind {from}");
                assert_eq!(name.span.start, span.start);
                let mut last = span.start;
                for word in [name].into_iter().chain(args) {
                    assert!(last <= word.span.start && word.span.start < word.span.end && word.span.end <= *end);
                    last = word.span.end;
                }
                match body {
                    Body::Semicolon => assert_eq!((byte(*end), span.end), (Some(b';'), end + 1)),
                    Body::Block(items) => {
                        assert_eq!(byte(*end), Some(b'{'));
                        check_spans(items, source, Span { start: end + 1, end: span.end });
                    }
                }
                from = span.end;
            }
            // One between the words of a directive stands before it, so here the next item may
            // begin earlier.
            Item::Comment(comment) => {
                assert!(from <= comment.span.start && comment.span.end <= within.end);
                assert_eq!(byte(comment.span.start), Some(b'#'));
            }
            Item::Error(error) => {
                assert!(within.start <= error.offset && error.offset <= within.end)
            }
        }
    }
}

/// Removes what printing doesn't keep: places, errors, and a comment that fills nginx's buffer. The
/// latter is legal as the last bytes of a file only, and printing ends it with a line feed.
fn forget_places(items: &mut Vec<Item>) {
    items.retain_mut(|item| match item {
        Item::Directive(directive) => {
            directive.span = Span::default();
            directive.end = 0;
            forget_place_of(&mut directive.name);
            directive.args.iter_mut().for_each(forget_place_of);
            if let Body::Block(items) = &mut directive.body {
                forget_places(items);
            }
            true
        }
        Item::Comment(comment) => {
            comment.span = Span::default();
            1 + comment.text.len() < BUFFER
        }
        Item::Error(_) => false,
    });
}

fn forget_place_of(word: &mut Word) {
    word.span = Span::default();
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::check;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn holds_for_any_bytes(source in vec(any::<u8>(), 0..200)) {
            check(&source);
        }

        #[test]
        fn holds_for_what_looks_like_a_configuration(
            pieces in vec(prop::sample::select(PIECES), 0..60),
        ) {
            check(pieces.concat().as_bytes());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn holds_near_the_size_of_the_buffer(
            before in prop::sample::select(PIECES),
            opening in prop::sample::select(&["", "\"", "'", "#", "a b ", "{"][..]),
            byte in prop::sample::select(&["x", "\t", "\\", "\\\"", "\"", "\n", "$", "{"][..]),
            length in 4080_usize..4110,
            after in vec(prop::sample::select(PIECES), 0..6),
        ) {
            let middle: String = byte.chars().cycle().take(length).collect();
            check([before, opening, &middle, &after.concat()].concat().as_bytes());
        }
    }

    const PIECES: &[&str] = &[
        ";", "{", "}", ")", "(", "\"", "'", "#", "\\", "$", "${", " ", "\n", "\r\n", "\t", "a", "n", "t", "b c;",
        "d {", "\\n", "\\\"", "é", "\0",
    ];
}
