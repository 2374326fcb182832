//! Servers that are known only when a request comes, as an address or a name with variables.

use std::net::SocketAddr;

use super::Url;
use crate::config::ListenAddress;
use crate::config::value::parse_address;
use crate::http::Request;
use crate::http::resolver::Resolving;
use crate::http::upstream::Upstream;
use crate::server::log::Level;

/// The servers of a URL; `None`: there are none, which was logged.
pub async fn at_request(request: &Request, url: &Url) -> Option<Upstream> {
    let text = if url.host.starts_with("unix:") { url.host.clone() } else { format!("{}:{}", url.host, url.port) };
    if let Ok(address) = parse_address(&text, url.port, false) {
        return Some(Upstream::plain(&text, &[address]));
    }
    let compiled = std::sync::Arc::clone(&request.compiled);
    let resolving = compiled.settings(request.location_id).get::<Resolving>();
    let Some(resolver) = &resolving.resolver.0 else {
        request.log(Level::Error, &format!("no resolver defined to resolve {}", url.host));
        return None;
    };
    match resolver.resolve(&url.host, *resolving.timeout).await {
        Ok(found) => {
            let address = |ip: &std::net::IpAddr| ListenAddress::Ip(SocketAddr::new(*ip, url.port));
            let mut addresses: Vec<_> = found.addresses.iter().map(address).collect();
            // As a request's choice begins with the first, each is to be the first at times.
            let turn = rand::random_range(0..addresses.len());
            addresses.rotate_left(turn);
            Some(Upstream::plain(&text, &addresses))
        }
        Err(failure) => {
            request.log(Level::Error, &format!("{} could not be resolved ({failure})", url.host));
            None
        }
    }
}
