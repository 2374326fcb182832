//! The step of the rewrite phase that all these directives are.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::value::{Part, Template};
use crate::config::{Call, Cx, Fault, VarId, name_of};
use crate::http::rewrite::{Flow, Step, push_step};
use crate::http::{Next, Quoting, Request};
use crate::server::log::Level;

/// What a function is given.
#[derive(Clone, Copy)]
pub(super) struct In<'r> {
    request: Option<&'r Request>,
    texts: &'r [Bytes],
}

/// What comes of it; an error is what the log says.
pub(super) type Outcome = Result<Bytes, String>;

/// Computes a value.
pub(super) type Function = fn(In<'_>) -> Outcome;

impl<'r> In<'r> {
    /// The first text.
    pub(super) fn text(&self) -> &'r [u8] {
        self.at(0)
    }

    /// One of them.
    pub(super) fn at(&self, index: usize) -> &'r [u8] {
        self.texts.get(index).map_or(&[], |text| &text[..])
    }

    /// The request.
    pub(super) fn request(&self) -> Option<&'r Request> {
        self.request
    }

    /// Texts without a request, for tests.
    #[cfg(test)]
    pub(super) fn test(texts: &[&[u8]]) -> In<'static> {
        let texts: Vec<Bytes> = texts.iter().map(|text| Bytes::copy_from_slice(text)).collect();
        In { request: None, texts: Vec::leak(texts) }
    }
}

struct Assign {
    variable: VarId,
    texts: Box<[Template]>,
    function: Function,
    quoting: Option<Quoting>,
}

impl Step for Assign {
    fn run(&self, request: &mut Request) -> Flow {
        let texts: Vec<Bytes> = self.texts.iter().map(|text| request.eval(text)).collect();
        match (self.function)(In { request: Some(request), texts: &texts }) {
            Ok(value) => {
                match self.quoting {
                    None => request.set_variable(self.variable, Some(value)),
                    Some(quoting) => request.set_quoted(self.variable, value, quoting),
                }
                Flow::On
            }
            Err(message) => {
                request.log(Level::Error, &message);
                Flow::End(Next::Status(500))
            }
        }
    }
}

/// `$variable [text]`: without a text, the variable's own value is changed.
pub(super) fn filter(
    cx: &mut Cx<'_>,
    call: &Call<'_>,
    function: Function,
    quoting: Option<Quoting>,
) -> Result<(), Fault> {
    let variable = destination(cx, call)?;
    let text = match call.len() {
        1 => Template::part(Part::Variable(variable)),
        _ => Template::word(call, 1, cx)?,
    };
    push_step(cx, Assign { variable, texts: Box::new([text]), function, quoting });
    Ok(())
}

/// `$variable text ...`
pub(super) fn assign(cx: &mut Cx<'_>, call: &Call<'_>, function: Function) -> Result<(), Fault> {
    let variable = destination(cx, call)?;
    let texts = (1..call.len()).map(|index| Template::word(call, index, cx)).collect::<Result<_, _>>()?;
    push_step(cx, Assign { variable, texts, function, quoting: None });
    Ok(())
}

/// `$variable text ...`, where the variable's own value comes first.
pub(super) fn change(cx: &mut Cx<'_>, call: &Call<'_>, function: Function) -> Result<(), Fault> {
    let variable = destination(cx, call)?;
    let own = std::iter::once(Ok(Template::part(Part::Variable(variable))));
    let texts = own.chain((1..call.len()).map(|index| Template::word(call, index, cx))).collect::<Result<_, _>>()?;
    push_step(cx, Assign { variable, texts, function, quoting: None });
    Ok(())
}

/// The variable that the first word names.
pub(super) fn destination(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<VarId, Fault> {
    let name = name_of(call.bytes(0)).map_err(|fault| fault.word(0))?;
    let variable = cx.variables().assigned(&name).map_err(|fault| fault.word(0))?;
    cx.variables().initially(variable, Arc::new(move |request| uninitialized(request, &name)));
    Ok(variable)
}

/// What the variable reads where no step was reached: empty, but there.
#[expect(clippy::unnecessary_wraps, reason = "a variable may have no value")]
fn uninitialized(request: &Request, name: &str) -> Option<Bytes> {
    request.log(Level::Warn, &format!("using uninitialized \"{name}\" variable"));
    Some(Bytes::new())
}
