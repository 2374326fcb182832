//! ngx_http_core_module: servers, locations, and the settings of the HTTP engine.

mod listen;
mod location;
mod server_name;
mod types;
mod variables;

use crate::config::{
    Args, Body, Builder, Call, Contexts, Cx, Declarations, Diagnostic, Directive, Fault, SectionRow, ServerDef,
};
use crate::http::access::{self, Internal, LimitExcept, Satisfy};
use crate::http::content::Content;
use crate::http::error_page::{self, ErrorPages};
use crate::http::gzip;
use crate::http::limit::zone::{self, Zones};
use crate::http::rate::Rates;
use crate::http::resolver::Resolving;
use crate::http::rewrite::Program;
use crate::http::root::{self, Root};
use crate::http::settings::{Bodies, Heads, Keepalive, Pages, Sending};
use crate::http::{Module, PostAction};

pub use types::{Types, content_type};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_core",
        sections: &[
            Heads::ROW,
            Bodies::ROW,
            Keepalive::ROW,
            Sending::ROW,
            Pages::ROW,
            PostAction::ROW,
            Satisfy::ROW,
            types::Defaults::ROW,
            SectionRow::of::<Types>(&[]),
            SectionRow::of::<Content>(&[]),
            SectionRow::of::<Internal>(&[]),
            SectionRow::of::<LimitExcept>(&[]),
            SectionRow::of::<Program>(&[]),
            SectionRow::of::<server_name::BucketSize>(&[]),
            SectionRow::of::<ErrorPages>(&[]),
            SectionRow::of::<Root>(&[]),
            Rates::ROW,
            Resolving::ROW,
            SectionRow::of::<Zones>(&[]),
            gzip::Acceptance::ROW,
            SectionRow::of::<gzip::Exceptions>(&[]),
        ],
        commands: COMMANDS,
        variables: variables::VARIABLES,
    },
    finish: Some(finish),
    apply: Some(zone::keep),
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[
    Directive {
        name: "http",
        contexts: Contexts::MAIN,
        args: Args::NONE,
        body: Body::Block,
        once: true,
        doc: "The block of everything that serves HTTP.",
        file: file!(),
        apply: http,
        ..Directive::BASE
    },
    Directive {
        name: "server",
        contexts: Contexts::HTTP,
        args: Args::NONE,
        body: Body::Block,
        doc: "A virtual server: addresses, names, locations.",
        file: file!(),
        apply: server,
        ..Directive::BASE
    },
    location::COMMANDS[0],
    location::COMMANDS[1],
    listen::COMMANDS[0],
    server_name::COMMANDS[0],
    types::COMMANDS[0],
    root::COMMANDS[0],
    root::COMMANDS[1],
    error_page::COMMANDS[0],
    gzip::CORE_COMMANDS[0],
    gzip::CORE_COMMANDS[1],
    Directive {
        name: "internal",
        contexts: Contexts::LOCATION,
        args: Args::NONE,
        once: true,
        doc: "Closes a location to clients: it answers 404 to them. Open to error pages, internal redirects, rewrites \
              of named locations and subrequests, such as push_stream's hooks.",
        file: file!(),
        apply: access::internal,
        ..Directive::BASE
    },
    Directive::ignored(
        "aio",
        Contexts::HTTP_ALL,
        Args::ONE,
        "files are read from the page cache",
        "Whether nginx reads files in the background.",
    ),
    Directive::ignored(
        "aio_write",
        Contexts::HTTP_ALL,
        Args::ONE,
        "what is written to temporary files is in the page cache",
        "Whether nginx writes files in the background.",
    )
    .flag(),
    Directive::ignored(
        "directio",
        Contexts::HTTP_ALL,
        Args::ONE,
        "the kernel caches files",
        "From which size on nginx reads files past the cache.",
    ),
    Directive::ignored(
        "directio_alignment",
        Contexts::HTTP_ALL,
        Args::ONE,
        "the kernel caches files",
        "The alignment of such reads.",
    ),
    Directive::ignored(
        "read_ahead",
        Contexts::HTTP_ALL,
        Args::ONE,
        "the kernel decides",
        "How much nginx lets the kernel read ahead.",
    ),
    Directive::ignored(
        "output_buffers",
        Contexts::HTTP_ALL,
        Args::exactly(2),
        "files are sent piece by piece",
        "Nginx's buffers for reading files.",
    ),
    Directive::ignored(
        "server_names_hash_max_size",
        Contexts::HTTP,
        Args::ONE,
        "tables grow as needed",
        "The size of nginx's table of names.",
    ),
    Directive::ignored(
        "types_hash_max_size",
        Contexts::HTTP_ALL,
        Args::ONE,
        "tables grow as needed",
        "The size of nginx's table of types.",
    ),
    Directive::ignored(
        "types_hash_bucket_size",
        Contexts::HTTP_ALL,
        Args::ONE,
        "tables grow as needed",
        "The size of a bucket of that table.",
    ),
    Directive::ignored(
        "variables_hash_max_size",
        Contexts::HTTP,
        Args::ONE,
        "tables grow as needed",
        "The size of nginx's table of variables.",
    ),
    Directive::ignored(
        "variables_hash_bucket_size",
        Contexts::HTTP,
        Args::ONE,
        "tables grow as needed",
        "The size of a bucket of that table.",
    ),
    server_name::COMMANDS[1],
];

impl Directive {
    /// The same, taking `on` or `off`.
    const fn flag(self) -> Self {
        Self {
            once: true,
            syntax: "on | off",
            apply: |cx, call| <crate::config::value::Flag as crate::config::value::Value>::parse(call, cx).map(drop),
            ..self
        }
    }
}

fn http(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let scope = cx.open(Contexts::HTTP, call);
    cx.model().http = Some(scope);
    cx.model().http_end = Some(call.block_end());
    cx.walk(scope, call);
    Ok(())
}

fn server(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let scope = cx.open(Contexts::SERVER, call);
    cx.model().servers.push(ServerDef { scope, listens: Vec::new(), names: Vec::new(), locations: Vec::new() });
    cx.walk(scope, call);
    if let Some(server) = cx.model().servers.last_mut()
        && server.listens.is_empty()
    {
        server.listens.push(listen::default());
    }
    Ok(())
}

/// What holds for the configuration as a whole.
fn finish(builder: &mut Builder) {
    if builder.model.events.is_none() && !builder.diagnostics.iter().any(|diagnostic| diagnostic.refuses) {
        let message = "no \"events\" section in configuration";
        builder.diagnostics.push(Diagnostic::emerg("no-events", message).late().help("add: events { }"));
    }
    header_buffers(builder);
    location::finish(builder);
    listen::finish(builder);
    server_name::finish(builder);
    zone::finish(builder);
    folders(builder);
}

/// A folder of temporary files has the same levels wherever it is named.
fn folders(builder: &mut Builder) {
    let folders = &builder.model.folders;
    let findings: Vec<_> = folders
        .iter()
        .enumerate()
        .filter_map(|(index, folder)| {
            let first = folders[..index].iter().find(|first| first.path == folder.path)?;
            let message = format!(
                "the same path name \"{}\" in {} has the different levels than in {}",
                folder.path.display(),
                builder.sources.label(first.at),
                builder.sources.label(folder.at),
            );
            (first.levels != folder.levels).then(|| Diagnostic::emerg("folder-levels", message).near(Some(folder.at)))
        })
        .collect();
    builder.diagnostics.extend(findings);
}

/// A larger buffer for heads must hold at least what nginx's first one does.
fn header_buffers(builder: &mut Builder) {
    let around = builder.model.http.and_then(|scope| Heads::said(builder, scope).1).unwrap_or(512);
    let servers = builder.model.servers.iter().map(|server| server.scope);
    let small = servers.chain(builder.model.http).find(|scope| {
        let (buffers, pool) = Heads::said(builder, *scope);
        buffers.is_some_and(|buffers| (buffers.size as u64) < pool.unwrap_or(around))
    });
    if let (Some(_), Some(at)) = (small, builder.model.http_end) {
        let message =
            "the \"large_client_header_buffers\" size must be equal to or greater than \"connection_pool_size\"";
        builder.diagnostics.push(Diagnostic::emerg("small-buffers", message).at(at));
    }
}
