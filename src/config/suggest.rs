//! What to say of a directive that has no row: known but not supported, or unknown, with what may have been meant.

use super::call::Call;
use super::catalogue;
use super::diagnostic::Diagnostic;
use super::directive::Contexts;
use super::registry::Registry;

/// The finding for a name that no module of ours declares.
pub(super) fn unknown(registry: &Registry, name: &str, context: Contexts, call: &Call<'_>) -> Diagnostic {
    if let Some(known) = catalogue::find(name) {
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
