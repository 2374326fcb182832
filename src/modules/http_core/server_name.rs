//! `server_name`: the names of a server.

use crate::config::value::{Regex, parse_size};
use crate::config::{
    Args, Builder, Call, Contexts, Cx, Diagnostic, Directive, Fault, Merge, Section, ServerName, Slot, Status,
};

/// The rows that this file brings.
pub(super) const COMMANDS: &[Directive] = &[
    Directive {
        name: "server_name",
        contexts: Contexts::SERVER,
        args: Args::SOME,
        syntax: "name ...",
        default: "\"\"",
        doc: "The host names that the server answers: exact ones, `*.suffix`, `.suffix` (with the name itself), \
              `prefix.*`, or an expression after `~`. Looked for in this order; the longest wildcard wins. A name that \
              no server has goes to the default one of the address.",
        file: file!(),
        apply: server_name,
        ..Directive::BASE
    },
    Directive {
        name: "server_names_hash_bucket_size",
        contexts: Contexts::HTTP,
        once: true,
        syntax: "size",
        status: Status::Partly("names longer than it are refused as in nginx; tables grow as needed"),
        doc: "The size of a bucket of nginx's table of names, which bounds a name's length.",
        file: file!(),
        apply: bucket_size,
        ..Directive::BASE
    },
];

/// How long a name may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BucketSize(u64);

impl Section for BucketSize {
    type Raw = Option<u64>;

    fn merge(raw: &Option<u64>, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self(raw.or_else(|| parent.map(|parent| parent.0)).unwrap_or(64))
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn bucket_size(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let size = parse_size(call.bytes(0)).ok_or_else(|| call.invalid_value())?;
    *cx.edit::<BucketSize>() = Some(size);
    Ok(())
}

fn server_name(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    for index in 0..call.len() {
        let written = call.text(index).into_owned();
        if written.contains('/') {
            let message = format!("server name \"{written}\" has suspicious symbols");
            cx.warn("suspicious-name", message, call);
        }
        let names = read(&written, cx).map_err(|fault| fault.word(index))?;
        let at = call.word_at(index);
        let written = match &*written {
            "$hostname" => crate::sys::host_name(),
            regex if regex.starts_with('~') => written,
            name => name.to_ascii_lowercase(),
        };
        let server = cx.server().expect("the row allows `server_name` in `server` only");
        server.names.extend(names.into_iter().map(|name| (name, written.clone(), at)));
    }
    Ok(())
}

/// What a word means; `.x` means two names.
fn read(written: &str, cx: &mut Cx<'_>) -> Result<Vec<ServerName>, Fault> {
    if let Some(pattern) = written.strip_prefix('~') {
        if pattern.is_empty() {
            return Err(Fault::new(format!("empty regex in server name \"{written}\"")));
        }
        // Host names come in lower case; an expression in upper case would never match.
        let caseless = pattern.bytes().any(|byte| byte.is_ascii_uppercase());
        return Ok(vec![ServerName::Regex(Regex::compile(pattern, caseless, cx)?)]);
    }
    if written == "$hostname" {
        return Ok(vec![ServerName::Exact(crate::sys::host_name())]);
    }
    let name = written.to_ascii_lowercase();
    Ok(match (name.strip_prefix('.'), name.strip_prefix("*."), name.strip_suffix(".*")) {
        (Some(suffix), ..) if is_plain(suffix) => {
            vec![ServerName::Exact(suffix.to_owned()), ServerName::Suffix(suffix.to_owned())]
        }
        (_, Some(suffix), _) if is_plain(suffix) => vec![ServerName::Suffix(suffix.to_owned())],
        (_, _, Some(prefix)) if is_plain(prefix) => vec![ServerName::Prefix(prefix.to_owned())],
        // A wildcard in the wrong place matches nothing; `finish` says so where nginx does.
        _ => vec![ServerName::Exact(name)],
    })
}

/// Whether a name has no wildcard and no empty part.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains('*') && !name.contains("..")
}

/// What nginx says when it puts the names of an address with several servers into a table. So that the verdicts agree,
/// names that don't fit into its buckets are refused here too.
pub(super) fn finish(builder: &mut Builder) {
    let Some(http) = builder.model.http else { return };
    if builder.model.servers.len() < 2 {
        return;
    }
    let size = builder.peek::<BucketSize>(http).copied().flatten().unwrap_or(64);
    let mut findings = Vec::new();
    for (name, written, at) in builder.model.servers.iter().flat_map(|server| &server.names) {
        let ServerName::Exact(name) = name else { continue };
        if !name.is_empty() && name != "*" && !is_plain(name) {
            let message = format!("invalid server name or wildcard \"{written}\"");
            findings.push(Diagnostic::emerg("invalid-name", message).near(Some(*at)));
        }
        // A bucket holds a pointer, a length of two bytes, the name, and an end.
        if (name.len() as u64 + 2 + 8).next_multiple_of(8) + 8 > size {
            let message =
                format!("could not build server_names_hash, you should increase server_names_hash_bucket_size: {size}");
            findings.push(Diagnostic::emerg("long-name", message).near(Some(*at)));
            break;
        }
    }
    builder.diagnostics.extend(findings);
}
