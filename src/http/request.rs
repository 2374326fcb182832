//! A request while it is worked on.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::connection::{Connection, Peer};
use super::gzip::Tested;
use super::temp_file::TempFile;
use super::upstream::record::Shared;
use super::wire::head::RequestHead;
use super::wire::method::Method;
use crate::compile::{Compiled, Location, LocationId, Server, ServerId};
use crate::config::value::{Captures, Regex};
use crate::config::{Section, Value, VarId};
use crate::server::clock::{self, Moment};
use crate::server::log::{Level, LogSettings, shown};

/// The redirect inside the server that ends a cycle; the ten before it are allowed, as in nginx.
const MAX_URI_CHANGES: u8 = 11;

/// A client's request, or a subrequest of one.
pub struct Request {
    /// The connection it came by.
    pub connection: Rc<Connection>,
    /// Who the client is: the connection's other end, or whom a trusted proxy names in its place.
    pub peer: Peer,
    /// The configuration that holds for it, to its end.
    pub compiled: Arc<Compiled>,
    /// What the client sent.
    pub head: Rc<RequestHead>,
    /// The method; a subrequest has its own.
    pub method: Method,
    /// The method's name.
    pub method_name: Bytes,
    /// The path, decoded and normalized; rewriting changes it.
    pub uri: Bytes,
    /// The arguments, raw; rewriting changes them.
    pub args: Bytes,
    /// The server that its host names.
    pub server_id: ServerId,
    /// The location; at first the one that stands for the server.
    pub location_id: LocationId,
    /// Whether `internal` locations are open to it.
    pub is_internal: bool,
    /// How it hangs on another one.
    pub kind: Kind,
    /// The status of the error page that is being made, for `$status` and `error_page`.
    pub error_status: Option<u16>,
    /// When its first byte came.
    pub started: Moment,
    /// What is known of the answer when it is sent: for the log.
    pub sent: Sent,
    /// What was found of compression.
    pub(super) gzip: Tested,
    /// Its way through upstreams.
    pub(super) upstream: Option<Shared>,
    /// Whether the URI may be passed on as it was sent: nothing has changed it.
    pub is_uri_as_sent: bool,
    /// Whether the path still begins with its location's name: `rewrite ... break` changes that.
    pub is_in_location: bool,
    pub(super) body: Option<Bytes>,
    /// The body, where it was too long for memory or is to be a file.
    pub(super) body_file: Option<(Rc<TempFile>, u64)>,
    /// How many bytes of the answer are sent in a second, where that is said for this request alone; 0: all at once.
    pub limit_rate: Option<u64>,
    /// How much of a body was passed on as it came, where not all of it was.
    pub(super) body_taken: u64,
    /// How many bytes were read for the body, what frames its chunks among them.
    pub(super) body_read: u64,
    /// Whether its head came together with the request before it.
    pub is_pipelined: bool,
    /// How much is to come at least of a body in chunks that was passed over, which nobody had read.
    pub(super) passed_body: Option<u64>,
    /// Whether a client that waits to be told to go on was told so, or need not be any more.
    pub(super) is_told_to_continue: bool,
    /// How the client may prove who it is: `WWW-Authenticate` of whatever it is answered.
    pub(super) challenges: Vec<Bytes>,
    pub(super) uri_changes: u8,
    pub(super) is_error_page: bool,
    pub(super) must_close: bool,
    /// Whether the client has its answer: this is what comes after it.
    pub(super) is_answered: bool,
    /// Whether the location has to be found anew after the rewrite phase.
    pub uri_changed: bool,
    /// What the last regular expression captured; reading a `map` may change it.
    captures: RefCell<Captures>,
    variables: Rc<RefCell<Variables>>,
    notes: Vec<Box<dyn Any>>,
}

/// How a request hangs on another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client's own.
    Main,
    /// Made by a handler of another request.
    Subrequest,
    /// The same, but nobody waits for it: it goes on when the client has gone.
    Background,
}

/// What was sent to the client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// The status.
    pub status: u16,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// All bytes.
    pub bytes: u64,
    /// Whether there was no answer, or it did not come to its end.
    pub is_cut: bool,
}

impl Sent {
    /// Takes back what was counted and did not leave: so much of all, and so much of what is not the head.
    pub(super) fn take_back(&mut self, bytes: u64, body_bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.body_bytes = self.body_bytes.saturating_sub(body_bytes);
    }
}

/// How many variables may be made of one another, as in nginx; more is a cycle, such as `map $a $b` and `map $b $a`.
const MAX_DEPTH: u8 = 100;

/// The values that a request and its subrequests share, by number.
#[derive(Debug, Default)]
struct Variables {
    values: Vec<Option<Value>>,
    /// How many are being made of one another.
    depth: u8,
    /// The variables whose values a directive has quoted.
    quoted: Vec<(VarId, Quoting)>,
    /// What modules keep to the end of all of them.
    kept: Vec<Rc<dyn Any>>,
}

/// How a value was quoted by the directive that assigned it, for those who would quote it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoting {
    /// A JSON string or `null`: `set_quote_json_str`.
    Json,
    /// An SQL literal with doubled apostrophes or `NULL`: `postgres_escape`.
    Sql,
    /// An SQL literal with backslashes: `set_quote_sql_str`, `set_quote_pgsql_str`.
    SqlBackslashes,
}

impl Request {
    /// A client's request, before anything was done for it.
    pub(super) fn new(
        connection: Rc<Connection>,
        compiled: Arc<Compiled>,
        server_id: ServerId,
        head: Rc<RequestHead>,
        started: Moment,
    ) -> Self {
        let location_id = compiled.server_location(server_id);
        Self {
            peer: connection.peer.clone(),
            connection,
            method: head.method(),
            method_name: method_name(&head),
            uri: head.path_bytes(),
            args: head.args_bytes(),
            server_id,
            location_id,
            is_internal: false,
            kind: Kind::Main,
            error_status: None,
            started,
            sent: Sent::default(),
            gzip: Tested::default(),
            upstream: None,
            is_uri_as_sent: head.has_valid_request_uri(),
            is_in_location: true,
            body: None,
            body_file: None,
            limit_rate: None,
            body_taken: 0,
            body_read: 0,
            is_pipelined: false,
            is_told_to_continue: false,
            passed_body: None,
            challenges: Vec::new(),
            uri_changes: MAX_URI_CHANGES,
            is_error_page: false,
            must_close: false,
            is_answered: false,
            uri_changed: false,
            captures: RefCell::default(),
            variables: Rc::default(),
            notes: Vec::new(),
            head,
            compiled,
        }
    }

    /// A request inside this one: the same client, arguments and variables unless changed afterwards.
    pub fn subrequest(&self, uri: Bytes, args: Bytes) -> Self {
        Self {
            connection: Rc::clone(&self.connection),
            peer: self.peer.clone(),
            compiled: Arc::clone(&self.compiled),
            head: Rc::clone(&self.head),
            method: Method::Get,
            method_name: Bytes::from_static(b"GET"),
            uri,
            args,
            server_id: self.server_id,
            location_id: self.compiled.server_location(self.server_id),
            is_internal: true,
            kind: Kind::Subrequest,
            error_status: None,
            started: clock::now(),
            sent: Sent::default(),
            gzip: Tested::default(),
            upstream: None,
            is_uri_as_sent: false,
            is_in_location: true,
            body: self.body.clone(),
            body_file: self.body_file.clone(),
            limit_rate: None,
            body_taken: 0,
            body_read: 0,
            is_pipelined: false,
            is_told_to_continue: false,
            passed_body: None,
            challenges: Vec::new(),
            uri_changes: MAX_URI_CHANGES,
            is_error_page: false,
            must_close: false,
            is_answered: false,
            uri_changed: false,
            captures: self.captures.clone(),
            variables: Rc::clone(&self.variables),
            notes: Vec::new(),
        }
    }

    /// The same, with variables of its own: for what outlives the request that it comes from.
    pub fn detached(&self, uri: Bytes, args: Bytes) -> Self {
        Self { variables: Rc::default(), ..self.subrequest(uri, args).in_background() }
    }

    /// Says that nobody waits for it.
    pub fn in_background(mut self) -> Self {
        self.kind = Kind::Background;
        self
    }

    /// Makes it a POST with a body.
    pub fn post(mut self, body: Bytes) -> Self {
        self.method = Method::Post;
        self.method_name = Bytes::from_static(b"POST");
        self.body = Some(body);
        self.body_file = None;
        self
    }

    /// Leaves the body out.
    pub fn without_body(mut self) -> Self {
        self.body = Some(Bytes::new());
        self.body_file = None;
        self
    }

    /// Tells the client, whatever it is answered, how it may prove who it is.
    pub fn challenge(&mut self, how: Bytes) {
        self.challenges.push(how);
    }

    /// The location.
    pub fn location(&self) -> &Location {
        self.compiled.location(self.location_id)
    }

    /// The server.
    pub fn server(&self) -> &Server {
        self.compiled.server(self.server_id)
    }

    /// A section of the settings that hold here.
    pub fn settings<S: Section>(&self) -> &S {
        self.compiled.settings(self.location_id).get::<S>()
    }

    /// The status of the answer, as far as it is known; 0: not at all.
    pub fn status(&self) -> u16 {
        match self.sent.status {
            0 => self.error_status.unwrap_or(0),
            status => status,
        }
    }

    /// Whether it is a client's own.
    pub fn is_main(&self) -> bool {
        self.kind == Kind::Main
    }

    /// Whether there is nothing to be done once the client has gone.
    pub fn ends_with_client(&self) -> bool {
        self.kind != Kind::Background && !self.is_answered
    }

    /// Whether the answer goes without its body.
    pub fn is_head(&self) -> bool {
        self.method == Method::Head
    }

    /// A variable's value. Reading keeps it, where the variable allows.
    pub fn variable(&self, id: VarId) -> Value {
        let index = id.0 as usize;
        if let Some(Some(value)) = self.variables.borrow().values.get(index) {
            return value.clone();
        }
        let variable = self.compiled.variables().get(index)?;
        let value = match &variable.source {
            crate::config::Source::BuiltIn { row, suffix } => (row.read)(self, suffix),
            crate::config::Source::Computed(read) => {
                if self.variables.borrow().depth == MAX_DEPTH {
                    self.log(Level::Error, &format!("cycle while evaluating variable \"{}\"", variable.name));
                    return None;
                }
                self.variables.borrow_mut().depth += 1;
                let value = read(self);
                self.variables.borrow_mut().depth -= 1;
                value
            }
            crate::config::Source::Assigned => None,
        };
        if variable.cached {
            self.variables.borrow_mut().put(index, value.clone());
        }
        value
    }

    /// Whether a variable has a value that was assigned or kept.
    pub fn is_assigned(&self, id: VarId) -> bool {
        matches!(self.variables.borrow().values.get(id.0 as usize), Some(Some(_)))
    }

    /// Assigns a variable.
    pub fn set_variable(&mut self, id: VarId, value: Value) {
        let source = self.compiled.variables().get(id.0 as usize).map(|variable| &variable.source);
        if let Some(crate::config::Source::BuiltIn { row, .. }) = source
            && let Some(write) = row.write
        {
            write(self, value.unwrap_or_default());
            return;
        }
        self.variables.borrow_mut().put(id.0 as usize, value);
    }

    /// Assigns a variable a value that was quoted.
    pub fn set_quoted(&mut self, id: VarId, value: Bytes, quoting: Quoting) {
        self.set_variable(id, Some(value));
        self.variables.borrow_mut().quoted.push((id, quoting));
    }

    /// How the present value of a variable was quoted; `None`: it may be anything.
    pub fn quoting(&self, id: VarId) -> Option<Quoting> {
        self.variables.borrow().quoted.iter().find(|(quoted, _)| *quoted == id).map(|(_, quoting)| *quoting)
    }

    /// Matches a text. What is captured stays for `$1` and its like, and goes to the variables that the expression
    /// names. An error is a match that was given up, which is logged.
    pub fn matches(&self, regex: &Regex, subject: &Bytes) -> Result<bool, pcre2::Error> {
        match regex.captures(subject) {
            Ok(None) => Ok(false),
            Ok(Some(captures)) => {
                self.keep_captures(regex, captures);
                Ok(true)
            }
            Err(error) => {
                let (code, subject) = (error.code(), shown(subject));
                let message = format!("pcre2_match() failed: {code} on \"{subject}\" using \"{}\"", regex.pattern());
                self.log(Level::Alert, &message);
                Err(error)
            }
        }
    }

    /// Keeps what an expression captured.
    pub(super) fn keep_captures(&self, regex: &Regex, captures: Captures) {
        for (number, variable) in regex.named() {
            self.variables.borrow_mut().put(variable.0 as usize, captures.get(*number));
        }
        self.set_captures(captures);
    }

    /// Replaces what was captured.
    pub fn set_captures(&self, captures: Captures) {
        self.captures.replace(captures);
    }

    /// What the last expression captured under a number.
    pub fn capture(&self, number: usize) -> Value {
        self.captures.borrow().get(number)
    }

    /// Lets variables that belong to a location be read anew, after a jump inside the server.
    pub(super) fn forget_notes(&mut self) {
        self.notes.clear();
    }

    /// What a module keeps with the request.
    pub fn note<T: Any>(&self) -> Option<&T> {
        self.notes.iter().find_map(|note| note.downcast_ref())
    }

    /// The same, to change; made when it is not there.
    pub fn note_mut<T: Any + Default>(&mut self) -> &mut T {
        let index = match self.notes.iter().position(|note| note.is::<T>()) {
            Some(index) => index,
            None => {
                self.notes.push(Box::new(T::default()));
                self.notes.len() - 1
            }
        };
        self.notes[index].downcast_mut().expect("the note of this type was found or made")
    }

    /// What a module keeps with a client's request and its subrequests until all are done, redirects inside the server
    /// or not.
    pub fn kept<T: Any>(&self) -> Option<Rc<T>> {
        let variables = self.variables.borrow();
        variables.kept.iter().find_map(|kept| Rc::downcast(Rc::clone(kept)).ok())
    }

    /// The same, made when it is not there.
    pub fn keep<T: Any + Default>(&self) -> Rc<T> {
        self.kept().unwrap_or_else(|| {
            let made = Rc::<T>::default();
            self.variables.borrow_mut().kept.push(made.clone());
            made
        })
    }

    /// All that is kept, for who goes on with the connection when the request is over.
    pub fn all_kept(&self) -> Vec<Rc<dyn Any>> {
        self.variables.borrow().kept.clone()
    }

    /// Writes to the error log that holds here, with nginx's particulars of client, server and request.
    pub fn log(&self, level: Level, message: &str) {
        let settings = self.settings::<LogSettings>();
        if settings.wants(level) {
            settings.write(level, self.connection.number, &super::log_line::with_particulars(self, message));
        }
    }
}

impl Variables {
    fn put(&mut self, index: usize, value: Value) {
        if self.values.len() <= index {
            self.values.resize(index + 1, None);
        }
        self.values[index] = Some(value);
        self.quoted.retain(|(quoted, _)| quoted.0 as usize != index);
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({} {})", shown(&self.method_name), shown(&self.uri))
    }
}

fn method_name(head: &RequestHead) -> Bytes {
    match head.method() {
        Method::Get => Bytes::from_static(b"GET"),
        _ => Bytes::copy_from_slice(head.method_name()),
    }
}
