//! The text of a `postgres_query`: a template whose variables are nginx's, and what it becomes for a request.

use bytes::Bytes;

use super::reading::Reading;
use crate::config::{Call, Cx, VarId};
use crate::http::{Quoting, Request};
use crate::pg::sql::{
    Origin, Refusal, Statement, Template, TemplateError, Untyped, Value, expand_fragments, has_fragments, type_name,
};

/// A statement with variables.
#[derive(Clone, Debug)]
pub(super) struct Sql {
    /// As it was written.
    pub(super) text: String,
    /// The template; an error is the server's affair in the originals, so it is said at the request.
    template: Result<Template, TemplateError>,
    sources: Vec<Source>,
    /// `:word` of 2018: the template is the value of `$sql`, once `$action` is the word.
    named: Option<Named>,
    /// Where `:@:key` of 2018 finds its text.
    meta: Option<VarId>,
}

/// A template that a variable holds.
#[derive(Clone, Debug)]
struct Named {
    word: Bytes,
    action: VarId,
    sql: VarId,
}

/// Where the value of a template's variable is found.
#[derive(Clone, Copy, Debug)]
enum Source {
    Variable(VarId),
    Capture(u8),
    /// There is no such variable.
    Nothing,
}

impl Sql {
    /// Reads a text. A variable without `::type` has its value placed there in older configurations, and is none in
    /// today's, but for the channel of LISTEN and UNLISTEN, where SQL could not mean anything else.
    pub(super) fn compile(text: String, reading: Reading, cx: &mut Cx<'_>, call: &Call<'_>) -> Self {
        let colon = text.strip_prefix(':').filter(|_| reading != Reading::Libpq);
        let template = match reading {
            _ if colon.is_some() => Template::parse(colon.unwrap_or_default(), Untyped::Colon),
            Reading::Address | Reading::Either => Template::parse(&text, Untyped::Place),
            Reading::Libpq => Template::parse(&text, Untyped::Keep),
        };
        let variables = template.as_ref().map_or(&[][..], Template::variables);
        let at = Some(call.at());
        let sources = variables.iter().map(|name| match name.as_bytes() {
            [digit @ b'1'..=b'9'] if reading != Reading::Libpq => Source::Capture(digit - b'0'),
            // A name of the form of 2018 need not be a variable's: then it is NULL.
            _ if colon.is_some() => Source::Variable(cx.variables().wanted(name)),
            _ => Source::Variable(cx.variables().used(name, at)),
        });
        let sources = sources.collect();
        let named = colon.filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()) && !word.is_empty());
        let named = named.map(|word| Named {
            word: Bytes::copy_from_slice(word.as_bytes()),
            action: cx.variables().used("action", at),
            sql: cx.variables().used("sql", at),
        });
        let meta = colon.map(|_| cx.variables().wanted("meta"));
        Self { text, template, sources, named, meta }
    }

    /// The statement that a variable holds, if this one only names it or pieces of it.
    pub(super) fn resolve(&self, request: &mut Request) -> Option<Self> {
        let held =
            |request: &Request, id| String::from_utf8_lossy(&request.variable(id).unwrap_or_default()).into_owned();
        let text = match &self.named {
            Some(named) => {
                request.set_variable(named.action, Some(named.word.clone()));
                held(request, named.sql)
            }
            None => self.text.strip_prefix(':').filter(|_| self.has_fragments())?.to_owned(),
        };
        let text = match self.meta.filter(|_| has_fragments(&text)) {
            Some(meta) => expand_fragments(&text, &held(request, meta)),
            None => Ok(text),
        };
        let template = text.and_then(|text| Template::parse(&text, Untyped::Colon));
        let names = template.as_ref().map_or(&[][..], Template::variables);
        let known = &request.compiled.config.built.variables;
        let sources = names.iter().map(|name| known.id(name).map_or(Source::Nothing, Source::Variable)).collect();
        Some(Self { text: self.text.clone(), template, sources, named: None, meta: None })
    }

    /// Whether pieces of it are in `$meta`.
    fn has_fragments(&self) -> bool {
        self.meta.is_some() && has_fragments(&self.text)
    }

    /// The variables that hold a statement or pieces of one.
    pub(super) fn holders(&self) -> &'static [&'static str] {
        match self.named {
            Some(_) => &["sql", "meta"],
            None if self.has_fragments() => &["meta"],
            None => &[],
        }
    }

    /// Whether it is LISTEN or UNLISTEN, for the listener.
    pub(super) fn is_listen(&self) -> bool {
        self.template.as_ref().is_ok_and(Template::is_listen)
    }

    /// What today's grammar leaves as it is, and the older ones take for a variable.
    pub(super) fn untyped(&self) -> Vec<String> {
        let Some(kept) = self.template.as_ref().ok().filter(|template| template.keeps_untyped()) else {
            return Vec::new();
        };
        let placed = Template::parse(&self.text, Untyped::Place);
        let placed = placed.as_ref().map_or(&[][..], Template::variables);
        placed.iter().filter(|name| !kept.variables().contains(name)).cloned().collect()
    }

    /// Why it can't be a statement.
    pub(super) fn error(&self) -> Option<&TemplateError> {
        self.template.as_ref().err()
    }

    /// The names of the variables whose values get into the text.
    pub(super) fn spliced(&self) -> Vec<&str> {
        self.template.as_ref().map_or_else(|_| Vec::new(), |template| template.spliced().collect())
    }

    /// The statement as it could be sent, for a look at it: with a cast at each parameter, and 1 for what is placed.
    pub(super) fn sample(&self) -> Option<String> {
        let template = self.template.as_ref().ok().filter(|_| !self.has_fragments())?;
        let values = vec![Value::raw(b"1"); template.variables().len()];
        let Ok(Statement::Query(query)) = template.render(&values) else { return None };
        let mut typed = String::with_capacity(query.sql.len());
        let mut rest = query.sql.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let number = after[..digits].parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            let name = number.and_then(|index| type_name(query.params.get(index)?.oid));
            typed.push_str(before);
            match name {
                Some(name) => typed.push_str(&format!("(${}::{name})", &after[..digits])),
                None => typed.push_str(&format!("${}", &after[..digits])),
            }
            rest = &after[digits..];
        }
        typed.push_str(rest);
        Some(typed)
    }

    /// The statement for a request.
    pub(super) fn render(&self, request: &Request) -> Result<Statement, NoStatement> {
        self.with_values(request, Template::render)
    }

    /// The statement with the values pasted in as they come, as the originals do: a value may be any SQL.
    pub(super) fn paste(&self, request: &Request) -> Result<Statement, NoStatement> {
        if self.is_listen() {
            return self.render(request);
        }
        self.with_values(request, |template, values| template.paste(values).map(Statement::Query))
    }

    fn with_values(
        &self,
        request: &Request,
        make: impl Fn(&Template, &[Value<'_>]) -> Result<Statement, Refusal>,
    ) -> Result<Statement, NoStatement> {
        let template = self.template.as_ref().map_err(|error| NoStatement::Broken(error.clone()))?;
        let values: Vec<(Option<Bytes>, Origin)> = self.sources.iter().map(|source| source.read(request)).collect();
        let values: Vec<Value<'_>> =
            values.iter().map(|(bytes, origin)| Value { bytes: bytes.as_deref(), origin: *origin }).collect();
        make(template, &values).map_err(NoStatement::Refused)
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
            Self::Nothing => (None, Origin::Raw),
            Self::Capture(number) => (request.capture(usize::from(number)), Origin::Raw),
        }
    }
}
