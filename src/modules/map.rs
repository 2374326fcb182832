//! ngx_http_map_module: variables whose values depend on those of others.

use std::sync::Arc;

use bytes::Bytes;

use crate::compile::{ServerNames, host_names};
use crate::config::value::{Regex, Template};
use crate::config::{Args, Body, Call, Contexts, Cx, Declarations, Directive, Fault, ServerName, Value, name_of};
use crate::http::{Module, Request};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_map", sections: &[], commands: COMMANDS, variables: &[] },
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[
    Directive {
        name: "map",
        contexts: Contexts::HTTP,
        args: Args::exactly(2),
        body: Body::Block,
        syntax: "string $variable",
        doc: "Makes a variable whose value is looked up by a text: `text value;` in any case, `~expression value;` \
              (`~*` in any case), `default value;`. A `\\` keeps a text from being taken for something else. Exact \
              texts come first, then the expressions in their order. With `hostnames;` also `*.name`, `name.*` and \
              `.name`. With `volatile;` the value is looked up anew each time.\n\n\
              Example: `map $http_upgrade $connection_upgrade { default upgrade; '' close; }`",
        file: file!(),
        apply: map,
        ..Directive::BASE
    },
    Directive::ignored(
        "map_hash_max_size",
        Contexts::HTTP,
        Args::ONE,
        "tables grow as needed",
        "The size of nginx's tables.",
    ),
    Directive::ignored(
        "map_hash_bucket_size",
        Contexts::HTTP,
        Args::ONE,
        "tables grow as needed",
        "The size of a bucket of those tables.",
    ),
];

/// One `map`.
struct Map {
    source: Template,
    table: Table,
}

/// What the block says.
#[derive(Default)]
struct Table {
    hostnames: bool,
    volatile: bool,
    default: Option<Template>,
    values: Vec<Template>,
    /// Texts and names, and the number of their value.
    names: ServerNames<usize>,
    regexes: Vec<(Regex, usize)>,
}

fn map(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let source = Template::word(call, 0, cx)?;
    let name = name_of(call.bytes(1)).map_err(|fault| fault.word(1))?;
    let mut table = Table::default();
    cx.entries(call, &mut |cx, entry| table.entry(cx, entry));
    let cached = !table.volatile;
    let map = Map { source, table };
    cx.variables().computed(&name, cached, Arc::new(move |request| map.value(request)))?;
    Ok(())
}

impl Table {
    fn entry(&mut self, cx: &mut Cx<'_>, entry: &Call<'_>) -> Result<(), Fault> {
        match (entry.name_bytes(), entry.len()) {
            (b"hostnames", 0) => self.hostnames = true,
            (b"volatile", 0) => self.volatile = true,
            (_, 1) => {
                let value = Template::word(entry, 0, cx)?;
                self.add(cx, entry, value)?;
            }
            _ => return Err(Fault::new("invalid number of the map parameters")),
        }
        Ok(())
    }

    fn add(&mut self, cx: &mut Cx<'_>, entry: &Call<'_>, value: Template) -> Result<(), Fault> {
        let number = self.values.len();
        match entry.name_bytes() {
            b"default" if self.default.is_some() => return Err(Fault::new("duplicate default map parameter")),
            b"default" => {
                self.default = Some(value);
                return Ok(());
            }
            [b'~', pattern @ ..] => {
                let (caseless, pattern) = match pattern.strip_prefix(b"*") {
                    Some(pattern) => (true, pattern),
                    None => (false, pattern),
                };
                let regex = Regex::compile(&String::from_utf8_lossy(pattern), caseless, cx)?;
                self.regexes.push((regex, number));
            }
            text => {
                let text = text.strip_prefix(b"\\").unwrap_or(text);
                self.add_text(&String::from_utf8_lossy(text).to_ascii_lowercase(), number)?;
            }
        }
        self.values.push(value);
        Ok(())
    }

    fn add_text(&mut self, text: &str, number: usize) -> Result<(), Fault> {
        let names = if self.hostnames {
            host_names(text).ok_or_else(|| Fault::new(format!("invalid hostname or wildcard \"{text}\"")))?
        } else {
            vec![ServerName::Exact(text.to_owned())]
        };
        // Not `all`, which would stop at the first that is taken.
        let taken = names.iter().filter(|name| !self.names.add(name, number)).count();
        if taken == 0 { Ok(()) } else { Err(Fault::new(format!("conflicting parameter \"{text}\""))) }
    }

    /// The value of a text.
    fn find(&self, request: &Request, text: &Bytes) -> Option<&Template> {
        let mut name = text.clone();
        if self.hostnames && name.ends_with(b".") {
            name.truncate(name.len() - 1);
        }
        if name.iter().any(u8::is_ascii_uppercase) {
            name = name.to_ascii_lowercase().into();
        }
        let by_name = || self.names.find(&name).map(|(number, _)| number);
        // One that is given up counts as none that fits: the default holds then, as in nginx.
        let by_regex = || {
            let fits = |(regex, _): &&(Regex, usize)| request.matches(regex, text).unwrap_or(false);
            self.regexes.iter().find(fits).map(|(_, number)| *number)
        };
        by_name().or_else(by_regex).and_then(|number| self.values.get(number)).or(self.default.as_ref())
    }
}

impl Map {
    /// The variable's value: empty, but there, where nothing fits and there is no default.
    fn value(&self, request: &Request) -> Value {
        let text = request.eval(&self.source);
        Some(self.table.find(request, &text).map_or_else(Bytes::new, |value| request.eval(value)))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::load_http;

    #[test]
    fn messages() {
        let check = |block: &str, expected: &[&str]| {
            let config = load_http(block);
            let got: Vec<_> = config.built.diagnostics.iter().map(|finding| &finding.message).collect();
            assert_eq!(got, expected, "{block}");
        };
        check("map host $x { *.a 1; volatile; default $host; '' e; \\~x y; }", &[]);
        check("map $host $x { hostnames; *.a 1; .b 2; c.* 3; d 4; }", &[]);
        check("map $host x { }", &["invalid variable name \"x\""]);
        check("map $host $x { a 1; A 2; }", &["conflicting parameter \"a\""]);
        check("map $host $x { hostnames; .a 1; *.a 2; }", &["conflicting parameter \"*.a\""]);
        check("map $host $x { default 1; default 2; }", &["duplicate default map parameter"]);
        check("map $host $x { a b c; }", &["invalid number of the map parameters"]);
        check("map $host $x { a; }", &["invalid number of the map parameters"]);
        check("map $host $x { ~( 1; }", &["pcre2_compile() failed: missing closing parenthesis in \"(\""]);
        check("map $host $x { hostnames; a*b 1; }", &["invalid hostname or wildcard \"a*b\""]);
        check("map $host $x { hostnames; a..b 1; }", &["invalid hostname or wildcard \"a..b\""]);
        check("map $host $host { }", &["the duplicate \"host\" variable"]);
        check("map $nosuch $x { }", &["unknown \"nosuch\" variable"]);
    }
}
