//! ngx_http_random_index_module: any file of a folder stands for it.

use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;

use crate::config::Declarations;
use crate::config::value::Flag;
use crate::http::file::Failure;
use crate::http::wire::method::Method;
use crate::http::{Jump, Module, Next, Phase, Request, root};
use crate::server::log::Level;
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_random_index",
        sections: &[RandomIndex::ROW],
        commands: &[],
        variables: &[],
    },
    phases: &[(Phase::Content, redirect)],
    ..Module::EMPTY
};

settings! {
    /// What stands for a folder.
    pub struct RandomIndex {
        /// Whether a path that ends with a slash is answered with a file of that folder, another one each time. Names that
        /// begin with a dot are left out.
        "random_index" LOCATION = "off" => on: Flag,
    }
}

fn redirect(request: &mut Request) -> Next<'_> {
    if !*request.settings::<RandomIndex>().on
        || !request.uri.ends_with(b"/")
        || !matches!(request.method, Method::Get | Method::Head | Method::Post)
    {
        return Next::Declined;
    }
    match names(request) {
        Err(status) => Next::Status(status),
        Ok(names) if names.is_empty() => Next::Declined,
        Ok(names) => {
            let name = &names[rand::random_range(0..names.len())];
            let uri: Bytes = [&request.uri[..], name].concat().into();
            Next::Jump(Jump::Redirect { uri, args: request.args.clone() })
        }
    }
}

/// The files of the folder; an error is a status.
fn names(request: &Request) -> Result<Vec<Vec<u8>>, u16> {
    let path = root::map_uri(request);
    let fail = |operation, error| {
        let failure = Failure::new(operation, error);
        failure.log(request, &path);
        failure.status()
    };
    let mut names = Vec::new();
    for item in std::fs::read_dir(&path).map_err(|error| fail("opendir", error))? {
        let item = item.map_err(|error| fail("readdir", error))?;
        let name = item.file_name();
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        match std::fs::metadata(item.path()) {
            Ok(metadata) if metadata.is_file() => names.push(name.as_bytes().to_vec()),
            Ok(_) => {}
            // A link that leads nowhere is no file.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let failure = Failure::new("stat", error);
                request.log(Level::Crit, &format!("stat() \"{}\" failed {}", item.path().display(), failure.reason()));
                return Err(500);
            }
        }
    }
    Ok(names)
}
