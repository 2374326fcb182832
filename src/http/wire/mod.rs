//! HTTP/1 as nginx speaks it: bytes in, values out.
//!
//! No socket, no clock, no configuration and no task in here: the caller reads, writes, and says what time it is. The
//! request side accepts and refuses exactly what nginx 1.28 does, with the words of its error log; the response side
//! lays out heads and pages byte for byte as nginx would.

pub mod authorization;
pub mod body;
pub mod conditional;
pub mod date;
pub mod escape;
pub mod head;
pub mod header;
pub mod host;
pub mod lookup;
pub mod method;
pub mod packets;
pub mod pages;
pub mod proxy_protocol;
pub mod range;
pub mod records;
pub mod request_line;
pub mod response;
pub mod upstream_head;
pub mod uri;
pub mod user_agent;

mod ascii;
mod span;
