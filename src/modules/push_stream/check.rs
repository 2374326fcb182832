//! What can be said of the module's directives only when the whole configuration is known: what nginx refuses when it
//! merges, and what loads but should not be so.

use super::channels::Channels;
use super::hooks::{self, Hooks};
use super::limits;
use super::padding;
use super::role::{Mode, Place, Role};
use super::subscriber;
use super::templates;
use super::websocket;
use crate::config::{Builder, Diagnostic, Position, ScopeId, Severity};
use crate::http::access::Internal;

/// What is found, all of it at the end of the `http` block, as nginx names it.
#[derive(Debug)]
pub(super) struct Findings {
    at: Option<Position>,
    found: Vec<Diagnostic>,
}

impl Findings {
    /// Adds what refuses the configuration, in the module's own words.
    pub(super) fn refuse(&mut self, text: &str) {
        self.add(text, true);
    }

    /// Adds what is said before that.
    pub(super) fn mention(&mut self, text: &str) {
        self.add(text, false);
    }

    fn add(&mut self, text: &str, refuses: bool) {
        let message = format!("push stream module: {text}");
        // What is said of a block around several locations is said once.
        if self.found.iter().any(|known| known.message == message) {
            return;
        }
        let diagnostic = Diagnostic::new(Severity::Error, "push-stream", message).refuses(refuses);
        self.found.push(match self.at {
            Some(at) => diagnostic.at(at),
            None => diagnostic,
        });
    }
}

/// Checks a configuration.
pub(super) fn finish(builder: &mut Builder) {
    if builder.diagnostics.iter().any(|diagnostic| diagnostic.refuses) {
        return;
    }
    let mut findings = Findings { at: builder.model.http_end, found: Vec::new() };
    let scopes = (0..builder.scopes.len()).map(|number| ScopeId(u32::try_from(number).unwrap_or(u32::MAX)));
    // As in nginx, the role of a location is also that of the blocks in it when they are checked, and nothing else is.
    let places: Vec<(ScopeId, Role)> =
        scopes.filter_map(|scope| Some((scope, nearest(builder, scope, Place::raw_role)?))).collect();
    // The recipe, which must load as it was published, has the requests of its fork and does not set the memory's size.
    let serves_the_fork =
        builder.scopes.iter().any(|scope| scope.applied.iter().any(|applied| hooks::is_of_the_fork(applied.row.name)));
    if serves_the_fork && !limits::has_memory(builder) {
        findings.found.push(
            Diagnostic::new(
                Severity::Lint,
                "push-stream-memory",
                "push_stream_shared_memory_size is not set, 32m is taken",
            )
            .near(findings.at)
            .help("say how much memory channels and stored messages may take: push_stream_shared_memory_size 32m;"),
        );
    }
    if !places.is_empty() {
        if !limits::has_memory(builder) && !serves_the_fork {
            findings.refuse("push_stream_shared_memory_size must be set.");
        }
        limits::check(builder, &mut findings);
    }
    for (scope, role) in places {
        if nearest(builder, scope, Channels::raw_has_path).is_none() {
            findings.refuse("push_stream_channels_path must be set.");
        }
        subscriber::check(builder, scope, &mut findings);
        templates::check(builder, scope, &mut findings);
        limits::check_max_wildcards(builder, scope, &mut findings);
        if matches!(role, Role::Subscriber(_)) {
            padding::check(builder, scope, &mut findings);
        }
        if let Some((role, at)) = builder.peek::<Place>(scope).and_then(|place| place.role) {
            findings.found.extend(lint(builder, scope, role, at));
        }
    }
    let hooks = hooks_that_are_open(builder);
    findings.found.extend(hooks);
    builder.diagnostics.append(&mut findings.found);
}

/// What loads, but is unsafe or does not do what it should.
fn lint(builder: &Builder, scope: ScopeId, role: Role, at: Position) -> Vec<Diagnostic> {
    let lint =
        |code, message: &str, help: &str| Diagnostic::new(Severity::Lint, code, message).near(Some(at)).help(help);
    let has = |names: &[&str]| has_directive_around(builder, scope, names);
    let mut found = Vec::new();
    match role {
        Role::Publisher { .. } if !has(&["allow", "deny", "auth_basic", "auth_request", "satisfy", "internal"]) => {
            found.push(lint(
                "push-stream-open-publisher",
                "everybody may publish here",
                "say who may: allow 127.0.0.1; deny all; or use auth_basic or auth_request",
            ));
        }
        Role::Subscriber(mode) => {
            let allows = nearest(builder, scope, websocket::raw_allows_publish).unwrap_or(false);
            let publishes = mode == Mode::Websocket && allows;
            if publishes && !has(&["push_stream_allowed_origins"]) {
                found.push(lint(
                    "push-stream-any-origin",
                    "clients may publish here, from a page of any origin",
                    "name the origins whose pages may: push_stream_allowed_origins \"https://example.com\";",
                ));
            }
            let waits = mode != Mode::Polling && mode != Mode::LongPolling;
            if waits && !has(&["push_stream_ping_message_interval"]) {
                found.push(lint(
                    "push-stream-no-ping",
                    "a connection that broke is not noticed while nothing is sent",
                    "send something now and then: push_stream_ping_message_interval 25s;",
                ));
            }
        }
        Role::Publisher { .. } | Role::Statistics => {}
    }
    found
}

/// The locations of background requests that clients may ask too.
fn hooks_that_are_open(builder: &Builder) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for applied in builder.scopes.iter().flat_map(|scope| &scope.applied) {
        if !Hooks::DIRECTIVES.contains(&applied.row.name) {
            continue;
        }
        let source = builder.sources.get(applied.at.source);
        let written = &source.text[applied.at.span.start as usize..applied.at.span.end as usize];
        let uri = String::from_utf8_lossy(written).split_whitespace().nth(1).map(str::to_owned);
        let uri = uri.unwrap_or_default();
        let path = uri.trim_matches(['"', '\'']).split('?').next().unwrap_or_default().to_owned();
        let named = builder.model.locations.iter().filter(|location| {
            use crate::config::LocationKind::{Exact, Prefix};
            matches!(&location.kind, Exact(name) | Prefix { path: name, .. } if *name == path.as_bytes())
        });
        for location in named {
            if builder.peek::<Internal>(location.scope).is_some_and(|internal| *internal) {
                continue;
            }
            let message = format!("location \"{path}\" is for {} and open to clients too", applied.row.name);
            let diagnostic = Diagnostic::new(Severity::Lint, "push-stream-open-hook", message)
                .near(builder.scope(location.scope).at)
                .help("close it to clients: add internal; to the location")
                .note("asked from here", Some(applied.at));
            found.push(diagnostic);
        }
    }
    found
}

/// What a block, or the nearest around it that does, says of something.
pub(super) fn nearest<T>(
    builder: &Builder,
    scope: ScopeId,
    says: impl Fn(&Builder, ScopeId) -> Option<T>,
) -> Option<T> {
    let mut next = Some(scope);
    while let Some(scope) = next {
        if let Some(said) = says(builder, scope) {
            return Some(said);
        }
        next = builder.scope(scope).parent;
    }
    None
}

/// Whether a block, or one around it, has one of some directives.
fn has_directive_around(builder: &Builder, scope: ScopeId, names: &[&str]) -> bool {
    let has = |builder: &Builder, scope| {
        builder.scope(scope).applied.iter().any(|applied| names.contains(&applied.row.name)).then_some(())
    };
    nearest(builder, scope, has).is_some()
}

#[cfg(test)]
mod tests {
    use crate::config::{LoadOptions, load_text};

    /// What is found in the locations of a server: codes of lints, texts of what refuses.
    #[track_caller]
    fn check(locations: &str, expected: &[&str]) {
        let memory = "push_stream_shared_memory_size 1m;";
        let text = format!("events {{}} http {{ {memory} server {{ listen 127.0.0.1:1; {locations} }} }}");
        let config = load_text(LoadOptions { offline: true, ..LoadOptions::default() }, text.as_bytes());
        let findings = config.built.diagnostics.iter().filter(|finding| finding.code.starts_with("push-stream"));
        let found: Vec<_> =
            findings.map(|finding| if finding.refuses { finding.message.as_str() } else { finding.code }).collect();
        assert_eq!(found, expected, "{locations}");
    }

    #[test]
    fn open_publishers_are_found() {
        check("location / { push_stream_publisher; push_stream_channels_path x; }", &["push-stream-open-publisher"]);
        check("location / { allow 127.0.0.1; deny all; push_stream_publisher; push_stream_channels_path x; }", &[]);
        check("deny all; location / { push_stream_publisher; push_stream_channels_path x; }", &[]);
    }

    #[test]
    fn careless_subscribers_are_found() {
        let websocket = |more: &str| {
            format!("location / {{ push_stream_subscriber websocket; push_stream_channels_path x; {more} }}")
        };
        check(&websocket(""), &["push-stream-no-ping"]);
        let ping = "push_stream_ping_message_interval 25s;";
        check(&websocket(ping), &[]);
        check(&websocket(&format!("{ping} push_stream_websocket_allow_publish on;")), &["push-stream-any-origin"]);
        let named = "push_stream_websocket_allow_publish on; push_stream_allowed_origins https://a.example;";
        check(&websocket(&format!("{ping} {named}")), &[]);
        check("location / { push_stream_subscriber polling; push_stream_channels_path x; }", &[]);
    }

    #[test]
    fn open_hooks_are_found() {
        let with = |hook: &str| {
            format!(
                "location /s {{ push_stream_subscriber polling; push_stream_channels_path x; \
                 push_stream_client_subscribed_request /hook?a=b; }} location =/hook {{ {hook} return 200; }}"
            )
        };
        check(&with(""), &["push-stream-open-hook"]);
        check(&with("internal;"), &[]);
    }

    #[test]
    fn a_path_is_needed_and_inherited() {
        let missing = "push stream module: push_stream_channels_path must be set.";
        check("location / { push_stream_subscriber polling; }", &[missing]);
        check("push_stream_channels_path x; location / { push_stream_subscriber polling; }", &[]);
        check("location / { push_stream_channels_statistics; }", &[missing]);
    }

    #[test]
    fn only_what_a_location_uses_is_checked() {
        let zero = "push stream module: push_stream_ping_message_interval cannot be zero.";
        let polling = "push_stream_subscriber polling; push_stream_channels_path x;";
        check("push_stream_ping_message_interval 0;", &[]);
        check("location / { push_stream_ping_message_interval 0; }", &[]);
        let around = |inner: &str| {
            format!(
                "push_stream_ping_message_interval 0; location /a {{ {polling} }} location /b {{ {polling} {inner} }}"
            )
        };
        check(&around(""), &[zero]);
        check(&format!("location / {{ {polling} location /in {{ push_stream_ping_message_interval 0; }} }}"), &[zero]);
        check("push_stream_padding_by_user_agent x; location / { push_stream_channels_path x; }", &[]);
    }
}
