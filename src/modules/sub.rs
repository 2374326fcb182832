//! ngx_http_sub_filter_module: replaces texts in answers while they are sent.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};

use crate::config::value::{Flag, MimeTypes, Template};
use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot};
use crate::http::{Body, BodyStream, Module, PIECE, Request, Response};
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_sub_filter",
        sections: &[Sub::ROW, SectionRow::of::<Pairs>(&[])],
        commands: COMMANDS,
        variables: &[],
    },
    filter: Some(filter),
    acts: Some(|settings| !settings.get::<Pairs>().pairs.is_empty()),
    ..Module::EMPTY
};

settings! {
    /// Which answers have texts replaced, and how often.
    pub struct Sub {
        /// The content types of answers that have texts replaced; `*` is all. `text/html` always has.
        "sub_filter_types" HTTP_ALL = "text/html" => types: MimeTypes,
        /// Whether each text is replaced once only.
        "sub_filter_once" HTTP_ALL = "on" => once: Flag,
        /// Whether `Last-Modified` and a weak `ETag` of the answer stay.
        "sub_filter_last_modified" HTTP_ALL = "off" => last_modified: Flag,
    }
}

const COMMANDS: &[Directive] = &[Directive {
    name: "sub_filter",
    contexts: Contexts::HTTP_ALL,
    args: Args::exactly(2),
    syntax: "string replacement",
    doc: "Replaces a text in answers, whatever its case. Of several that fit at one place the first in the file counts. The \
          whole list is inherited where a block names none.\n\n\
          Example: `sub_filter '</head>' '<script src=\"/a.js\"></script></head>';`",
    file: file!(),
    apply: sub_filter,
    ..Directive::BASE
}];

/// What is replaced by what.
#[derive(Clone, Debug)]
pub struct Pairs {
    pairs: Vec<(Template, Template)>,
}

impl Section for Pairs {
    type Raw = Vec<(Template, Template)>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        match parent {
            Some(parent) if raw.is_empty() => parent.clone(),
            _ => Self { pairs: raw.clone() },
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn sub_filter(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if call.bytes(0).is_empty() {
        return Err(Fault::new("empty search pattern").word(0));
    }
    let pair = (Template::word(call, 0, cx)?, Template::word(call, 1, cx)?);
    cx.edit::<Pairs>().push(pair);
    Ok(())
}

fn filter(request: &mut Request, response: &mut Response) {
    let pairs = &request.settings::<Pairs>().pairs;
    let settings = request.settings::<Sub>();
    let content_type = response.content_type.as_deref().unwrap_or_default();
    if pairs.is_empty()
        || response.length() == Some(0)
        || content_type.is_empty()
        || !settings.types.contain(content_type)
        || matches!(response.body, Body::Tunnel(_) | Body::Takeover(_))
    {
        return;
    }
    let evaluated = pairs.iter().map(|(text, by)| (request.eval(text).to_ascii_lowercase(), request.eval(by)));
    let pairs: Vec<_> = evaluated.filter(|(text, _)| !text.is_empty()).collect();
    if pairs.is_empty() {
        return;
    }
    if *settings.last_modified {
        response.weaken_etag();
    } else {
        response.drop_validators();
    }
    response.ranges = false;
    response.content_length = None;
    response.hides_length = true;
    let replacer = Replacer::new(pairs, *settings.once);
    let source = std::mem::take(&mut response.body);
    if !request.is_head() {
        response.body = Body::Stream(Box::new(Replacing { source, replacer, worked: 0, ended: false }));
    }
}

/// Finds and replaces in a text that comes in pieces.
struct Replacer {
    /// In lower case, and what comes in their place.
    pairs: Vec<(Vec<u8>, Bytes)>,
    once: bool,
    /// With which bytes one of them begins, in either case.
    begins: Box<[bool; 256]>,
    /// The end of what came: the beginning of one of them, perhaps.
    rest: BytesMut,
}

/// What is found at a place.
enum Found {
    Nothing,
    /// The pair of this number.
    Pair(usize),
    /// One may begin here: it takes more to tell.
    Perhaps,
}

impl Replacer {
    fn new(pairs: Vec<(Vec<u8>, Bytes)>, once: bool) -> Self {
        let mut this = Self { pairs, once, begins: Box::new([false; 256]), rest: BytesMut::new() };
        this.note_beginnings();
        this
    }

    fn note_beginnings(&mut self) {
        self.begins.fill(false);
        for first in self.pairs.iter().filter_map(|(text, _)| text.first()) {
            self.begins[usize::from(*first)] = true;
            self.begins[usize::from(first.to_ascii_uppercase())] = true;
        }
    }

    /// Appends to `out` what comes of a piece. What may be the beginning of a text waits for the next.
    fn write(&mut self, piece: &Bytes, is_last: bool, out: &mut BytesMut) {
        let joined = if self.rest.is_empty() {
            piece.clone()
        } else {
            self.rest.extend_from_slice(piece);
            self.rest.split().freeze()
        };
        let (mut done, mut at) = (0, 0);
        while let Some(step) = joined[at..].iter().position(|byte| self.begins[usize::from(*byte)]) {
            at += step;
            match self.find(&joined[at..], is_last) {
                Found::Nothing => at += 1,
                Found::Perhaps => {
                    out.extend_from_slice(&joined[done..at]);
                    self.rest.extend_from_slice(&joined[at..]);
                    return;
                }
                Found::Pair(number) => {
                    out.extend_from_slice(&joined[done..at]);
                    out.extend_from_slice(&self.pairs[number].1);
                    at += self.pairs[number].0.len();
                    done = at;
                    if self.once {
                        self.pairs.remove(number);
                        self.note_beginnings();
                    }
                }
            }
        }
        out.extend_from_slice(&joined[done..]);
    }

    fn find(&self, text: &[u8], is_last: bool) -> Found {
        for (number, (wanted, _)) in self.pairs.iter().enumerate() {
            let length = wanted.len().min(text.len());
            if !text[..length].eq_ignore_ascii_case(&wanted[..length]) {
                continue;
            }
            if length == wanted.len() {
                return Found::Pair(number);
            }
            if !is_last {
                return Found::Perhaps;
            }
        }
        Found::Nothing
    }
}

/// So much is looked through, and others have their turn.
const TURN: usize = 4 * PIECE;

/// A body in which texts are replaced while it is sent.
struct Replacing {
    source: Body,
    replacer: Replacer,
    /// How much was looked through since others had their turn.
    worked: usize,
    ended: bool,
}

impl BodyStream for Replacing {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + '_>> {
        Box::pin(async {
            let mut out = BytesMut::new();
            while !self.ended && out.is_empty() {
                match self.source.next().await {
                    Some(Ok(piece)) => {
                        self.worked += piece.len();
                        self.ended = self.source.length() == Some(0);
                        self.replacer.write(&piece, self.ended, &mut out);
                    }
                    Some(Err(error)) => return Some(Err(error)),
                    None => {
                        self.ended = true;
                        self.replacer.write(&Bytes::new(), true, &mut out);
                    }
                }
                if self.worked >= TURN {
                    self.worked = 0;
                    tokio::task::yield_now().await;
                }
            }
            (!out.is_empty()).then(|| Ok(out.freeze()))
        })
    }

    fn flushes(&self) -> bool {
        self.source.flushes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::testing::findings;

    fn replaced(pairs: &[(&str, &str)], once: bool, pieces: &[&str]) -> String {
        let pairs = pairs.iter().map(|(text, by)| (text.as_bytes().to_vec(), Bytes::copy_from_slice(by.as_bytes())));
        let mut replacer = Replacer::new(pairs.collect(), once);
        let mut out = BytesMut::new();
        for piece in pieces {
            replacer.write(&Bytes::copy_from_slice(piece.as_bytes()), false, &mut out);
        }
        replacer.write(&Bytes::new(), true, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn replacing() {
        let check = |pairs: &[(&str, &str)], once: bool, pieces: &[&str], expected: &str| {
            assert_eq!(replaced(pairs, once, pieces), expected, "{pairs:?} {once} {pieces:?}");
        };
        check(&[("ab", "X")], true, &["abab"], "Xab");
        check(&[("ab", "X")], false, &["abAB", "aB"], "XXX");
        check(&[("ab", "X")], false, &["a", "b", "a"], "Xa");
        check(&[("aab", "X")], false, &["aa", "ab"], "aX");
        check(&[("ab", "")], false, &["cabc"], "cc");
        check(&[("ab", "1"), ("cd", "2")], true, &["cdabcdab"], "21cdab");
        check(&[("abc", "1"), ("ab", "2")], false, &["ab", "dabc", "ab"], "2d12");
        check(&[("ab", "2"), ("abc", "1")], false, &["abc"], "2c");
        check(&[("ab", "abab")], false, &["ab"], "abab");
        check(&[("x", "y")], false, &[""], "");
    }

    #[test]
    fn words() {
        assert_eq!(findings("sub_filter '' b;"), ["empty search pattern"]);
        assert_eq!(findings("sub_filter $host b; sub_filter a $host; sub_filter_types text/css *;"), [""; 0]);
    }

    proptest! {
        #[test]
        fn where_it_is_cut_does_not_matter(
            text in "[abAB]{0,60}",
            cuts in proptest::collection::vec(0usize..60, 0..6),
            first in "[ab]{1,4}",
            second in "[ab]{1,4}",
            once: bool,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect();
            let pairs = [(&*first, "1"), (&*second, "2")];
            let whole = replaced(&pairs, once, &[&text]);
            prop_assert_eq!(replaced(&pairs, once, &pieces), whole);
        }
    }
}
