//! ngx_http_fastcgi_module: requests are passed to FastCGI servers, such as PHP-FPM.
//!
//! What it has in common with other modules that pass requests on is in [`crate::http::upstream`]. Nothing is cached.

mod answer;
mod params;
mod pass;
mod path;
mod request;

use crate::config::value::{Flag, Size, Template, Text};
use crate::config::{Declarations, SectionRow, Status};
use crate::http::Module;
use crate::http::upstream::cache;
use crate::http::upstream::family::{Names, buffering_settings, cache_settings, exchange_settings};
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_fastcgi",
        sections: &[
            Exchange::ROW,
            Buffering::ROW,
            Cache::ROW,
            Settings::ROW,
            SectionRow::of::<pass::Pass>(&[]),
            SectionRow::of::<params::Params>(&[]),
            SectionRow::of::<path::Split>(&[]),
        ],
        commands: &[pass::COMMANDS[0], params::COMMANDS[0], path::COMMANDS[0], cache::path_row("fastcgi_cache_path")],
        variables: path::VARIABLES,
    },
    finish: Some(|builder| {
        crate::modules::upstream::check_sizes::<Exchange, Buffering>(builder, "fastcgi");
        crate::modules::upstream::check_zones::<Cache>(builder, "fastcgi");
    }),
    ..Module::EMPTY
};

exchange_settings!(Exchange "fastcgi");
buffering_settings!(Buffering "fastcgi");
cache_settings!(Cache "fastcgi");

settings! {
    /// What is particular to FastCGI.
    pub struct Settings {
        /// The file that stands for a path that ends with a slash, in `$fastcgi_script_name`.
        "fastcgi_index" HTTP_ALL = "" => pub index: Text,
        /// Whether the server is asked to keep connections; an `upstream` with `keepalive` needs it.
        "fastcgi_keep_conn" HTTP_ALL = "off" => pub keep_conn: Flag,
        /// Texts in what the application complains of that make its answer a bad one.
        "fastcgi_catch_stderr" HTTP_ALL = "" => pub catch_stderr: Names,
        /// What tells answers apart in nginx's cache.
        @cache::NOT_CACHED; "fastcgi_cache_key" HTTP_ALL = "" => pub key: Template,
        /// The least room in a socket's buffer in nginx on FreeBSD.
        @Status::Ignored("the kernel decides"); "fastcgi_send_lowat" HTTP_ALL = "0" => pub send_lowat: Size,
    }
}
