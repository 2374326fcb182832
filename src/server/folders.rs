//! The folders of temporary files, which are made at a start and a reload, and belong to the user of the workers.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};

use super::process::Failure;
use super::sockets::{failed_on, reason};
use crate::compile::Compiled;
use crate::modules::core::User;
use crate::sys;

/// What the owner may do in one: everything.
const OWNERS: u32 = 0o700;

/// Makes those that are not there, but not what they would be in.
pub(super) fn make(compiled: &Compiled) -> Result<(), Failure> {
    let user = compiled.config.main().get::<User>().identity.as_ref().filter(|_| sys::is_root()).map(|user| user.1);
    for folder in &compiled.config.built.model.folders {
        let path = &folder.path;
        match DirBuilder::new().mode(OWNERS).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed_on("mkdir", path, &error)),
            Ok(()) | Err(_) => {}
        }
        let Some(user) = user else { continue };
        let found = fs::metadata(path).map_err(|error| failed_on("stat", path, &error))?;
        if found.uid() != user {
            chown(path, Some(user), None)
                .map_err(|error| format!("chown(\"{}\", {user}) failed ({})", path.display(), reason(&error)))?;
        }
        if found.mode() & OWNERS != OWNERS {
            let mode = fs::Permissions::from_mode(found.mode() | OWNERS);
            fs::set_permissions(path, mode).map_err(|error| failed_on("chmod", path, &error))?;
        }
    }
    Ok(())
}
