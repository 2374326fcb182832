//! `fastcgi_param`: what a FastCGI server is told of a request.

use bytes::Bytes;

use crate::config::value::Template;
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot};
use crate::http::Request;
use crate::http::wire::records::put_param;

/// The row that this file brings.
pub(super) const COMMANDS: [Directive; 1] = [Directive {
    name: "fastcgi_param",
    contexts: Contexts::HTTP_ALL,
    args: Args::between(2, 3),
    syntax: "parameter value [if_not_empty]",
    doc: "A parameter that is passed to FastCGI servers. With `if_not_empty` one without a value is left out. A block that \
          has one has none of those around it. The request's headers are passed as `HTTP_...` besides.\n\n\
          Example: `fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;`",
    file: file!(),
    apply: param,
    ..Directive::BASE
}];

/// The parameters that hold in a block.
#[derive(Clone, Debug)]
pub(super) struct Params(Vec<Param>);

#[derive(Clone, Debug)]
pub(super) struct Param {
    name: Bytes,
    value: Template,
    if_not_empty: bool,
}

impl Section for Params {
    type Raw = Vec<Param>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        parent.filter(|_| raw.is_empty()).map_or_else(|| Self(raw.clone()), Clone::clone)
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn param(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    if call.len() == 3 && call.bytes(2) != b"if_not_empty" {
        let fault = Fault::new(format!("invalid parameter \"{}\"", call.text(2))).word(2);
        return Err(fault.help("it may be: if_not_empty"));
    }
    let value = Template::word_for_servers(call, 1, cx)?;
    let name = Bytes::copy_from_slice(call.bytes(0));
    cx.edit::<Params>().push(Param { name, value, if_not_empty: call.len() == 3 });
    Ok(())
}

impl Params {
    /// The list for a request.
    pub(super) fn list(&self, request: &Request, pass_headers: bool) -> Vec<u8> {
        let mut list = Vec::with_capacity(1024);
        for Param { name, value, if_not_empty } in &self.0 {
            let value = request.eval(value);
            if !(*if_not_empty && value.is_empty()) {
                put_param(name, &value, &mut list);
            }
        }
        if pass_headers {
            self.headers(request, &mut list);
        }
        list
    }

    /// The request's headers that no parameter is about; several of a name become one.
    fn headers(&self, request: &Request, list: &mut Vec<u8>) {
        let mut values: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (name, value) in request.head.headers() {
            let variable = variable(name);
            if self.0.iter().any(|param| *param.name == variable) {
                continue;
            }
            match values.iter_mut().find(|(known, _)| *known == variable) {
                None => values.push((variable, value.to_vec())),
                Some((known, values)) => {
                    values.extend_from_slice(if known == b"HTTP_COOKIE" { b"; " } else { b", " });
                    values.extend_from_slice(value);
                }
            }
        }
        for (name, value) in values {
            put_param(&name, &value, list);
        }
    }
}

/// `HTTP_X_NAME` for `X-Name`.
fn variable(name: &[u8]) -> Vec<u8> {
    let name = name.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() });
    b"HTTP_".iter().copied().chain(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn words() {
        assert_eq!(findings("fastcgi_param A $host if_not_empty;"), [""; 0]);
        assert_eq!(findings("fastcgi_param A b maybe;"), ["invalid parameter \"maybe\""]);
        assert_eq!(findings("fastcgi_param A $nosuch;"), [""; 0]);
        assert_eq!(variable(b"X-Some_Name"), b"HTTP_X_SOME_NAME");
    }
}
