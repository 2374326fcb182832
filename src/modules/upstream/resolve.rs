//! `server NAME resolve`: servers by names whose addresses are looked up again while the server runs.
//!
//! A task for each name asks again when an answer has held its time, and puts the servers in place of those before. What
//! is known stays in mind for the next configuration, so that a reload begins with it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::Block;
use crate::compile::Compiled;
use crate::config::{Builder, Diagnostic, ListenAddress};
use crate::http::resolver::{Failure, Resolver, Resolving, Servers};
use crate::http::upstream::Upstream;
use crate::http::upstream::peers::{Server, Target};
use crate::server::clock::{self, Moment};
use crate::server::live::{Live, log};
use crate::server::log::Level;
use crate::server::worker;
use crate::settings;

settings! {
    /// Who knows the addresses of an upstream's servers.
    pub struct Own {
        /// The name servers that are asked for the addresses of this upstream's servers with `resolve`; without it those of
        /// the `http` block.
        "resolver" UPSTREAM = "" => pub resolver: Servers,
        /// How long looking up a name may take; without it as in the `http` block.
        "resolver_timeout" UPSTREAM = "" => pub timeout: Option<crate::config::value::Msec>,
    }
}

/// A `server` with `resolve`.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// Its name.
    pub(super) host: String,
    /// The port, where DNS does not say it.
    pub(super) port: u16,
    /// `service=`: the name of SRV records to ask for.
    pub(super) service: Option<String>,
    /// What its servers have in common.
    pub(super) server: Server,
    /// Which `server` of the block it is.
    pub(super) origin: u32,
}

/// An address that was found, as DNS has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    address: SocketAddr,
    /// Of SRV; 0: none.
    weight: u16,
    is_backup: bool,
}

type Key = (String, u16, Option<String>);

/// What was found last.
static KNOWN: LazyLock<Mutex<HashMap<Key, Vec<Place>>>> = LazyLock::new(Mutex::default);

fn known() -> std::sync::MutexGuard<'static, HashMap<Key, Vec<Place>>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Named {
    fn key(&self) -> Key {
        (self.host.clone(), self.port, self.service.clone())
    }

    /// The name of the SRV records.
    fn service_name(&self, service: &str) -> String {
        match service.contains('.') {
            true => format!("{service}.{}", self.host),
            false => format!("_{service}._tcp.{}", self.host),
        }
    }

    fn servers(&self, places: &[Place]) -> Vec<Server> {
        let server = |place: &Place| {
            let own = &self.server;
            let weight = if own.weight == 1 && place.weight > 0 { place.weight.into() } else { own.weight };
            let target = Arc::new(Target::new(ListenAddress::Ip(place.address)));
            Server { target, weight, backup: own.backup || place.is_backup, ..own.clone() }
        };
        // Where the server is a backup itself, those behind the first priority have no use.
        places.iter().filter(|place| !(self.server.backup && place.is_backup)).map(server).collect()
    }

    /// Puts what is known of its addresses into the group.
    pub(super) fn begin(&self, upstream: &Upstream) {
        if let Some(places) = known().get(&self.key()) {
            upstream.group().replace(self.origin, &self.servers(places));
        }
    }

    /// Looks it up.
    async fn look_up(&self, resolver: &Resolver, timeout: Duration) -> Result<(Vec<Place>, Moment), Failure> {
        let Some(service) = &self.service else {
            let found = resolver.resolve(&self.host, timeout).await?;
            return Ok((places(&found.addresses, self.port, 0, false), found.until));
        };
        let found = resolver.services(&self.service_name(service), timeout).await?;
        let first = found.services.iter().map(|service| service.priority).min();
        let (mut all, mut until, mut failure) = (Vec::new(), found.until, None);
        for service in &found.services {
            match resolver.resolve(&service.host, timeout).await {
                Ok(found) => {
                    let is_backup = Some(service.priority) != first;
                    all.extend(places(&found.addresses, service.port, service.weight, is_backup));
                    until = until.min(found.until);
                }
                Err(why) => failure = Some(why),
            }
        }
        match failure {
            Some(why) if all.is_empty() => Err(why),
            _ => Ok((all, until)),
        }
    }
}

fn places(addresses: &[IpAddr], port: u16, weight: u16, is_backup: bool) -> Vec<Place> {
    addresses.iter().map(|ip| Place { address: SocketAddr::new(*ip, port), weight, is_backup }).collect()
}

/// Looks a name up again and again, as long as its upstream is in use.
async fn follow(named: Named, upstream: Weak<Upstream>, resolver: Arc<Resolver>, timeout: Duration) {
    const LEAST: Duration = Duration::from_secs(1);
    loop {
        let found = named.look_up(&resolver, timeout).await;
        let Some(upstream) = upstream.upgrade() else { return };
        let pause = match found {
            Ok((places, until)) => {
                upstream.group().replace(named.origin, &named.servers(&places));
                known().insert(named.key(), places);
                until.since(clock::now()).max(LEAST)
            }
            Err(failure) => {
                log(Level::Error, &format!("{} could not be resolved ({failure})", named.host));
                // Nobody has the name any more; otherwise what was known may still hold.
                if failure == Failure::NOT_FOUND {
                    upstream.group().replace(named.origin, &[]);
                    known().remove(&named.key());
                }
                timeout.clamp(LEAST, MOST)
            }
        };
        drop(upstream);
        tokio::time::sleep(pause).await;
    }
}

/// So long a failure is let be at most.
const MOST: Duration = Duration::from_secs(10);

/// A name to follow.
type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Begins to look up the names of a configuration.
pub(super) fn apply(compiled: &Compiled, live: &'static Live) {
    static TASKS: OnceLock<Option<UnboundedSender<Task>>> = OnceLock::new();
    let mut used = Vec::new();
    for upstream in &compiled.config.built.model.upstreams {
        let settings = compiled.config.settings(upstream.scope);
        let Block(Some(group), names) = settings.get::<Block>() else { continue };
        let (own, around) = (settings.get::<Own>(), settings.get::<Resolving>());
        let Some(resolver) = own.resolver.0.as_ref().or(around.resolver.0.as_ref()) else { continue };
        for named in names {
            used.push(named.key());
            let Some(tasks) = TASKS.get_or_init(|| start(live)) else { return };
            let timeout = own.timeout.map_or(*around.timeout, |timeout| *timeout);
            let task = follow(named.clone(), Arc::downgrade(group), Arc::clone(resolver), timeout);
            // The thread ends with the process only.
            drop(tasks.send(Box::pin(task)));
        }
    }
    known().retain(|key, _| used.contains(key));
}

/// A thread for all lookups: what comes from the network is read with a worker's rights.
fn start(live: &'static Live) -> Option<UnboundedSender<Task>> {
    let (tasks, orders) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
        if let Err(error) = run(live, orders) {
            live.log(Level::Emerg, &format!("names of upstreams are not looked up: {error}"));
        }
    });
    match thread {
        Ok(_) => Some(tasks),
        Err(error) => {
            live.log(Level::Emerg, &format!("names of upstreams are not looked up: {error}"));
            None
        }
    }
}

fn run(live: &Live, mut tasks: UnboundedReceiver<Task>) -> std::io::Result<()> {
    worker::become_user(live)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        while let Some(task) = tasks.recv().await {
            tokio::spawn(task);
        }
    });
    Ok(())
}

/// Sees to it that there is somebody to ask.
pub(super) fn finish(builder: &mut Builder) {
    let says = |scope, name| builder.scope(scope).applied.iter().any(|applied| applied.row.name == name);
    let mut findings = Vec::new();
    for upstream in &builder.model.upstreams {
        let names = builder.peek::<Block>(upstream.scope).is_some_and(super::RawBlock::has_names);
        let name = &upstream.name;
        let has_resolver =
            says(upstream.scope, "resolver") || builder.model.http.is_some_and(|http| says(http, "resolver"));
        let message = match names {
            false => continue,
            true if !says(upstream.scope, "zone") => {
                format!("resolving names at run time requires upstream \"{name}\" to be in shared memory")
            }
            true if !has_resolver => {
                format!("no resolver defined to resolve names at run time in upstream \"{name}\"")
            }
            true => continue,
        };
        let finding = Diagnostic::emerg("resolve", message);
        findings.push(match builder.scope(upstream.scope).at {
            Some(at) => finding.at(at),
            None => finding,
        });
    }
    builder.diagnostics.extend(findings);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn words() {
        let check = |directives: &str, expected: &[&str]| {
            // A server that is refused leaves the block empty, which is said too.
            let first: Vec<_> = findings(directives).into_iter().take(1).collect();
            assert_eq!(first, expected, "{directives}");
        };
        let with = |server: &str| format!("upstream u {{ zone u 64k; resolver 127.0.0.1; server {server}; }}");
        check(&with("a.test resolve"), &[]);
        check(&with("127.0.0.1 resolve"), &[]);
        check(&with("a.test service=x.y resolve"), &[]);
        check(&with("a.test service=http"), &["service upstream \"a.test\" requires \"resolve\" parameter"]);
        check(&with("a.test:80 service=http resolve"), &["service upstream \"a.test:80\" may not have port"]);
        check(&with("a.test service= resolve"), &["invalid parameter \"service=\""]);
        check("resolver 127.0.0.1; upstream u { zone u 64k; server a.test resolve; }", &[]);
        check(
            "upstream u { zone u 64k; server a.test resolve; }",
            &["no resolver defined to resolve names at run time in upstream \"u\""],
        );
        check(
            "upstream u { server a.test resolve; resolver 127.0.0.1; }",
            &["resolving names at run time requires upstream \"u\" to be in shared memory"],
        );
    }

    #[test]
    fn services_have_weights_and_backups() {
        let server = |weight, backup| Server { weight, backup, ..Server::plain(ListenAddress::Unix("".into()), "x") };
        let place = |weight, is_backup| Place { address: ([127, 0, 0, 1], 80).into(), weight, is_backup };
        let check = |own: Server, places: &[Place], expected: &[(i64, bool)]| {
            let named = Named { host: "x".into(), port: 80, service: None, server: own, origin: 0 };
            let servers = named.servers(places);
            let servers: Vec<_> = servers.iter().map(|server| (server.weight, server.backup)).collect();
            assert_eq!(servers, expected);
        };
        check(server(1, false), &[place(0, false), place(7, true)], &[(1, false), (7, true)]);
        check(server(5, false), &[place(0, false), place(7, false)], &[(5, false), (5, false)]);
        check(server(1, true), &[place(3, false), place(7, true)], &[(3, true)]);
    }
}
