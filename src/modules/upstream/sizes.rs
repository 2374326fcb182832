//! What does not go together in the settings of a handler that passes requests on, which nginx finds when it has read the
//! `http` block: sizes of buffers, and zones of a cache that nobody has made.

use std::rc::Rc;

use crate::config::value::Template;
use crate::config::{Builder, Diagnostic, Section};
use crate::http::upstream::cache::Zones;
use crate::http::upstream::family::{Buffering, Exchange, RawBuffering, RawCache, RawExchange, check_sizes};
use crate::http::upstream::store::Store;

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

/// Looks for zones of a cache that are not there, and for blocks that both cache and store.
pub fn check_zones<C>(builder: &mut Builder, prefix: &str)
where
    C: Section<Raw = RawCache>,
{
    let Some(end) = builder.model.http_end else { return };
    let (cache, store) = (format!("{prefix}_cache"), format!("{prefix}_store"));
    let zones = builder.model.http.and_then(|http| builder.peek::<Zones>(http));
    let mut findings = Vec::new();
    for (number, scope) in builder.scopes.iter().enumerate() {
        let Some(raw) = builder.peek_number::<C>(number) else { continue };
        let is_cached = raw.zone.as_ref().is_some_and(|zone| zone.constant() != Some(b"off"));
        if is_cached && raw.store.as_ref().is_some_and(Store::is_on) {
            let is_either = |name: &str| name == cache || name == store;
            let said: Vec<_> = scope.applied.iter().filter(|applied| is_either(applied.row.name)).collect();
            if let [first, .., last] = said[..] {
                let message = format!("\"{}\" directive is incompatible with \"{}\"", last.row.name, first.row.name);
                findings.push(Diagnostic::emerg("cache-and-store", message).at(last.at));
            }
        }
        let zone = raw.zone.as_ref().and_then(Template::constant).filter(|zone| *zone != b"off");
        let Some(zone) = zone.map(String::from_utf8_lossy) else { continue };
        if !zones.is_some_and(|zones| zones.iter().any(|known| **known == *zone)) {
            let message = format!("\"{cache}\" zone \"{zone}\" is unknown");
            findings.push(Diagnostic::emerg("unknown-cache-zone", message).at(end));
        }
    }
    builder.diagnostics.extend(findings);
}
