//! One room for each nginx module.
//!
//! The list is in nginx's order, and the order is behaviour: handlers of a phase and filters run from its end to its
//! beginning, as in nginx.

pub mod access;
pub mod addition;
pub mod auth_basic;
pub mod auth_request;
pub mod autoindex;
pub mod charset;
pub mod core;
pub mod empty_gif;
pub mod events;
pub mod fastcgi;
pub mod geo;
pub mod gunzip;
pub mod gzip;
pub mod gzip_static;
pub mod headers;
pub mod http_core;
pub mod http_v2;
pub mod index;
pub mod limit_conn;
pub mod limit_req;
pub mod log;
pub mod map;
pub mod memcached;
pub mod mirror;
pub mod not_modified;
pub mod postgres;
pub mod proxy;
pub mod push_stream;
pub mod random_index;
pub mod range;
pub mod realip;
pub mod referer;
pub mod rewrite;
pub mod scgi;
pub mod secure_link;
pub mod set_misc;
pub mod split_clients;
pub mod ssl;
pub mod static_files;
pub mod stub_status;
pub mod sub;
pub mod try_files;
pub mod upstream;
pub mod userid;
pub mod uwsgi;

use crate::http::Module;

/// All modules, in nginx's order.
#[rustfmt::skip]
pub static MODULES: &[Module] = &[
    core::MODULE,
    events::MODULE,
    http_core::MODULE,
    log::MODULE,
    http_v2::MODULE,
    static_files::MODULE,
    gzip_static::MODULE,
    autoindex::MODULE,
    index::MODULE,
    random_index::MODULE,
    mirror::MODULE,
    try_files::MODULE,
    auth_request::MODULE,
    auth_basic::MODULE,
    access::MODULE,
    limit_conn::MODULE,
    limit_req::MODULE,
    realip::MODULE,
    geo::MODULE,
    map::MODULE,
    split_clients::MODULE,
    referer::MODULE,
    rewrite::MODULE,
    ssl::MODULE,
    proxy::MODULE,
    fastcgi::MODULE,
    uwsgi::MODULE,
    scgi::MODULE,
    memcached::MODULE,
    empty_gif::MODULE,
    secure_link::MODULE,
    upstream::MODULE,
    stub_status::MODULE,
    push_stream::MODULE,
    range::MODULE,
    gzip::MODULE,
    // Where nginx's postpone filter joins what subrequests answer, each with filters of its own.
    addition::MODULE,
    charset::MODULE,
    sub::MODULE,
    gunzip::MODULE,
    userid::MODULE,
    headers::MODULE,
    not_modified::MODULE,
    set_misc::MODULE,
    postgres::MODULE,
];
