//! `push_stream_padding_by_user_agent`: some browsers show nothing before they have got so many bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use pcre2::bytes::Regex;

use super::answer;
use super::check::{Findings, nearest};
use super::role::{Place, Role};
use super::templates::Padding;
use crate::compile::Compiled;
use crate::config::value::{Template, Value};
use crate::config::{Builder, Call, Cx, Fault, ScopeId};
use crate::http::Request;
use crate::http::wire::header::Known;
use crate::settings;

settings! {
    /// How answers are filled up for some clients.
    pub(super) struct Paddings {
        /// Fills headers and messages up to a least length for user agents that match: groups of a regular expression, the
        /// header's and a message's length, divided by colons.
        ///
        /// Example: `push_stream_padding_by_user_agent "[T|t]est 1,1024,512:[T|t]est 2,4097,0";`
        "push_stream_padding_by_user_agent" HTTP_ALL = "" => groups: Option<Groups>,
        /// Whom the client is taken for, in place of its `User-Agent`.
        "push_stream_user_agent" HTTP_ALL = "" => user_agent: Option<Template>,
    }
}

/// The groups as written, and as understood: `Err` is the one that is not.
#[derive(Clone, Debug)]
struct Groups(Arc<Result<Vec<Group>, String>>);

/// The longest filling of all locations, which bounds the steps in which any is made.
static LONGEST: AtomicUsize = AtomicUsize::new(0);

/// Notes how long the fillings of a configuration are. A reload makes them longer, never shorter.
pub(super) fn apply(compiled: &Compiled) {
    for number in 0..compiled.config.built.model.locations.len() {
        let settings = compiled.settings(compiled.location_id(number));
        let is_subscriber = matches!(settings.get::<Place>().role, Some(Role::Subscriber(_)));
        if let Some(groups) = settings.get::<Paddings>().groups.as_ref().filter(|_| is_subscriber) {
            LONGEST.fetch_max(groups.longest(), Ordering::Relaxed);
        }
    }
}

/// The clients of one kind.
#[derive(Debug)]
struct Group {
    agent: Regex,
    header: usize,
    message: usize,
}

impl Groups {
    fn read(text: &str) -> Self {
        Self(Arc::new(text.split(':').map(Group::read).collect()))
    }

    fn of(&self, agent: &[u8]) -> Padding {
        let groups = self.0.as_deref().unwrap_or_default();
        // A match that is given up is none.
        let group = groups.iter().filter(|_| !agent.is_empty());
        let group = group.into_iter().find(|group| group.agent.is_match(agent).unwrap_or(false));
        let longest = LONGEST.load(Ordering::Relaxed);
        group.map_or_else(Padding::default, |group| Padding { header: group.header, message: group.message, longest })
    }

    fn longest(&self) -> usize {
        let groups = self.0.as_deref().unwrap_or_default();
        groups.iter().map(|group| group.header.max(group.message)).max().unwrap_or(0)
    }
}

impl Group {
    /// The expression may have commas of its own.
    fn read(text: &str) -> Result<Self, String> {
        let parse = || {
            let (rest, message) = text.rsplit_once(',')?;
            let (agent, header) = rest.rsplit_once(',')?;
            let agent = Regex::new(agent).ok()?;
            Some(Self { agent, header: header.parse().ok()?, message: message.parse().ok()? })
        };
        parse().ok_or_else(|| text.to_owned())
    }
}

impl Value for Groups {
    const SYNTAX: &'static str = "agent,header_length,message_length[:...]";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(Self::read(&call.text(0)))
    }

    fn from_default(text: &'static str) -> Self {
        Self::read(text)
    }
}

/// Checks what holds in a block.
pub(super) fn check(builder: &Builder, scope: ScopeId, findings: &mut Findings) {
    let groups = nearest(builder, scope, |builder, scope| builder.peek::<Paddings>(scope)?.groups.clone());
    if let Some(Err(group)) = groups.flatten().as_ref().map(|groups| &*groups.0) {
        findings.mention(&format!("padding pattern not match the value {group}"));
        findings.refuse("push stream module: unable to parse paddings by user agent");
    }
}

/// How answers to a client are filled up.
pub(super) fn of(request: &Request) -> Padding {
    let settings = request.settings::<Paddings>();
    let Some(groups) = &settings.groups else { return Padding::default() };
    let agent = match &settings.user_agent {
        Some(template) => answer::value(request, template),
        None => request.head.known(Known::UserAgent).map(Bytes::copy_from_slice).unwrap_or_default(),
    };
    groups.of(&agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_group_that_matches_decides() {
        let check = |groups: &str, agent: &str, expected| {
            let groups = Groups::read(groups);
            let padding = groups.of(agent.as_bytes());
            assert_eq!((padding.header, padding.message, groups.longest()), expected, "{groups:?} {agent}");
        };
        check("MSIE,100,20:Chrome,40,300", "MSIE 9", (100, 20, 300));
        check("MSIE,100,20:Chrome,40,300", "Chrome/1", (40, 300, 300));
        check("MSIE,100,20", "other", (0, 0, 100));
        check("a{1,2},7,8", "aa", (7, 8, 8));
        check(".*,7,8", "", (0, 0, 8));
        check("a,x,10", "a", (0, 0, 0));
    }
}
