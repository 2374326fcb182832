//! `fastcgi_param` and its like: what the servers of scripts are told of a request.

use bytes::Bytes;

use crate::config::value::{Template, Value};
use crate::config::{Args, Call, Cx, Fault};
use crate::http::Request;

/// The parameters that hold in a block.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<Param>);

/// One of them.
#[derive(Clone, Debug)]
struct Param {
    name: Bytes,
    value: Template,
    if_not_empty: bool,
}

/// What the names of headers begin with.
const HEADER: &[u8] = b"HTTP_";

impl Value for Params {
    const ARGS: Args = Args::between(2, 3);
    const ONCE: bool = false;
    const SYNTAX: &'static str = "parameter value [if_not_empty]";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        if call.len() == 3 && call.bytes(2) != b"if_not_empty" {
            let fault = Fault::new(format!("invalid parameter \"{}\"", call.text(2))).word(2);
            return Err(fault.help("it may be: if_not_empty"));
        }
        let value = Template::word_for_servers(call, 1, cx)?;
        let name = Bytes::copy_from_slice(call.bytes(0));
        Ok(Self(vec![Param { name, value, if_not_empty: call.len() == 3 }]))
    }

    fn from_default(_: &'static str) -> Self {
        Self::default()
    }

    fn store(slot: &mut Option<Self>, value: Self) {
        slot.get_or_insert_default().0.extend(value.0);
    }
}

impl Params {
    /// Gives each parameter of a request to `put`, by its name and value.
    pub fn list(&self, request: &Request, pass_headers: bool, mut put: impl FnMut(&[u8], &[u8])) {
        for Param { name, value, if_not_empty } in &self.0 {
            if value.constant().is_some_and(<[u8]>::is_empty) && name.starts_with(HEADER) {
                // It only keeps the request's header of this name away.
                continue;
            }
            let value = request.eval(value);
            if !(*if_not_empty && value.is_empty()) {
                put(name, &value);
            }
        }
        if pass_headers {
            self.headers(request, put);
        }
    }

    /// The request's headers that no parameter is about; several of a name become one.
    fn headers(&self, request: &Request, mut put: impl FnMut(&[u8], &[u8])) {
        let mut values: Vec<(&[u8], Vec<u8>)> = Vec::new();
        for (name, value) in request.head.headers() {
            match values.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                None => values.push((name, value.to_vec())),
                Some((known, values)) => {
                    values.extend_from_slice(if known.eq_ignore_ascii_case(b"Cookie") { b"; " } else { b", " });
                    values.extend_from_slice(value);
                }
            }
        }
        for (name, value) in values {
            let name = variable(name);
            if !self.0.iter().any(|param| param.name.starts_with(HEADER) && param.name.eq_ignore_ascii_case(&name)) {
                put(&name, &value);
            }
        }
    }
}

/// `HTTP_X_NAME` for `X-Name`.
fn variable(name: &[u8]) -> Vec<u8> {
    let name = name.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() });
    HEADER.iter().copied().chain(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn words() {
        assert_eq!(findings("fastcgi_param A $host if_not_empty; uwsgi_param A b; scgi_param A b;"), [""; 0]);
        assert_eq!(findings("fastcgi_param A b maybe;"), ["invalid parameter \"maybe\""]);
        assert_eq!(findings("uwsgi_param A $nosuch;"), [""; 0]);
        assert_eq!(variable(b"X-Some_Name"), b"HTTP_X_SOME_NAME");
    }
}
