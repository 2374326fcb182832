//! The settings of HTTP/2. `modules/http_v2` lists them.

use crate::config::value::{Flag, Number, Size, Value, parse_size};
use crate::config::{Call, Cx, Fault, Status};
use crate::settings;

settings! {
    /// HTTP/2 to clients.
    pub struct Http2 {
        /// Whether clients may speak HTTP/2: those of TLS that ask for it, and those of a plain connection that begin
        /// with its preface. The default server of an address decides where no name is known yet.
        "http2" HTTP_SERVER = "off" => pub on: Flag,
        /// How many requests of one connection may be under way.
        "http2_max_concurrent_streams" HTTP_SERVER = "128" => pub streams: Number,
        /// How much of a request's body a client may send before somebody reads it; at least 16k here.
        "http2_body_preread_size" HTTP_SERVER = "64k" => pub preread: Preread,
        /// How large the pool of a stream is in nginx.
        @Status::Ignored("memory is not pooled"); "http2_pool_size" HTTP_SERVER = "4k" => pub pool: Pool,
        /// How large nginx's table of a connection's streams is.
        @Status::Ignored("tables grow as needed"); "http2_streams_index_size" HTTP_SERVER = "32" => pub index: Index,
    }
}

settings! {
    /// Reading, on the level of `http`.
    pub struct Receiving {
        /// How large a worker's buffer for what clients send is in nginx.
        @Status::Ignored("each connection has a small buffer"); "http2_recv_buffer_size" HTTP = "256k" => pub buffer: Buffer,
    }
}

settings! {
    /// Sending.
    pub struct Chunks {
        /// How long a frame of an answer's body is at most.
        "http2_chunk_size" HTTP_ALL = "8k" => pub size: Chunk,
    }
}

/// The longest frame that a client can be sent without its leave.
const MAX_FRAME: u64 = (1 << 24) - 1;

/// The largest window.
const MAX_WINDOW: u64 = (1 << 31) - 1;

macro_rules! sizes {
    ($($(#[doc = $doc:literal])* $name:ident, $check:expr;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(pub u64);

        impl Value for $name {
            const SYNTAX: &'static str = "size";

            fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
                let check: fn(u64, &Call<'_>) -> Result<u64, Fault> = $check;
                check(*Size::parse(call, cx)?, call).map(Self)
            }

            fn from_default(text: &'static str) -> Self {
                Self(parse_size(text.as_bytes()).unwrap_or_default())
            }
        }
    )*};
}

sizes! {
    /// `http2_body_preread_size`
    Preread, |size, _| match size {
        0..=MAX_WINDOW => Ok(size),
        _ => Err(Fault::new(format!("the maximum body preread buffer size is {MAX_WINDOW}")).word(0)),
    };
    /// `http2_pool_size`
    Pool, |size, _| match size {
        0..512 => Err(Fault::new("the pool size must be no less than 512").word(0)),
        _ if size % 16 > 0 => Err(Fault::new("the pool size must be a multiple of 16").word(0)),
        _ => Ok(size),
    };
    /// `http2_recv_buffer_size`
    Buffer, |size, call| match size {
        0..=16 => Err(call.fault("value is too small").word(0)),
        _ => Ok(size),
    };
    /// `http2_chunk_size`
    Chunk, |size, _| match size {
        0 => Err(Fault::new("the http2 chunk size cannot be zero").word(0)),
        _ => Ok(size.min(MAX_FRAME)),
    };
}

/// `http2_streams_index_size`
#[derive(Clone, Copy, Debug)]
pub struct Index(pub u64);

impl Value for Index {
    const SYNTAX: &'static str = "number";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let number = *Number::parse(call, cx)?;
        if !number.is_power_of_two() {
            return Err(call.fault("must be a power of two").word(0));
        }
        Ok(Self(number))
    }

    fn from_default(_: &'static str) -> Self {
        Self(32)
    }
}
