//! ngx_http_upstream_module: the `upstream` block, its servers, and how connections to them are kept.

mod at_request;
mod block;
mod hash;
mod ip_hash;
mod keepalive;
mod least_conn;
mod method;
mod pass;
mod random;
mod resolve;
mod servers;
mod sizes;
mod ssl;
mod url;
mod variables;

pub use at_request::at_request;
pub use block::{Block, RawBlock, find, plain};
pub use pass::{Destination, Pass, Passer, RawPass, Variables, pass_to};
pub use servers::Servers;
pub use sizes::{check as check_sizes, check_zones};
pub use ssl::check_tls;
pub use url::{Url, UrlFault};

use crate::config::{Builder, Declarations, SectionRow};
use crate::http::Module;
use crate::http::upstream::cache::Zones;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_upstream",
        sections: &[
            SectionRow::of::<Block>(&[]),
            keepalive::Times::ROW,
            resolve::Own::ROW,
            SectionRow::of::<Zones>(&[]),
            SectionRow::of::<Pass>(&[]),
        ],
        commands: block::COMMANDS,
        variables: variables::VARIABLES,
    },
    finish: Some(finish),
    apply: Some(resolve::apply),
    ..Module::EMPTY
};

fn finish(builder: &mut Builder) {
    block::finish(builder);
    resolve::finish(builder);
}
