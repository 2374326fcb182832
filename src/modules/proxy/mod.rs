//! ngx_http_proxy_module: requests are passed to HTTP servers.
//!
//! What it has in common with other modules that pass requests on is in [`crate::http::upstream`]; here are the URL
//! and what becomes of a path on its way, the head of the request, and what is changed in answers. Nothing is cached.

mod answer;
mod cookie;
mod headers;
mod pass;
mod redirect;
mod request;
mod uri;

use bytes::Bytes;

use crate::config::value::{Flag, Number, Size, Template};
use crate::config::{Declarations, SectionRow, Status, Value, VariableRow};
use crate::http::upstream::cache;
use crate::http::upstream::family::{buffering_settings, cache_settings, exchange_settings, tls_settings};
use crate::http::wire::header::Known;
use crate::http::{Module, Request};
use crate::modules::upstream::{check_sizes, check_tls, check_zones};
use crate::{choice, settings};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_proxy",
        sections: &[
            Exchange::ROW,
            Buffering::ROW,
            Tls::ROW,
            Cache::ROW,
            Settings::ROW,
            SectionRow::of::<pass::Pass>(&[]),
            SectionRow::of::<headers::Headers>(&[]),
            SectionRow::of::<redirect::Redirects>(&[]),
            SectionRow::of::<cookie::Cookies>(&[]),
        ],
        commands: &[
            pass::COMMANDS[0],
            headers::COMMANDS[0],
            redirect::COMMANDS[0],
            cookie::COMMANDS[0],
            cookie::COMMANDS[1],
            cookie::COMMANDS[2],
            cache::path_row("proxy_cache_path"),
        ],
        variables: VARIABLES,
    },
    finish: Some(|builder| {
        check_sizes::<Exchange, Buffering>(builder, "proxy");
        check_zones::<Cache>(builder, "proxy");
        check_tls::<Tls>(builder, "proxy", |builder, number| {
            builder.peek_number::<pass::Pass>(number).is_some_and(pass::RawPass::may_be_tls)
        });
    }),
    // Certificates and keys are read while the rights are there to do it.
    apply: Some(|compiled, _| {
        for settings in &compiled.config.settings {
            // What can't be made is said by the request that would need it.
            drop(settings.get::<Tls>().0.prepare("proxy"));
        }
    }),
    ..Module::EMPTY
};

exchange_settings!(Exchange "proxy");
buffering_settings!(Buffering "proxy");
cache_settings!(Cache "proxy");
tls_settings!(Tls "proxy");

settings! {
    /// What is particular to HTTP.
    pub struct Settings {
        /// The version of HTTP that upstreams are spoken to in. Keeping connections and websockets need 1.1.
        "proxy_http_version" HTTP_ALL = "1.0" => pub http_version: HttpVersion,
        /// The method of the requests; the client's if none is given.
        "proxy_method" HTTP_ALL = "" => pub method: Option<Template>,
        /// The body of the requests; the client's if none is given.
        "proxy_set_body" HTTP_ALL = "" => pub body: Option<Template>,
        /// Whether HEAD becomes GET for the cache in nginx.
        @cache::NOT_CACHED; "proxy_cache_convert_head" HTTP_ALL = "on" => pub convert_head: Flag,
        /// What tells answers apart in nginx's cache.
        @cache::NOT_CACHED; "proxy_cache_key" HTTP_ALL = "$scheme$proxy_host$request_uri" => pub key: Template,
        /// The size of a table in nginx.
        @Status::Ignored("tables grow as needed"); "proxy_headers_hash_max_size" HTTP_ALL = "512" => pub hash_max: Number,
        /// The size of a table's entries in nginx.
        @Status::Ignored("tables grow as needed"); "proxy_headers_hash_bucket_size" HTTP_ALL = "64" => pub hash_bucket: Number,
        /// The least room in a socket's buffer in nginx on FreeBSD.
        @Status::Ignored("the kernel decides"); "proxy_send_lowat" HTTP_ALL = "0" => pub send_lowat: Size,
        /// Whether headers behind the body of an answer are passed on. Upstreams send them to who says `TE: trailers` and
        /// `Connection: TE` (`proxy_set_header`).
        "proxy_pass_trailers" HTTP_ALL = "off" => pub trailers: Flag,
    }
}

choice! {
    /// `proxy_http_version`
    pub enum HttpVersion {
        /// HTTP/1.0
        "1.0" => V10,
        /// HTTP/1.1
        "1.1" => V11,
    }
}

const VARIABLES: &[VariableRow] = &[
    VariableRow::new(
        "proxy_host",
        |r, _| record(r, |host, _| host.clone()),
        "Host and port of the URL of `proxy_pass`.",
    )
    .volatile()
    .writable(|r, value| {
        let mut record = r.upstream_record_mut().borrow_mut();
        record.host = value.clone();
        record.said_host = Some(value);
    }),
    VariableRow::new("proxy_port", |r, _| record(r, |_, port| port.clone()), "The port of that URL.")
        .volatile()
        .writable(|r, value| {
            let mut record = r.upstream_record_mut().borrow_mut();
            record.port = value.clone();
            record.said_port = Some(value);
        }),
    VariableRow::new(
        "proxy_add_x_forwarded_for",
        |r, _| Some(forwarded_for(r)),
        "`X-Forwarded-For` of the request with the client's address added.",
    )
    .volatile(),
];

fn record(request: &Request, read: fn(&Bytes, &Bytes) -> Bytes) -> Value {
    let record = request.upstream_record()?.borrow();
    (!record.host.is_empty()).then(|| read(&record.host, &record.port))
}

fn forwarded_for(request: &Request) -> Bytes {
    let mut list = Vec::new();
    if request.head.known(Known::XForwardedFor).is_some() {
        for value in request.head.all(b"X-Forwarded-For") {
            list.extend_from_slice(value);
            list.extend_from_slice(b", ");
        }
    }
    list.extend_from_slice(request.peer.text().as_bytes());
    list.into()
}
