//! A template, cut into tokens, with the place of each variable worked out.

use std::collections::BTreeMap;

use thiserror::Error;

use super::lexer::{Kind, Lexed, Token, Unterminated, lex};
use super::variable::{Cast, Hole, Place, Untyped};

/// One statement with variables in it.
#[derive(Clone, Debug)]
pub struct Template {
    pub(super) text: String,
    pub(super) tokens: Vec<Token>,
    pub(super) slots: Vec<Slot>,
    pub(super) variables: Vec<String>,
    pub(super) command: Command,
    /// Nothing but parameters: the text is the same for every request.
    pub(super) is_constant: bool,
    keeps_untyped: bool,
}

/// A place for a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Which of the template's variables.
    pub(super) variable: usize,
    pub(super) hole: Hole,
    pub(super) role: Role,
}

/// What a value may be at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Bound(u32),
    /// The same, where only what is unset is NULL.
    BoundWhole(u32),
    Identifier,
    /// A token of its own.
    Bare(Expected),
    /// Letters, digits and `_`.
    WordPart,
    /// Inside quotes of this kind.
    Inside(Kind),
    Comment,
}

/// What the grammar wants where a bare variable stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Value,
    Name,
    Either,
}

/// Where a statement goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// To the pool.
    Query,
    /// To the listener; the token is the operand.
    Listen(usize),
    Unlisten(usize),
    UnlistenAll,
}

/// Why a template is no statement.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A quote or comment is open at the end.
    #[error("unterminated quote or comment at \"{0}\"")]
    Unterminated(String),
    /// There is more after a `;`.
    #[error("several statements in one query: \"{0}\" follows a \";\"")]
    SeveralStatements(String),
    /// LISTEN without, or with more than, a channel's name.
    #[error("\"{0}\" takes the name of one channel")]
    ListenOperand(String),
    /// `$meta` lacks a piece of the text.
    #[error("no \"{0}\" in $meta")]
    NoFragment(String),
    /// A piece names itself, or there are too many.
    #[error("pieces of $meta that name themselves")]
    TooManyFragments,
    /// SQL has no place for it.
    #[error("a NUL byte in the query")]
    Nul,
}

impl Template {
    /// Reads the text of a query.
    pub fn parse(text: &str, untyped: Untyped) -> Result<Self, TemplateError> {
        match Self::read(text, untyped) {
            // In the newest module `listen $id` is an error of the server: it can only have been meant as a variable.
            Err(TemplateError::ListenOperand(_)) if untyped == Untyped::Keep => Self::read(text, Untyped::Place),
            result => result,
        }
    }

    fn read(text: &str, untyped: Untyped) -> Result<Self, TemplateError> {
        if text.contains('\0') {
            return Err(TemplateError::Nul);
        }
        let Lexed { tokens, holes } =
            lex(text, Some(untyped)).map_err(|Unterminated(at)| TemplateError::Unterminated(excerpt(&text[at..])))?;
        let mut variables = Variables::default();
        let mut places = Places::new(text);
        let mut slots = Vec::with_capacity(holes.len());
        for token in &tokens {
            for hole in &holes[token.holes.clone()] {
                let variable = variables.number(&text[hole.name.clone()]);
                slots.push(Slot { variable, role: places.role(token, hole), hole: hole.clone() });
            }
            places.pass(token);
        }
        let command = command(text, &tokens)?;
        let is_constant =
            slots.iter().all(|slot| matches!(slot.role, Role::Bound(_) | Role::BoundWhole(_) | Role::Comment));
        Ok(Self {
            text: text.to_owned(),
            tokens,
            slots,
            variables: variables.names,
            command,
            is_constant,
            keeps_untyped: untyped == Untyped::Keep,
        })
    }

    /// The variables in it, each once, in the order of their values for [`render`](Self::render).
    #[must_use]
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a variable without `::type` stays in it as it was written.
    #[must_use]
    pub fn keeps_untyped(&self) -> bool {
        self.keeps_untyped
    }

    /// Whether it goes to the listener rather than to the pool.
    #[must_use]
    pub fn is_listen(&self) -> bool {
        self.command != Command::Query
    }

    /// The variables whose values get into the text of the statement rather than travel beside it.
    pub fn spliced(&self) -> impl Iterator<Item = &str> {
        let spliced =
            self.slots.iter().filter(|slot| !matches!(slot.role, Role::Bound(_) | Role::BoundWhole(_) | Role::Comment));
        spliced.map(|slot| self.variables[slot.variable].as_str())
    }
}

#[derive(Default)]
struct Variables {
    names: Vec<String>,
    numbers: BTreeMap<String, usize>,
}

impl Variables {
    fn number(&mut self, name: &str) -> usize {
        *self.numbers.entry(name.to_owned()).or_insert_with(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }
}

/// Follows the tokens, as far as it takes to know what a bare variable stands for.
struct Places<'a> {
    text: &'a str,
    /// What a value after a comma would be, for each open parenthesis and the outside.
    lists: Vec<Expected>,
    /// What a variable here would be.
    next: Expected,
    first_word: Option<String>,
    last: Last,
    significant: usize,
    /// Whether the next AND belongs to a BETWEEN.
    in_between: bool,
}

#[derive(PartialEq, Eq)]
enum Last {
    Nothing,
    /// A keyword that a value or a name follows.
    Keyword,
    /// A word that may be a table or a function, and whether a column list may follow it.
    Name {
        of_table: bool,
    },
    Other,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            lists: vec![Expected::Either],
            next: Expected::Either,
            first_word: None,
            last: Last::Nothing,
            significant: 0,
            in_between: false,
        }
    }

    fn first_is(&self, words: &[&str]) -> bool {
        self.first_word.as_deref().is_some_and(|first| words.contains(&first))
    }

    fn role(&self, token: &Token, hole: &Hole) -> Role {
        match (hole.place, hole.cast, token.kind) {
            (Place::Comment, ..) => Role::Comment,
            (_, Some(Cast::Bind(oid)), _) => Role::Bound(oid),
            (_, Some(Cast::BindWhole(oid)), _) => Role::BoundWhole(oid),
            (_, Some(Cast::Identifier), _) => Role::Identifier,
            // What PostgreSQL keeps as a text here it runs as code later.
            (Place::Inside, ..) if self.first_is(&["do", "create"]) => Role::WordPart,
            (Place::Inside, _, kind) => Role::Inside(kind),
            _ if token.span != hole.span => Role::WordPart,
            // The channel of NOTIFY is read as that of LISTEN is: as it comes.
            _ if self.significant == 1 && self.first_is(&["notify"]) => Role::Identifier,
            _ => Role::Bare(self.next),
        }
    }

    fn pass(&mut self, token: &Token) {
        if !token.is_significant() {
            return;
        }
        let text = &self.text[token.span.clone()];
        match (token.kind, text) {
            (Kind::Punctuation, "(" | "[") => {
                let inside = match self.last {
                    Last::Name { of_table: true } => Expected::Name,
                    Last::Name { of_table: false } => Expected::Value,
                    Last::Keyword | Last::Other | Last::Nothing => self.next,
                };
                self.lists.push(inside);
                self.follow(inside, Last::Other);
            }
            (Kind::Punctuation, ")" | "]") => {
                if self.lists.len() > 1 {
                    self.lists.pop();
                }
                self.follow(Expected::Either, Last::Other);
            }
            (Kind::Punctuation, ",") => {
                let list = self.lists.last().copied().unwrap_or(Expected::Either);
                self.follow(list, Last::Other);
            }
            (Kind::Punctuation, ".") => self.follow(Expected::Name, Last::Other),
            (Kind::Operator, "::") => self.follow(Expected::Name, Last::Other),
            (Kind::Operator, _) => self.follow(Expected::Value, Last::Other),
            (Kind::Word, _) if token.holes.is_empty() => self.word(&text.to_ascii_lowercase()),
            (Kind::Word | Kind::QuotedName | Kind::UnicodeName, _) => self.name(),
            _ => self.follow(Expected::Either, Last::Other),
        }
        self.significant += 1;
    }

    fn follow(&mut self, next: Expected, last: Last) {
        self.next = next;
        self.last = last;
    }

    fn name(&mut self) {
        // A table's name follows INTO, and its columns follow the table.
        let of_table = self.next == Expected::Name && self.first_is(&["insert", "copy", "create", "with"]);
        self.follow(Expected::Either, Last::Name { of_table });
    }

    fn word(&mut self, word: &str) {
        if self.first_word.is_none() {
            self.first_word = Some(word.to_owned());
        }
        self.in_between |= word == "between";
        let (next, list) = match word {
            "select" | "distinct" | "by" | "returning" | "set" | "union" | "except" | "intersect" => {
                (Expected::Either, Some(Expected::Either))
            }
            "from" | "join" | "into" | "update" | "table" | "only" | "as" | "schema" | "view" | "index" | "column"
            | "role" | "truncate" | "constraint" | "conflict" | "using" => (Expected::Name, None),
            "and" if std::mem::take(&mut self.in_between) => (Expected::Value, None),
            // An expression begins, which may well begin with a column.
            "where" | "and" | "or" | "not" | "having" | "on" | "when" | "case" | "filter" => (Expected::Either, None),
            "limit" | "offset" | "between" | "like" | "ilike" | "in" | "then" | "else" | "is" | "values" | "any"
            | "all" | "some" | "escape" | "array" | "similar" | "to" | "fetch" | "first" | "next" | "row"
            | "default" | "call" => (Expected::Value, None),
            _ => return self.name(),
        };
        if let (Some(list), Some(current)) = (list, self.lists.last_mut()) {
            *current = list;
        }
        self.follow(next, Last::Keyword);
    }
}

/// Tells the listener's commands from the others, and one statement from several.
fn command(text: &str, tokens: &[Token]) -> Result<Command, TemplateError> {
    let significant: Vec<usize> =
        tokens.iter().enumerate().filter(|(_, token)| token.is_significant()).map(|(index, _)| index).collect();
    let word = |index: usize| &text[tokens[index].span.clone()];
    let first = significant.first().copied();
    // In a function's body between BEGIN ATOMIC and END there are semicolons; the server counts for itself anyway.
    let end = match first {
        Some(first) if word(first).eq_ignore_ascii_case("create") => significant.len(),
        _ => significant.iter().position(|index| word(*index) == ";").unwrap_or(significant.len()),
    };
    if let Some(more) = significant.get(end + 1..).and_then(|rest| rest.iter().find(|index| word(**index) != ";")) {
        return Err(TemplateError::SeveralStatements(excerpt(&text[tokens[*more].span.start..])));
    }
    let Some((first, operands)) = significant[..end].split_first() else {
        return Ok(Command::Query);
    };
    let is_unlisten = match word(*first) {
        name if name.eq_ignore_ascii_case("listen") => false,
        name if name.eq_ignore_ascii_case("unlisten") => true,
        _ => return Ok(Command::Query),
    };
    match operands {
        [star] if is_unlisten && word(*star) == "*" => Ok(Command::UnlistenAll),
        [name] if is_channel(&tokens[*name]) => {
            Ok(if is_unlisten { Command::Unlisten(*name) } else { Command::Listen(*name) })
        }
        _ => Err(TemplateError::ListenOperand(word(*first).to_owned())),
    }
}

fn is_channel(token: &Token) -> bool {
    match token.kind {
        Kind::Word | Kind::QuotedName => true,
        Kind::Parameter => !token.holes.is_empty(),
        _ => false,
    }
}

/// The beginning of a text, for a message.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}
