//! What a module brings to the server: its directives, and its places in the life of a request.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use super::request::Request;
use super::response::Response;
use crate::compile::Compiled;
use crate::config::{Builder, Declarations, Settings};
use crate::server::live::Live;
use crate::server::worker::Local;

/// One module of nginx, as a value: the list in `modules/mod.rs` is made of these.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Its directives, settings and variables.
    pub declares: Declarations,
    /// Checks that need the whole configuration.
    pub finish: Option<fn(&mut Builder)>,
    /// Sees each configuration from when it holds, on the process's own thread: at the start and after each reload.
    pub apply: Option<fn(&Compiled, &'static Live)>,
    /// Sees each later configuration on each worker, so that what lives there can follow it.
    pub follow: Option<fn(&std::sync::Arc<Compiled>, &Local)>,
    /// Its handlers, each with the phase it runs in.
    pub phases: &'static [(Phase, Handler)],
    /// Changes answers on their way out.
    pub filter: Option<Filter>,
    /// Whether handlers and filter have anything to do where these settings hold: elsewhere they are not called. `None`:
    /// they always are.
    pub acts: Option<fn(&Settings) -> bool>,
}

impl Module {
    /// What most modules share; for `..Module::EMPTY`.
    pub const EMPTY: Self = Self {
        declares: Declarations { module: "", sections: &[], commands: &[], variables: &[] },
        finish: None,
        apply: None,
        follow: None,
        phases: &[],
        filter: None,
        acts: None,
    };
}

/// The phases of a request in which modules have handlers, in nginx's order. Finding the location, and the jump after
/// a rewrite, stand between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The head was read (realip).
    PostRead,
    /// Rewriting on the server's level; runs once.
    ServerRewrite,
    /// Rewriting in a location; runs again after each change of location.
    Rewrite,
    /// Limits.
    Preaccess,
    /// Who may come in.
    Access,
    /// Before the content (`try_files`, mirror).
    Precontent,
    /// The answer, where no directive of the location gives one: index, autoindex, files.
    Content,
    /// After the answer.
    Log,
}

/// A handler of a phase or of a location's content.
pub type Handler = for<'r> fn(&'r mut Request) -> Next<'r>;

/// A filter of answers.
pub type Filter = fn(&mut Request, &mut Response);

/// What a handler wants done next: nginx's "declined", "ok", "again" and a status.
pub enum Next<'r> {
    /// Not mine, or nothing against it: the next handler.
    Declined,
    /// Granted (access phase under `satisfy any`): the rest of the phase may be left out.
    Granted,
    /// Go on elsewhere inside the server.
    Jump(Jump),
    /// This is the answer; in a box, as it is handed on through many hands.
    Answer(Box<Response>),
    /// An error or redirect: the page for a status.
    Status(u16),
    /// The page for a status that sends the client elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// A path of this server, or a URL.
        location: Bytes,
    },
    /// It has to wait for something.
    Later(Pin<Box<dyn Future<Output = Next<'static>> + 'r>>),
}

/// Where a request goes on inside the server.
#[derive(Clone, Debug)]
pub enum Jump {
    /// The URI was rewritten: find the location anew.
    Rewritten,
    /// An internal redirect: another URI from the server's rewrite phase on, with `internal` locations open.
    Redirect {
        /// The path, decoded.
        uri: Bytes,
        /// The arguments.
        args: Bytes,
    },
    /// To a named location.
    Named(Bytes),
}

impl std::fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Declined => f.write_str("Declined"),
            Self::Granted => f.write_str("Granted"),
            Self::Jump(jump) => write!(f, "Jump({jump:?})"),
            Self::Answer(response) => write!(f, "Answer({})", response.status),
            Self::Status(status) => write!(f, "Status({status})"),
            Self::Redirect { status, location } => write!(f, "Redirect({status} {})", location.escape_ascii()),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

impl<'r> Next<'r> {
    /// This is the answer.
    pub fn answer(response: Response) -> Self {
        Self::Answer(Box::new(response))
    }

    /// A handler that has to wait.
    pub fn later(future: impl Future<Output = Next<'static>> + 'r) -> Self {
        Self::Later(Box::pin(future))
    }
}
