//! The command line: nginx's own flags, and the commands `check`, `explain`, `directives` and `demo`.
//!
//! A first word that names a command runs it; anything else is nginx's command line, in nginx's words. Adding a command
//! is a file with a [`Command`] and a line in [`COMMANDS`].

mod build;
mod check;
mod demo;
mod directives;
mod explain;
mod lint;
mod nginx;
mod options;
mod output;

use std::process::ExitCode;

use options::Wrong;

/// A command of our own.
struct Command {
    name: &'static str,
    /// One line for the list of commands.
    summary: &'static str,
    /// The whole of `pushgate help NAME`, after the name.
    usage: &'static str,
    run: fn(&[String]) -> Result<ExitCode, Wrong>,
}

/// All of them, in the order of the help.
static COMMANDS: &[Command] = &[demo::COMMAND, check::COMMAND, explain::COMMAND, directives::COMMAND];

/// The exit code of a command that was used wrongly.
const WRONG_USE: u8 = 2;

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match words.first().map(String::as_str) {
        Some("help") => help(words.get(1).map(String::as_str)),
        Some("--help") => help(None),
        Some("--version") => nginx::run(&["-v".to_owned()]),
        first => match COMMANDS.iter().find(|command| Some(command.name) == first) {
            Some(command) if words[1..].iter().any(|word| word == "--help" || word == "-h") => help(Some(command.name)),
            Some(command) => (command.run)(&words[1..]).unwrap_or_else(|wrong| misused(command, &wrong)),
            None => nginx::run(&words),
        },
    }
}

fn misused(command: &Command, wrong: &Wrong) -> ExitCode {
    output::error(&format!("pushgate {}: {wrong}; see pushgate help {}\n", command.name, command.name));
    ExitCode::from(WRONG_USE)
}

fn help(name: Option<&str>) -> ExitCode {
    let Some(name) = name else {
        output::print(nginx::usage());
        return ExitCode::SUCCESS;
    };
    match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => {
            output::print(format!("Usage: pushgate {} {}\n", command.name, command.usage));
            ExitCode::SUCCESS
        }
        None => {
            output::error(&format!("pushgate help: there is no command \"{name}\"\n{}", list()));
            ExitCode::from(WRONG_USE)
        }
    }
}

/// The commands, a line for each.
fn list() -> String {
    let line = |command: &Command| format!("  {:<14}: {}\n", command.name, command.summary);
    let commands: String = COMMANDS.iter().map(line).collect();
    format!("Commands:\n{commands}  help [command] : this help, or that of a command\n")
}
