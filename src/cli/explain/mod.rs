//! `pushgate explain`: which server and location a URL belongs to, why, and what holds there.
//!
//! The decisions are those of the tables that the server itself reads ([`crate::compile`]); what is added here is the
//! reason for each.

mod holds;
mod json;
mod locations;
mod servers;
mod text;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;

use super::options::{Word, Words, Wrong, load_options, superfluous, unknown};
use super::{Command, lint, output};
use crate::compile::{Compiled, LocationId, ServerId};
use crate::config::{self, LoadOptions, Position};
use crate::http::settings::Heads;
use crate::http::wire::{host, uri};

pub(super) const COMMAND: Command = Command {
    name: "explain",
    summary: "say which server and location a URL belongs to, and what holds there",
    usage: "url [-c file] [-p prefix] [-g directives] [--method method]
                      [--header 'name: value'] [--format text|json]

  url              : http://host[:port]/path?args, or a path for the first address
  -c file          : the configuration (default: that of pushgate -t)
  -p prefix        : what relative paths hang on
  -g directives    : directives beside the file
  --method method  : the request's method (default: GET)
  --header header  : a header of the request; Host chooses the server
  --format format  : text (default) or json

Exit code: 0 explained, 1 the configuration or the URL can't be, 2 wrong use.",
    run,
};

#[derive(Debug)]
struct Options {
    load: LoadOptions,
    ask: Ask,
    json: bool,
}

/// A request to be explained.
#[derive(Debug, PartialEq, Eq)]
struct Ask {
    method: String,
    /// The host of the URL or of the header; empty: none.
    host: String,
    /// The address and port of the URL, where it has one.
    target: Option<Target>,
    /// Path and arguments, as they are sent.
    uri: String,
}

/// Where a URL leads.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// The address, if the host is one.
    address: Option<IpAddr>,
    port: u16,
}

fn run(words: &[String]) -> Result<ExitCode, Wrong> {
    let options = Options::read(words)?;
    match explain(options.load, &options.ask) {
        Ok((compiled, explanation)) => {
            let render = if options.json { json::render } else { text::render };
            output::print(render(&compiled, &options.ask, &explanation));
            Ok(ExitCode::SUCCESS)
        }
        Err(problem) => {
            output::error(&format!("pushgate explain: {problem}\n"));
            Ok(ExitCode::FAILURE)
        }
    }
}

impl Options {
    fn read(words: &[String]) -> Result<Self, Wrong> {
        let (mut prefix, mut file, mut globals, mut url) = (None, None, None, None);
        let (mut method, mut host, mut json) = ("GET".to_owned(), None, false);
        let mut words = Words::new(words);
        while let Some(word) = words.next()? {
            match word {
                Word::Flag(flag @ ("-p" | "--prefix")) => prefix = Some(words.value(flag)?),
                Word::Flag(flag @ "-c") => file = Some(words.value(flag)?),
                Word::Flag(flag @ "-g") => globals = Some(words.value(flag)?.to_owned()),
                Word::Flag(flag @ "--method") => method = words.value(flag)?.to_ascii_uppercase(),
                Word::Flag(flag @ "--header") => {
                    let header = words.value(flag)?;
                    let (name, value) = header
                        .split_once(':')
                        .ok_or_else(|| Wrong(format!("a header is \"name: value\", not \"{header}\"")))?;
                    if name.trim().eq_ignore_ascii_case("host") {
                        host = Some(value.trim().to_owned());
                    }
                }
                Word::Flag(flag @ "--format") => {
                    json = match words.value(flag)? {
                        "text" => false,
                        "json" => true,
                        word => return Err(Wrong(format!("there is no format \"{word}\"; there are: text json"))),
                    }
                }
                Word::Flag(flag) => return Err(unknown(flag)),
                Word::Operand(word) if url.is_some() => return Err(superfluous(word)),
                Word::Operand(word) => url = Some(word),
            }
        }
        let mut ask = Ask::of(url.ok_or_else(|| Wrong("a URL is missing".into()))?, method)?;
        if let Some(host) = host {
            ask.host = host;
        }
        let mut load = load_options(prefix, None);
        if let Some(file) = file {
            load.file = PathBuf::from(file);
        }
        Ok(Self { load: LoadOptions { globals, offline: true, ..load }, ask, json })
    }
}

impl Ask {
    fn of(url: &str, method: String) -> Result<Self, Wrong> {
        if url.starts_with('/') {
            return Ok(Self { method, host: String::new(), target: None, uri: url.to_owned() });
        }
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| Wrong(format!("\"{url}\" is neither a path nor a URL; a URL begins with http://")))?;
        let port = match scheme {
            "http" | "ws" => 80,
            "https" | "wss" => 443,
            _ => return Err(Wrong(format!("unknown scheme \"{scheme}\""))),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (name, written) = match authority.rsplit_once(':') {
            Some((name, digits)) if !digits.contains(']') => (name, Some(digits)),
            _ => (authority, None),
        };
        let port = match written {
            None => port,
            Some(digits) => digits.parse().map_err(|_| Wrong(format!("invalid port \"{digits}\"")))?,
        };
        let address = name.trim_matches(['[', ']']).parse().ok();
        let uri = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { method, host: authority.to_owned(), target: Some(Target { address, port }), uri })
    }

    /// The host as servers are looked up by it: in lower case, without port and final dot.
    fn host_name(&self) -> Result<Bytes, String> {
        if self.host.is_empty() {
            return Ok(Bytes::new());
        }
        let lower = self.host.to_ascii_lowercase();
        match host::validate(lower.as_bytes()) {
            Some(length) => Ok(Bytes::copy_from_slice(&lower.as_bytes()[..length])),
            None => Err(format!("the host \"{}\" is answered with 400", self.host)),
        }
    }
}

/// What was decided, and why.
#[derive(Debug)]
struct Explanation {
    server: servers::Chosen,
    /// The path, decoded and simplified.
    path: Bytes,
    args: Bytes,
    location: locations::Chosen,
    /// Every location that was considered, outer ones first.
    candidates: Vec<locations::Candidate>,
    /// What of the server comes before any location.
    before: Option<Before>,
    /// What holds there, from the inside.
    blocks: Vec<holds::Block>,
    /// What is not written there.
    defaults: Vec<(&'static str, &'static str)>,
}

/// Rewriting on the server's level.
#[derive(Debug)]
struct Before {
    /// The first of it that may answer or change the path.
    text: String,
    at: Position,
    /// Whether it answers every request.
    answers: bool,
}

impl Before {
    fn of(compiled: &Compiled, server: ServerId) -> Option<Self> {
        let built = &compiled.config.built;
        let first = lint::first_rewrite(built.scope(built.model.servers[server.0 as usize].scope))?;
        let text = holds::one_line(&built.sources.written(first.at), first.row);
        Some(Self { text, at: first.at, answers: first.row.name == "return" })
    }
}

fn explain(options: LoadOptions, ask: &Ask) -> Result<(Compiled, Explanation), String> {
    let file = options.file.display().to_string();
    let config = config::load(options);
    if !config.is_good() {
        return Err(format!("the configuration {file} has errors; see pushgate check {file}"));
    }
    let compiled = Compiled::new(config);
    let explanation = Explanation::of(&compiled, ask)?;
    Ok((compiled, explanation))
}

impl Explanation {
    fn of(compiled: &Compiled, ask: &Ask) -> Result<Self, String> {
        let server = servers::choose(compiled, ask)?;
        let default = compiled.listeners[server.listener].default_server;
        let merge = *compiled.settings(compiled.server_location(default)).get::<Heads>().merge_slashes;
        let normalized = uri::normalize(ask.uri.as_bytes(), merge)
            .map_err(|_| format!("the path of \"{}\" is answered with 400", ask.uri))?;
        let path = Bytes::copy_from_slice(&normalized.path);
        let args = Bytes::copy_from_slice(normalized.args);
        let (location, candidates) = locations::choose(compiled, server.server, &path)?;
        let (blocks, defaults) = holds::holds(compiled, server.server, location.number(), &ask.method);
        let before = Before::of(compiled, server.server);
        Ok(Self { server, path, args, location, candidates, before, blocks, defaults })
    }

    /// The location whose settings hold.
    fn location_id(&self, compiled: &Compiled) -> LocationId {
        match self.location.number() {
            Some(number) => compiled.location_id(number),
            None => compiled.server_location(self.server.server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let check = |url: &str, host: &str, target: Option<(Option<&str>, u16)>, uri: &str| {
            let target = target.map(|(address, port)| Target { address: address.and_then(|a| a.parse().ok()), port });
            let expected = Ask { method: "GET".into(), host: host.into(), target, uri: uri.into() };
            assert_eq!(Ask::of(url, "GET".into()), Ok(expected), "{url}");
        };
        check("/a?b=c", "", None, "/a?b=c");
        check("http://a.org", "a.org", Some((None, 80)), "/");
        check("https://a.org/x", "a.org", Some((None, 443)), "/x");
        check("ws://a.org:8080?q", "a.org:8080", Some((None, 8080)), "/?q");
        check("http://127.0.0.1:81/", "127.0.0.1:81", Some((Some("127.0.0.1"), 81)), "/");
        check("http://[::1]:81/", "[::1]:81", Some((Some("::1"), 81)), "/");
        check("http://[::1]/", "[::1]", Some((Some("::1"), 80)), "/");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        let check = |url: &str, expected: &str| {
            assert_eq!(Ask::of(url, "GET".into()), Err(Wrong(expected.into())), "{url}");
        };
        check("a.org/x", "\"a.org/x\" is neither a path nor a URL; a URL begins with http://");
        check("ftp://a.org/", "unknown scheme \"ftp\"");
        check("http://a.org:x/", "invalid port \"x\"");
    }
}
