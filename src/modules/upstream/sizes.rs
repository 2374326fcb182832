//! Sizes of buffers that do not go together, which nginx finds when it has read the `http` block.

use std::rc::Rc;

use crate::config::{Builder, Diagnostic, Section};
use crate::http::upstream::family::{Buffering, Exchange, RawBuffering, RawExchange, check_sizes};

/// Looks at the settings of every block; `prefix` is `proxy` and its like.
pub fn check<E, B>(builder: &mut Builder, prefix: &str)
where
    E: Section<Raw = RawExchange>,
    B: Section<Raw = RawBuffering>,
{
    let Some(at) = builder.model.http_end else { return };
    // What holds in a block; those that say nothing share it with the block around them.
    let mut known: Vec<Rc<(Exchange, Buffering)>> = Vec::with_capacity(builder.scopes.len());
    let mut fault = None;
    let (no_exchange, no_buffering) = (RawExchange::default(), RawBuffering::default());
    for (number, scope) in builder.scopes.iter().enumerate() {
        let parent = scope.parent.and_then(|parent| known.get(parent.number())).cloned();
        let (exchange, buffering) = (builder.peek_number::<E>(number), builder.peek_number::<B>(number));
        if let (None, None, Some(parent)) = (exchange, buffering, &parent) {
            known.push(Rc::clone(parent));
            continue;
        }
        let exchange = Exchange::merge(exchange.unwrap_or(&no_exchange), parent.as_ref().map(|both| &both.0));
        let buffering = Buffering::merge(buffering.unwrap_or(&no_buffering), parent.as_ref().map(|both| &both.1));
        fault = fault.or_else(|| check_sizes(prefix, &exchange, &buffering));
        known.push(Rc::new((exchange, buffering)));
    }
    builder.diagnostics.extend(fault.map(|fault| Diagnostic::emerg("buffer-sizes", fault).at(at)));
}
