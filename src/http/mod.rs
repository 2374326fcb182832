//! Stage 3: the request.
//!
//! HTTP/1 in front is an engine of our own ([`wire`] is its pure part): nginx's behaviour on the wire, byte by byte, is
//! what this program exists for. [`serve()`] reads heads and sends answers, [`Request::run`] walks a request through the
//! phases in which the [`modules`](crate::modules) have their handlers.

pub mod access;
mod body;
pub mod connection;
pub mod content;
mod ending;
pub mod error_page;
pub mod file;
mod fuzz;
pub mod gzip;
pub mod hook;
pub mod idle;
mod incoming;
pub mod limit;
mod log_line;
mod module;
pub mod open_files;
mod phases;
mod post_action;
mod proxied;
pub mod rate;
mod remembered;
mod request;
pub mod resolver;
mod response;
pub mod rewrite;
pub mod root;
mod send;
mod sent;
mod serve;
pub mod settings;
mod stream;
pub mod symlinks;
mod temp_file;
mod template;
pub mod tls;
mod trailers;
pub mod upstream;
pub mod v2;
pub mod wire;

pub use body::Received;
pub use connection::{Connection, Peer};
pub use fuzz::fuzz_site;
pub use incoming::Incoming;
pub use log_line::LaterLog;
pub use module::{Filter, Handler, Jump, Module, Next, Phase};
pub use post_action::PostAction;
pub use remembered::Remembered;
pub use request::{Kind, Quoting, Request, Sent};
pub use response::{AlreadyTold, Body, BodyStream, Detached, FileBody, PIECE, Piece, Response, Takeover};
pub use sent::sent_header;
pub use serve::{Site, is_disconnect, serve};
pub use stream::Stream;
pub use temp_file::{TempFile, TempPath};
pub use trailers::sent_trailer;
