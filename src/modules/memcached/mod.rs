//! ngx_http_memcached_module: answers with what memcached has under a key.
//!
//! What it has in common with other modules that pass requests on is in [`crate::http::upstream`].

mod answer;

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::config::value::{Flag, Msec, Number, Size, Template, Value};
use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot};
use crate::http::upstream::family::{
    Bind, Buffering, Cache, Exchange, NextUpstream, RawBuffering, RawCache, RawExchange, words,
};
use crate::http::upstream::{Payload, Plan, pass};
use crate::http::wire::escape::{Escape, escape};
use crate::http::wire::method::Method;
use crate::http::{Module, Next, Received, Request};
use crate::modules::http_core::content_type;
use crate::modules::upstream::{Pass, Passer, Variables, pass_to};
use crate::server::log::Level;
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_memcached",
        sections: &[Settings::ROW, SectionRow::of::<Key>(&[])],
        commands: &[PASS],
        variables: &[],
    },
    ..Module::EMPTY
};

settings! {
    /// How memcached is spoken to.
    pub struct Settings {
        /// How long connecting may take; then 504.
        "memcached_connect_timeout" HTTP_ALL = "60s" => pub connect_timeout: Msec,
        /// How long the server may take nothing between two writes of the request; then 504.
        "memcached_send_timeout" HTTP_ALL = "60s" => pub send_timeout: Msec,
        /// How long the server may pause between two reads of its answer; then 504, or the end of an answer that has begun.
        "memcached_read_timeout" HTTP_ALL = "60s" => pub read_timeout: Msec,
        /// The longest first line of an answer that is accepted; a longer one gives 502.
        "memcached_buffer_size" HTTP_ALL = "4k" => pub buffer_size: Size,
        /// Whether TCP keep-alive is on for connections to the servers.
        "memcached_socket_keepalive" HTTP_ALL = "off" => pub socket_keepalive: Flag,
        /// The address that connections to the servers come from. It may have variables.
        "memcached_bind" HTTP_ALL = "" => pub bind: Bind,
        /// When the next server is asked: `error`, `timeout`, `invalid_response`, `not_found`; `off` never.
        "memcached_next_upstream" HTTP_ALL = "error timeout" => pub next_upstream: NextServer,
        /// How many servers may be asked in all; 0: all of them.
        "memcached_next_upstream_tries" HTTP_ALL = "0" => pub next_tries: Number,
        /// For how long the next server may be asked; 0: no bound.
        "memcached_next_upstream_timeout" HTTP_ALL = "0" => pub next_timeout: Msec,
        /// A bit of a value's flags that says that the value is compressed: the answer has `Content-Encoding: gzip` then.
        "memcached_gzip_flag" HTTP_ALL = "0" => pub gzip_flag: Number,
    }
}

/// `memcached_next_upstream`
#[derive(Clone, Copy, Debug)]
pub struct NextServer(NextUpstream);

impl Value for NextServer {
    const ARGS: Args = Args::SOME;
    const SYNTAX: &'static str = "error | timeout | invalid_response | not_found | off ...";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        const KNOWN: [(&str, NextUpstream); 5] = [
            ("error", NextUpstream::ERROR),
            ("timeout", NextUpstream::TIMEOUT),
            ("invalid_response", NextUpstream::INVALID_HEADER),
            ("not_found", NextUpstream::HTTP_404),
            ("off", NextUpstream::OFF),
        ];
        words(call, cx, &KNOWN).map(|found| Self(found.into_iter().collect()))
    }

    fn from_default(text: &'static str) -> Self {
        Self(NextUpstream::from_default(text))
    }
}

const PASS: Directive = Directive {
    name: "memcached_pass",
    contexts: Contexts::LOCATION.union(Contexts::IF_LOCATION),
    args: Args::ONE,
    syntax: "address",
    doc: "Answers a location's requests with what a memcached server, or one of an `upstream`, has under the key that \
          `$memcached_key` is; 404 if it has nothing. The type is that of the path's extension.\n\n\
          Example: `set $memcached_key \"$uri?$args\"; memcached_pass 127.0.0.1:11211;`",
    file: file!(),
    apply: memcached_pass,
    ..Directive::BASE
};

static PASSER: Passer = Passer {
    handler: |request| Next::later(run(request)),
    schema: "memcached://",
    secure_schema: None,
    variables: Variables::No,
};

/// `$memcached_key`, which a configuration has to set.
#[derive(Clone, Debug)]
struct Key(Template);

impl Section for Key {
    type Raw = Option<Template>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self(raw.clone().or_else(|| parent.map(|parent| parent.0.clone())).unwrap_or_default())
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn memcached_pass(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    pass_to(cx, call, &PASSER)?;
    let key = Template::compile(b"$memcached_key", cx, None)?;
    *cx.edit::<Key>() = Some(key);
    Ok(())
}

impl Settings {
    /// The same as the engine wants it.
    fn exchange(&self) -> Exchange {
        static FIXED: LazyLock<Exchange> = LazyLock::new(|| Exchange {
            intercept_errors: Flag(true),
            ..Exchange::merge(&RawExchange::default(), None)
        });
        Exchange {
            connect_timeout: self.connect_timeout,
            send_timeout: self.send_timeout,
            read_timeout: self.read_timeout,
            buffer_size: self.buffer_size,
            socket_keepalive: self.socket_keepalive,
            bind: self.bind.clone(),
            next_upstream: self.next_upstream.0,
            next_tries: self.next_tries,
            next_timeout: self.next_timeout,
            ..FIXED.clone()
        }
    }
}

/// Values are sent as they come, and in ranges.
static BUFFERING: LazyLock<Buffering> = LazyLock::new(|| Buffering {
    buffering: Flag(false),
    force_ranges: Flag(true),
    ..Buffering::merge(&RawBuffering::default(), None)
});

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::merge(&RawCache::default(), None));

async fn run(request: &mut Request) -> Next<'static> {
    if !matches!(request.method, Method::Get | Method::Head) {
        return Next::Status(405);
    }
    let compiled = Arc::clone(&request.compiled);
    let settings = compiled.settings(request.location_id);
    let own = settings.get::<Settings>();
    let key = request.eval(&settings.get::<Key>().0);
    if key.is_empty() {
        request.log(Level::Error, "the \"$memcached_key\" variable is not set");
        return Next::Status(500);
    }
    let destination = match Pass::find(request).await {
        Ok(destination) => destination,
        Err(status) => return Next::Status(status),
    };
    let key = escape(&key, Escape::Memcached);
    let head = [b"get ", &key[..], b"\r\n"].concat();
    let mut protocol = answer::Memcached::new(&key, *own.gzip_flag, request.method == Method::Head);
    let exchange = own.exchange();
    let plan = Plan {
        upstream: destination.upstream,
        exchange: &exchange,
        buffering: &BUFFERING,
        cache: &CACHE,
        schema: destination.schema,
        uri: Bytes::new(),
        head: head.into(),
        body: Payload::Whole(Received::Memory(Bytes::new())),
        framing: None,
        tls: None,
    };
    match pass(request, plan, &mut protocol).await {
        Next::Answer(response) if response.status == 404 => Next::Status(404),
        Next::Answer(mut response) => {
            response.content_type = Some(content_type(request));
            Next::Answer(response)
        }
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn words() {
        let check = |directives: &str, expected: &[&str]| {
            let text = format!("server {{ location / {{ {directives} }} }}");
            assert_eq!(findings(&text), expected, "{directives}");
        };
        check("set $memcached_key $uri; memcached_pass 127.0.0.1:11211;", &[]);
        check("memcached_pass 127.0.0.1:11211;", &["unknown \"memcached_key\" variable"]);
        check("set $memcached_key $uri; memcached_pass $host;", &["no port in upstream \"$host\""]);
        check("memcached_next_upstream error timeout invalid_response not_found;", &[]);
        check("memcached_next_upstream http_404;", &["invalid value \"http_404\""]);
        check("memcached_gzip_flag x;", &["\"memcached_gzip_flag\" directive invalid number"]);
    }
}
