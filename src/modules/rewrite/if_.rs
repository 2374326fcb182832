//! `if`: its conditions, and its block.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::rewrite::matches;
use crate::config::value::{Regex, Template};
use crate::config::{Call, Contexts, Cx, Fault, LocationDef, LocationKind, VarId};
use crate::http::rewrite::{Flow, Step, push_step, run_steps, step_count, take_steps};
use crate::http::{Next, Request, file};

struct If {
    condition: Condition,
    /// The nameless location whose settings the block has; `None` on the server's level.
    location: Option<usize>,
    steps: Vec<Arc<dyn Step>>,
}

enum Condition {
    /// Neither empty nor `0`.
    Holds(VarId),
    Equals {
        variable: VarId,
        text: Template,
        is: bool,
    },
    Matches {
        variable: VarId,
        regex: Regex,
        does: bool,
    },
    File {
        test: FileTest,
        path: Template,
        is: bool,
    },
}

#[derive(Clone, Copy)]
enum FileTest {
    File,
    Folder,
    Exists,
    Executable,
}

/// Adds the step, with those of its block.
pub(super) fn if_(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let condition = condition(cx, call)?;
    let first = step_count(cx);
    let location = match cx.location_number() {
        None => {
            cx.block(Contexts::IF_SERVER, call);
            None
        }
        Some(parent) => Some(block(cx, call, parent)),
    };
    let steps = take_steps(cx, first);
    push_step(cx, If { condition, location, steps });
    Ok(())
}

/// Walks the block of an `if` in a location, which has settings of its own. Gives the number of its nameless location.
fn block(cx: &mut Cx<'_>, call: &Call<'_>, parent: usize) -> usize {
    let scope = cx.open(Contexts::IF_LOCATION, call);
    let locations = &mut cx.model().locations;
    let number = locations.len();
    let (server, name) = (locations[parent].server, locations[parent].name.clone());
    locations.push(LocationDef {
        scope,
        server,
        kind: LocationKind::Nameless,
        name,
        parent: Some(parent),
        children: Vec::new(),
    });
    cx.walk(scope, call);
    number
}

/// Reads what stands between the parentheses, which may touch the words or be words of their own.
fn condition(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<Condition, Fault> {
    // Each word with its number, for where it stands.
    let mut words: Vec<(usize, &[u8])> = call.words().enumerate().collect();
    let first = words.first_mut().filter(|(_, word)| word.starts_with(b"("));
    let Some((_, word)) = first else { return Err(invalid(call.bytes(0), 0)) };
    *word = &word[1..];
    let is_alone = word.is_empty();
    let (index, word) = words.pop().expect("the first word was found");
    let Some(word) = word.strip_suffix(b")") else {
        // nginx leaves a lone parenthesis as it is.
        return Err(invalid(if is_alone && index == 0 { b"(" } else { word }, index));
    };
    if !word.is_empty() || index == 0 {
        words.push((index, word));
    }
    let words = if is_alone && !words.is_empty() && words[0].0 == 0 { &words[1..] } else { &words[..] };
    let &[(index, word), ref rest @ ..] = words else { return Err(invalid(b")", call.len() - 1)) };
    match word {
        [b'$', name @ ..] if !name.is_empty() => {
            let name = String::from_utf8_lossy(name);
            let (operator, right) = match *rest {
                [] => return Ok(Condition::Holds(cx.variables().used(&name, Some(call.word_at(index))))),
                [operator, right] => (operator, right),
                _ => return Err(invalid(word, index)),
            };
            let variable = cx.variables().used(&name, Some(call.word_at(index)));
            compare(cx, call, variable, operator, right)
        }
        [b'-', _] | [b'!', b'-', _] => {
            let [(number, path)] = *rest else { return Err(invalid(word, index)) };
            let path = Template::compile(path, cx, Some(call.word_at(number))).map_err(|fault| fault.word(number))?;
            let test = match word.last() {
                Some(b'f') => FileTest::File,
                Some(b'd') => FileTest::Folder,
                Some(b'e') => FileTest::Exists,
                Some(b'x') => FileTest::Executable,
                _ => return Err(invalid(word, index)),
            };
            Ok(Condition::File { test, path, is: word[0] == b'-' })
        }
        _ => Err(invalid(word, index)),
    }
}

fn invalid(word: &[u8], index: usize) -> Fault {
    Fault::new(format!("invalid condition \"{}\"", String::from_utf8_lossy(word)))
        .word(index)
        .help("conditions: ($x), ($x = text), ($x ~ expression), (-f file), and != ~* !~ !~* !-f -d -e -x")
}

/// The condition that compares a variable with a word.
fn compare(
    cx: &mut Cx<'_>,
    call: &Call<'_>,
    variable: VarId,
    (at, operator): (usize, &[u8]),
    (index, right): (usize, &[u8]),
) -> Result<Condition, Fault> {
    match operator {
        b"=" | b"!=" => {
            let text = Template::compile(right, cx, Some(call.word_at(index))).map_err(|fault| fault.word(index))?;
            Ok(Condition::Equals { variable, text, is: operator == b"=" })
        }
        b"~" | b"~*" | b"!~" | b"!~*" => {
            let pattern = String::from_utf8_lossy(right);
            let regex = Regex::compile(&pattern, operator.ends_with(b"*"), cx).map_err(|fault| fault.word(index))?;
            Ok(Condition::Matches { variable, regex, does: operator[0] == b'~' })
        }
        _ => {
            let operator = String::from_utf8_lossy(operator);
            Err(Fault::new(format!("unexpected \"{operator}\" in condition")).word(at).help("= != ~ ~* !~ !~*"))
        }
    }
}

impl Step for If {
    fn run(&self, request: &mut Request) -> Flow {
        match self.condition.holds(request) {
            Err(_) => Flow::End(Next::Status(500)),
            Ok(false) => Flow::On,
            Ok(true) => {
                if let Some(location) = self.location {
                    request.location_id = request.compiled.location_id(location);
                }
                run_steps(&self.steps, request)
            }
        }
    }
}

impl Condition {
    fn holds(&self, request: &Request) -> Result<bool, pcre2::Error> {
        Ok(match self {
            Self::Holds(variable) => !matches!(request.variable(*variable).as_deref(), None | Some(b"" | b"0")),
            Self::Equals { variable, text, is } => {
                (request.variable(*variable).unwrap_or_default() == request.eval(text)) == *is
            }
            Self::Matches { variable, regex, does } => {
                let subject = request.variable(*variable).unwrap_or_default();
                matches(request, regex, &subject)? == *does
            }
            Self::File { test, path, is } => test.holds(request, &request.eval(path)) == *is,
        })
    }
}

impl FileTest {
    fn holds(self, request: &Request, path: &[u8]) -> bool {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let found = match file::stat(request, path) {
            Ok(found) => found,
            Err(failure) => {
                if failure.status() != 404 {
                    failure.log_critical(request, path);
                }
                return false;
            }
        };
        match self {
            Self::File => found.is_file(),
            Self::Folder => found.is_dir(),
            Self::Exists => true,
            Self::Executable => found.permissions().mode() & 0o100 != 0,
        }
    }
}
