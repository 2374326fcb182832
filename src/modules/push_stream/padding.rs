//! `push_stream_padding_by_user_agent`: some browsers show nothing before they have got so many bytes.

use std::sync::Arc;

use bytes::Bytes;
use pcre2::bytes::Regex;

use super::check::Findings;
use super::templates::Padding;
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
        let group = groups.iter().find(|group| group.agent.is_match(agent).unwrap_or(false));
        let longest = groups.iter().map(|group| group.header.max(group.message)).max().unwrap_or(0);
        group.map_or_else(Padding::default, |group| Padding { header: group.header, message: group.message, longest })
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

/// Checks what a block says.
pub(super) fn check(builder: &Builder, scope: ScopeId, findings: &mut Findings) {
    let groups = builder.peek::<Paddings>(scope).and_then(|raw| raw.groups.as_ref()).and_then(Option::as_ref);
    if let Some(Err(group)) = groups.map(|groups| &*groups.0) {
        findings.mention(&format!("padding pattern not match the value {group}"));
        findings.refuse("push stream module: unable to parse paddings by user agent");
    }
}

/// How answers to a client are filled up.
pub(super) fn of(request: &Request) -> Padding {
    let settings = request.settings::<Paddings>();
    let Some(groups) = &settings.groups else { return Padding::default() };
    let agent = match &settings.user_agent {
        Some(template) => request.eval(template),
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
            let padding = Groups::read(groups).of(agent.as_bytes());
            assert_eq!((padding.header, padding.message, padding.longest), expected, "{groups} {agent}");
        };
        check("MSIE,100,20:Chrome,40,300", "MSIE 9", (100, 20, 300));
        check("MSIE,100,20:Chrome,40,300", "Chrome/1", (40, 300, 300));
        check("MSIE,100,20", "other", (0, 0, 0));
        check("a{1,2},7,8", "aa", (7, 8, 8));
        check("a,x,10", "a", (0, 0, 0));
    }
}
