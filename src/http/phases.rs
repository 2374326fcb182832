//! A request's way through the phases, from its head to its answer.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use super::error_page::Special;
use super::module::{Handler, Jump, Next, Phase};
use super::request::{Request, Sent};
use super::response::{Body, Response};
use super::settings::Pages;
use super::wire::escape::{Escape, escape};
use crate::compile::{Found, LocationId, Phases, find_location};
use crate::server::log::{Level, shown};
use crate::server::sockets::reason;

/// Where the walk through the phases begins, or begins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Start,
    ServerRewrite,
    Find,
    Rewrite,
}

/// What stays of an answer when another place makes the next one.
#[derive(Default)]
struct Left {
    location: Option<Bytes>,
    etag: Option<Bytes>,
    headers: Vec<(Bytes, Bytes)>,
}

impl Left {
    fn take(&mut self, refused: &mut Response) {
        self.location = refused.location.take();
        self.etag = refused.etag.take();
        self.headers = std::mem::take(&mut refused.headers);
    }

    /// The server's own pages have no tag.
    fn give(&mut self, response: &mut Response, is_page: bool) {
        response.location = response.location.take().or_else(|| self.location.take());
        if self.headers.is_empty() && self.etag.is_none() {
            return;
        }
        let etag = self.etag.take().filter(|_| !is_page).map(|etag| (Bytes::from_static(b"ETag"), etag));
        let headers = etag.into_iter().chain(self.headers.drain(..)).chain(response.headers.drain(..));
        response.headers = headers.collect();
    }
}

/// What a stretch of phases ended with.
enum Outcome {
    Answer(Box<Response>),
    Status(u16),
    /// A redirect: its status and `Location`.
    Redirect(u16, Bytes),
    Jump(Jump),
}

impl Request {
    /// Makes the answer: phases, error pages and jumps inside the server, and then the filters.
    pub async fn run(&mut self) -> Box<Response> {
        self.run_from(None).await
    }

    /// The same for a request that is refused: what `error_page` says of the status.
    pub(super) async fn run_refused(&mut self, status: u16) -> Box<Response> {
        self.run_from(Some(Outcome::Status(status))).await
    }

    /// The same once the client has its answer, from another place on.
    pub(super) async fn run_after(&mut self, jump: Jump) -> Box<Response> {
        self.run_from(Some(Outcome::Jump(jump))).await
    }

    async fn run_from(&mut self, mut first: Option<Outcome>) -> Box<Response> {
        let mut left = Left::default();
        let mut response = loop {
            let mut response = self.make(first.take(), &mut left).await;
            self.filter(&mut response);
            let Some(status) = response.refused else { break response };
            left.take(&mut response);
            first = Some(Outcome::Status(status));
        };
        response.clean_headers();
        if self.is_head() && !matches!(response.body, Body::Empty | Body::Tunnel(_) | Body::Takeover(_)) {
            response.content_length = response.length();
            response.hides_length = response.content_length.is_none();
            response.body = Body::Empty;
        }
        if !self.is_main() && !response.silent && *self.settings::<Pages>().log_subrequest {
            self.log_subrequest(&response);
        }
        response
    }

    /// Makes an answer that no filter has seen yet.
    async fn make(&mut self, mut first: Option<Outcome>, left: &mut Left) -> Box<Response> {
        let mut stage = Stage::Start;
        let mut is_page = true;
        let mut response = loop {
            let outcome = match first.take() {
                Some(outcome) => outcome,
                None => self.walk(stage).await,
            };
            let special = match outcome {
                Outcome::Answer(response) => {
                    is_page = false;
                    break response;
                }
                Outcome::Jump(jump) => Special::Jump(jump),
                Outcome::Status(status) => self.special(status),
                Outcome::Redirect(status, location) => {
                    left.location = Some(location);
                    self.special(status)
                }
            };
            match special {
                Special::Page(response) => break response,
                Special::Jump(jump) => match self.jump(jump) {
                    Ok(next) => stage = next,
                    Err(status) => {
                        self.error_status = None;
                        break Box::new(self.plain_page(status));
                    }
                },
            }
        };
        if let Some(status) = self.error_status {
            response.status = status;
        }
        self.carry_over(&mut response, is_page);
        for challenge in self.challenges.drain(..) {
            response.header("WWW-Authenticate", challenge);
        }
        left.give(&mut response, is_page);
        response
    }

    fn filter(&mut self, response: &mut Response) {
        self.pass_body();
        super::sent::before_filters(self, response);
        for filter in Phases::get().filters(self.location().acting) {
            filter(self, response);
            if response.refused.is_some() {
                return;
            }
        }
        if let Some(is_utf8) = &response.is_utf8 {
            is_utf8.set(response.charset.as_deref().is_some_and(|charset| charset.eq_ignore_ascii_case(b"utf-8")));
        }
    }

    /// Gives a subrequest a line of its own in the access log.
    fn log_subrequest(&mut self, response: &Response) {
        let length = response.length().unwrap_or_default();
        self.sent = Sent { status: response.status, body_bytes: length, bytes: length, is_cut: false };
        self.write_logs();
    }

    /// Runs the handlers of the log phase: what was sent is known.
    pub(super) fn write_logs(&mut self) {
        for handler in self.handlers(Phase::Log) {
            handler(self);
        }
    }

    /// The handlers of a phase that have something to do in the present location.
    fn handlers(&self, phase: Phase) -> impl Iterator<Item = Handler> + use<> {
        Phases::get().of(phase, self.location().acting)
    }

    /// Walks the phases from a stage until something ends the walk.
    async fn walk(&mut self, mut stage: Stage) -> Outcome {
        if stage == Stage::Start {
            if let Some(outcome) = self.phase(Phase::PostRead).await {
                return outcome;
            }
            stage = Stage::ServerRewrite;
        }
        if stage == Stage::ServerRewrite {
            self.location_id = self.compiled.server_location(self.server_id);
            match self.phase(Phase::ServerRewrite).await {
                None | Some(Outcome::Jump(Jump::Rewritten)) => {}
                Some(outcome) => return outcome,
            }
            stage = Stage::Find;
        }
        if stage == Stage::Find {
            if let Err(outcome) = self.find() {
                return outcome;
            }
            stage = Stage::Rewrite;
        }
        if stage == Stage::Rewrite
            && let Some(outcome) = self.phase(Phase::Rewrite).await
        {
            return outcome;
        }
        if let Some(outcome) = self.phase(Phase::Preaccess).await {
            return outcome;
        }
        if self.is_main()
            && let Some(outcome) = self.access().await
        {
            return outcome;
        }
        if let Some(outcome) = self.phase(Phase::Precontent).await {
            return outcome;
        }
        self.content().await
    }

    /// Runs the handlers of a phase until one ends it.
    async fn phase(&mut self, phase: Phase) -> Option<Outcome> {
        for handler in self.handlers(phase) {
            let settled = match now(handler(self)) {
                Ok(settled) => settled,
                Err(waiting) => settle(waiting).await,
            };
            match settled {
                Settled::Declined | Settled::Granted => {}
                Settled::Ended(outcome) => return Some(outcome),
            }
        }
        None
    }

    /// Runs the access phase, and puts a 401 off for `auth_delay`.
    async fn access(&mut self) -> Option<Outcome> {
        let outcome = self.judge().await?;
        let delay = *self.settings::<super::access::Satisfy>().auth_delay;
        if delay.is_zero() || !matches!(outcome, Outcome::Status(401)) {
            return Some(outcome);
        }
        self.log(Level::Info, "delaying unauthorized request");
        let gone = Box::pin(self.put_off(delay)).await;
        Some(gone.map_or(outcome, Outcome::Status))
    }

    /// Lets some time pass; the status for a client that goes away meanwhile.
    pub async fn put_off(&self, delay: Duration) -> Option<u16> {
        tokio::select! {
            biased;
            () = tokio::time::sleep(delay) => None,
            error = self.connection.closed(), if self.is_main() => {
                let reason = error.map(|error| format!(" ({})", reason(&error))).unwrap_or_default();
                self.log(Level::Info, &format!("client prematurely closed connection{reason}"));
                Some(499)
            }
        }
    }

    /// Asks the handlers of the access phase, under `satisfy`.
    async fn judge(&mut self) -> Option<Outcome> {
        let any = self.settings::<super::access::Satisfy>().is_any();
        let mut refused = None;
        for handler in self.handlers(Phase::Access) {
            let settled = match now(handler(self)) {
                Ok(settled) => settled,
                Err(waiting) => settle(waiting).await,
            };
            match settled {
                Settled::Declined => {}
                Settled::Granted if any => {
                    self.challenges.clear();
                    return None;
                }
                Settled::Granted => {}
                // Under `any`, a refusal waits for another handler to grant.
                Settled::Ended(Outcome::Status(status @ (401 | 403))) if any => {
                    if refused != Some(401) {
                        refused = Some(status);
                    }
                }
                Settled::Ended(outcome) => return Some(outcome),
            }
        }
        if refused == Some(403) {
            self.log(Level::Error, "access forbidden by rule");
        }
        refused.map(Outcome::Status)
    }

    /// Makes the content: the location's own handler, or else the first of the phase that takes the request.
    async fn content(&mut self) -> Outcome {
        if let Some(handler) = self.location().handler {
            let settled = match now(handler(self)) {
                Ok(settled) => settled,
                Err(waiting) => settle(waiting).await,
            };
            return match settled {
                Settled::Ended(outcome) => outcome,
                Settled::Declined | Settled::Granted => Outcome::Status(404),
            };
        }
        if let Some(outcome) = self.phase(Phase::Content).await {
            return outcome;
        }
        if self.uri.ends_with(b"/") {
            let root = super::root::map_uri(self);
            self.log(Level::Error, &format!("directory index of \"{}\" is forbidden", root.display()));
            return Outcome::Status(403);
        }
        self.log(Level::Error, "no handler found");
        Outcome::Status(404)
    }

    /// Finds the location of the present URI.
    fn find(&mut self) -> Result<(), Outcome> {
        let compiled = std::sync::Arc::clone(&self.compiled);
        self.location_id = compiled.server_location(self.server_id);
        let found = find_location(&compiled, &self.server().tree, &self.uri);
        match found {
            Err(error) => {
                self.log(Level::Error, &format!("a location's regular expression was given up: {error}"));
                Err(Outcome::Status(500))
            }
            Ok(Found::Nothing) => self.enter(self.location_id),
            Ok(Found::Location(location, captures)) => {
                if let Some((regex, captures)) = captures {
                    self.keep_captures(regex, captures);
                }
                self.enter(location)
            }
            Ok(Found::Redirect(location)) => {
                self.enter(location)?;
                Err(self.slash_redirect(location))
            }
        }
    }

    /// Makes a location the request's, if it may be.
    fn enter(&mut self, location: LocationId) -> Result<(), Outcome> {
        self.location_id = location;
        if !self.is_internal && self.settings::<super::access::Internal>().is_internal {
            return Err(Outcome::Status(404));
        }
        self.limit();
        match self.refuse_long_body() {
            Some(status) => Err(Outcome::Status(status)),
            None => Ok(()),
        }
    }

    /// Goes on to the settings of the location's `limit_except`, if that is about the method.
    fn limit(&mut self) {
        if let Some(location) = self.settings::<super::access::LimitExcept>().location(self.method) {
            self.location_id = self.compiled.location_id(location);
        }
    }

    /// The redirect to the path with a slash at its end.
    fn slash_redirect(&self, location: LocationId) -> Outcome {
        let mut target = escape(&self.compiled.location(location).name, Escape::Uri).into_owned();
        if !self.args.is_empty() {
            target.push(b'?');
            target.extend_from_slice(&self.args);
        }
        Outcome::Redirect(301, target.into())
    }

    /// Carries a jump out: where to go on, or the status of a jump too many.
    fn jump(&mut self, jump: Jump) -> Result<Stage, u16> {
        self.uri_changes = self.uri_changes.saturating_sub(1);
        if self.uri_changes == 0 {
            let (doing, what) = match &jump {
                Jump::Rewritten => ("processing", &self.uri),
                Jump::Redirect { uri, .. } => ("internally redirecting to", uri),
                Jump::Named(name) => ("redirect to named location", name),
            };
            let what = shown(what);
            self.log(Level::Error, &format!("rewrite or internal redirection cycle while {doing} \"{what}\""));
            return Err(500);
        }
        match jump {
            Jump::Rewritten => Ok(Stage::Find),
            Jump::Redirect { uri, args } => {
                self.uri = uri;
                self.args = args;
                self.is_internal = true;
                self.is_uri_as_sent = false;
                self.is_in_location = true;
                self.forget_notes();
                Ok(Stage::ServerRewrite)
            }
            Jump::Named(name) => self.enter_named(&name),
        }
    }

    fn enter_named(&mut self, name: &Bytes) -> Result<Stage, u16> {
        let Some(location) = self.server().named.get(&name[..]).copied() else {
            self.log(Level::Error, &format!("could not find named location \"{}\"", shown(name)));
            return Err(500);
        };
        self.is_internal = true;
        self.location_id = location;
        self.limit();
        self.forget_notes();
        Ok(Stage::Rewrite)
    }

    /// The server's own page for a status, without a look at `error_page`.
    pub fn plain_page(&mut self, status: u16) -> Response {
        super::error_page::built_in(self, status)
    }
}

/// A handler's word, once it does not have to wait any more.
enum Settled {
    Declined,
    Granted,
    Ended(Outcome),
}

/// What a handler waits for.
type Waiting<'r> = Pin<Box<dyn Future<Output = Next<'static>> + 'r>>;

/// A handler's word, if it need not wait for it. Most need not, and it is matched at once, without a future.
#[inline]
fn now(next: Next<'_>) -> Result<Settled, Waiting<'_>> {
    Ok(match next {
        Next::Declined => Settled::Declined,
        Next::Granted => Settled::Granted,
        Next::Answer(response) => Settled::Ended(Outcome::Answer(response)),
        Next::Status(status) => Settled::Ended(Outcome::Status(status)),
        Next::Redirect { status, location } => Settled::Ended(Outcome::Redirect(status, location)),
        Next::Jump(jump) => Settled::Ended(Outcome::Jump(jump)),
        Next::Later(waiting) => return Err(waiting),
    })
}

/// A handler's word, once it has waited for what it has to.
async fn settle(mut waiting: Waiting<'_>) -> Settled {
    loop {
        match now(waiting.await) {
            Ok(settled) => return settled,
            Err(more) => waiting = more,
        }
    }
}
