//! ngx_http_fastcgi_module: requests are passed to FastCGI servers, such as PHP-FPM.
//!
//! What it has in common with other modules that pass requests on is in [`crate::http::upstream`]. Nothing is cached.

mod answer;
mod path;
mod request;

use crate::config::value::{Flag, Size, Text};
use crate::config::{Args, Contexts, Declarations, Directive, SectionRow, Status};
use crate::http::Module;
use crate::http::upstream::cache;
use crate::http::upstream::family::{Names, buffering_settings, cache_settings, exchange_settings, script_settings};
use crate::modules::upstream::{Passer, Variables, check_sizes, check_zones, pass_to};
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_fastcgi",
        sections: &[
            Exchange::ROW,
            Buffering::ROW,
            Cache::ROW,
            Scripts::ROW,
            Settings::ROW,
            SectionRow::of::<path::Split>(&[]),
        ],
        commands: &[PASS, path::COMMANDS[0], cache::path_row("fastcgi_cache_path")],
        variables: path::VARIABLES,
    },
    finish: Some(|builder| {
        check_sizes::<Exchange, Buffering>(builder, "fastcgi");
        check_zones::<Cache>(builder, "fastcgi");
    }),
    ..Module::EMPTY
};

exchange_settings!(Exchange "fastcgi");
buffering_settings!(Buffering "fastcgi");
cache_settings!(Cache "fastcgi");
script_settings!(Scripts "fastcgi");

const PASS: Directive = Directive {
    name: "fastcgi_pass",
    contexts: Contexts::LOCATION.union(Contexts::IF_LOCATION),
    args: Args::ONE,
    syntax: "address",
    doc: "Passes a location's requests to a FastCGI server, or to those of an `upstream`. It may have variables.\n\n\
          Examples: `fastcgi_pass 127.0.0.1:9000;`, `fastcgi_pass unix:/run/php/php-fpm.sock;`",
    file: file!(),
    apply: |cx, call| pass_to(cx, call, &PASSER),
    ..Directive::BASE
};

static PASSER: Passer = Passer {
    handler: request::handle,
    schema: "fastcgi://",
    secure_schema: None,
    variables: Variables::YesWithRedirect,
};

settings! {
    /// What is particular to FastCGI.
    pub struct Settings {
        /// The file that stands for a path that ends with a slash, in `$fastcgi_script_name`.
        "fastcgi_index" HTTP_ALL = "" => pub index: Text,
        /// Whether the server is asked to keep connections; an `upstream` with `keepalive` needs it.
        "fastcgi_keep_conn" HTTP_ALL = "off" => pub keep_conn: Flag,
        /// Texts in what the application complains of that make its answer a bad one.
        "fastcgi_catch_stderr" HTTP_ALL = "" => pub catch_stderr: Names,
        /// The least room in a socket's buffer in nginx on FreeBSD.
        @Status::Ignored("the kernel decides"); "fastcgi_send_lowat" HTTP_ALL = "0" => pub send_lowat: Size,
    }
}
