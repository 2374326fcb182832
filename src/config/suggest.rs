//! What to say of a directive that has no row: known but not supported, or unknown, with what may have been meant.

use super::call::Call;
use super::catalogue;
use super::diagnostic::Diagnostic;
use super::directive::Contexts;
use super::registry::Registry;

/// The finding for a name that no module of ours declares.
pub(super) fn unknown(registry: &Registry, name: &str, context: Contexts, call: &Call<'_>) -> Diagnostic {
    if let Some(known) = catalogue::find(name) {
        if let Some(allowed) = elsewhere(name, context) {
            let message = format!("\"{name}\" directive is not allowed here");
            let help = format!("it is allowed in: {allowed}; but Pushgate does not have it");
            return Diagnostic::emerg("context", message).at(call.at()).help(help);
        }
        if !known.takes(call.len()) {
            let message = format!("invalid number of arguments in \"{name}\" directive");
            return Diagnostic::emerg("arity", message).at(call.at());
        }
        let message = format!("\"{name}\" directive is not supported");
        return Diagnostic::emerg("unsupported-directive", message).at(call.at()).help(format!(
            "it belongs to nginx's module {}, which Pushgate knows but does not have; see docs/compatibility.md",
            known.module
        ));
    }
    let diagnostic = Diagnostic::emerg("unknown-directive", format!("unknown directive \"{name}\"")).at(call.name_at());
    match nearest(registry, name, context) {
        None => diagnostic,
        Some(meant) => diagnostic.help(format!("did you mean \"{meant}\"?")),
    }
}

/// Where nginx allows a directive, if that is not in such a block.
fn elsewhere(name: &str, context: Contexts) -> Option<String> {
    let allowed: Vec<&str> = catalogue::named(name).iter().flat_map(|known| known.contexts.split(", ")).collect();
    let is_known = |place: &&str| place.is_empty() || *place == "any" || context.names().contains(place);
    (!allowed.iter().any(is_known)).then(|| allowed.join(", "))
}

/// The known name that is nearest to a misspelled one; names allowed in the block win.
fn nearest<'r>(registry: &'r Registry, name: &str, context: Contexts) -> Option<&'r str> {
    let score = |candidate: &str| strsim::damerau_levenshtein(name, candidate);
    let allowed = name.len().div_ceil(4).clamp(1, 4);
    registry
        .directives()
        .map(|row| (score(row.name), !row.contexts.intersects(context), row.name))
        .filter(|(distance, ..)| *distance <= allowed)
        .min()
        .map(|(_, _, name)| name)
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn known_but_not_here() {
        assert_eq!(findings("grpc_pass x;"), ["\"grpc_pass\" directive is not allowed here"]);
        let in_location = |directive: &str| findings(&format!("server {{ location / {{ {directive} }} }}"));
        assert_eq!(in_location("grpc_pass x;"), ["\"grpc_pass\" directive is not supported"]);
        assert_eq!(in_location("grpc_pass;"), ["invalid number of arguments in \"grpc_pass\" directive"]);
    }
}
