//! The variables of the request and its answer.

use bytes::Bytes;

use crate::config::{ListenAddress, Value, VariableRow};
use crate::http::wire::authorization::Basic;
use crate::http::wire::header::Known;
use crate::http::wire::lookup;
use crate::http::{Peer, Request, rate, root, sent_header, sent_trailer};
use crate::server::log::Level;
use crate::server::{clock, local_time};

/// The rows that this file brings.
pub(super) const VARIABLES: &[VariableRow] = &[
    VariableRow::new(
        "arg_",
        |r, name| text(lookup::argument(&r.args, name.as_bytes())?),
        "An argument of the request.",
    )
    .volatile(),
    VariableRow::new("args", |r, _| some(&r.args), "The arguments, as they are.").writable(|r, value| {
        r.args = value;
        r.is_uri_as_sent = false;
    }),
    VariableRow::new("query_string", |r, _| some(&r.args), "The same as `$args`.").volatile(),
    VariableRow::new(
        "is_args",
        |r, _| Some(Bytes::from_static(if r.args.is_empty() { b"" } else { b"?" })),
        "`?` if there are arguments.",
    )
    .volatile(),
    VariableRow::new("uri", |r, _| some(&r.uri), "The path, decoded and normalized.").volatile(),
    VariableRow::new("document_uri", |r, _| some(&r.uri), "The same as `$uri`.").volatile(),
    VariableRow::new("request_uri", |r, _| text(r.head.request_uri()), "The path and arguments as they were sent."),
    VariableRow::new("request", |r, _| text(r.head.request_line()), "The request line."),
    VariableRow::new("request_method", |r, _| some(&r.method_name), "The method.").volatile(),
    VariableRow::new("server_protocol", |r, _| text(r.head.protocol()), "`HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`."),
    VariableRow::new("scheme", |r, _| Some(Bytes::from_static(r.connection.scheme().as_bytes())), "`http` or `https`."),
    VariableRow::new(
        "https",
        |r, _| Some(Bytes::from_static(if r.connection.tls().is_some() { b"on" } else { b"" })),
        "`on` if the client speaks TLS.",
    ),
    VariableRow::new("host", host, "The host of the request line, or of `Host`, or else the server's name."),
    VariableRow::new("hostname", |_, _| Some(crate::sys::host_name().into()), "The machine's name."),
    VariableRow::new("server_name", |r, _| Some(r.server().name.clone()), "The first name of the server."),
    VariableRow::new("server_addr", server_addr, "The address that the client connected to."),
    VariableRow::new(
        "server_port",
        |r, _| Some(r.connection.local.map_or_else(Bytes::new, |local| local.port().to_string().into())),
        "The port that the client connected to.",
    ),
    VariableRow::new(
        "proxy_protocol_addr",
        |r, _| text(r.connection.proxied()?.source.address.as_bytes()),
        "The client's address in the header of the PROXY protocol.",
    ),
    VariableRow::new(
        "proxy_protocol_port",
        |r, _| port(r.connection.proxied()?.source.port),
        "The client's port in the header of the PROXY protocol.",
    ),
    VariableRow::new(
        "proxy_protocol_server_addr",
        |r, _| text(r.connection.proxied()?.destination.address.as_bytes()),
        "The address that the client connected to, in the header of the PROXY protocol.",
    ),
    VariableRow::new(
        "proxy_protocol_server_port",
        |r, _| port(r.connection.proxied()?.destination.port),
        "The port that the client connected to, in the header of the PROXY protocol.",
    ),
    VariableRow::new(
        "proxy_protocol_tlv_",
        proxied_field,
        "A field of the PROXY protocol's header (TLV): `alpn`, `authority`, `unique_id`, `netns`, `ssl`, `ssl_version`, \
         `ssl_cn`, `ssl_cipher`, `ssl_sig_alg`, `ssl_key_alg`, `ssl_verify`, or one by its number, as in `0xea`.",
    ),
    VariableRow::new("remote_addr", |r, _| Some(r.peer.text().into()), "The client's address.").volatile(),
    VariableRow::new("remote_port", remote_port, "The client's port.").volatile(),
    VariableRow::new("binary_remote_addr", binary_address, "The client's address in binary form.").volatile(),
    VariableRow::new("remote_user", remote_user, "The user of basic authentication, whether or not it was asked for."),
    VariableRow::new(
        "connection",
        |r, _| Some(r.connection.number.to_string().into()),
        "The number of the connection.",
    ),
    VariableRow::new(
        "connection_requests",
        |r, _| Some(r.connection.requests.get().to_string().into()),
        "How many requests the connection has carried.",
    ),
    VariableRow::new(
        "connection_time",
        |r, _| Some(seconds(clock::now().since(r.connection.accepted))),
        "How long the connection lasts, in seconds.",
    )
    .volatile(),
    VariableRow::new(
        "tcpinfo_rtt",
        |r, _| tcp_number(r, |tcp| tcp.tcpi_rtt),
        "How long a round trip takes on the client's connection, in microseconds. Empty in HTTP/2.",
    )
    .volatile(),
    VariableRow::new(
        "tcpinfo_rttvar",
        |r, _| tcp_number(r, |tcp| tcp.tcpi_rttvar),
        "By how much that varies. Empty in HTTP/2.",
    )
    .volatile(),
    VariableRow::new(
        "tcpinfo_snd_cwnd",
        |r, _| tcp_number(r, |tcp| tcp.tcpi_snd_cwnd),
        "How many segments may be under way to the client. Empty in HTTP/2.",
    )
    .volatile(),
    VariableRow::new(
        "tcpinfo_rcv_space",
        |r, _| tcp_number(r, |tcp| tcp.tcpi_rcv_space),
        "How many bytes the client may have under way. Empty in HTTP/2.",
    )
    .volatile(),
    VariableRow::new(
        "content_length",
        |r, _| {
            r.head.known_bytes(Known::ContentLength).or_else(|| r.body_length().map(|length| length.to_string().into()))
        },
        "The header `Content-Length`, or how long a body in chunks was that has been read; of one that nobody reads, how much is to come.",
    )
    .volatile(),
    VariableRow::new("content_type", |r, _| r.head.known_bytes(Known::ContentType), "The header `Content-Type`."),
    VariableRow::new(
        "http_",
        |r, name| Some(Bytes::copy_from_slice(&r.head.variable(name.as_bytes())?)),
        "A header of the request.",
    ),
    VariableRow::new("sent_http_", sent_header, "A header of the answer.").volatile(),
    VariableRow::new("sent_trailer_", sent_trailer, "A header that was sent behind the body.").volatile(),
    VariableRow::new("cookie_", |r, name| text(lookup::cookie(r.head.all(b"cookie"), name.as_bytes())?), "A cookie."),
    VariableRow::new("document_root", |r, _| Some(root::document_root(r)), "The folder of `root` or `alias`.")
        .volatile(),
    VariableRow::new("realpath_root", realpath_root, "The same with symbolic links followed.").volatile(),
    VariableRow::new("request_filename", |r, _| Some(path_text(root::map_uri(r))), "The file that the path names.")
        .volatile(),
    VariableRow::new(
        "request_body",
        |r, _| {
            let is_announced = r.head.content_length().is_some() || r.head.is_chunked() || r.head.is_open_ended();
            r.body().filter(|body| is_announced || !body.is_empty()).cloned()
        },
        "The body, once a handler has read it, unless it is in a file.",
    )
    .volatile(),
    VariableRow::new(
        "request_body_file",
        |r, _| r.body_file().map(|path| path_text(path.to_owned())),
        "The temporary file that the body is in. Others can open it with `client_body_in_file_only` alone.",
    )
    .volatile(),
    VariableRow::new(
        "request_length",
        |r, _| Some(r.length().to_string().into()),
        "The request's length, with its body.",
    )
    .volatile(),
    VariableRow::new(
        "request_time",
        |r, _| Some(seconds(clock::now().since(r.started))),
        "How long the request lasts, in seconds.",
    )
    .volatile(),
    VariableRow::new(
        "request_completion",
        |r, _| Some(Bytes::from_static(if r.sent.status > 0 && !r.sent.is_cut { b"OK" } else { b"" })),
        "`OK` if the request was answered whole.",
    )
    .volatile(),
    VariableRow::new("request_id", request_id, "Sixteen random bytes in hexadecimal."),
    VariableRow::new("status", |r, _| Some(format!("{:03}", r.status()).into()), "The status of the answer.")
        .volatile(),
    VariableRow::new(
        "body_bytes_sent",
        |r, _| Some(r.sent.body_bytes.to_string().into()),
        "Bytes of the answer's body that were sent.",
    )
    .volatile(),
    VariableRow::new("bytes_sent", |r, _| Some(r.sent.bytes.to_string().into()), "All bytes that were sent.")
        .volatile(),
    VariableRow::new("msec", |_, _| Some(seconds(clock::unix_time())), "The time, in seconds since 1970.").volatile(),
    VariableRow::new("time_local", time_local, "The time in the form of access logs.").volatile(),
    VariableRow::new("time_iso8601", time_iso8601, "The time in the form of ISO 8601.").volatile(),
    VariableRow::new("pid", |_, _| Some(std::process::id().to_string().into()), "The process's id."),
    VariableRow::new(
        "pipe",
        |r, _| Some(Bytes::from_static(if r.is_pipelined { b"p" } else { b"." })),
        "`p` if the request was pipelined.",
    ),
    VariableRow::new(
        "nginx_version",
        |_, _| Some(Bytes::from_static(b"1.28.0")),
        "The version of nginx that Pushgate stands for.",
    ),
    VariableRow::new(
        "limit_rate",
        |r, _| Some(r.limit_rate.unwrap_or_default().to_string().into()),
        "How many bytes of the answer are sent in a second, once that is known. Setting it goes before `limit_rate`.",
    )
    .writable(rate::set),
];

fn tcp_number(request: &Request, number: fn(&libc::tcp_info) -> u32) -> Value {
    Some(number(&request.connection.tcp_info()?).to_string().into())
}

/// What a request may lack: a bad one has neither method nor path.
fn some(bytes: &Bytes) -> Value {
    (!bytes.is_empty()).then(|| bytes.clone())
}

fn text(bytes: &[u8]) -> Value {
    Some(Bytes::copy_from_slice(bytes))
}

fn host(request: &Request, _: &str) -> Value {
    match request.head.host() {
        b"" => Some(request.server().name.clone()),
        host => text(host),
    }
}

fn remote_user(request: &Request, _: &str) -> Value {
    Basic::parse(request.head.known(Known::Authorization)?).map(|basic| basic.user.into())
}

fn server_addr(request: &Request, _: &str) -> Value {
    Some(match request.connection.local {
        Some(local) => local.ip().to_string().into(),
        None => {
            let listener = request.compiled.listeners.get(request.connection.listener)?;
            matches!(listener.address, ListenAddress::Unix(_)).then(|| listener.address.to_string().into())?
        }
    })
}

fn remote_port(request: &Request, _: &str) -> Value {
    match &request.peer {
        Peer::Ip(address) if address.port() > 0 => Some(address.port().to_string().into()),
        Peer::Ip(_) | Peer::Unix(_) => Some(Bytes::new()),
    }
}

fn port(port: u16) -> Value {
    Some(if port == 0 { Bytes::new() } else { port.to_string().into() })
}

fn proxied_field(request: &Request, name: &str) -> Value {
    match request.connection.proxied()?.field(name) {
        Ok(field) => text(&field?),
        Err(reason) => {
            request.log(Level::Error, &reason);
            None
        }
    }
}

fn binary_address(request: &Request, _: &str) -> Value {
    Some(match request.peer.ip() {
        Some(std::net::IpAddr::V4(address)) => Bytes::copy_from_slice(&address.octets()),
        Some(std::net::IpAddr::V6(address)) => Bytes::copy_from_slice(&address.octets()),
        None => Bytes::from_static(b"unix:"),
    })
}

fn path_text(path: std::path::PathBuf) -> Bytes {
    std::os::unix::ffi::OsStringExt::into_vec(path.into_os_string()).into()
}

fn realpath_root(request: &Request, _: &str) -> Value {
    let root = root::document_root(request);
    let root: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&root[..]);
    std::fs::canonicalize(root).ok().map(path_text)
}

fn seconds(time: std::time::Duration) -> Bytes {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis()).into()
}

fn request_id(_: &Request, _: &str) -> Value {
    let bytes: [u8; 16] = rand::random();
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

fn time_local(_: &Request, _: &str) -> Value {
    let time = local_time::now(clock::unix_seconds());
    text(&crate::http::wire::date::time_local(time.unix(), time.zone_minutes()))
}

fn time_iso8601(_: &Request, _: &str) -> Value {
    let time = local_time::now(clock::unix_seconds());
    text(&crate::http::wire::date::time_iso8601(time.unix(), time.zone_minutes()))
}
