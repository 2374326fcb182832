//! The text of a `postgres_query`: a template whose variables are nginx's, and what it becomes for a request.

use bytes::Bytes;

use super::reading::Reading;
use crate::config::value::Template as PlainTemplate;
use crate::config::{Call, Cx, VarId};
use crate::http::{Quoting, Request};
use crate::pg::connection::Query;
use crate::pg::sql::{Origin, Refusal, Statement, Template, TemplateError, Untyped, Value};

/// A statement with variables.
#[derive(Clone, Debug)]
pub(super) struct Sql {
    /// As it was written.
    pub(super) text: String,
    /// The template; an error is the server's affair in the originals, so it is said at the request.
    template: Result<Template, TemplateError>,
    sources: Vec<Source>,
    /// The text as the originals take it, for `postgres_unsafe_interpolation`.
    plain: Option<PlainTemplate>,
}

/// Where the value of a template's variable is found.
#[derive(Clone, Copy, Debug)]
enum Source {
    Variable(VarId),
    Capture(u8),
}

impl Sql {
    /// Reads a text. A variable without `::type` has its value placed there in older configurations, and is none in
    /// today's, but for the channel of LISTEN and UNLISTEN, where SQL could not mean anything else.
    pub(super) fn compile(text: String, reading: Reading, cx: &mut Cx<'_>, call: &Call<'_>) -> Self {
        let placed = || Template::parse(&text, Untyped::Place);
        let template = match reading {
            Reading::Address | Reading::Either => placed(),
            Reading::Libpq => match placed() {
                Ok(template) if template.is_listen() => Ok(template),
                _ => Template::parse(&text, Untyped::Keep),
            },
        };
        let variables = template.as_ref().map_or(&[][..], Template::variables);
        let at = Some(call.at());
        let sources = variables.iter().map(|name| match name.as_bytes() {
            [digit @ b'1'..=b'9'] if reading != Reading::Libpq => Source::Capture(digit - b'0'),
            _ => Source::Variable(cx.variables().used(name, at)),
        });
        let sources = sources.collect();
        let plain = match reading {
            Reading::Libpq => None,
            Reading::Address | Reading::Either => PlainTemplate::compile(text.as_bytes(), cx, at).ok(),
        };
        Self { text, template, sources, plain }
    }

    /// Whether it is LISTEN or UNLISTEN, for the listener.
    pub(super) fn is_listen(&self) -> bool {
        self.template.as_ref().is_ok_and(Template::is_listen)
    }

    /// Why it can't be a statement.
    pub(super) fn error(&self) -> Option<&TemplateError> {
        self.template.as_ref().err()
    }

    /// The names of the variables whose values get into the text.
    pub(super) fn spliced(&self) -> Vec<&str> {
        self.template.as_ref().map_or_else(|_| Vec::new(), |template| template.spliced().collect())
    }

    /// The statement with the values pasted in as they come, as the originals do: a value may be any SQL.
    pub(super) fn splice(&self, request: &Request) -> Result<Statement, NoStatement> {
        let Some(plain) = &self.plain else { return self.render(request) };
        let text = String::from_utf8_lossy(&request.eval(plain)).into_owned();
        match Template::parse(&text, Untyped::Keep) {
            // LISTEN must reach the listener.
            Ok(template) if template.is_listen() => template.render(&[]).map_err(NoStatement::Refused),
            // What is wrong with the rest is for the server to say.
            Ok(_) | Err(_) => Ok(Statement::Query(Query::from(text.as_str()))),
        }
    }

    /// The statement for a request.
    pub(super) fn render(&self, request: &Request) -> Result<Statement, NoStatement> {
        let template = self.template.as_ref().map_err(|error| NoStatement::Broken(error.clone()))?;
        let values: Vec<(Option<Bytes>, Origin)> = self.sources.iter().map(|source| source.read(request)).collect();
        let values: Vec<Value<'_>> =
            values.iter().map(|(bytes, origin)| Value { bytes: bytes.as_deref(), origin: *origin }).collect();
        template.render(&values).map_err(NoStatement::Refused)
    }
}

/// Why there is no statement for a request.
#[derive(Debug)]
pub(super) enum NoStatement {
    /// The template is none.
    Broken(TemplateError),
    /// A value may not stand where it would.
    Refused(Refusal),
}

impl Source {
    fn read(self, request: &Request) -> (Option<Bytes>, Origin) {
        match self {
            Self::Variable(id) => {
                let origin = match request.quoting(id) {
                    None => Origin::Raw,
                    Some(Quoting::Json) => Origin::JsonQuoted,
                    Some(Quoting::Sql) => Origin::SqlQuoted,
                    Some(Quoting::SqlBackslashes) => Origin::SqlBackslashed,
                };
                (request.variable(id), origin)
            }
            Self::Capture(number) => (request.capture(usize::from(number)), Origin::Raw),
        }
    }
}
