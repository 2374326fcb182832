//! `proxy_store` and its like: answers are kept as files, which become part of the site.
//!
//! An answer is written to a temporary file, whoever takes it from there, and is moved to its place once it is whole.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, FileTimes, Permissions};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::family::{Buffering, Cache};
use crate::config::value::{Template, Value};
use crate::config::{Args, Call, Cx, Fault};
use crate::http::log_line::LaterLog;
use crate::http::temp_file::{Failed, Stay, TempFile};
use crate::http::wire::date::parse_http_date;
use crate::http::wire::method::Method;
use crate::http::wire::upstream_head::{Field, UpstreamHead};
use crate::http::{Request, root};
use crate::server::log::Level;
use crate::server::sockets::{failed_on, reason};

/// Which file an answer becomes.
#[derive(Clone, Debug)]
pub enum Store {
    /// None.
    Off,
    /// The one that `root` or `alias` has for the request's path.
    On,
    /// The one of this name.
    Named(Template),
}

impl Store {
    /// Whether answers are stored.
    pub fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }
}

impl Value for Store {
    const SYNTAX: &'static str = "on | off | string";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        Ok(match call.bytes(0) {
            b"off" => Self::Off,
            b"on" => Self::On,
            _ => Self::Named(Template::word(call, 0, cx)?),
        })
    }

    fn from_default(_: &'static str) -> Self {
        Self::Off
    }
}

/// Who may read and write a file: its mode.
#[derive(Clone, Copy, Debug)]
pub struct Access(u32);

impl Access {
    /// The mode of the folders that such files are in: who may read them may enter.
    fn folder(self) -> u32 {
        self.0 | (self.0 & 0o444) >> 2
    }
}

impl Value for Access {
    const ARGS: Args = Args::between(1, 3);
    const SYNTAX: &'static str = "users:permissions ...";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        let mut mode = 0o600;
        for index in 0..call.len() {
            let word = call.text(index);
            let right = word.split_once(':').and_then(|(who, rights)| right(who, rights));
            mode |= right.ok_or_else(|| Fault::new(format!("invalid value \"{word}\"")).word(index))?;
        }
        Ok(Self(mode))
    }

    fn from_default(_: &'static str) -> Self {
        Self(0o600)
    }
}

fn right(who: &str, rights: &str) -> Option<u32> {
    let right = match rights {
        "r" => 0o4,
        "rw" => 0o6,
        _ => return None,
    };
    match who {
        "user" => Some(right << 6),
        "group" => Some(right << 3),
        "all" => Some(right),
        _ => None,
    }
}

/// An answer that is being stored.
pub(super) struct Storing {
    /// Where it is as yet.
    pub(super) file: Rc<TempFile>,
    place: PathBuf,
    access: Access,
    /// When it was changed last, by its own word.
    modified: Option<SystemTime>,
}

impl Storing {
    /// Begins to store the answer that has this head, if it is to be stored. An error is one of the temporary file.
    pub(super) fn begin(
        request: &Request,
        head: &UpstreamHead,
        cache: &Cache,
        buffering: &Buffering,
    ) -> Result<Option<Self>, Failed> {
        if head.status() != 200 || request.method == Method::Head {
            return Ok(None);
        }
        let place = match &cache.store {
            Store::Off => return Ok(None),
            Store::On => root::map_uri(request),
            Store::Named(name) => PathBuf::from(OsString::from_vec(request.eval(name).into())),
        };
        if place.as_os_str().is_empty() {
            return Ok(None);
        }
        let modified = head.field(Field::LastModified).and_then(parse_http_date);
        let modified = modified.and_then(|seconds| u64::try_from(seconds).ok());
        let modified = modified.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        let file = Rc::new(TempFile::create(buffering.temp_path.as_ref(), Stay::WhileHeld)?);
        Ok(Some(Self { file, place, access: cache.store_access, modified }))
    }

    /// Stores all of an answer.
    pub(super) fn keep(self, body: &[u8], log: &LaterLog) {
        match self.file.write(body, 0) {
            Ok(()) => self.finish(log),
            Err(error) => log.write(Level::Crit, &format!("{error} while reading upstream")),
        }
    }

    /// Moves the answer, which is whole, to its place. What fails is logged, and the answer is not stored then.
    pub(super) fn finish(self, log: &LaterLog) {
        if let Err(message) = self.put() {
            log.write(Level::Crit, &format!("{message} while reading upstream"));
        }
    }

    fn put(&self) -> Result<(), String> {
        let from = self.file.path();
        self.dress(from)?;
        let mut moved = self.file.rename(&self.place);
        if moved.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            self.make_folders()?;
            moved = self.file.rename(&self.place);
        }
        if moved.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::CrossesDevices) {
            return self.copy(from);
        }
        moved.map_err(|error| self.not_moved(from, &error))
    }

    /// Gives a file its rights and its time.
    fn dress(&self, path: &Path) -> Result<(), String> {
        fs::set_permissions(path, Permissions::from_mode(self.access.0))
            .map_err(|error| failed_on("chmod", path, &error))?;
        if let Some(time) = self.modified {
            let times = FileTimes::new().set_accessed(time).set_modified(time);
            let file = fs::File::open(path).map_err(|error| failed_on("open", path, &error))?;
            file.set_times(times).map_err(|error| failed_on("utimes", path, &error))?;
        }
        Ok(())
    }

    fn make_folders(&self) -> Result<(), String> {
        let Some(folder) = self.place.parent() else { return Ok(()) };
        let made = DirBuilder::new().recursive(true).mode(self.access.folder()).create(folder);
        made.map_err(|error| failed_on("mkdir", folder, &error))
    }

    /// The same from one file system to another: nobody sees a part of it.
    fn copy(&self, from: &Path) -> Result<(), String> {
        let number = from.file_name().unwrap_or_default();
        let mut beside = self.place.clone().into_os_string();
        beside.push(".");
        beside.push(number);
        let beside = PathBuf::from(beside);
        let copied = fs::copy(from, &beside)
            .map_err(|error| failed_on("open", &beside, &error))
            .and_then(|_| self.dress(&beside))
            .and_then(|()| fs::rename(&beside, &self.place).map_err(|error| self.not_moved(&beside, &error)));
        if copied.is_err() {
            // It may not even be there.
            drop(fs::remove_file(&beside));
        }
        copied
    }

    fn not_moved(&self, from: &Path, error: &io::Error) -> String {
        format!("rename() \"{}\" to \"{}\" failed ({})", from.display(), self.place.display(), reason(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn words() {
        let check = |directives: &str, expected: &[&str]| assert_eq!(findings(directives), expected, "{directives}");
        check("proxy_store on; fastcgi_store /data$uri; server { proxy_store off; }", &[]);
        check("proxy_store on; proxy_store off;", &["\"proxy_store\" directive is duplicate"]);
        check("proxy_store /data$nosuch;", &["unknown \"nosuch\" variable"]);
        check("proxy_store_access user:rw group:r all:r;", &[]);
        check("proxy_store_access user:x;", &["invalid value \"user:x\""]);
        check("proxy_store_access others:r;", &["invalid value \"others:r\""]);
    }

    #[test]
    fn rights() {
        assert_eq!((right("group", "rw"), right("all", "r")), (Some(0o60), Some(0o4)));
        assert_eq!(Access(0o600).folder(), 0o700);
        assert_eq!(Access(0o664).folder(), 0o775);
    }
}
