//! ngx_http_headers_module: headers that the configuration adds to answers.

mod expires;

use bytes::Bytes;

use crate::config::value::Template;
use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot};
use crate::http::wire::date::parse_http_date;
use crate::http::{Module, Request, Response};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_headers_filter",
        sections: &[SectionRow::of::<Added>(&[]), SectionRow::of::<expires::Expires>(&[])],
        commands: COMMANDS,
        variables: &[],
    },
    filter: Some(filter),
    acts: Some(|settings| settings.get::<Added>().is_any() || settings.get::<expires::Expires>().is_on()),
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[
    Directive {
        name: "add_header",
        contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION),
        args: Args::between(2, 3),
        syntax: "name value [always]",
        doc: "Adds a header to answers with the statuses 200, 201, 204, 206, 301, 302, 303, 304, 307 and 308, or with \
              any (`always`). An empty value adds nothing; `Last-Modified` and `ETag` replace those of the answer. The \
              whole list is inherited where a block names none.\n\nExample: `add_header X-Frame-Options DENY always;`",
        file: file!(),
        apply: add_header,
        ..Directive::BASE
    },
    Directive {
        name: "add_trailer",
        contexts: Contexts::HTTP_ALL.union(Contexts::IF_LOCATION),
        args: Args::between(2, 3),
        syntax: "name value [always]",
        doc: "Adds a header behind the body of answers with the statuses that `add_header` is for, or with any (`always`). \
              Its value is made when the body is out. By HTTP/1.1 such an answer goes in chunks, by HTTP/1.0 the header \
              is left out. An empty value adds nothing. The whole list is inherited where a block names none.\n\n\
              Example: `add_trailer X-Upstream-Time $upstream_response_time;`",
        file: file!(),
        apply: add_trailer,
        ..Directive::BASE
    },
    expires::COMMANDS[0],
];

/// The headers that a block adds, before a body and behind it: two lists, each inherited whole.
#[derive(Clone, Debug, Default)]
pub struct Added {
    headers: Vec<Header>,
    trailers: Vec<Header>,
}

impl Added {
    fn is_any(&self) -> bool {
        !self.headers.is_empty() || !self.trailers.is_empty()
    }
}

/// One `add_header` or `add_trailer`.
#[derive(Clone, Debug)]
pub struct Header {
    name: Bytes,
    value: Template,
    always: bool,
}

impl Section for Added {
    type Raw = Self;

    fn merge(raw: &Self, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        let list = |own: &[Header], around: Option<&[Header]>| match around {
            Some(around) if own.is_empty() => around.to_vec(),
            _ => own.to_vec(),
        };
        Self {
            headers: list(&raw.headers, parent.map(|parent| &parent.headers[..])),
            trailers: list(&raw.trailers, parent.map(|parent| &parent.trailers[..])),
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn add_header(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let header = header(cx, call)?;
    cx.edit::<Added>().headers.push(header);
    Ok(())
}

fn add_trailer(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let trailer = header(cx, call)?;
    cx.edit::<Added>().trailers.push(trailer);
    Ok(())
}

fn header(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<Header, Fault> {
    let always = call.len() == 3;
    if always && call.bytes(2) != b"always" {
        return Err(Fault::new(format!("invalid parameter \"{}\"", call.text(2))).word(2).help("it may be: always"));
    }
    let value = Template::word(call, 1, cx)?;
    Ok(Header { name: Bytes::copy_from_slice(call.bytes(0)), value, always })
}

fn filter(request: &mut Request, response: &mut Response) {
    if !request.is_main() {
        return;
    }
    let is_safe = matches!(response.status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308);
    if is_safe {
        expires::set(request, response);
    }
    let added = request.settings::<Added>();
    for header in &added.headers {
        if is_safe || header.always {
            add(response, &header.name, request.eval(&header.value));
        }
    }
    let trailers = added.trailers.iter().filter(|trailer| is_safe || trailer.always);
    response.trailers.extend(trailers.map(|trailer| (trailer.name.clone(), trailer.value.clone())));
}

fn add(response: &mut Response, name: &Bytes, value: Bytes) {
    let given = (!value.is_empty()).then_some(value);
    if name.eq_ignore_ascii_case(b"Last-Modified") {
        response.last_modified = given.as_deref().and_then(parse_http_date);
        response.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    } else if name.eq_ignore_ascii_case(b"ETag") {
        // An upstream's stands among the listed ones, and keeps its place.
        match (response.headers.iter().position(|(other, _)| other.eq_ignore_ascii_case(name)), given) {
            (Some(at), Some(value)) => response.headers[at].1 = value,
            (Some(at), None) => drop(response.headers.remove(at)),
            (None, value) => response.etag = value,
        }
        return;
    }
    if let Some(value) = given {
        response.headers.push((name.clone(), value));
    }
}

/// Sets a header: the first of its name gets the value, further ones go.
fn replace(response: &mut Response, name: &'static str, value: Bytes) {
    let mut value = Some(value);
    response.headers.retain_mut(|(other, old)| {
        if !other.eq_ignore_ascii_case(name.as_bytes()) {
            return true;
        }
        value.take().map(|value| *old = value).is_some()
    });
    if let Some(value) = value {
        response.header(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    fn check(name: &str, value: &str, expected: &str) {
        let mut response = Response::new(200);
        response.last_modified = Some(1);
        response.etag = Some("\"e\"".into());
        response.header("Cache-Control", "a");
        add(&mut response, &Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let listed = response.headers.iter().map(|(name, value)| format!("{}={}", text(name), text(value)));
        let listed: Vec<_> = listed.collect();
        let etag = response.etag.as_deref().map(text);
        let shown = format!("{:?} {} {}", response.last_modified, etag.unwrap_or_default(), listed.join(","));
        assert_eq!(shown, expected, "{name}: {value}");
    }

    #[test]
    fn adding() {
        check("X-A", "1", "Some(1) \"e\" Cache-Control=a,X-A=1");
        check("X-A", "", "Some(1) \"e\" Cache-Control=a");
        check("Cache-Control", "b", "Some(1) \"e\" Cache-Control=a,Cache-Control=b");
        check("etag", "\"f\"", "Some(1) \"f\" Cache-Control=a");
        check("ETag", "", "Some(1)  Cache-Control=a");
        check("Last-Modified", "", "None \"e\" Cache-Control=a");
        check(
            "Last-Modified",
            "Thu, 01 Jan 1970 00:00:09 GMT",
            "Some(9) \"e\" Cache-Control=a,Last-Modified=Thu, 01 Jan 1970 00:00:09 GMT",
        );
        check("Last-Modified", "never", "None \"e\" Cache-Control=a,Last-Modified=never");
    }

    #[test]
    fn words() {
        assert_eq!(findings("add_header A $host always;"), [""; 0]);
        assert_eq!(findings("add_header A b never;"), ["invalid parameter \"never\""]);
        assert_eq!(findings("add_trailer A $host always;"), [""; 0]);
        assert_eq!(findings("add_trailer A b never;"), ["invalid parameter \"never\""]);
        assert_eq!(findings("expires never 1h;"), ["invalid value \"never\""]);
        assert_eq!(findings("expires abc;"), ["\"expires\" directive invalid value"]);
    }

    #[test]
    fn replacing() {
        let mut response = Response::new(200);
        for value in ["a", "b"] {
            response.header("Cache-Control", value);
        }
        replace(&mut response, "cache-control", "c".into());
        let values: Vec<_> = response.headers.iter().map(|(_, value)| value.clone()).collect();
        assert_eq!(values, ["c"]);
    }
}
