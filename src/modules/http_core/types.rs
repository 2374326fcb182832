//! `types` and `default_type`: the content type of a file's name.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::config::value::Text;
use crate::config::{Args, Body, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot};
use crate::http::Request;
use crate::settings;

settings! {
    /// The type of what has none.
    pub struct Defaults {
        /// The content type of files whose extension is not among the `types`, and of what handlers answer without one.
        "default_type" HTTP_ALL = "text/plain" => pub default_type: Text,
    }
}

/// The row that this file brings.
pub(super) const COMMANDS: &[Directive] = &[Directive {
    name: "types",
    contexts: Contexts::HTTP_ALL,
    args: Args::NONE,
    body: Body::Block,
    default: "text/html html; image/gif gif; image/jpeg jpg;",
    doc: "A table of content types, each followed by the extensions of files that have it. A block with tables of its \
          own does not inherit.\n\nExample: `types { text/html html; }`",
    file: file!(),
    apply: types,
    ..Directive::BASE
}];

/// The content types by extension, in lower case.
#[derive(Clone, Debug)]
pub struct Types {
    by_extension: Arc<HashMap<Vec<u8>, Bytes>>,
}

impl Section for Types {
    type Raw = Option<HashMap<Vec<u8>, Bytes>>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        static DEFAULT: LazyLock<Arc<HashMap<Vec<u8>, Bytes>>> = LazyLock::new(|| {
            let types = [("html", "text/html"), ("gif", "image/gif"), ("jpg", "image/jpeg")];
            let entry = |(extension, kind): (&str, &'static str)| (extension.as_bytes().to_vec(), Bytes::from(kind));
            Arc::new(types.into_iter().map(entry).collect())
        });
        match (raw, parent) {
            (Some(own), _) => Self { by_extension: Arc::new(own.clone()) },
            (None, Some(parent)) => parent.clone(),
            (None, None) => Self { by_extension: Arc::clone(&DEFAULT) },
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn types(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    cx.edit::<Types>().get_or_insert_default();
    cx.entries(call, &mut |cx, entry| {
        let kind = Bytes::copy_from_slice(entry.name_bytes());
        for (index, word) in entry.words().enumerate() {
            let extension = word.to_ascii_lowercase();
            let table = cx.edit::<Types>().get_or_insert_default();
            if let Some(before) = table.insert(extension, kind.clone()) {
                let (word, kind) = (entry.text(index), String::from_utf8_lossy(&kind).into_owned());
                let before = String::from_utf8_lossy(&before).into_owned();
                let message = format!(
                    "duplicate extension \"{word}\", content type: \"{kind}\", previous content type: \"{before}\""
                );
                cx.warn("duplicate-extension", message, entry);
            }
        }
        Ok(())
    });
    Ok(())
}

/// The content type of the file that a request's path names.
pub fn content_type(request: &Request) -> Bytes {
    let name = request.uri.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let extension = name.iter().rposition(|byte| *byte == b'.').map(|dot| name[dot + 1..].to_ascii_lowercase());
    extension
        .and_then(|extension| request.settings::<Types>().by_extension.get(&extension).cloned())
        .unwrap_or_else(|| request.settings::<Defaults>().default_type.0.clone())
}
