//! ngx_http_auth_basic_module: lets in who knows a password of a file.

mod password;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::config::value::{Template, Value};
use crate::config::{Call, Cx, Declarations, Fault};
use crate::http::file::{self, Failure};
use crate::http::wire::authorization::Basic;
use crate::http::wire::header::Known;
use crate::http::{Module, Next, Phase, Request};
use crate::server::log::{Level, shown};
use crate::settings;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations { module: "http_auth_basic", sections: &[Users::ROW], commands: &[], variables: &[] },
    phases: &[(Phase::Access, check)],
    acts: Some(|settings| settings.get::<Users>().file.is_some()),
    ..Module::EMPTY
};

settings! {
    /// Who may come in with a password.
    pub struct Users {
        /// Asks clients for a user and a password, and tells them for what: the realm. `off` asks nobody.
        ///
        /// Example: `auth_basic "for members";`
        "auth_basic" HTTP_ALL_LIMIT = "off" => realm: Realm,
        /// The file of users, read for each request: `name:password` or `name:password:comment` on a line. The password
        /// is hashed by `crypt` (`$1$`, `$5$`, `$6$`, bcrypt's `$2y$`, or two letters of salt), by Apache's `$apr1$`, or
        /// is `{PLAIN}`, `{SHA}` or `{SSHA}` and what follows. A relative path hangs on the configuration's folder.
        "auth_basic_user_file" HTTP_ALL_LIMIT = "" => file: Option<FileName>,
    }
}

/// What clients are asked for.
#[derive(Clone, Debug)]
pub struct Realm(Template);

impl Value for Realm {
    const SYNTAX: &'static str = "string | off";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        Template::word(call, 0, cx).map(Self)
    }

    fn from_default(text: &'static str) -> Self {
        Self(Template::from_default(text))
    }
}

/// The name of a file in the configuration's folder.
#[derive(Clone, Debug)]
pub struct FileName {
    name: Template,
    folder: PathBuf,
}

impl Value for FileName {
    const SYNTAX: &'static str = "file";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let name = Template::word(call, 0, cx)?;
        Ok(Self { name, folder: cx.options().conf_path("") })
    }

    fn from_default(text: &'static str) -> Self {
        Self { name: Template::from_default(text), folder: PathBuf::new() }
    }
}

/// What a file says of a user and a password.
#[derive(Debug)]
enum Found {
    Right,
    Wrong,
    /// There is no such user.
    Nobody,
}

/// The handler of the access phase.
fn check(request: &mut Request) -> Next<'_> {
    let users = request.settings::<Users>();
    let Some(file) = &users.file else { return Next::Declined };
    let realm = request.eval(&users.realm.0);
    if &realm[..] == b"off" {
        return Next::Declined;
    }
    let Some(basic) = request.head.known(Known::Authorization).and_then(Basic::parse) else {
        request.log(Level::Info, "no user/password was provided for basic authentication");
        return challenge(request, &realm);
    };
    let name = request.eval(&file.name);
    let path = file.folder.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&name));
    Next::later(async move {
        let (user, asked) = (basic.user.clone(), path.clone());
        let Ok(found) = tokio::task::spawn_blocking(move || look(&asked, &basic)).await else {
            request.log(Level::Alert, "a password could not be checked");
            return Next::Status(500);
        };
        let user = shown(&user);
        let message = match found {
            Ok(Found::Right) => return Next::Granted,
            Ok(Found::Wrong) => format!("user \"{user}\": password mismatch"),
            Ok(Found::Nobody) => format!("user \"{user}\" was not found in \"{}\"", path.display()),
            Err(failure) if failure.errno() == libc::ENOENT => {
                failure.log(request, &path);
                return Next::Status(403);
            }
            Err(failure) => {
                failure.log_critical(request, &path);
                return Next::Status(500);
            }
        };
        request.log(Level::Error, &message);
        challenge(request, &realm)
    })
}

fn challenge(request: &mut Request, realm: &[u8]) -> Next<'static> {
    request.challenge([&b"Basic realm=\""[..], realm, b"\""].concat().into());
    Next::Status(401)
}

/// Looks a user up. It reads, and computes for a while: not on a worker's thread.
fn look(path: &Path, basic: &Basic) -> Result<Found, Failure> {
    let mut file = BufReader::new(file::open_plain(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut file).take(LONGEST_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| Failure::new("read", error))? == 0 {
            return Ok(Found::Nobody);
        }
        if let Some(hash) = of_user(&line, &basic.user) {
            return Ok(if password::is_right(&basic.password, hash) { Found::Right } else { Found::Wrong });
        }
    }
}

/// A longer line is read as several.
const LONGEST_LINE: u64 = 64 * 1024;

/// What a line says of a user's password.
fn of_user<'l>(line: &'l [u8], user: &[u8]) -> Option<&'l [u8]> {
    if matches!(line.first(), Some(b'#' | b'\r')) {
        return None;
    }
    let hash = line.strip_prefix(user)?.strip_prefix(b":")?;
    hash.split(|byte| matches!(byte, b':' | b'\r' | b'\n')).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn lines() {
        let check = |line: &str, expected: Option<&str>| {
            let found = of_user(line.as_bytes(), b"ann");
            assert_eq!(found, expected.map(str::as_bytes), "{line}");
        };
        check("ann:pw\n", Some("pw"));
        check("ann:pw\r\n", Some("pw"));
        check("ann:pw:a comment", Some("pw"));
        check("ann:", Some(""));
        check("ann\n", None);
        check("anna:pw\n", None);
        check("#ann:pw\n", None);
        check(" ann:pw\n", None);
    }

    #[test]
    fn words() {
        assert_eq!(findings("auth_basic a; server { auth_basic off; auth_basic_user_file $host; }"), [""; 0]);
        assert_eq!(findings("auth_basic a; auth_basic b;"), ["\"auth_basic\" directive is duplicate"]);
    }
}
