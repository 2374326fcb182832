//! The settings that all handlers have in common which pass requests on: proxy, fastcgi, uwsgi, scgi, grpc.
//!
//! A group of them is declared once, without the prefix; a room makes its rows from it with a macro, such as
//! `exchange_settings!(Exchange "proxy")`, which also gives the room a section of its own for its values.

#![allow(unused_qualifications, reason = "the kinds of value are named in the rooms that make rows of them, too")]

use std::time::Duration;

use super::ahead::Room;
use crate::config::value::{Value, parse_number};
use crate::config::{Args, Call, Cx, Fault};
use crate::http::settings::Buffers;

/// Declares a group of settings without their prefix, and the macro that makes a section of it for a prefix.
macro_rules! shared_settings {
    (
        ($d:tt) $make:ident
        $(#[doc = $section_doc:literal])*
        pub struct $section:ident / $raw:ident $(+ $extra:ident: $extra_kind:ty)? {
            $(
                $(#[doc = $doc:literal])*
                $(@$status:expr;)?
                $suffix:literal = $default:literal => $field:ident: $kind:ty
            ),* $(,)?
        }
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug)]
        pub struct $section {
            $($(#[doc = $doc])* pub $field: $kind,)*
            $(
                /// What is made of them when it is first needed.
                pub $extra: $extra_kind,
            )?
        }

        /// What one block says of them.
        #[derive(Clone, Debug, Default)]
        pub struct $raw {
            $($(#[doc = $doc])* pub $field: Option<$kind>,)*
        }

        impl $section {
            /// What the block says, else what holds around it, else the default.
            pub fn merge(raw: &$raw, parent: Option<&Self>) -> Self {
                Self {
                    $($field: match (&raw.$field, parent) {
                        (Some(own), _) => own.clone(),
                        (None, Some(parent)) => parent.$field.clone(),
                        (None, None) => <$kind as Value>::from_default($default),
                    },)*
                    $($extra: <$extra_kind>::default(),)?
                }
            }
        }

        macro_rules! $make {
            ($d name:ident $d prefix:literal) => {
                /// The settings that all handlers which pass requests on have in common.
                #[derive(Clone, Debug)]
                pub struct $d name(pub $crate::http::upstream::family::$section);

                impl $crate::config::Section for $d name {
                    type Raw = $crate::http::upstream::family::$raw;

                    fn merge(
                        raw: &Self::Raw,
                        parent: Option<&Self>,
                        _: &mut $crate::config::Merge<'_>,
                    ) -> Self {
                        Self($crate::http::upstream::family::$section::merge(raw, parent.map(|parent| &parent.0)))
                    }

                    fn slot() -> &'static $crate::config::Slot {
                        static SLOT: $crate::config::Slot = $crate::config::Slot::new();
                        &SLOT
                    }
                }

                impl $d name {
                    /// The rows of the directives.
                    pub const ROW: $crate::config::SectionRow = $crate::config::SectionRow::of::<Self>(&[
                        $($crate::config::Directive {
                            name: concat!($d prefix, $suffix),
                            contexts: $crate::config::Contexts::HTTP_ALL,
                            args: <$kind as $crate::config::value::Value>::ARGS,
                            once: <$kind as $crate::config::value::Value>::ONCE,
                            syntax: <$kind as $crate::config::value::Value>::SYNTAX,
                            default: $default,
                            $(status: $status,)?
                            doc: concat!($($doc, "\n"),*),
                            file: file!(),
                            apply: |cx, call| {
                                let value = <$kind as $crate::config::value::Value>::parse(call, cx)?;
                                let slot = &mut cx.edit::<Self>().$field;
                                <$kind as $crate::config::value::Value>::store(slot, value);
                                Ok(())
                            },
                            ..$crate::config::Directive::BASE
                        },)*
                    ]);
                }
            };
        }
        pub(crate) use $make;
    };
}

shared_settings! {
    ($) exchange_settings
    /// How an upstream is connected to, asked and read.
    pub struct Exchange / RawExchange {
        /// How long connecting may take; then 504.
        "_connect_timeout" = "60s" => connect_timeout: crate::config::value::Msec,
        /// How long the upstream may take nothing between two writes of the request; then 504.
        "_send_timeout" = "60s" => send_timeout: crate::config::value::Msec,
        /// How long the upstream may pause between two reads of its answer; then 504, or the end of an answer that has
        /// begun.
        "_read_timeout" = "60s" => read_timeout: crate::config::value::Msec,
        /// The largest head of an answer that is accepted; a larger one gives 502.
        "_buffer_size" = "4k" => buffer_size: crate::config::value::Size,
        /// Whether a request goes on when its client has gone.
        "_ignore_client_abort" = "off" => ignore_client_abort: crate::config::value::Flag,
        /// Whether answers of status 300 and more are replaced by what `error_page` says of their status.
        "_intercept_errors" = "off" => intercept_errors: crate::config::value::Flag,
        /// Whether TCP keep-alive is on for connections to upstreams.
        "_socket_keepalive" = "off" => socket_keepalive: crate::config::value::Flag,
        /// The address that connections to upstreams come from. It may have variables.
        "_bind" = "" => bind: crate::http::upstream::family::Bind,
        /// When a request is passed to the next server: `error`, `timeout`, `invalid_header`, statuses (`http_502` ...);
        /// `non_idempotent` allows it for POST, LOCK and PATCH that were sent; `off` never.
        "_next_upstream" = "error timeout" => next_upstream: crate::http::upstream::family::NextUpstream,
        /// How many servers a request may be passed to in all; 0: all of them.
        "_next_upstream_tries" = "0" => next_tries: crate::config::value::Number,
        /// For how long a request may be passed on; 0: no bound.
        "_next_upstream_timeout" = "0" => next_timeout: crate::config::value::Msec,
        /// Headers of answers that are not passed on, beside `Date`, `Server`, `X-Pad` and `X-Accel-...`.
        "_hide_header" = "" => hide: crate::http::upstream::family::Names,
        /// Headers that are passed on though they are left out by default.
        "_pass_header" = "" => pass: crate::http::upstream::family::Names,
        /// Headers of answers that have no effect here: `X-Accel-Redirect`, `X-Accel-Expires`, `X-Accel-Limit-Rate`,
        /// `X-Accel-Buffering`, `X-Accel-Charset`, `Expires`, `Cache-Control`, `Set-Cookie`, `Vary`.
        "_ignore_headers" = "" => ignored: crate::http::upstream::family::IgnoredHeaders,
        /// Whether the request's body is passed on.
        "_pass_request_body" = "on" => pass_body: crate::config::value::Flag,
        /// Whether the request's headers are passed on.
        "_pass_request_headers" = "on" => pass_headers: crate::config::value::Flag,
    }
}

shared_settings! {
    ($) buffering_settings
    /// How bodies are buffered on their way to and from an upstream.
    pub struct Buffering / RawBuffering {
        /// Whether an answer is read as fast as the upstream sends it, into memory and then a temporary file; off: as
        /// fast as the client takes it. `X-Accel-Buffering` may change it.
        "_buffering" = "on" => buffering: crate::config::value::Flag,
        /// How much of an answer is held in memory: a number of buffers, and their size.
        "_buffers" = "8 4k" => buffers: crate::http::settings::Buffers,
        /// How much of it may be on the way to the client in nginx.
        @crate::config::Status::Ignored("what the client takes decides"); "_busy_buffers_size" = "" => busy_buffers: Option<crate::config::value::Size>,
        /// The largest temporary file of an answer; 0: none.
        "_max_temp_file_size" = "1024m" => max_temp_file: crate::config::value::Size,
        /// How much is written to a temporary file at once.
        @crate::config::Status::Ignored("pieces are written as they come"); "_temp_file_write_size" = "" => temp_write: Option<crate::config::value::Size>,
        /// Where temporary files are, and how many digits of a file's number name the folders in it; the system's own
        /// folder where none is given. The folder is made at a start, for the user of the workers alone.
        "_temp_path" = "" => temp_path: Option<crate::http::TempPath>,
        /// Whether the request's body is read whole before the upstream is asked; off: it is sent as it comes.
        "_request_buffering" = "on" => request_buffering: crate::config::value::Flag,
        /// How fast an answer is read where it is buffered, in bytes a second; 0: no bound. It may have variables.
        "_limit_rate" = "0" => limit_rate: crate::http::rate::Amount,
        /// Whether ranges are served of answers that do not offer them: one at a time.
        "_force_ranges" = "off" => force_ranges: crate::config::value::Flag,
    }
}

shared_settings! {
    ($) tls_settings
    /// TLS to upstreams, for URLs that begin with `https://`.
    pub struct Tls / RawTls + ready: crate::http::upstream::tls::Ready {
        /// The name that the upstream's certificate is held against, and that is sent with `_ssl_server_name`. It may
        /// have variables; where none is given it is the host of the URL.
        "_ssl_name" = "" => name: Option<crate::config::value::Template>,
        /// Whether the name is sent to the upstream (SNI).
        "_ssl_server_name" = "off" => server_name: crate::config::value::Flag,
        /// Whether the upstream's certificate is checked.
        "_ssl_verify" = "off" => verify: crate::config::value::Flag,
        /// How many certificates may stand between the upstream's and a trusted one.
        "_ssl_verify_depth" = "1" => verify_depth: crate::config::value::Number,
        /// The certificates that are trusted, in a file.
        "_ssl_trusted_certificate" = "" => trusted: Option<crate::config::value::ConfPath>,
        /// Certificates that are not good any more, in a file.
        "_ssl_crl" = "" => crl: Option<crate::config::value::ConfPath>,
        /// The certificate that we show to the upstream, in a file. It may have variables; the file is read for each
        /// connection then, by the worker. An empty text: none.
        "_ssl_certificate" = "" => certificate: Option<crate::http::upstream::tls::Written>,
        /// The key of that certificate, in a file. It may have variables.
        "_ssl_certificate_key" = "" => key: Option<crate::http::upstream::tls::Written>,
        /// How many certificates and keys whose names have variables are kept, and for how long.
        "_ssl_certificate_cache" = "off" => certificate_cache: crate::http::tls::settings::CertificateCache,
        /// A file with the passwords of locked keys, one in each line; they are tried in turn.
        "_ssl_password_file" = "" => passwords: Option<crate::config::value::ConfPath>,
        /// The versions of TLS that may be spoken.
        @crate::config::Status::Partly("there are TLSv1.2 and TLSv1.3; older ones are accepted here and never spoken"); "_ssl_protocols" = "TLSv1.2 TLSv1.3" => protocols: crate::http::tls::settings::Protocols,
        /// The ciphers that may be used with TLS 1.2, in OpenSSL's words, which mean those of them that there are.
        @crate::config::Status::Partly("ciphers that rustls has not are left out; a list of nothing else means all that it has"); "_ssl_ciphers" = "DEFAULT" => ciphers: crate::config::value::Text,
        /// Commands of OpenSSL's configuration. `Ciphersuites` (of TLS 1.3), `CipherString`, `Groups`, `MinProtocol` and
        /// `MaxProtocol` are carried out.
        @crate::config::Status::Partly("other commands of OpenSSL are accepted without effect"); "_ssl_conf_command" = "" => commands: crate::http::tls::settings::Commands,
        /// Whether sessions are gone on with.
        "_ssl_session_reuse" = "on" => session_reuse: crate::config::value::Flag,
    }
}

shared_settings! {
    ($) cache_settings
    /// What is said of a cache, and of storing answers.
    pub struct Cache / RawCache {
        /// The zone in which answers are kept in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_cache" = "off" => zone: crate::config::value::Template,
        /// Whether an expired answer is refreshed beside the request in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_cache_background_update" = "off" => background_update: crate::config::value::Flag,
        /// When an answer is not taken from the cache in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_cache_bypass" = "" => bypass: crate::http::upstream::cache::Texts,
        /// Whether one request at a time fetches an answer in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_cache_lock" = "off" => lock: crate::config::value::Flag,
        /// For how long one request does so alone in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_cache_lock_age" = "5s" => lock_age: crate::config::value::Msec,
        /// For how long others wait for it in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_cache_lock_timeout" = "5s" => lock_timeout: crate::config::value::Msec,
        /// Up to where ranges are answered from the cache in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_cache_max_range_offset" = "0" => max_range_offset: crate::config::value::Size,
        /// The methods whose answers are kept in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_cache_methods" = "GET HEAD" => methods: crate::http::upstream::cache::Methods,
        /// After how many requests an answer is kept in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_cache_min_uses" = "1" => min_uses: crate::config::value::Number,
        /// Whether an expired answer is asked for by its date in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_cache_revalidate" = "off" => revalidate: crate::config::value::Flag,
        /// When an expired answer does in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_cache_use_stale" = "off" => use_stale: crate::http::upstream::family::NextUpstream,
        /// For how long answers of some statuses are kept in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_cache_valid" = "" => valid: crate::http::upstream::cache::Valid,
        /// When an answer is not kept in nginx.
        @crate::http::upstream::cache::NOT_CACHED; "_no_cache" = "" => no_cache: crate::http::upstream::cache::Texts,
        /// The file that an answer becomes, if its status is 200 and it is buffered: `on` is the one that `root` or `alias`
        /// has for the path, else it is a name with variables. It appears once it is whole, in folders that are made as
        /// needed, with the time of `Last-Modified`, whether or not its client is still there.\n\nExample:
        /// `location /images/ { root /data; error_page 404 = @fetch; }` and `location @fetch { internal; root /data;
        /// proxy_store on; proxy_pass http://app; }`
        "_store" = "off" => store: crate::http::upstream::store::Store,
        /// Who may read and write such files: `user`, `group` and `all`, with `r` or `rw`. Who may read may enter folders.
        "_store_access" = "user:rw" => store_access: crate::http::upstream::store::Access,
    }
}

shared_settings! {
    ($) script_settings
    /// What the servers of scripts are told.
    pub struct Scripts / RawScripts {
        /// A parameter that is passed to the servers. With `if_not_empty` one without a value is left out. A block that has
        /// one has none of those around it. The request's headers are passed as `HTTP_...` besides, unless a parameter has
        /// that name; an empty one keeps a header away.\n\n\
        /// Example: `fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;`
        "_param" = "" => params: crate::http::upstream::params::Params,
        /// What tells answers apart in nginx's cache.
        @crate::http::upstream::cache::NOT_CACHED; "_cache_key" = "" => cache_key: crate::config::value::Template,
    }
}

impl Buffering {
    /// How much of an answer is read ahead.
    pub(super) fn room(&self) -> Room {
        Room {
            memory: self.buffers.count * self.buffers.size,
            file: *self.max_temp_file,
            folder: self.temp_path.clone(),
        }
    }
}

/// `proxy_bind` and its like.
#[derive(Clone, Debug, Default)]
pub struct Bind {
    /// The address, perhaps with variables.
    pub address: Option<crate::config::value::Template>,
    /// `transparent`
    pub transparent: bool,
}

impl Value for Bind {
    const ARGS: Args = Args::between(1, 2);
    const SYNTAX: &'static str = "address [transparent] | off";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        if call.len() == 1 && call.bytes(0) == b"off" {
            return Ok(Self::default());
        }
        let address = crate::config::value::Template::word(call, 0, cx)?;
        if let Some(text) = address.constant() {
            let text = String::from_utf8_lossy(text);
            if bind_address(&text).is_none() {
                return Err(Fault::new(format!("invalid address \"{text}\"")).word(0));
            }
        }
        let transparent = match call.len() {
            1 => false,
            _ if call.bytes(1) == b"transparent" => true,
            _ => return Err(Fault::new(format!("invalid parameter \"{}\"", call.text(1))).word(1)),
        };
        Ok(Self { address: Some(address), transparent })
    }

    fn from_default(_: &'static str) -> Self {
        Self::default()
    }
}

/// An address without a port, or with one.
pub fn bind_address(text: &str) -> Option<std::net::SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse() {
        Ok(ip) => Some(std::net::SocketAddr::new(ip, 0)),
        Err(_) => text.parse().ok(),
    }
}

bitflags::bitflags! {
    /// When a request is passed to the next server.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct NextUpstream: u16 {
        /// Connecting, sending or reading failed.
        const ERROR = 1;
        /// It took too long.
        const TIMEOUT = 1 << 1;
        /// The answer is no good.
        const INVALID_HEADER = 1 << 2;
        /// 500
        const HTTP_500 = 1 << 3;
        /// 502
        const HTTP_502 = 1 << 4;
        /// 503
        const HTTP_503 = 1 << 5;
        /// 504
        const HTTP_504 = 1 << 6;
        /// 403
        const HTTP_403 = 1 << 7;
        /// 404
        const HTTP_404 = 1 << 8;
        /// 429
        const HTTP_429 = 1 << 9;
        /// Also for requests that may have had an effect.
        const NON_IDEMPOTENT = 1 << 10;
        /// Never.
        const OFF = 1 << 11;
        /// For the cache, which is not there.
        const UPDATING = 1 << 12;
    }
}

impl NextUpstream {
    const WORDS: [(&'static str, Self); 13] = [
        ("error", Self::ERROR),
        ("timeout", Self::TIMEOUT),
        ("invalid_header", Self::INVALID_HEADER),
        ("non_idempotent", Self::NON_IDEMPOTENT),
        ("http_500", Self::HTTP_500),
        ("http_502", Self::HTTP_502),
        ("http_503", Self::HTTP_503),
        ("http_504", Self::HTTP_504),
        ("http_403", Self::HTTP_403),
        ("http_404", Self::HTTP_404),
        ("http_429", Self::HTTP_429),
        ("updating", Self::UPDATING),
        ("off", Self::OFF),
    ];

    /// The condition that a status is.
    pub fn of_status(status: u16) -> Self {
        match status {
            500 => Self::HTTP_500,
            502 => Self::HTTP_502,
            503 => Self::HTTP_503,
            504 => Self::HTTP_504,
            403 => Self::HTTP_403,
            404 => Self::HTTP_404,
            429 => Self::HTTP_429,
            _ => Self::empty(),
        }
    }
}

impl Value for NextUpstream {
    const ARGS: Args = Args::SOME;
    const SYNTAX: &'static str = "error | timeout | invalid_header | http_500 | http_502 | http_503 | http_504 | \
                                  http_403 | http_404 | http_429 | non_idempotent | off ...";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        // Only what speaks HTTP may be a gateway itself.
        let is_http = ["proxy_", "grpc_"].iter().any(|prefix| call.name().starts_with(prefix));
        let is_known = |word: Self| is_http || !(Self::HTTP_502 | Self::HTTP_504).contains(word);
        let known: Vec<_> = Self::WORDS.into_iter().filter(|(_, word)| is_known(*word)).collect();
        words(call, cx, &known).map(|found| found.into_iter().fold(Self::empty(), |all, one| all | one))
    }

    fn from_default(_: &'static str) -> Self {
        Self::ERROR | Self::TIMEOUT
    }
}

/// Reads a list of known words, each once.
pub fn words<T: Copy + PartialEq>(
    call: &Call<'_>,
    cx: &mut Cx<'_>,
    known: &[(&'static str, T)],
) -> Result<Vec<T>, Fault> {
    let mut found = Vec::new();
    for index in 0..call.len() {
        let word = call.text(index);
        let value = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(&word)).map(|(_, value)| *value);
        let Some(value) = value else { return Err(Fault::new(format!("invalid value \"{word}\"")).word(index)) };
        if found.contains(&value) {
            cx.warn("duplicate-value", format!("duplicate value \"{word}\""), call);
        } else {
            found.push(value);
        }
    }
    Ok(found)
}

/// A list of header names; a block that names some has only those.
#[derive(Clone, Debug, Default)]
pub struct Names(pub Vec<Box<[u8]>>);

impl Names {
    /// Whether a name is in it, whatever its case.
    pub fn contain(&self, name: &[u8]) -> bool {
        self.0.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

impl Value for Names {
    const ONCE: bool = false;
    const SYNTAX: &'static str = "field";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(Self(vec![call.bytes(0).into()]))
    }

    fn from_default(_: &'static str) -> Self {
        Self::default()
    }

    fn store(slot: &mut Option<Self>, value: Self) {
        slot.get_or_insert_default().0.extend(value.0);
    }
}

/// A header of answers that can be told to have no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Ignorable {
    AccelRedirect,
    AccelExpires,
    AccelLimitRate,
    AccelBuffering,
    AccelCharset,
    Expires,
    CacheControl,
    SetCookie,
    Vary,
}

/// The headers that have no effect.
#[derive(Clone, Debug, Default)]
pub struct IgnoredHeaders(pub Vec<Ignorable>);

impl Value for IgnoredHeaders {
    const ARGS: Args = Args::SOME;
    const SYNTAX: &'static str = "field ...";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        const KNOWN: [(&str, Ignorable); 9] = [
            ("X-Accel-Redirect", Ignorable::AccelRedirect),
            ("X-Accel-Expires", Ignorable::AccelExpires),
            ("X-Accel-Limit-Rate", Ignorable::AccelLimitRate),
            ("X-Accel-Buffering", Ignorable::AccelBuffering),
            ("X-Accel-Charset", Ignorable::AccelCharset),
            ("Expires", Ignorable::Expires),
            ("Cache-Control", Ignorable::CacheControl),
            ("Set-Cookie", Ignorable::SetCookie),
            ("Vary", Ignorable::Vary),
        ];
        words(call, cx, &KNOWN).map(Self)
    }

    fn from_default(_: &'static str) -> Self {
        Self::default()
    }
}

impl IgnoredHeaders {
    /// Whether a header has an effect.
    pub fn heed(&self, header: Ignorable) -> bool {
        !self.0.contains(&header)
    }
}

/// The faults of sizes that do not go together, which nginx finds when it merges; `prefix` is `proxy` and its like.
pub fn check_sizes(prefix: &str, exchange: &Exchange, buffering: &Buffering) -> Option<String> {
    let Buffers { count, size } = buffering.buffers;
    let (count, size) = (count as u64, size as u64);
    if count < 2 {
        return Some(format!("there must be at least 2 \"{prefix}_buffers\""));
    }
    let largest = (*exchange.buffer_size).max(size);
    let busy = buffering.busy_buffers.map_or(2 * largest, |size| *size);
    if busy < largest {
        return Some(format!(
            "\"{prefix}_busy_buffers_size\" must be equal to or greater than the maximum of the value of \
             \"{prefix}_buffer_size\" and one of the \"{prefix}_buffers\""
        ));
    }
    if busy > (count - 1) * size {
        return Some(format!(
            "\"{prefix}_busy_buffers_size\" must be less than the size of all \"{prefix}_buffers\" minus one buffer"
        ));
    }
    let write = buffering.temp_write.map_or(2 * largest, |size| *size);
    if write < largest {
        return Some(format!(
            "\"{prefix}_temp_file_write_size\" must be equal to or greater than the maximum of the value of \
             \"{prefix}_buffer_size\" and one of the \"{prefix}_buffers\""
        ));
    }
    let most = *buffering.max_temp_file;
    if most != 0 && most < largest {
        return Some(format!(
            "\"{prefix}_max_temp_file_size\" must be equal to zero to disable temporary files usage or must be equal \
             to or greater than the maximum of the value of \"{prefix}_buffer_size\" and one of the \
             \"{prefix}_buffers\""
        ));
    }
    None
}

/// The parameters of a `server` in an upstream.
pub fn server_parameter(word: &str, server: &mut super::peers::Server) -> Option<()> {
    let number = |value: &str| parse_number(value.as_bytes());
    match word.split_once('=') {
        Some(("weight", value)) => server.weight = i64::try_from(number(value)?).ok().filter(|weight| *weight > 0)?,
        Some(("max_conns", value)) => server.max_conns = number(value)?,
        Some(("max_fails", value)) => server.max_fails = number(value)?,
        Some(("fail_timeout", value)) => {
            server.fail_timeout = Duration::from_secs(crate::config::value::parse_sec(value.as_bytes())?);
        }
        None if word == "backup" => server.backup = true,
        None if word == "down" => server.down = true,
        _ => return None,
    }
    Some(())
}
