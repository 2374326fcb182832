//! Stage 2: the merged configuration becomes immutable run-time tables.

mod hash;
mod locations;
mod phases;
mod server_names;

use std::collections::HashMap;

use bytes::Bytes;

pub use locations::{Found, LocationTree, find as find_location};
pub use phases::{Acting, Phases};
pub use server_names::{ServerNames, host_names};

use crate::config::{
    Config, Diagnostic, ListenAddress, ListenOptions, LocationDef, LocationKind, ScopeId, ServerDef, Settings,
    Severity, Variable,
};
use crate::http::settings::Heads;
use crate::http::tls::settings::Tls;
use crate::http::tls::{Loader, ServerSide};
use crate::http::{Handler, content};

/// Names a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u32);

/// Names a location. The first ones are the servers' own: what holds before a location is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocationId(pub u32);

/// Everything that a running server reads; never changed, replaced as a whole by a reload.
#[derive(Debug)]
pub struct Compiled {
    /// The configuration that it was made from.
    pub config: Config,
    /// The addresses to listen on, each once.
    pub listeners: Vec<Listener>,
    /// The servers.
    pub servers: Vec<Server>,
    /// Whether somewhere `$sent_http_…` is read, for which a request must keep its answer's headers.
    pub reads_sent_headers: bool,
    /// Whether somewhere `$ssl_ciphers` or `$ssl_curves` is read, for which a connection must keep what the client offered.
    pub reads_offers: bool,
    locations: Vec<Location>,
}

/// One address to listen on, and the servers behind it.
#[derive(Debug)]
pub struct Listener {
    /// The address.
    pub address: ListenAddress,
    /// What is set on the socket.
    pub options: ListenOptions,
    /// Whether clients speak TLS.
    pub ssl: bool,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
    /// Whether connections begin with a PROXY line.
    pub proxy_protocol: bool,
    /// Who answers a name that nobody has.
    pub default_server: ServerId,
    /// Whether one of its servers reads heads in a way of its own.
    pub heads_differ: bool,
    /// Who has which name.
    pub names: ServerNames,
}

/// A `server` block.
#[derive(Debug)]
pub struct Server {
    /// Its first name, for `$server_name` and redirects.
    pub name: Bytes,
    /// Its locations.
    pub tree: LocationTree,
    /// Its named locations.
    pub named: HashMap<Box<[u8]>, LocationId>,
    /// How it speaks TLS.
    pub tls: Option<ServerSide>,
}

/// A location, or a server's own settings.
#[derive(Debug)]
pub struct Location {
    /// Its block.
    pub scope: ScopeId,
    /// Its name as written; empty for a server's own.
    pub name: Bytes,
    /// Its server.
    pub server: ServerId,
    /// The locations inside it.
    pub tree: LocationTree,
    /// `^~`
    pub no_regex: bool,
    /// `=`
    pub is_exact: bool,
    /// `@name`
    pub is_named: bool,
    /// `~`, `~*`
    pub is_regex: bool,
    /// What answers its requests; `None`: the content phase.
    pub handler: Option<Handler>,
    /// The modules that have something to do here.
    pub acting: Acting,
}

impl Location {
    /// The length of its path.
    pub fn path_len(&self) -> usize {
        self.name.len()
    }
}

impl Compiled {
    /// Compiles a configuration; new findings are added to its diagnostics.
    pub fn new(mut config: Config) -> Self {
        let mut findings = Vec::new();
        let mut loader = Loader::default();
        let sides = config.built.model.servers.iter();
        let sides: Vec<_> =
            sides.map(|server| ServerSide::new(&config, server.scope, &mut loader, &mut findings)).collect();
        let listeners = listeners(&config, &mut findings);
        bare_listeners(&config, &listeners, &mut findings);
        config.built.diagnostics.extend(findings);
        let servers = config.built.model.servers.len();
        let id = |location: usize| LocationId(u32::try_from(servers + location).expect("fewer than 2^32 locations"));
        let trees = |numbers: &[usize]| tree(&config, numbers, &id);

        let mut locations: Vec<Location> = Vec::with_capacity(servers + config.built.model.locations.len());
        let mut compiled_servers = Vec::with_capacity(servers);
        for ((number, server), tls) in config.built.model.servers.iter().enumerate().zip(sides) {
            let server_id = ServerId(u32::try_from(number).expect("fewer than 2^32 servers"));
            locations.push(Location {
                scope: server.scope,
                name: Bytes::new(),
                server: server_id,
                tree: LocationTree::default(),
                no_regex: false,
                is_exact: false,
                is_named: false,
                is_regex: false,
                handler: None,
                acting: Acting::under(config.settings(server.scope)),
            });
            compiled_servers.push(Server {
                name: first_name(server),
                tree: trees(&server.locations),
                named: named(&config, &server.locations, &id),
                tls,
            });
        }
        for location in &config.built.model.locations {
            locations.push(compile_location(&config, location, trees(&location.children)));
        }
        let is_sent_header = |variable: &Variable| matches!(&variable.source, crate::config::Source::BuiltIn { row, .. } if row.name == "sent_http_");
        let reads_sent_headers = config.variables.iter().any(is_sent_header);
        let is_offer = |variable: &Variable| matches!(&*variable.name, "ssl_ciphers" | "ssl_curves");
        let reads_offers = config.variables.iter().any(is_offer);
        Self { config, reads_sent_headers, reads_offers, listeners, servers: compiled_servers, locations }
    }

    /// What listens on an address.
    pub fn listener(&self, address: &ListenAddress) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.address == *address)
    }

    /// A location.
    pub fn location(&self, id: LocationId) -> &Location {
        &self.locations[id.0 as usize]
    }

    /// A server.
    pub fn server(&self, id: ServerId) -> &Server {
        &self.servers[id.0 as usize]
    }

    /// The settings of a location.
    pub fn settings(&self, id: LocationId) -> &Settings {
        self.config.settings(self.location(id).scope)
    }

    /// The location that stands for a server before one is found.
    pub fn server_location(&self, id: ServerId) -> LocationId {
        LocationId(id.0)
    }

    /// The run-time number of a location of the configuration.
    pub fn location_id(&self, definition: usize) -> LocationId {
        LocationId(u32::try_from(self.servers.len() + definition).expect("fewer than 2^32 locations"))
    }

    /// The settings of the `http` block, or of the file if there is none.
    pub fn http(&self) -> &Settings {
        match self.config.built.model.http {
            Some(scope) => self.config.settings(scope),
            None => self.config.main(),
        }
    }

    /// The variables, by their number.
    pub fn variables(&self) -> &[Variable] {
        &self.config.variables
    }
}

fn first_name(server: &ServerDef) -> Bytes {
    let first = server.names.first().map(|(_, written, _)| written.strip_prefix('.').unwrap_or(written));
    first.map_or_else(Bytes::new, |name| Bytes::copy_from_slice(name.as_bytes()))
}

fn compile_location(config: &Config, location: &LocationDef, tree: LocationTree) -> Location {
    let path = match &location.kind {
        LocationKind::Exact(path) | LocationKind::Prefix { path, .. } | LocationKind::Named(path) => path.as_slice(),
        LocationKind::Regex(_) | LocationKind::Nameless => location.name.as_bytes(),
    };
    Location {
        scope: location.scope,
        name: Bytes::copy_from_slice(path),
        server: ServerId(u32::try_from(location.server).expect("fewer than 2^32 servers")),
        tree,
        no_regex: matches!(location.kind, LocationKind::Prefix { no_regex: true, .. }),
        is_exact: matches!(location.kind, LocationKind::Exact(_)),
        is_named: matches!(location.kind, LocationKind::Named(_)),
        is_regex: matches!(location.kind, LocationKind::Regex(_)),
        handler: config.settings(location.scope).get::<content::Content>().handler,
        acting: Acting::under(config.settings(location.scope)),
    }
}

fn tree(config: &Config, numbers: &[usize], id: &dyn Fn(usize) -> LocationId) -> LocationTree {
    let mut tree = LocationTree::default();
    for number in numbers {
        let location = &config.built.model.locations[*number];
        match &location.kind {
            LocationKind::Exact(path) => tree.add_exact(path, id(*number)),
            LocationKind::Prefix { path, .. } => {
                let auto_redirect = config.settings(location.scope).get::<content::Content>().auto_redirect;
                tree.add_prefix(path, id(*number), auto_redirect);
            }
            LocationKind::Regex(regex) => tree.add_regex(regex.clone(), id(*number)),
            LocationKind::Named(_) | LocationKind::Nameless => {}
        }
    }
    tree.finish();
    tree
}

fn named(config: &Config, numbers: &[usize], id: &dyn Fn(usize) -> LocationId) -> HashMap<Box<[u8]>, LocationId> {
    let locations = numbers.iter().map(|number| (*number, &config.built.model.locations[*number].kind));
    locations
        .filter_map(|(number, kind)| match kind {
            LocationKind::Named(name) => Some((name.as_slice().into(), id(number))),
            LocationKind::Exact(_) | LocationKind::Prefix { .. } | LocationKind::Regex(_) | LocationKind::Nameless => {
                None
            }
        })
        .collect()
}

/// Gathers the servers of each address.
fn listeners(config: &Config, findings: &mut Vec<Diagnostic>) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for (number, server) in config.built.model.servers.iter().enumerate() {
        let id = ServerId(u32::try_from(number).expect("fewer than 2^32 servers"));
        for listen in &server.listens {
            let listener = match listeners.iter_mut().find(|listener| listener.address == listen.address) {
                Some(listener) => listener,
                None => {
                    listeners.push(Listener {
                        address: listen.address.clone(),
                        options: ListenOptions::default(),
                        ssl: false,
                        http2: false,
                        proxy_protocol: false,
                        default_server: id,
                        heads_differ: false,
                        names: ServerNames::default(),
                    });
                    listeners.last_mut().expect("one was pushed")
                }
            };
            if listen.default_server {
                listener.default_server = id;
            }
            if listen.sets_options {
                listener.options = listen.options.clone();
            }
            listener.heads_differ |= {
                let first = &config.built.model.servers[listener.default_server.0 as usize];
                let heads = |server: &ServerDef| std::ptr::from_ref(config.settings(server.scope).get::<Heads>());
                !std::ptr::eq(heads(server), heads(first))
            };
            listener.ssl |= listen.ssl;
            listener.http2 |= listen.http2;
            listener.proxy_protocol |= listen.proxy_protocol;
            for (name, written, at) in &server.names {
                if !listener.names.add(name, id) {
                    let message = format!("conflicting server name \"{written}\" on {}, ignored", listen.address);
                    findings.push(Diagnostic::new(Severity::Warn, "conflicting-name", message).near(Some(*at)));
                }
            }
        }
    }
    listeners
}

/// Finds servers that are to speak TLS and have no certificate for it.
fn bare_listeners(config: &Config, listeners: &[Listener], findings: &mut Vec<Diagnostic>) {
    let settings = |server: &ServerDef| config.settings(server.scope).get::<Tls>();
    let has_certificate = |server: &ServerDef| !settings(server).certificates.0.is_empty();
    for listener in listeners.iter().filter(|listener| listener.ssl) {
        let servers = &config.built.model.servers;
        let default = &servers[listener.default_server.0 as usize];
        let bare = match (has_certificate(default), *settings(default).reject_handshake) {
            (true, _) => continue,
            (false, false) => Some(default),
            // If the default server has none, all others must have one.
            (false, true) => servers.iter().find(|server| {
                let is_here = server.listens.iter().any(|listen| listen.address == listener.address);
                is_here && !has_certificate(server) && !*settings(server).reject_handshake
            }),
        };
        let Some(bare) = bare else { continue };
        let message = "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive";
        let finding = Diagnostic::emerg("no-certificate", message);
        findings.push(match config.built.scope(bare.scope).at {
            Some(at) => finding.at(at),
            None => finding,
        });
    }
}
