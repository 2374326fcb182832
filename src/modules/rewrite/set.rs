//! `set`

use std::sync::Arc;

use bytes::Bytes;

use super::Settings;
use crate::config::value::Template;
use crate::config::{Call, Cx, Fault, VarId, name_of};
use crate::http::Request;
use crate::http::rewrite::{Flow, Step, push_step};
use crate::server::log::Level;

struct Set {
    variable: VarId,
    value: Template,
}

/// Adds the step.
pub(super) fn set(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let name = name_of(call.bytes(0)).map_err(|fault| fault.word(0))?;
    let variable = cx.variables().assigned(&name).map_err(|fault| fault.word(0))?;
    cx.variables().initially(variable, Arc::new(move |request| uninitialized(request, &name)));
    let value = Template::word(call, 1, cx)?;
    push_step(cx, Set { variable, value });
    Ok(())
}

impl Step for Set {
    fn run(&self, request: &mut Request) -> Flow {
        let value = request.eval(&self.value);
        request.set_variable(self.variable, Some(value));
        Flow::On
    }
}

/// What the variable reads where no `set` was reached: empty, but there.
#[allow(clippy::unnecessary_wraps, reason = "a variable may have no value")]
fn uninitialized(request: &Request, name: &str) -> Option<Bytes> {
    if *request.settings::<Settings>().warn_uninitialized {
        request.log(Level::Warn, &format!("using uninitialized \"{name}\" variable"));
    }
    Some(Bytes::new())
}
