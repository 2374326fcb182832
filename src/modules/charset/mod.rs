//! ngx_http_charset_module: the charset in `Content-Type`, and recoding from one to another.

mod map;
mod recode;

use bytes::Bytes;

use self::map::Maps;
use crate::config::value::{Flag, MimeTypes, Part, Template};
use crate::config::{
    Args, Body, Builder, Call, Contexts, Cx, Declarations, Diagnostic, Directive, Fault, Merge, ScopeId, Section,
    SectionRow, Slot,
};
use crate::http::{Module, Request, Response};
use crate::server::log::Level;
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_charset_filter",
        sections: &[
            Override::ROW,
            SectionRow::of::<Charset>(&[]),
            SectionRow::of::<Types>(&[]),
            SectionRow::of::<Maps>(&[]),
        ],
        commands: COMMANDS,
        variables: &[],
    },
    finish: Some(finish),
    filter: Some(filter),
    // Where no charset is known what an upstream says of it counts for nothing.
    acts: Some(|settings| settings.get::<Charset>().charset.is_some() || settings.get::<Maps>().is_any()),
    ..Module::EMPTY
};

settings! {
    /// Answers that have a charset already.
    pub struct Override {
        /// Whether an answer that came with a charset, from an upstream, is given the configured one.
        "override_charset" HTTP_ALL_IF = "off" => pub override_charset: Flag,
    }
}

const COMMANDS: &[Directive] = &[
    Directive {
        name: "charset",
        contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION),
        once: true,
        syntax: "charset | off",
        default: "off",
        doc: "The charset that is added to `Content-Type` of the types of `charset_types`. Where `source_charset` is \
              another one, answers are recoded.\n\nExample: `charset utf-8;`",
        file: file!(),
        apply: charset,
        ..Directive::BASE
    },
    Directive {
        name: "source_charset",
        contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION),
        once: true,
        syntax: "charset",
        doc: "The charset that answers are written in, if it is not that of `charset`. There must be a `charset_map` \
              between the two.",
        file: file!(),
        apply: charset,
        ..Directive::BASE
    },
    Directive {
        name: "charset_types",
        contexts: Contexts::HTTP_ALL,
        args: Args::SOME,
        syntax: "mime-type ...",
        default: "text/html text/xml text/plain text/vnd.wap.wml application/javascript application/rss+xml",
        doc: "The content types that get a charset; `*` is all. `text/html` always does.",
        file: file!(),
        apply: charset_types,
        ..Directive::BASE
    },
    Directive {
        name: "charset_map",
        contexts: Contexts::HTTP,
        args: Args::exactly(2),
        body: Body::Block,
        syntax: "charset1 charset2 { ... }",
        doc: "How characters above 7F of one charset are written in another, in hexadecimal. The second may be utf-8, \
              with several bytes for a character.\n\nExample: `charset_map koi8-r utf-8 { C0 D18E; }`",
        file: file!(),
        apply: map::charset_map,
        ..Directive::BASE
    },
];

/// The charsets that hold in a block.
#[derive(Clone, Debug)]
pub struct Charset {
    charset: Option<Template>,
    source: Option<Template>,
}

/// What a block says of them; the inner `None` is `off`.
#[derive(Debug, Default)]
pub struct RawCharset {
    charset: Option<Option<Template>>,
    source: Option<Template>,
}

impl Section for Charset {
    type Raw = RawCharset;

    fn merge(raw: &RawCharset, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        let outer = |of: fn(&Self) -> &Option<Template>| parent.and_then(|parent| of(parent).clone());
        Self {
            charset: raw.charset.clone().unwrap_or_else(|| outer(|parent| &parent.charset)),
            source: raw.source.clone().or_else(|| outer(|parent| &parent.source)),
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// The content types that get a charset.
#[derive(Clone, Debug)]
pub struct Types(MimeTypes);

impl Section for Types {
    type Raw = Option<MimeTypes>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        const DEFAULT: &[&str] = &[
            "text/html",
            "text/xml",
            "text/plain",
            "text/vnd.wap.wml",
            "application/javascript",
            "application/rss+xml",
        ];
        match (raw, parent) {
            (Some(own), _) => Self(own.clone()),
            (None, Some(parent)) => parent.clone(),
            (None, None) => Self(MimeTypes::of(DEFAULT)),
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn charset(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    // Only a word that begins with a dollar sign is a variable.
    let value = match call.bytes(0) {
        [b'$', name @ ..] if !name.is_empty() => Template::word(call, 0, cx)?,
        word => Template::literal(Bytes::copy_from_slice(word)),
    };
    let is_off = call.bytes(0) == b"off";
    let raw = cx.edit::<Charset>();
    match call.name_bytes() {
        b"charset" => raw.charset = Some((!is_off).then_some(value)),
        _ => raw.source = Some(value),
    }
    Ok(())
}

fn charset_types(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let mut types = cx.edit::<Types>().take();
    MimeTypes::add(&mut types, cx, call);
    *cx.edit::<Types>() = types;
    Ok(())
}

/// Sees to it that there is a map wherever one charset is to become another.
fn finish(builder: &mut Builder) {
    let Some(http) = builder.model.http else { return };
    let maps = builder.peek::<Maps>(http);
    let has_map = |from: &[u8], to: &[u8]| maps.is_some_and(|maps| maps.iter().any(|map| map.joins(from, to)));
    let mut findings = Vec::new();
    for number in 0..builder.scopes.len() {
        let scope = ScopeId(u32::try_from(number).expect("blocks are numbered by 32 bits"));
        if builder.peek::<Charset>(scope).is_none() {
            continue;
        }
        let charset = nearest(builder, scope, |raw| raw.charset.as_ref());
        let source = nearest(builder, scope, |raw| raw.source.as_ref());
        let (Some(Some(charset)), Some(source)) = (charset, source) else { continue };
        // What variables say is known when a request comes.
        let (Some(to), Some(from)) = (name(charset), name(source)) else { continue };
        if !from.eq_ignore_ascii_case(to) && !has_map(from, to) {
            let at = builder.scope(scope).applied.iter().find(|applied| applied.row.name.ends_with("charset"));
            let finding = Diagnostic::emerg("no-charset-map", no_map(from, to)).near(at.map(|applied| applied.at));
            findings.push(finding.help("add a charset_map to the http block"));
        }
    }
    builder.diagnostics.extend(findings);
}

/// What the nearest block around says.
fn nearest<'b, T>(builder: &'b Builder, from: ScopeId, of: fn(&'b RawCharset) -> Option<&'b T>) -> Option<&'b T> {
    let mut next = Some(from);
    while let Some(scope) = next {
        if let Some(said) = builder.peek::<Charset>(scope).and_then(of) {
            return Some(said);
        }
        next = builder.scope(scope).parent;
    }
    None
}

fn no_map(from: &[u8], to: &[u8]) -> String {
    let (from, to) = (String::from_utf8_lossy(from), String::from_utf8_lossy(to));
    format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"")
}

/// The charset that a template without variables names.
fn name(template: &Template) -> Option<&[u8]> {
    let is_variable = template.parts().iter().any(|part| !matches!(part, Part::Literal(_)));
    if is_variable { None } else { template.constant() }
}

/// Whether some part of the configuration knows a charset by this name.
fn is_known(request: &Request, charset: &[u8]) -> bool {
    let config = &request.compiled.config;
    let is = |template: &Option<Template>| {
        template.as_ref().and_then(name).is_some_and(|known| known.eq_ignore_ascii_case(charset))
    };
    request.settings::<Maps>().name(charset)
        || config
            .settings
            .iter()
            .map(|settings| settings.get::<Charset>())
            .any(|said| is(&said.charset) || is(&said.source))
}

fn filter(request: &mut Request, response: &mut Response) {
    if let Some(charset) = response.override_charset.take().filter(|_| request.is_main()) {
        let has_type = response.content_type.as_deref().is_some_and(|kind| !kind.is_empty());
        if has_type && is_known(request, &charset) {
            response.charset = Some(charset);
            response.whole_type = None;
        } else if has_type {
            let charset = crate::server::log::shown(&charset);
            request.log(Level::Error, &format!("unknown charset \"{charset}\" to override"));
        }
        return;
    }
    let settings = request.settings::<Charset>();
    let Some(charset) = &settings.charset else { return };
    if !request.is_main() || response.status < 200 {
        return;
    }
    let Some(content_type) = response.content_type.as_deref().filter(|kind| !kind.is_empty()) else { return };
    let own = response.charset.clone();
    let overrides = *request.settings::<Override>().override_charset;
    let is_encoded = response.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"Content-Encoding"));
    let is_meant = match own {
        Some(_) => overrides,
        None => request.settings::<Types>().0.contain(content_type),
    };
    if !is_meant || (is_encoded && !overrides) {
        return;
    }
    let charset = request.eval(charset);
    let source = own.or_else(|| settings.source.as_ref().map(|source| request.eval(source)));
    if let Some(source) = source.filter(|source| !source.eq_ignore_ascii_case(&charset)) {
        match request.settings::<Maps>().find(&source, &charset) {
            Some(map) if !is_encoded => recode::body(response, map),
            Some(_) => {}
            None => {
                request.log(Level::Error, &no_map(&source, &charset));
                return;
            }
        }
    }
    // Old browsers took the charset of a redirect for that of the page that it leads to.
    if !matches!(response.status, 301 | 302) && !charset.is_empty() {
        response.charset = Some(charset);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn maps_are_asked_for() {
        let check = |directives: &str, expected: &[&str]| assert_eq!(findings(directives), expected, "{directives}");
        let missing = "no \"charset_map\" between the charsets \"koi8-r\" and \"utf-8\"";
        check("source_charset koi8-r; charset utf-8;", &[missing]);
        check("source_charset koi8-r; server { location / { charset utf-8; } }", &[missing]);
        check("source_charset koi8-r; charset utf-8; charset_map utf-8 koi8-r { }", &[]);
        check("source_charset utf-8; charset UTF-8;", &[]);
        check("source_charset koi8-r; charset off;", &[]);
        check("source_charset koi8-r; charset $host;", &[]);
        check("charset $nosuch;", &["unknown \"nosuch\" variable"]);
        check("charset a; charset b;", &["\"charset\" directive is duplicate"]);
    }

    #[test]
    fn types() {
        assert_eq!(findings("charset_types text/html text/css text/css;").len(), 2);
        assert_eq!(findings("charset_types *;"), [""; 0]);
    }
}
