//! ngx_http_ssl_module: TLS to clients. Its settings, the handshake and what follows from it are in `http/tls`.

mod variables;

use crate::config::Declarations;
use crate::http::Module;
use crate::http::tls::settings::Tls;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_ssl",
        sections: &[Tls::ROW],
        commands: &[],
        variables: variables::VARIABLES,
    },
    ..Module::EMPTY
};
