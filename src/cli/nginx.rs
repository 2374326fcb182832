//! nginx's own command line: its flags, its words, its exit codes.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::options::{DEFAULT_ERROR_LOG, DEFAULT_FILE, DEFAULT_PREFIX, load_options};
use super::{build, output};
use crate::compile::Compiled;
use crate::config::{self, Config, LoadOptions, Severity};
use crate::http::error_page::PRODUCT_VERSION;
use crate::modules::core::Process;
use crate::server::log_file;
use crate::server::sockets::{failed_on, reason};
use crate::sys;

/// What nginx's flags ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Flags {
    help: bool,
    version: bool,
    build: bool,
    test: bool,
    dump: bool,
    quiet: bool,
    prefix: Option<String>,
    file: Option<String>,
    error_log: Option<String>,
    globals: Option<String>,
    signal: Option<Signal>,
}

/// What `-s` sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signal {
    name: &'static str,
    number: i32,
}

const SIGNALS: [Signal; 4] = [
    Signal { name: "stop", number: libc::SIGTERM },
    Signal { name: "quit", number: libc::SIGQUIT },
    Signal { name: "reopen", number: libc::SIGUSR1 },
    Signal { name: "reload", number: libc::SIGHUP },
];

/// Runs nginx's command line.
pub(super) fn run(words: &[String]) -> ExitCode {
    let flags = match Flags::read(words) {
        Ok(flags) => flags,
        Err(wrong) => {
            say(&wrong);
            return ExitCode::FAILURE;
        }
    };
    if flags.version {
        output::error(&version(&flags));
        if !flags.test {
            return ExitCode::SUCCESS;
        }
    }
    let options = flags.load_options();
    if flags.test {
        return test(&flags, options);
    }
    if let Some(signal) = flags.signal {
        return send(signal, &config::load(options));
    }
    serve(options)
}

impl Flags {
    /// Reads the words as nginx does: flags may be joined, and a value may follow its flag at once.
    fn read(words: &[String]) -> Result<Self, String> {
        let mut flags = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let letters = word.strip_prefix('-').ok_or_else(|| format!("invalid option: \"{word}\""))?;
            for (at, letter) in letters.char_indices() {
                let attached = &letters[at + letter.len_utf8()..];
                let mut value = |what: &str| match attached {
                    "" => words.next().cloned().ok_or_else(|| format!("option \"-{letter}\" requires {what}")),
                    attached => Ok(attached.to_owned()),
                };
                match letter {
                    '?' | 'h' => (flags.version, flags.help) = (true, true),
                    'v' => flags.version = true,
                    'V' => (flags.version, flags.build) = (true, true),
                    't' => flags.test = true,
                    'T' => (flags.test, flags.dump) = (true, true),
                    'q' => flags.quiet = true,
                    'p' => flags.prefix = Some(value("directory name")?),
                    'c' => flags.file = Some(value("file name")?),
                    'e' => flags.error_log = Some(value("file name")?),
                    'g' => flags.globals = Some(value("parameter")?),
                    's' => {
                        let name = value("parameter")?;
                        let signal = SIGNALS.into_iter().find(|signal| signal.name == name);
                        flags.signal = Some(signal.ok_or_else(|| format!("invalid option: \"-s {name}\""))?);
                    }
                    _ => return Err(format!("invalid option: \"{letter}\"")),
                }
                if "pcegs".contains(letter) {
                    break;
                }
            }
        }
        Ok(flags)
    }

    fn load_options(&self) -> LoadOptions {
        let mut options = load_options(self.prefix.as_deref(), self.file.as_deref());
        if let Some(log) = &self.error_log {
            options.error_log = Some(log.into());
        }
        options.globals = self.globals.clone();
        options
    }
}

/// Reads the configuration and says whether it is good: `-t` and `-T`.
fn test(flags: &Flags, options: LoadOptions) -> ExitCode {
    let file = options.file.display().to_string();
    let (config, is_good) = examine(options, &file, flags.quiet);
    if !is_good {
        say(&format!("configuration file {file} test failed"));
        return ExitCode::FAILURE;
    }
    if !flags.quiet {
        say(&format!("configuration file {file} test is successful"));
    }
    if flags.dump {
        dump(&config);
    }
    ExitCode::SUCCESS
}

/// Says what nginx would say of a configuration, up to the first finding that refuses it.
fn examine(options: LoadOptions, file: &str, quiet: bool) -> (Config, bool) {
    let mut config = config::load(options);
    if config.is_good() {
        // Compiling finds more: conflicting names.
        config = Compiled::new(config).config;
    }
    if !say_findings(&config, false) {
        return (config, false);
    }
    if !quiet {
        say(&format!("the configuration file {file} syntax is ok"));
    }
    let is_good = say_findings(&config, true) && open_files(&config);
    (config, is_good)
}

/// Says nginx's lines, up to the first that refuses; whether there is none.
fn say_findings(config: &Config, late: bool) -> bool {
    let findings = config.built.diagnostics.iter();
    for finding in findings.filter(|finding| finding.late == late && finding.severity >= Severity::Warn) {
        say(&finding.nginx_line(&config.built.sources).to_string());
        if finding.refuses {
            return false;
        }
    }
    true
}

/// Opens the logs, as a start would; whether all can be. The file of the process's id is looked at only: unlike nginx's,
/// our test leaves no empty one behind.
fn open_files(config: &Config) -> bool {
    for log in log_file::all() {
        if let Err(error) = log.open() {
            say(&format!("[emerg] {}", failed_on("open", log.path(), &error)));
            return false;
        }
    }
    let pid = Process::pid_file(config);
    match OpenOptions::new().write(true).open(&pid) {
        Err(error) if error.kind() != io::ErrorKind::NotFound || !pid.parent().is_some_and(Path::is_dir) => {
            say(&format!("[emerg] {}", failed_on("open", &pid, &error)));
            false
        }
        Ok(_) | Err(_) => true,
    }
}

/// Prints every file of a configuration once: `-T`.
fn dump(config: &Config) {
    let mut seen = HashSet::new();
    for source in config.built.sources.iter() {
        let Some(path) = source.path.as_ref().filter(|path| seen.insert(*path)) else { continue };
        output::print(format!("# configuration file {}:\n", path.display()));
        output::print(&source.text);
        output::print("\n");
    }
}

/// Signals the process whose id stands in the configuration's file: `-s`.
fn send(signal: Signal, config: &Config) -> ExitCode {
    if !say_findings(config, false) || !say_findings(config, true) {
        return ExitCode::FAILURE;
    }
    let path = Process::pid_file(config);
    let text = match std::fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned(),
        Err(error) => {
            say(&format!("[error] {}", failed_on("open", &path, &error)));
            return ExitCode::FAILURE;
        }
    };
    // 0 would be every process of our group.
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(pid) = text.parse::<i32>().ok().filter(|pid| is_number && *pid > 0) else {
        say(&format!("[error] invalid PID number \"{text}\" in \"{}\"", path.display()));
        return ExitCode::FAILURE;
    };
    match sys::signal(pid, signal.number) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("[alert] kill({pid}, {}) failed ({})", signal.number, reason(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Runs the server.
fn serve(options: LoadOptions) -> ExitCode {
    let config = config::load(options);
    if !config.is_good() {
        let _refused = say_findings(&config, false) && say_findings(&config, true);
        return ExitCode::FAILURE;
    }
    // Compiling finds more: conflicting names.
    let compiled = Compiled::new(config);
    let _good = say_findings(&compiled.config, false) && say_findings(&compiled.config, true);
    crate::server::run(compiled)
}

fn say(message: &str) {
    output::error(&format!("pushgate: {message}\n"));
}

/// What `-v`, `-V` and `-h` print.
fn version(flags: &Flags) -> String {
    let mut text = format!("nginx version: {PRODUCT_VERSION}\n");
    if flags.help {
        text.push_str(&usage());
        text.push('\n');
    }
    if flags.build {
        text.push_str(&format!(
            "stands for nginx/1.28.0 with push-stream, postgres and set-misc built in\n\
             TLS by rustls, regular expressions by PCRE2 {}.{}\n\
             TLS SNI support enabled\n\
             configure arguments: {}\n",
            pcre2::version().0,
            pcre2::version().1,
            build::arguments(),
        ));
    }
    text
}

/// The help of the whole command line.
pub(super) fn usage() -> String {
    format!(
        "Usage: pushgate [-?hvVtTq] [-s signal] [-p prefix]
                [-e filename] [-c filename] [-g directives]
       pushgate command [...]

Without a command it runs the server. nginx's options:
  -?,-h         : this help
  -v            : show version and exit
  -V            : show version and configure options then exit
  -t            : test configuration and exit
  -T            : test configuration, dump it and exit
  -q            : suppress non-error messages during configuration testing
  -s signal     : send signal to a running server: stop, quit, reopen, reload
  -p prefix     : set prefix path (default: {DEFAULT_PREFIX})
  -e filename   : set error log file (default: {DEFAULT_ERROR_LOG})
  -c filename   : set configuration file (default: {DEFAULT_FILE})
  -g directives : set global directives out of configuration file

With -p the defaults hang on the prefix: conf/nginx.conf, logs/error.log, logs/nginx.pid.

{}",
        super::list()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<Flags, String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Flags::read(&words)
    }

    #[test]
    fn flags_are_read_as_nginx_reads_them() {
        let check = |words: &str, expected: Flags| assert_eq!(read(words), Ok(expected), "{words}");
        let test = || Flags { test: true, ..Flags::default() };
        check("", Flags::default());
        check("-", Flags::default());
        check("-t", test());
        check("-tq", Flags { quiet: true, ..test() });
        check("-T", Flags { dump: true, ..test() });
        check("-tc x", Flags { file: Some("x".into()), ..test() });
        check("-tcx -t", Flags { file: Some("x".into()), ..test() });
        check(
            "-p/a/ -e stderr",
            Flags { prefix: Some("/a/".into()), error_log: Some("stderr".into()), ..Flags::default() },
        );
        check("-sreload", Flags { signal: Some(SIGNALS[3]), ..Flags::default() });
    }

    #[test]
    fn wrong_flags_are_refused_in_nginx_words() {
        let check = |words: &str, expected: &str| assert_eq!(read(words), Err(expected.to_owned()), "{words}");
        check("x", "invalid option: \"x\"");
        check("-z", "invalid option: \"z\"");
        check("-tz", "invalid option: \"z\"");
        check("-s", "option \"-s\" requires parameter");
        check("-s now", "invalid option: \"-s now\"");
        check("-c", "option \"-c\" requires file name");
        check("-p", "option \"-p\" requires directory name");
        check("-e", "option \"-e\" requires file name");
        check("-g", "option \"-g\" requires parameter");
    }
}
