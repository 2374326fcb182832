//! The servers behind an address that a directive names.

use std::sync::Arc;

use super::{Block, Url, plain};
use crate::config::{Config, Diagnostic, Merge, Position, ScopeId};
use crate::http::upstream::Upstream;

/// The servers behind an address without variables.
#[derive(Clone, Debug)]
pub enum Servers {
    /// Those of an `upstream` block.
    Block(ScopeId),
    /// Those of an address.
    Plain(Arc<Upstream>),
    /// A name that was not found; said already.
    Unknown,
}

impl Servers {
    /// Looks them up, and says what is wrong with the address.
    pub fn find(url: &Url, at: Position, cx: &mut Merge<'_>) -> Self {
        if let Some((_, upstream)) = cx.model.upstream(&url.host) {
            let scope = upstream.scope;
            if url.has_port {
                let message = format!("upstream \"{}\" may not have port {}", url.host, url.port);
                cx.report(Diagnostic::emerg("upstream-port", message).at(at));
            }
            return Self::Block(scope);
        }
        let is_path = url.host.starts_with("unix:");
        if url.port == 0 && !is_path {
            cx.report(Diagnostic::emerg("no-port", format!("no port in upstream \"{}\"", url.host)).at(at));
            return Self::Unknown;
        }
        let name = if is_path { url.host.clone() } else { format!("{}:{}", url.host, url.port) };
        plain(&name, &url.host, url.port, cx).map_or_else(
            || {
                let message = format!("host not found in upstream \"{}\"", url.host);
                cx.report(Diagnostic::emerg("unknown-host", message).at(at));
                Self::Unknown
            },
            Self::Plain,
        )
    }

    /// The upstream, in a configuration that holds.
    pub fn get<'c>(&'c self, config: &'c Config) -> Option<&'c Arc<Upstream>> {
        match self {
            Self::Plain(upstream) => Some(upstream),
            Self::Block(scope) => config.settings(*scope).get::<Block>().0.as_ref(),
            Self::Unknown => None,
        }
    }
}
